"""What one suggestion takes, over the 45,360 configurations of the paper's space, beside other optimizers; and a
service that is asked for 100 Experiments at once. Prints Markdown, writes all samples as JSON.

    make bench-suggest          SUGGEST="--rounds 1 --observations 10 --parts suggestion" takes less

Vectors are made up by default, in a temporary cache: time and memory depend on their number and length, and on whether
they tell enough of the objective to have a weight. ``--vectors real`` takes the small encoder's own from
$RANKWISE_CACHE and makes what is missing first.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench_suggest.methods import DESIGN, EMBEDDINGS, LABELS, METHODS, REFERENCE, SLOW
from benchmarks.bench_suggest.rounds import Asked, Broken, Cell, Worker, measure
from benchmarks.bench_suggest.table import (
    COLUMNS,
    NONE,
    embedding_rows,
    markdown,
    mebibytes,
    number,
    suggestion_rows,
    tail,
    write_json,
)
from benchmarks.bench_suggest.task import paper_observations, paper_parameters
from benchmarks.machine import processor

HERE = Path(__file__).parent
PARTS = ("suggestion", "embedding", "meanwhile", "service")
PACKAGES = ("torch", "gpytorch", "botorch", "optuna", "transformers", "numpy", "grpcio")
NOTES = """\
Median (least–greatest) over interleaved rounds; with ψ one round. Processor seconds are those of all threads; with
other work on the machine they say more than wall time. MiB: most memory of the method's own process up to then. Every
method has the same observations and models them from the first on. Ours and "all configurations scored" score 45,360;
Optuna's and the plain loop search the ranges. Vectors are {vectors}."""
BUSY = 0.5
"""Load before the run from which on it says that the machine was busy."""
SERVICE_COLUMNS = (
    "Experiments on one service",
    "median, s",
    "p95, s",
    "max, s",
    "whole, s",
    "processor, s",
    "problems",
    "MiB after",
)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What it runs on."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version(), **versions}


