"""Three seeds against one with the same number of trainings.

    cd tests && OMP_NUM_THREADS=1 python -m benchmarks.seeds --out benchmarks/seeds/results

Every method is ``language-bo`` with the surrogate ``numeric``; they differ in what is done with seeds alone. The
measure is the true mean of the configuration that :func:`rankwise.strategies.seeds.best_configuration` chooses in the
end.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.seeds.problem import SEED, TASK, World, load_table
from rankwise.language.text_encoder import TextEncoder
from rankwise.space import Goal, Objective, Trial, TrialState
from rankwise.strategies.base import Strategy, SuggestRequest
from rankwise.strategies.language_bo import LanguageBO
from rankwise.strategies.seeds import OverSeeds, best_configuration

LOSS = Objective("loss", Goal.MINIMIZE)
SEEDS = 3
METHODS: dict[str, dict[str, str]] = {
    "one seed": {"seeds": "1"},
    "three seeds": {"seeds": "3", "racing": "off"},
    "three seeds, racing": {"seeds": "3", "racing": "on"},
}
SETTINGS = {"surrogate": "numeric", "fit_steps": "20", "model_width": "384", "seed_parameter": SEED}
MULTIPLES = (1.0, 5.0, 20.0)


def no_encoder(reference: str, pooling: str) -> TextEncoder:
    """The numbers alone are modelled."""
    raise AssertionError(f"{reference} ({pooling}) is not meant to be used")


def search(world: World, strategy: Strategy, settings: Mapping[str, str], budget: int, number: int) -> dict[str, Any]:
    """One search of ``budget`` trainings, one after the other.

    Returns:
        ``regret`` of the final choice, ``configurations`` tried, ``trainings`` behind the choice, ``fallbacks``.
    """
    trials: list[Trial] = []
    fallbacks = 0
    for i in range(budget):
        request = SuggestRequest(
            experiment=TASK,
            space=world.space,
            objective=LOSS,
            settings={"random_state": str(number), **settings},
            trials=tuple(trials),
            count=1,
            issued=i,
            max_trials=budget,
            pool=world.pool,
        )
        answer = strategy.suggest(request)
        fallbacks += answer.fallback is not None
        (point,) = answer.assignments
        trials.append(Trial(f"t{i}", point, TrialState.SUCCEEDED, world.train(point)))
    best = best_configuration(trials, LOSS, SEED)
    assert best is not None
    tried = {tuple(text for name, text in trial.assignments.items() if name != SEED) for trial in trials}
    return {
        "regret": world.regret(best.trial.assignments),
        "configurations": len(tried),
        "trainings": best.trainings,
        "fallbacks": fallbacks,
    }


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean of n ≥ 2 values and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))


def summary(results: Mapping[str, Any]) -> str:
    """The table of results as Markdown."""
    lines = [
        f"# Seeds: {results['task']}, {results['budget']} trainings, {results['searches']} searches each",
        "",
        "Simulated noise of measured size (times k) on a table of real runs; see `problem.py`. Regret is the true mean",
        "of the configuration chosen in the end less that of the best one in the table (nats). Differences are paired:",
        "the same part of the table and the same values of every configuration and seed. ± is one standard error.",
        "",
        f"Command: `{results['command']}` ({results['seconds']:.0f} s of processor time)",
        "",
        "Bad configurations are measured to be noisy as well as bad. At 5× and 20× a single training of one may look",
        "best of all, and that decides the means; the medians show the searches in which it did not happen. Racing's",
        "threshold was looked at on this table (with random search), so it is no independent test of it.",
        "",
        "| noise | method | regret | median | regret less that of one seed | configurations | seeds of the choice |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for multiple, methods in results["regret"].items():
        for method, rows in methods.items():
            regrets = [row["regret"] for row in rows]
            mean, error = mean_and_error(regrets)
            differences = [row["regret"] - one["regret"] for row, one in zip(rows, methods["one seed"], strict=True)]
            gap, gap_error = mean_and_error(differences)
            versus = "" if method == "one seed" else f"{gap:+.3f} ± {gap_error:.3f}"
            tried = np.mean([row["configurations"] for row in rows])
            behind = np.mean([row["trainings"] for row in rows])
            cells = [f"{mean:.3f} ± {error:.3f}", f"{np.median(regrets):.3f}", versus, f"{tried:.1f}", f"{behind:.1f}"]
            lines.append(f"| {multiple}× | {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=20, help="searches of each method")
    parser.add_argument("--budget", type=int, default=30, help="trainings of each search")
    parser.add_argument("--out", type=Path, required=True, help="folder for seeds.json and summary.md")
    arguments = parser.parse_args()
    table = load_table()
    strategy = OverSeeds(LanguageBO(no_encoder))
    began = time.process_time()
    regret: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for multiple in MULTIPLES:
        methods = regret[f"{multiple:g}"] = {}
        for method, settings in METHODS.items():
            methods[method] = [
                search(
                    World(table, number, multiple, SEEDS), strategy, {**SETTINGS, **settings}, arguments.budget, number
                )
                for number in range(arguments.searches)
            ]
            mean, error = mean_and_error([row["regret"] for row in methods[method]])
            print(f"{multiple:g}× {method}: {mean:.3f} ± {error:.3f} ({time.process_time() - began:.0f} s)", flush=True)
    results = {
        "task": TASK,
        "noise": "simulated noise of measured size, times the key of `regret`",
        "command": f"cd tests && OMP_NUM_THREADS=1 python -m benchmarks.seeds --searches {arguments.searches} "
        f"--budget {arguments.budget} --out benchmarks/seeds/results",
        "budget": arguments.budget,
        "searches": arguments.searches,
        "seconds": round(time.process_time() - began, 1),
        "settings": {method: {**SETTINGS, **settings} for method, settings in METHODS.items()},
        "regret": regret,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "seeds.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (arguments.out / "summary.md").write_text(summary(results), encoding="utf-8")


if __name__ == "__main__":
    main()
