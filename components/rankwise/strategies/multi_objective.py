"""``pareto``: the search for a whole front instead of one best configuration.

Every metric of the front has a Gaussian process on the numbers of the configurations. The objective's is the one that
begins with what is known (:mod:`rankwise.surrogate.informed`), by the draw of its hyperparameters that stands for most
of their posterior; the others are fitted to the logarithm of a cost, or to the value of what is maximized or not
positive. The language model has no part in it: the processes have to be drawn from jointly, a few dozen times a
candidate. Candidates are chosen by the expected improvement of the hypervolume (:mod:`rankwise.surrogate.hypervolume`);
failures, bounds and pending trials are counted in.

A metric that no trial reports yet is left out. Where only one is left, or no trial has a value, there is no front, and
the ordinary search answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankwise.deadline import Deadline
from rankwise.space import Candidates, SearchSpace
from rankwise.strategies.constrained import bounds_of, column, keeping
from rankwise.strategies.features import Features
from rankwise.strategies.goals import Goals, Traded
from rankwise.strategies.pareto import reference_point
from rankwise.surrogate.feasibility import Bounds, FeasibilityModel, MetricModel
from rankwise.surrogate.fit import MAX_FIT_OBSERVATIONS, representative
from rankwise.surrogate.hypervolume import FrontSearch, Output
from rankwise.surrogate.informed import fit_informed
from rankwise.surrogate.numeric import fit_numeric
from rankwise.surrogate.observations import HUGE, Observations, Standardize, outcome_variances, outcomes

_TAMED = 5.0
"""Outcomes of a traded metric beyond this many standard deviations count as this far."""


@dataclass(frozen=True)
class Front:
    """The models of a front and what it is measured with.

    Attributes:
        outputs: of its metrics, the objective first.
        bounded: of further metrics with bounds.
        kept: models of all bounds, for a probability at many candidates.
        points: the observations on the outputs' scales; NaN for what was not measured.  # (n, m)
        reference: (m,).
    """

    outputs: tuple[Output, ...]
    bounded: tuple[Output, ...]
    kept: FeasibilityModel
    points: NDArray[np.float64]
    reference: NDArray[np.float64]


def traded_outcomes(traded: Traded, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A further metric's values (n,) as outcomes of mean 0 and variance about 1, smaller is better.

    Minimized metrics that are greater than 0 are costs: products of sizes, and so the logarithm of theirs is a sum.
    """
    if traded.sign > 0 and (values > 0).all():
        y = np.log(values)
    else:
        largest = float(np.abs(values).max(initial=0.0))
        y = traded.sign * values / (largest if largest > HUGE else 1.0)
    y = Standardize.fit(y)(y).clip(-_TAMED, _TAMED)
    return Standardize.fit(y)(y)


def fit_front(
    goals: Goals, observations: Observations, space: SearchSpace, features: Features, steps: int, deadline: Deadline
) -> Front | None:
    """Fit a process to each metric; None where fewer than two metrics were reported by any trial.

    Args:
        goals: with ``traded``.
        observations: the trials (n).
        space: search space.
        features: what the processes see.
        steps: of every fit.
        deadline: of every fit.

    Raises:
        FitError: a fit failed numerically in every attempt.
    """
    everything = features(space.at(space.encode(observations.measured)))  # (n, d)
    numbers = everything[:, : len(features.lengthscales)]  # (n, q)
    outputs: list[Output] = []
    columns: list[NDArray[np.float64]] = []
    for i, traded in enumerate(goals.traded):
        if i == 0:
            places, y = np.arange(len(observations.values)), outcomes(observations.values)
        else:
            places, values = column(goals, observations, traded.metric)
            y = traded_outcomes(traded, values)
        if not len(places):
            continue
        whole = np.full(len(everything), np.nan)
        whole[places] = y
        columns.append(whole)
        # Joint draws want a dense factor of everything that a process is conditioned on.
        some = representative(y, MAX_FIT_OBSERVATIONS)
        places, y = places[some], y[some]
        if i == 0:
            outputs.append(_objective(observations, places, y, everything, features, deadline))
        else:
            outputs.append(Output(fit_numeric(numbers[places], y, steps, deadline), everything[places]))
    models: dict[str, MetricModel] = {}
    bounded: list[Output] = []
    for bounds in bounds_of(goals.constraints):
        places, values = column(goals, observations, bounds.metric)
        if not len(places):
            continue
        places, values = _some(places, values, bounds)
        model = models[bounds.metric] = MetricModel(numbers[places], values, bounds, steps, deadline)
        bounded.append(Output(model.surrogate, everything[places], None, model.lower, model.upper))
    if len(outputs) < 2:
        return None
    points = np.stack(columns, axis=1)  # (n, m)
    kept = keeping(goals, observations, models)
    complete = kept & ~np.isnan(points).any(1)
    reference = reference_point(points[complete] if complete.any() else points)
    return Front(
        tuple(outputs),
        tuple(bounded),
        FeasibilityModel(list(models.values())),
        np.where(kept[:, None], points, np.nan),
        reference,
    )


def _objective(
    observations: Observations,
    places: NDArray[np.intp],
    y: NDArray[np.float64],
    everything: NDArray[np.float64],
    features: Features,
    deadline: Deadline,
) -> Output:
    variances = None
    if observations.standard_errors.any():
        variances = outcome_variances(observations.values, observations.standard_errors)[places]
    averaged = fit_informed(everything[places], y, features.lengthscales, deadline, variances)
    process = averaged.surrogates[int(np.argmax(averaged.weights))]
    return Output(process, everything[places], variances)


def _some(
    places: NDArray[np.intp], values: NDArray[np.float64], bounds: Bounds
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Of many observations those nearest to a bound and some of all others."""
    ends = [end for end in (bounds.lower, bounds.upper) if math.isfinite(end)]
    with np.errstate(over="ignore"):
        distance = np.min([np.abs(values - end) for end in ends], axis=0)
    some = representative(distance, MAX_FIT_OBSERVATIONS)
    return places[some], values[some]


def choose_for_front(
    front: Front,
    space: SearchSpace,
    features: Features,
    candidates: Candidates,
    observations: Observations,
    pending: Sequence[dict[str, str]],
    count: int,
    log_success: NDArray[np.float64],
    seed: int,
    deadline: Deadline,
) -> list[int]:
    """``count`` different candidates (k) that are expected to enlarge the front; ``log_success`` (k,) of each."""
    rows = features(candidates)  # (k, d)
    complete = ~np.isnan(front.points).any(1)
    measured = features(space.at(space.encode(observations.measured)))
    # Without any configuration that keeps the bounds, those that break them are what the draws are conditioned on.
    seen = measured[complete] if complete.any() else measured
    search = FrontSearch(
        front.outputs,
        front.bounded,
        front.reference,
        np.unique(seen, axis=0),
        features(space.at(space.encode(pending))),
        seed,
        deadline,
    )
    kept = front.kept.log_probability(rows[:, : len(features.lengthscales)])
    return search.choose(rows, count, log_success, kept)
