"""Goals of a search, put to the models of ``language-bo``: what they are fitted to, and which bounds they count in.

- **Cost-aware** (``cost_weight``): the models are fitted to F = L + λC in place of L. The standard error of an
  observation stays that of L: a training's cost is measured as good as exactly.
- **``constraint_method: lagrangian``**: they are fitted to F + Σ μⱼ gⱼ with the prices μ of the dual ascent over the
  trials so far (:mod:`rankwise.strategies.dual`), so that the search is led to where the price is worth it.
- **``constraint_method: feasibility``**: they are fitted to F, and the acquisition is multiplied with the probability
  that all bounds are kept (:mod:`rankwise.surrogate.feasibility`).

A metric that too few trials report is left out, for all of them, and :attr:`Aim.left_out` names it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from rankwise.deadline import Deadline
from rankwise.space import Candidates, SearchSpace
from rankwise.strategies.costs import cost_aware_value, front_points, is_feasible, metric_of, priced, reference_costs
from rankwise.strategies.dual import dual_ascent
from rankwise.strategies.features import Features
from rankwise.strategies.goals import Constraint, ConstraintMethod, Goals
from rankwise.strategies.pareto import depth
from rankwise.surrogate.acquisition import Feasible
from rankwise.surrogate.feasibility import Bounds, FeasibilityModel, MetricModel
from rankwise.surrogate.observations import Observations

LARGEST_VALUE = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Aim:
    """What the models are fitted to.

    Attributes:
        observations: with F, or the Lagrangian, as values; without the trials that lack a term of it.
        left_out: metrics of the goals that too few trials report.
        details: numbers for logs.
    """

    observations: Observations
    left_out: tuple[str, ...] = ()
    details: Mapping[str, float] = field(default_factory=dict)


def aim_at(goals: Goals, observations: Observations) -> Aim:
    """The observations as the goals value them."""
    by_price = bool(goals.constraints) and goals.method is ConstraintMethod.LAGRANGIAN
    if not goals.weights and not by_price:
        return Aim(observations)
    trials = observations.trials
    if by_price:
        known = priced(goals, trials)
        left_out = (*reference_costs(goals, trials).left_out, *known.left_out)
        if known.rows and known.columns:
            path = dual_ascent(known.values, known.violations)
            prices = zip(known.columns, path.prices, strict=True)
            details = {f"price_{goals.constraints[j].metric}_{j}": float(price) for j, price in prices}
            details["dual_bound"] = float(path.bound[-1])
            with np.errstate(over="ignore", invalid="ignore"):  # values of 1e308 and their prices
                lagrangian = np.nan_to_num(known.values + known.violations @ path.prices, nan=LARGEST_VALUE)
            return Aim(observations.only(known.rows, lagrangian), left_out, details)
        return Aim(observations.only(known.rows, known.values), left_out)
    references = reference_costs(goals, trials)
    found = [cost_aware_value(goals, references, trial) for trial in trials]
    rows = [i for i, value in enumerate(found) if value is not None]
    values = np.array([value for value in found if value is not None], dtype=np.float64)
    details = {f"reference_{metric}": reference for metric, reference in references.costs.items()}
    return Aim(observations.only(rows, values), references.left_out, details)


def bounds_of(constraints: Sequence[Constraint]) -> list[Bounds]:
    """One pair of bounds a metric."""
    ends: dict[str, tuple[float, float]] = {}
    for one in constraints:
        low, high = ends.get(one.metric, (-math.inf, math.inf))
        ends[one.metric] = (low, one.bound) if one.at_most else (one.bound, high)
    return [Bounds(metric, low, high) for metric, (low, high) in ends.items()]


@dataclass(frozen=True)
class Bounded:
    """The bounds of a search, as they are known after its trials.

    Attributes:
        model: of the metrics that some trial reports.
        observed: whether the observed configurations are known to keep all bounds.  # (n,)
    """

    model: FeasibilityModel
    observed: NDArray[np.bool_]

    def feasible(self, features: Features, candidates: Candidates, pending: Candidates) -> Feasible:
        """What the acquisition needs, for its m candidates and p pending configurations."""
        return Feasible(
            self.observed,
            self.model.log_probability(features.numbers(candidates)),
            self.model.log_probability(features.numbers(pending)),
        )


def fit_bounds(
    goals: Goals,
    observations: Observations,
    aimed: Observations,
    space: SearchSpace,
    features: Features,
    steps: int,
    deadline: Deadline,
) -> Bounded | None:
    """Fit a process to each bounded metric; None where the acquisition has no bounds to count in.

    Args:
        goals: of the search.
        observations: all of them: each metric is read from the trials that report it.
        aimed: those that the models of the objective are fitted to (n).
        space: search space.
        features: of the process on the numbers.
        steps: of every fit.
        deadline: of every fit.

    Raises:
        FitError: a fit failed numerically in every attempt.
    """
    if not goals.constraints or goals.method is not ConstraintMethod.FEASIBILITY:
        return None
    rows = features.numbers(space.at(space.encode(observations.measured)))  # (N, q)
    models: dict[str, MetricModel] = {}
    for bounds in bounds_of(goals.constraints):
        places, values = column(goals, observations, bounds.metric)
        if len(places):
            models[bounds.metric] = MetricModel(rows[places], values, bounds, steps, deadline)
    return Bounded(FeasibilityModel(list(models.values())), keeping(goals, aimed, models))


def keeping(goals: Goals, observations: Observations, metrics: Collection[str]) -> NDArray[np.bool_]:
    """Which observations (n,) are known to keep all bounds on the given metrics."""
    known = replace(goals, constraints=tuple(one for one in goals.constraints if one.metric in metrics))
    return np.array([is_feasible(known, trial) is True for trial in observations.trials], dtype=bool)


def unreported(goals: Goals, observations: Observations) -> tuple[str, ...]:
    """Metrics of bounds and of the front that no trial with a value reports; none as long as there is no value."""
    if not observations.trials:
        return ()
    named = dict.fromkeys([*(one.metric for one in goals.constraints), *(one.metric for one in goals.traded)])
    return tuple(metric for metric in named if not len(column(goals, observations, metric)[0]))


def order_of(goals: Goals, observations: Observations) -> NDArray[np.float64]:
    """How good the observations are (n,), smaller is better: what breaks a bound comes after what keeps all.

    By their values; where a front is looked for, by how deep a front each lies on.
    """
    order = observations.values
    if goals.traded:
        missing = unreported(goals, observations)
        traded = tuple(one for one in goals.traded if one.metric not in missing)
        order = depth(front_points(replace(goals, traded=traded), observations.trials)).astype(np.float64)
    if goals.method is ConstraintMethod.FEASIBILITY and goals.constraints:
        reported = {one.metric for one in goals.constraints} - set(unreported(goals, observations))
        broken = ~keeping(goals, observations, reported)
        # Ranks: values of 1e308 leave no room for a penalty.
        order = rankdata(order, method="dense") + len(order) * broken
    return order


def column(goals: Goals, observations: Observations, metric: str) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Numbers (k,) of the observations that have a metric, and its values (k,)."""
    measured = [metric_of(trial, metric, goals.objective) for trial in observations.trials]
    places = np.array([i for i, value in enumerate(measured) if value is not None], dtype=np.intp)
    return places, np.array([value for value in measured if value is not None], dtype=np.float64)
