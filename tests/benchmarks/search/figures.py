"""All figures of a benchmark from its searches: a plain structure that the tables, the picture and the JSON share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.search.optimizers import OURS, RULES
from benchmarks.search.problem import Pool
from benchmarks.search.regret import (
    Array,
    Estimate,
    mean_curve,
    mean_ranks,
    paired_difference,
    ratio,
    regret_curve,
)
from benchmarks.search.results import Search

CHECKPOINTS = (1, 5, 10, 20, 30)
COMPARED = (10, 30)
"""Trials at which the aim (half the regret of the best peer, never worse than random) is checked."""
RANDOM = "random"


def is_ours(optimizer: str) -> bool:
    """Whether an optimizer is ours, with whatever settings."""
    return optimizer.partition("@")[0].partition(":")[0] == OURS


def is_rule(optimizer: str) -> bool:
    """Whether an optimizer is a fixed configuration, one trial and no search."""
    return optimizer in RULES


@dataclass(frozen=True)
class Curve:
    """Mean regret after each trial with its interval.  # (T,) each"""

    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def at(self, trial: int) -> Estimate:
        """The figure after so many trials, from 1."""
        return Estimate(self.value[trial - 1], self.low[trial - 1], self.high[trial - 1])


@dataclass(frozen=True)
class Row:
    """One optimizer over all tasks of a group.

    Attributes:
        optimizer: its spelling.
        curve: over all tasks.
        uncapped: mean regret at the checkpoints without the cap.
        ranks: mean over tasks of its rank at each of :data:`COMPARED`.
        seeds: searches on the task that has the fewest.
        seconds: median wall time of a suggestion after the first five trials, which are a design with most optimizers.
        distance: mean distance of a proposal to the measured configuration that was taken for it.
        failed: part of its trials that failed.
        tasks: task -> its curve there.
        notes: sums over all searches of what the optimizer counts itself.
    """

    optimizer: str
    curve: Curve
    uncapped: dict[int, float]
    ranks: dict[int, float]
    seeds: int
    seconds: float
    distance: float
    failed: float
    tasks: dict[str, Curve]
    notes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Worse:
    """An optimizer whose mean regret is above random's on a task, by how much, and whether that is more than chance."""

    optimizer: str
    task: str
    trial: int
    difference: Estimate

    @property
    def certain(self) -> bool:
        return self.difference.low > 0


@dataclass(frozen=True)
class Group:
    """The figures of one list of tasks.

    Attributes:
        name: ``reported``, ``development`` or ``unlisted``, of stretched tables with ``-stretched``.
        tasks: its tasks that have searches.
        trials: T.
        rows: the optimizers that have searches on every task, best at the last trial first.
        incomplete: optimizers that have not, with the number of their searches.
        worse: every optimizer that is worse than random somewhere.
        best_peer: trial -> the searching optimizer that is not ours and has the least mean regret.
        ratios: (optimizer of ours, trial) -> its regret as a part of the best peer's.
    """

    name: str
    tasks: tuple[str, ...]
    trials: int
    rows: tuple[Row, ...]
    incomplete: dict[str, int]
    worse: tuple[Worse, ...]
    best_peer: dict[int, str]
    ratios: dict[tuple[str, int], Estimate]


