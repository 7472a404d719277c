"""From trials to training data: what was measured, what failed, what is still running.

- **Direction**: values are turned so that smaller is better.
- **Measured**: succeeded trials, and early-stopped ones that reported a value. Several trials of one configuration
  (other seeds) stay several observations: they tell the model how noisy the objective is. A trial that reports its
  value's standard error is an observation with a noise of its own.
- **Failed**: failed and unavailable trials, and early-stopped ones without a value. They get no invented value: a
  made-up number would bend the regression around it. They train a model of their own, the probability of failure
  (:mod:`rankwise.surrogate.failure`), and the acquisition is weighted with the probability of success.
- **Pending**: suggested or running; the acquisition counts them in (:mod:`rankwise.surrogate.acquisition`).
- **Foreign**: trials whose names or values are not of the space are ignored (same-named experiments of two namespaces
  mix in Katib, katib issue 2578).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from rankwise.space import Goal, Objective, SearchSpace, Trial, TrialState

Key = tuple[Hashable, ...]
HUGE = 1e100
"""Values beyond it are scaled down first, so that their squares do not overflow."""
LARGEST_DEVIATION = 1e6
"""Standard errors beyond it, in units of the outcomes' spread, count as this: nothing is left of the observation, and a
Cholesky factor still exists."""


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
        standard_errors: of the values, in their units; 0 where it is not known.  # (n,)
        trials: the trials themselves, with their further metrics (n).
        failed: configurations that ended without a value (k).
        pending: configurations without an end yet (p); one entry per configuration.
        tried: how often each configuration was tried, is tried or failed.
        ignored: how many foreign trials there were.
    """

    measured: tuple[dict[str, str], ...]
    values: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    trials: tuple[Trial, ...]
    failed: tuple[dict[str, str], ...]
    pending: tuple[dict[str, str], ...]
    tried: dict[Key, int]
    pending_keys: frozenset[Key]
    ignored: int

    @property
    def count(self) -> int:
        """Number of our trials."""
        return sum(self.tried.values())

    def only(self, rows: Sequence[int], values: NDArray[np.float64]) -> Observations:
        """Some of the measured ones (r), with other values (r,): what was tried stays tried."""
        return replace(
            self,
            measured=tuple(self.measured[i] for i in rows),
            values=values,
            standard_errors=self.standard_errors[list(rows)],
            trials=tuple(self.trials[i] for i in rows),
        )


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
    known.sort(key=lambda pair: _content(*pair))
    measured: list[dict[str, str]] = []
    values: list[float] = []
    errors: list[float] = []
    of: list[Trial] = []
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
            errors.append(trial.standard_error or 0.0)
            of.append(trial)
    return Observations(
        measured=tuple(measured),
        values=np.array(values, dtype=np.float64),
        standard_errors=np.array(errors, dtype=np.float64),
        trials=tuple(of),
        failed=tuple(failed),
        pending=tuple(pending.values()),
        tried=tried,
        pending_keys=frozenset(pending),
        ignored=ignored,
    )


def _content(key: Key, trial: Trial) -> tuple[str, str, float, float, list[tuple[str, float]], str]:
    metrics = sorted(trial.metrics.items())
    return repr(key), trial.state.value, trial.value or 0.0, trial.standard_error or 0.0, metrics, trial.name


def plain_outcomes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values (n,) with mean 0 and variance 1, and no more: a value far off presses all others together."""
    y = values / _unit(values)
    return Standardize.fit(y)(y)


def _unit(values: NDArray[np.float64]) -> float:
    """What values (n,) are divided by, so that their squares do not overflow: 1 but for huge ones."""
    largest = float(np.abs(values).max(initial=0.0))
    return largest if largest > HUGE else 1.0


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
    warped = _warp(values / _unit(values))
    return Standardize.fit(warped)(warped)


def _warp(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half-rank warping of values y (n,), not standardized yet: the good half is only shifted."""
    if len(y) == 0:
        return y
    median = float(np.median(y))
    good = y <= median
    spread = float(np.sqrt(np.mean((y[good] - median) ** 2)))
    if not good.all():
        quantile = ndtri((rankdata(y) - 0.5) / len(y))  # (n,)
        return np.where(good, y - median, np.maximum(quantile, 0.0) * (spread or 1.0))
    return y - median


def outcome_variances(values: NDArray[np.float64], standard_errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variances (n,) of :func:`outcomes` that follow from the standard errors of the values.

    Outcomes are an increasing function g of the values: in the good half a line of slope 1 / scale; in the other half
    known at the observed values, and straight between them. Better than the best value the line goes on; worse than
    the worst g stays where it is, for a rank cannot be worse. Two points y ± s of half the weight each have mean y and
    variance s²; g makes of them a distribution of variance ((g(y + s) − g(y − s)) / 2)². Within the good half this is
    (s / scale)², the error in the outcomes' units; elsewhere g's mean slope over y ± s takes the place of 1 / scale, so
    that an error of 1e5 on a loss of 1e6 says no more than which ranks the value may have.

    Values that are all equal give no unit to measure their errors in: 0.

    Args:
        values: finite, smaller is better.  # (n,)
        standard_errors: of the values, finite; 0 where it is not known.  # (n,)

    Returns:
        From 0 to :data:`LARGEST_DEVIATION` squared; exactly 0 where the standard error is 0.  # (n,)
    """
    unit = _unit(values)
    y, s = values / unit, standard_errors / unit
    known, first = np.unique(y, return_index=True)  # (k,) both
    if len(known) < 2:
        return np.zeros(len(y))
    warped = _warp(y)
    g = warped[first]  # (k,)
    # With one good value, however often, there is no line: the first segment leads out of the good half.
    with np.errstate(over="ignore"):  # beside a value of 1e308 the others may be a denormal number apart
        slope = 1.0 if known[1] <= np.median(y) else (g[1] - g[0]) / (known[1] - known[0])

    def at(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(x < known[0], g[0] + slope * (x - known[0]), np.interp(x, known, g))

    with np.errstate(over="ignore", invalid="ignore"):  # errors of 1e300 are no error of ours
        deviation = (at(y + s) - at(y - s)) / 2 / Standardize.fit(warped).scale  # (n,)
    bounded = np.where(s > 0, np.nan_to_num(deviation, nan=LARGEST_DEVIATION), 0.0).clip(0.0, LARGEST_DEVIATION)
    variances: NDArray[np.float64] = bounded**2
    return variances