class Bench:
    """One run.

    Args:
        arguments: of the command line.
        folder: temporary, for vectors; what the processes say lies beside the output.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments = arguments
        self.vectors = folder / "vectors"
        self.log = arguments.output.with_suffix("")
        self.log.mkdir(parents=True, exist_ok=True)
        for old in self.log.glob("*.log"):
            old.unlink()
        self._folder = folder
        self._threads = str(arguments.threads)

    def _worker(self, method: str) -> Worker:
        command = [sys.executable, "-m", "benchmarks.bench_suggest.worker", method, "--vectors", str(self.vectors)]
        command += ["--kind", self.arguments.vectors, "--sample", str(self.arguments.sample)]
        environment = os.environ | {"OMP_NUM_THREADS": self._threads, "MKL_NUM_THREADS": self._threads}
        return Worker(command, self.log / f"{method}.log", environment, HERE.parents[1])

    def _starters(self, names: Sequence[str]) -> dict[str, Callable[[], Asked]]:
        return {name: lambda name=name: self._worker(name) for name in names}  # type: ignore[misc]

    def suggestions(self) -> list[Cell]:
        """Cells of the methods."""
        say("vectors are being made")
        self._worker("fill").close()
        arguments = self.arguments
        return measure(
            self._starters(arguments.methods),
            arguments.observations,
            arguments.rounds,
            arguments.limit,
            SLOW,
            lambda name, count: name == DESIGN and count != 1,
            say,
        )

    def embeddings(self) -> list[Cell]:
        """Cells of embedding without a cache; their numbers of observations mean nothing."""
        arguments = self.arguments
        return measure(self._starters(list(EMBEDDINGS)), [0], arguments.rounds, arguments.limit, say=say)

    def meanwhile(self) -> tuple[list[list[str]], list[dict[str, Any]]]:
        """Rows and facts: what the service answers over the paper's space without a single vector."""
        from benchmarks.bench_suggest import service

        rows, facts = [], []
        with service.running(self._folder / "cold", self.log / "meanwhile.log", self.arguments.threads) as served:
            for count in sorted(set(self.arguments.observations)):
                message = service.request(
                    f"cold-{count}", paper_parameters(), paper_observations(count), {"initial_points": "1"}
                )
                before = served.cpu()
                (reply,) = service.ask(served.address, [message], 1)
                cpu, memory = served.cpu_since(before), served.memory()
                say(f"not cached, {count} observations: {reply.seconds:.2f} s, {reply.problem}")
                said = f"not cached: the service's answer meanwhile ({reply.problem or 'no fallback'})"
                used = NONE if cpu is None else number(cpu)
                rows.append([str(count), said, number(reply.seconds), used, NONE, NONE, mebibytes(memory.peak)])
                facts.append({"observations": count, "reply": reply, "cpu": cpu, "memory": memory})
        return rows, facts

    def service(self) -> tuple[list[list[str]], list[dict[str, Any]], str]:
        """Rows and facts of many Experiments on one service, and a sentence on its memory."""
        from benchmarks.bench_suggest import service

        count = self.arguments.experiments
        messages = service.quickstart_requests(count, 10)
        rows, facts = [], []
        clients = self.arguments.clients
        with service.running(self._folder / "service", self.log / "service.log", self.arguments.threads) as served:
            say("the quickstart's space is being embedded")
            began = served.memory().now
            service.wait_for_vectors(served.address, messages[0])
            before = served.memory()
            for label, at_once in (
                ("one after the other", 1),
                (f"{clients} clients at once", clients),
                ("one after the other, again", 1),
            ):
                used, started = served.cpu(), time.perf_counter()
                replies = service.ask(served.address, messages, at_once)
                whole = time.perf_counter() - started
                cpu, memory = served.cpu_since(used), served.memory()
                problems = [reply.problem for reply in replies if reply.problem]
                wrong = sum(reply.configurations != 1 for reply in replies)
                times = map(number, tail([reply.seconds for reply in replies]))
                said = str(len(problems)) + (f" ({problems[0]})" if problems else "")
                taken = NONE if cpu is None else number(cpu)
                rows.append([f"{count}, {label}", *times, number(whole), taken, said, mebibytes(memory.now)])
                say(f"{count} Experiments, {label}: {whole:.1f} s, {said} problems")
                facts.append({"round": label, "clients": at_once, "replies": replies, "whole": whole, "cpu": cpu,
                              "memory": memory, "without_one_configuration": wrong})  # fmt: skip
            sentence = (
                f"Memory of the service: {mebibytes(began)} MiB when ready, {mebibytes(before.now)} MiB with the space "
                f"embedded and one answer given, {mebibytes(served.memory().peak)} MiB at most."
            )
            if not served.alive():
                raise RuntimeError("the service has ended")
        return rows, facts, sentence


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench_suggest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured (default: all)")
    add(
        "--methods",
        nargs="+",
        choices=tuple(METHODS),
        default=list(METHODS),
        metavar="METHOD",
        help="of " + ", ".join(METHODS),
    )
    add("--observations", type=int, nargs="+", default=[1, 10, 30, 100], metavar="N", help="1 to 100")
    add("--rounds", type=int, default=3, help="interleaved rounds; with ψ it is one (default: %(default)s)")
    add("--limit", type=float, default=60.0, metavar="SECONDS", help="of one suggestion; longer ones are not measured")
    add("--threads", type=int, default=2, help="of every process (default: %(default)s)")
    add("--sample", type=int, default=512, metavar="TEXTS", help="embedded in each round without a cache")
    add("--vectors", choices=("made-up", "real"), default="made-up")
    add("--experiments", type=int, default=100, help="on one service (default: %(default)s)")
    add("--clients", type=int, default=10, help="at once (default: %(default)s, as many as the service takes)")
    add("--output", type=Path, default=HERE.parents[2] / "runs" / "bench-suggest.json", metavar="FILE")
    arguments = parser.parse_args(argv)
    if not all(1 <= count <= 100 for count in arguments.observations):
        parser.error("--observations: numbers from 1 to 100")
    if min(arguments.rounds, arguments.threads, arguments.sample, arguments.experiments, arguments.clients) < 1:
        parser.error("--rounds, --threads, --sample, --experiments and --clients are at least 1")
    if not arguments.limit > 0:
        parser.error("--limit: seconds greater than 0")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    arguments = parse(argv)
    began = time.monotonic()
    facts: dict[str, Any] = {"machine": machine(), "arguments": vars(arguments), "load_before": os.getloadavg()}
    rows: list[list[str]] = []
    tables: list[str] = []

    def keep() -> None:
        """After each part: a run that is ended early loses no more than the part it was at."""
        write_json(arguments.output, facts | {"load_after": os.getloadavg(), "seconds": time.monotonic() - began})

    with tempfile.TemporaryDirectory(prefix="bench-suggest-") as name:
        bench = Bench(arguments, Path(name))
        if "suggestion" in arguments.parts:
            facts["suggestion"] = bench.suggestions()
            rows += suggestion_rows(facts["suggestion"], LABELS, REFERENCE)
            keep()
        if "embedding" in arguments.parts:
            facts["embedding"] = bench.embeddings()
            rows += embedding_rows(facts["embedding"], LABELS)
            keep()
        if "meanwhile" in arguments.parts:
            more, facts["meanwhile"] = bench.meanwhile()
            rows += more
            keep()
        if rows:
            tables.append(markdown(COLUMNS, rows))
        if "service" in arguments.parts:
            served, facts["service"], sentence = bench.service()
            tables += [markdown(SERVICE_COLUMNS, served), sentence]
    keep()
    known = facts["machine"]
    before, after = facts["load_before"][0], os.getloadavg()[0]
    place = f"{known['processor']}, {known['cores']} cores, {arguments.threads} threads a process"
    busy = "; other work was on the machine" if before > BUSY else ""
    print(f"{place}; load {before:.1f} before, {after:.1f} after{busy}; {time.monotonic() - began:.0f} s in all\n")
    print("\n\n".join(tables))
    if rows:
        print("\n" + NOTES.format(vectors=arguments.vectors))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Broken as error:
        sys.exit(f"cannot be measured: {error}")