def group_of(name: str, pools: Mapping[str, Pool], searches: Sequence[Search], trials: int) -> Group:
    """All figures of a list of tasks.

    Args:
        name: of the group.
        pools: task -> pool, of the tasks of the group.
        searches: of these pools as they are now (equal fingerprints), with budgets of ``trials``.
        trials: T.

    Raises:
        ValueError: no optimizer has searches on every task.
    """
    found: dict[str, dict[str, dict[int, Search]]] = defaultdict(lambda: defaultdict(dict))
    for search in searches:
        found[search.optimizer][search.task][search.seed] = search
    complete = {optimizer: by_task for optimizer, by_task in found.items() if by_task.keys() == pools.keys()}
    incomplete = {
        optimizer: sum(map(len, by_task.values())) for optimizer, by_task in found.items() if optimizer not in complete
    }
    if not complete:
        raise ValueError(f"no optimizer has searches on all tasks of {name}")
    curves = {o: _curves(pools, by_task, trials, capped=True) for o, by_task in complete.items()}
    compared = tuple(trial for trial in COMPARED if trial <= trials)
    ranks = {
        trial: mean_ranks({o: [_column(curves[o][t], trial).mean() for t in pools] for o in complete})
        for trial in compared
    }
    rows = []
    for optimizer, by_task in complete.items():
        uncapped = _curves(pools, by_task, trials, capped=False)
        mean = np.mean([_stack(curve).mean(axis=0) for curve in uncapped.values()], axis=0)
        rows.append(
            _row(
                optimizer,
                by_task,
                curves[optimizer],
                {trial: float(mean[trial - 1]) for trial in CHECKPOINTS if trial <= trials},
                {trial: ranks[trial][optimizer] for trial in compared},
            )
        )
    rows.sort(key=lambda row: (row.curve.value[-1], row.optimizer))
    best_peer = {}
    for trial in compared:
        peers = [row for row in rows if not is_ours(row.optimizer) and not is_rule(row.optimizer)]
        if peers:
            best_peer[trial] = min(peers, key=lambda row: row.curve.value[trial - 1]).optimizer
    ratios = {
        (o, trial): ratio(
            [_column(curves[o][t], trial) for t in pools], [_column(curves[best_peer[trial]][t], trial) for t in pools]
        )
        for o in complete
        if is_ours(o)
        for trial in best_peer
    }
    worse = _worse_than_random(curves, compared)
    return Group(name, tuple(pools), trials, tuple(rows), incomplete, tuple(worse), best_peer, ratios)


def _curves(
    pools: Mapping[str, Pool], by_task: Mapping[str, Mapping[int, Search]], trials: int, *, capped: bool
) -> dict[str, dict[int, Array]]:
    """Task -> seed -> regret curve (T,)."""
    return {
        task: {
            seed: regret_curve(search.values, trials, seen.best, seen.median, seen.worst, capped)
            for seed, search in sorted(by_task[task].items())
            for seen in (pool.seen_by(seed),)
        }
        for task, pool in pools.items()
    }


def _stack(curves: Mapping[int, Array]) -> Array:
    return np.stack(list(curves.values()))  # (S, T)


def _column(curves: Mapping[int, Array], trial: int) -> Array:
    return _stack(curves)[:, trial - 1]  # (S,)


def _curve(samples: Sequence[Array]) -> Curve:
    value, low, high = mean_curve(samples)
    return Curve(tuple(value.tolist()), tuple(low.tolist()), tuple(high.tolist()))


def _row(
    optimizer: str,
    by_task: Mapping[str, Mapping[int, Search]],
    curves: Mapping[str, Mapping[int, Array]],
    uncapped: dict[int, float],
    ranks: dict[int, float],
) -> Row:
    searches = [search for by_seed in by_task.values() for search in by_seed.values()]
    notes: dict[str, float] = defaultdict(float)
    for search in searches:
        for name, count in search.notes.items():
            notes[name] += count
    seconds = [s for search in searches for s in (search.seconds[5:] or search.seconds)]
    values = [value for search in searches for value in search.values]
    return Row(
        optimizer=optimizer,
        curve=_curve([_stack(by_seed) for by_seed in curves.values()]),
        uncapped=uncapped,
        ranks=ranks,
        seeds=min(len(by_seed) for by_seed in by_task.values()),
        seconds=float(np.median(seconds)),
        distance=float(np.mean([d for search in searches for d in search.distances])),
        failed=sum(value is None for value in values) / len(values),
        tasks={task: _curve([_stack(by_seed)]) for task, by_seed in curves.items()},
        notes=dict(notes),
    )


def _worse_than_random(curves: Mapping[str, Mapping[str, Mapping[int, Array]]], compared: Sequence[int]) -> list[Worse]:
    """Every searching optimizer and task where the mean regret is above random's."""
    found = []
    for optimizer, by_task in curves.items():
        if RANDOM not in curves or optimizer == RANDOM or is_rule(optimizer):
            continue
        for task, by_seed in by_task.items():
            for trial in compared:
                mine = {seed: float(curve[trial - 1]) for seed, curve in by_seed.items()}
                theirs = {seed: float(curve[trial - 1]) for seed, curve in curves[RANDOM][task].items()}
                if mine.keys() & theirs.keys():
                    difference = paired_difference(mine, theirs)
                    if difference.value > 0:
                        found.append(Worse(optimizer, task, trial, difference))
    return found
