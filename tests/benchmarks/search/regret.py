"""Regret, bootstrap intervals and ranks.

Notation
    T      trials of a search
    S      searches of one optimizer on one task, one for each seed
    regret best value so far − best of the pool, divided by (median of the pool − best of the pool): 0 has found the
           best measured configuration, 1 is as good as the median one
    cap    means are taken of min(regret, 1). Before a search has met anything better than the median, or any value at
           all, how bad it is depends on how badly the worst configurations of a table diverge, and one such search
           would be the mean. ``capped=False`` gives the uncapped figures; there a search without any value yet counts
           as the worst measured value.

Intervals are percentiles of the bootstrap: in each task the seeds are drawn anew with replacement, the tasks are kept.
They say how far other seeds on *these* tasks would be, not how far other tasks would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
RESAMPLES = 2000
LEVEL = 0.95


def regret_curve(
    values: Sequence[float | None], trials: int, best: float, median: float, worst: float, capped: bool = True
) -> Array:
    """Normalized simple regret after each trial.

    Args:
        values: of the trials, None for failures; a search that ended early keeps its last regret.
        trials: T.
        best, median, worst: of the pool.
        capped: see the module.

    Returns:
        (T,), not increasing, ≥ 0.

    Raises:
        ValueError: there is no trial, or the pool's median is its best value.
    """
    if not values:
        raise ValueError("a search needs a trial")
    if median <= best:
        raise ValueError("regret needs a pool whose median is worse than its best value")
    given = np.array([worst if value is None else value for value in values[:trials]])
    so_far = np.minimum.accumulate(given)
    so_far = np.concatenate([so_far, np.full(trials - len(so_far), so_far[-1])])
    curve = (so_far - best) / (median - best)
    return np.minimum(curve, 1.0) if capped else curve  # (T,)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval."""

    value: float
    low: float
    high: float


def interval(value: float, draws: Array) -> Estimate:
    """The value with percentiles of its bootstrap draws (R,)."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], method="nearest")  # draws may be infinite: no mean of two
    return Estimate(float(value), float(low), float(high))


def resampled_means(samples: Array, seed: int, resamples: int = RESAMPLES) -> Array:
    """Means over resampled searches.

    Args:
        samples: (S, T).
        seed: equal seeds and equal S draw the same searches, so that differences of two results are paired.
        resamples: R.

    Returns:
        (R, T).
    """
    count = len(samples)
    drawn = np.random.default_rng(seed).integers(0, count, (resamples, count))  # (R, S)
    weights = np.zeros((resamples, count))
    np.add.at(weights, (np.arange(resamples)[:, None], drawn), 1 / count)
    return weights @ samples  # (R, T)


def mean_curve(samples: Sequence[Array], resamples: int = RESAMPLES) -> tuple[Array, Array, Array]:
    """Mean over tasks of the mean over seeds, with its interval at each trial.

    Args:
        samples: one (S, T) for each task.
        resamples: of the bootstrap.

    Returns:
        value, low, high.  # (T,) each
    """
    value = np.mean([rows.mean(axis=0) for rows in samples], axis=0)
    draws = np.mean([resampled_means(rows, number, resamples) for number, rows in enumerate(samples)], axis=0)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return value, low, high


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float], resamples: int = RESAMPLES) -> Estimate:
    """Mean of ours − theirs over the seeds that both have.

    Raises:
        ValueError: there is no such seed.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        raise ValueError("no seed in common")
    difference = np.array([[ours[seed] - theirs[seed]] for seed in seeds])
    return interval(float(difference.mean()), resampled_means(difference, 0, resamples)[:, 0])


def ratio(ours: Sequence[Array], theirs: Sequence[Array], resamples: int = RESAMPLES) -> Estimate:
    """Mean regret of ours as a part of theirs, over the same tasks; infinite where theirs is 0.

    Args:
        ours, theirs: one (S,) for each task. The searches of the two are drawn independently.
        resamples: of the bootstrap.
    """

    def draws(samples: Sequence[Array], offset: int) -> Array:
        rows = [resampled_means(row[:, None], offset + i, resamples)[:, 0] for i, row in enumerate(samples)]
        return np.asarray(np.mean(rows, axis=0))

    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.mean([row.mean() for row in ours]) / np.mean([row.mean() for row in theirs])
        ratios = draws(ours, 0) / draws(theirs, 1_000)
    # 0 / 0: both have found the best.
    return interval(float(np.nan_to_num(value, nan=1.0, posinf=np.inf)), np.nan_to_num(ratios, nan=1.0, posinf=np.inf))


def mean_ranks(regrets: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean over tasks of each optimizer's rank by mean regret; 1 is best, equal ones share.

    Args:
        regrets: optimizer -> one figure for each task.
    """
    names = list(regrets)
    table = np.array([list(regrets[name]) for name in names])  # (optimizers, tasks)
    ranks = np.round(table, 12)
    return dict(zip(names, rankdata(ranks, axis=0).mean(axis=1).tolist(), strict=True))
