"""Which configurations are run: the four parts of a task's table.

- ``sobol``: the different points of a scrambled Sobol sequence, whose seed comes from the task's name; any first part
  of it is a Sobol design of its own.
- ``dense``: a grid around the good region, chosen by :func:`dense` from the results of ``sobol``.
- ``repeat``: 12 configurations of ``sobol``, from the best to the worst at equal steps of rank, with seeds 1 to 4.
- ``fidelity``: the first configurations of ``sobol`` on other parts of the training set than the proxy's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.lora_runs.table import VALUES, Run, search_space
from benchmarks.lora_runs.tasks import Task
from rankwise.strategies.sequence import SobolSequence

SOBOL_RUNS = {True: 192, False: 96}
"""Runs of the part sobol: encoder tasks, decoder tasks."""
REPEATED, REPEAT_SEEDS = 12, (1, 2, 3, 4)
FIDELITY_RUNS, FRACTIONS = 32, (0.01, 0.05, 0.25, 1.0)
_TOGETHER = 8
_BEST = 8
"""So many best runs of the part sobol say where the dense part lies."""
_DENSE_RANKS = ("4", "16", "64")
_DENSE_BATCHES = ("4", "8", "16", "32")
_DENSE_RATES = (-2, -1, 0, 1)
"""Steps in the list of rates from the median of the best runs: a rate that is too high is known well by then."""


@dataclass(frozen=True, slots=True)
class Point:
    """A run to be made."""

    part: str
    position: int
    config: tuple[tuple[str, str], ...]
    examples: int
    seed: int

    @property
    def values(self) -> dict[str, str]:
        return dict(self.config)


def sobol(task: Task, count: int | None = None) -> list[Point]:
    """The first points of the task's sequence, on the proxy."""
    seed = int.from_bytes(hashlib.sha256(task.name.encode()).digest()[:4], "big")
    points = SobolSequence(search_space(), seed).first(SOBOL_RUNS[task.is_encoder] if count is None else count)
    return [Point("sobol", i, tuple(values.items()), task.proxy, 0) for i, (_, values) in enumerate(points)]


def _ranked(runs: Sequence[Run]) -> list[Run]:
    """Runs of the part sobol that have a loss, the best first."""
    return sorted((r for r in runs if r.part == "sobol" and r.loss is not None), key=lambda r: (r.loss, r.position))


def dense(task: Task, runs: Sequence[Run]) -> list[Point]:
    """Three ranks x four batch sizes x four learning rates, without what the part sobol has.

    The rates are the median of the eight best runs of the part sobol, the two below it and the one above it in the
    list; alpha_ratio and dropout are the medians of the same runs (the lower one of two).

    Raises:
        ValueError: there are fewer than eight such runs.
    """
    best = _ranked(runs)[:_BEST]
    if len(best) < _BEST:
        raise ValueError(f"needs {_BEST} runs of the part sobol with a loss, has {len(best)}")

    def middle(name: str) -> int:
        return sorted(VALUES[name].index(run.config[name]) for run in best)[(_BEST - 1) // 2]

    rates = VALUES["learning_rate"]
    centre = min(max(middle("learning_rate"), -_DENSE_RATES[0]), len(rates) - 1 - _DENSE_RATES[-1])
    others = {name: VALUES[name][middle(name)] for name in ("alpha_ratio", "dropout")}
    known = {tuple(run.config[name] for name in VALUES) for run in runs if run.part == "sobol"}
    found = []
    for rate in (rates[centre + step] for step in _DENSE_RATES):
        for batch in _DENSE_BATCHES:
            for rank in _DENSE_RANKS:
                values = others | {"rank": rank, "batch_size": batch, "learning_rate": rate}
                if tuple(values[name] for name in VALUES) not in known:
                    found.append({name: values[name] for name in VALUES})
    return [Point("dense", i, tuple(values.items()), task.proxy, 0) for i, values in enumerate(found)]


def repeat(task: Task, runs: Sequence[Run]) -> list[Point]:
    """Twelve configurations from the best to the worst run that has a loss, each with four further seeds.

    Raises:
        ValueError: there are fewer than twelve such runs.
    """
    ranked = _ranked(runs)
    if len(ranked) < REPEATED:
        raise ValueError(f"needs {REPEATED} runs of the part sobol with a loss, has {len(ranked)}")
    chosen = [ranked[round(i * (len(ranked) - 1) / (REPEATED - 1))] for i in range(REPEATED)]
    return [
        Point("repeat", i, tuple(run.config.items()), task.proxy, seed)
        for seed in REPEAT_SEEDS
        for i, run in enumerate(chosen)
    ]


def fidelity(task: Task) -> list[Point]:
    """The first points of the part sobol on 1, 5, 25 and 100 % of the training set (10 % is the proxy).

    Eight configurations at a time on all sizes: what is done when the builder is stopped can be compared.
    """
    points = sobol(task, FIDELITY_RUNS)
    return [
        Point("fidelity", point.position, point.config, round(fraction * task.train), 0)
        for start in range(0, len(points), _TOGETHER)
        for fraction in FRACTIONS
        for point in points[start : start + _TOGETHER]
    ]
