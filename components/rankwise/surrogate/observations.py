"""From trials to training data: what was measured, what failed, what is still running.

- **Direction**: values are turned so that smaller is better.
- **Measured**: succeeded trials, and early-stopped ones that reported a value. Several trials of one configuration
  (other seeds) stay several observations: they tell the model how noisy the objective is.
- **Failed**: failed and unavailable trials, and early-stopped ones without a value. They get no invented value: a
  made-up number would bend the regression around it. They train a model of their own, the probability of failure
  (:mod:`rankwise.surrogate.failure`), and the acquisition is weighted with the probability of success.
- **Pending**: suggested or running; the acquisition counts them in (:mod:`rankwise.surrogate.acquisition`).
- **Foreign**: trials whose names or values are not of the space are ignored (same-named experiments of two namespaces
  mix in Katib, katib issue 2578).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from rankwise.space import Goal, Objective, SearchSpace, Trial, TrialState

Key = tuple[Hashable, ...]
HUGE = 1e100
"""Values beyond it are scaled down first, so that their squares do not overflow."""


@dataclass(frozen=True)
class Standardize:
    """Shift and scale that give outcomes mean 0 and variance 1; constant outcomes are only shifted."""

    mean: float
    scale: float

    @classmethod
    def fit(cls, y: NDArray[np.float64]) -> Standardize:
        """Read mean and scale from outcomes y (n,), n ≥ 0."""
        if len(y) == 0:
            return cls(0.0, 1.0)
        scale = float(np.std(y))
        mean = float(np.mean(y))
        # Equal values differ in the last bits after a mean: such a scale would blow rounding up to signal.
        return cls(mean, scale if scale > 1e-12 * max(1.0, abs(mean)) else 1.0)

    def __call__(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        return (y - self.mean) / self.scale


@dataclass(frozen=True)
class Observations:
    """The trials of one space, sorted, in the form that the models need.

    Attributes:
        measured: configurations with a value, one per observation (n).
        values: their values, smaller is better.  # (n,)
        failed: configurations that ended without a value (k).
        pending: configurations without an end yet (p); one entry per configuration.
        tried: how often each configuration was tried, is tried or failed.
        ignored: how many foreign trials there were.
    """

    measured: tuple[dict[str, str], ...]
    values: NDArray[np.float64]
    failed: tuple[dict[str, str], ...]
    pending: tuple[dict[str, str], ...]
    tried: dict[Key, int]
    pending_keys: frozenset[Key]
    ignored: int

    @property
    def count(self) -> int:
        """Number of our trials."""
        return sum(self.tried.values())


def read_trials(space: SearchSpace, objective: Objective, trials: Iterable[Trial]) -> Observations:
    """Sort trials into observations. The order of the trials and their names do not matter.

    Args:
        space: the search space.
        objective: its goal gives the direction.
        trials: of the space or not.
    """
    sign = 1.0 if objective.goal is Goal.MINIMIZE else -1.0
    known: list[tuple[Key, Trial]] = []
    ignored = 0
    for trial in trials:
        if space.contains(trial.assignments):
            known.append((space.key(trial.assignments), trial))
        else:
            ignored += 1
    # Names are random in Katib: the order is by content, so that floating point sums are the same in a repeated run.
    known.sort(key=lambda pair: (repr(pair[0]), pair[1].state.value, pair[1].value or 0.0, pair[1].name))
    measured: list[dict[str, str]] = []
    values: list[float] = []
    failed: list[dict[str, str]] = []
    pending: dict[Key, dict[str, str]] = {}
    tried: dict[Key, int] = {}
    for key, trial in known:
        tried[key] = tried.get(key, 0) + 1
        assignments = dict(trial.assignments)
        if trial.state is TrialState.PENDING:
            pending[key] = assignments
        elif trial.value is None:
            failed.append(assignments)
        else:
            measured.append(assignments)
            values.append(sign * trial.value)
    return Observations(
        measured=tuple(measured),
        values=np.array(values, dtype=np.float64),
        failed=tuple(failed),
        pending=tuple(pending.values()),
        tried=tried,
        pending_keys=frozenset(pending),
        ignored=ignored,
    )


def plain_outcomes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values (n,) with mean 0 and variance 1, and no more: a value far off presses all others together."""
    y = _within_squares(values)
    return Standardize.fit(y)(y)


def _within_squares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A copy of the values, scaled down where their squares would overflow."""
    y = np.array(values, dtype=np.float64)
    largest = float(np.abs(y).max(initial=0.0))
    return y / largest if largest > HUGE else y


def outcomes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values as the outcomes that a Gaussian process can be fitted to: bad values tamed, mean 0, variance 1.

    Half-rank warping (Song et al. 2024, "The Vizier Gaussian process bandit algorithm", section on output warping):
    values up to the median keep their distances; a worse value is replaced by the normal quantile of its rank, in units
    of the good half's spread. A loss of 1e6 from a diverged training then weighs as much as "worst of all", while
    the differences between good configurations, which decide the search, stay exact.

    Args:
        values: finite, smaller is better.  # (n,)

    Returns:
        Finite outcomes in the same order of size.  # (n,)
    """
    y = _within_squares(values)
    if len(y) == 0:
        return y
    median = float(np.median(y))
    good = y <= median
    spread = float(np.sqrt(np.mean((y[good] - median) ** 2)))
    if not good.all():
        quantile = ndtri((rankdata(y) - 0.5) / len(y))  # (n,)
        y = np.where(good, y - median, np.maximum(quantile, 0.0) * (spread or 1.0))
    else:
        y = y - median
    return Standardize.fit(y)(y)
