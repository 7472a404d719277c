"""What quality costs: the Pareto fronts of a search, their hypervolume by trial, and the best within a budget.

Every search has these, whatever it looked for: the objective against each measured cost. A search for a front (setting
``pareto``) also has the front of all its metrics. A configuration that is known to break a bound of the search is on no
front; one that was trained with several seeds is one point, with the means over its trainings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from rankwise.report.facts import CostFacts, FinalRun, Finals, SearchFacts, TrialFacts
from rankwise.space.trial import Trial
from rankwise.strategies.choice import keeps_bounds, tried
from rankwise.strategies.costs import front_points, is_feasible, metric_of, pick
from rankwise.strategies.goals import Constraint, Goals, Traded
from rankwise.strategies.pareto import hypervolumes, pareto_front, reference_point

COSTS = tuple(field.name for field in fields(CostFacts))


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """One configuration.

    Attributes:
        trial: name of its (first) trial with a value.
        number: of that trial, from 1.
        values: metric -> value, of the metrics of all fronts that it has.
        feasible: False where it is known to break a bound of the search.
    """

    trial: str
    number: int
    values: Mapping[str, float]
    feasible: bool


@dataclass(frozen=True, slots=True)
class Front:
    """One front.

    Attributes:
        metrics: the objective first.
        goals: ``minimize`` or ``maximize`` for each.
        trials: names of the points on it, the best value of the objective first.
        hypervolumes: by trial, as a share of the box between the best value of each metric and the reference point
            (the front's worst value of each metric and a tenth of its extent beyond).
        searched: whether the search looked for this one.
    """

    metrics: tuple[str, ...]
    goals: tuple[str, ...]
    trials: tuple[str, ...]
    hypervolumes: tuple[float, ...]
    searched: bool


@dataclass(frozen=True, slots=True)
class Pick:
    """The best within a budget.

    Attributes:
        budget: its bounds, e.g. ``peak_memory_bytes <= 8000000000``.
        trial: name of the best configuration's (first) trial; None where nothing is known to be within.
        values: its objective and bounded metrics.
        within: how many configurations are.
    """

    budget: tuple[str, ...]
    trial: str | None
    values: Mapping[str, float]
    within: int


@dataclass(frozen=True, slots=True)
class FrontAnalysis:
    """All of it.

    Attributes:
        points: the configurations with a value of the objective, in the order of suggestion.
        fronts: the one that was searched for first; those of two metrics that take one value alone are left out.
        pick: None without a budget.
    """

    points: tuple[FrontPoint, ...]
    fronts: tuple[Front, ...]
    pick: Pick | None


def as_measured(trial: TrialFacts) -> Trial:
    """The trial with what its manifest tells of its cost among its metrics; what it reported itself goes first."""
    costs = {name: value for name in COSTS if (value := getattr(trial.cost, name)) is not None}
    return replace(trial.as_trial(), metrics={**costs, **trial.metrics})


def trial_runs(facts: SearchFacts) -> Finals | None:
    """The trials with the default and the best configuration side by side; None without both, or where they are one.

    Where they were trained with several seeds, metrics are means and the objective has its standard error. Costs are
    those of the trainings that stand for them.
    """
    default, best = facts.default_trial, facts.best
    rows = {row.row: row for row in tried([trial.as_trial() for trial in facts.trials], facts.aims)}
    if default is None or best is None:
        return None

    def run(trial: TrialFacts) -> tuple[int, FinalRun] | None:
        row = rows.get(facts.trials.index(trial))
        if row is None or row.trial.value is None:
            return None
        errors = {} if row.trial.standard_error is None else {facts.objective.metric: row.trial.standard_error}
        metrics = {name: value for name, value in row.trial.metrics.items() if name not in COSTS}
        metrics[facts.objective.metric] = row.trial.value
        return row.row, FinalRun(trial.assignments, metrics, errors, cost=_costs(as_measured(trial).metrics))

    before, after = run(default), run(best)
    if before is None or after is None or before[0] == after[0]:
        return None
    return Finals(default=before[1], best=after[1])


def _costs(metrics: Mapping[str, float]) -> CostFacts:
    """Those of the metrics that are costs; a cost below 0 is no cost."""
    return CostFacts(**{name: metrics[name] for name in COSTS if metrics.get(name, -1.0) >= 0})


def analyse_fronts(facts: SearchFacts, budget: Sequence[Constraint] = ()) -> FrontAnalysis:
    """Derive fronts, hypervolumes and the best within a budget."""
    aims = facts.aims
    goals, objective = aims.goals, facts.objective
    rows = tried([as_measured(trial) for trial in facts.trials], aims)
    keeps = keeps_bounds(goals, [row.trial for row in rows])
    valued = [
        (row.row + 1, row.trial, kept is not False)
        for row, kept in zip(rows, keeps, strict=True)
        if row.trial.value is not None
    ]
    trials, feasible = [trial for _, trial, _ in valued], [good for _, _, good in valued]
    own = Traded(objective.metric, objective.goal)
    wanted = list(dict.fromkeys([*(one for one in goals.traded[1:]), *(Traded(name) for name in COSTS)]))
    sets = [goals.traded] if goals.traded else []
    sets += [(own, one) for one in wanted if one.metric != own.metric]
    fronts = [_front(replace(goals, traded=s), trials, feasible, s == goals.traded) for s in dict.fromkeys(sets)]
    kept_fronts = tuple(front for front in fronts if front is not None)
    names = dict.fromkeys([own.metric, *(metric for front in kept_fronts for metric in front.metrics)])
    points = tuple(FrontPoint(trial.name, number, _values(facts, trial, names), good) for number, trial, good in valued)
    return FrontAnalysis(points, kept_fronts, _pick(facts, trials, feasible, budget) if budget else None)


def _values(facts: SearchFacts, trial: Trial, names: Iterable[str]) -> dict[str, float]:
    found = {name: metric_of(trial, name, facts.objective) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _front(goals: Goals, trials: Sequence[Trial], feasible: Sequence[bool], searched: bool) -> Front | None:
    """The front of the goals' traded metrics; None where fewer than two trials have them, or one never changes."""
    points = front_points(goals, trials)  # (n, m)
    known = ~np.isnan(points).any(1)
    if known.sum() < 2 or (not searched and (np.ptp(points[known], axis=0) == 0).any()):
        return None
    points[~np.array(feasible, dtype=bool)] = math.nan
    on = np.flatnonzero(pareto_front(points))
    return Front(
        metrics=tuple(one.metric for one in goals.traded),
        goals=tuple(one.goal.value for one in goals.traded),
        trials=tuple(trials[i].name for i in sorted(on.tolist(), key=lambda i: (points[i].tolist(), i))),
        hypervolumes=_shares(points),
        searched=searched,
    )


def _shares(points: NDArray[np.float64]) -> tuple[float, ...]:
    """Hypervolume by trial as a share of the box between ideal and reference point, so that units do not matter.

    Args:
        points: smaller is better; NaN rows count for nothing.  # (n, m)
    """
    known = points[~np.isnan(points).any(1)]
    if not len(known):
        return (0.0,) * len(points)
    reference, ideal = reference_point(points), known.min(0)  # (m,), (m,)
    # A reference that rounding puts on the ideal point itself leaves no box to take a share of.
    box = np.where(reference > ideal, reference - ideal, 1.0)
    scaled = (points - ideal) / box
    return tuple(hypervolumes(scaled, np.ones(points.shape[1])).tolist())


def _pick(facts: SearchFacts, trials: Sequence[Trial], feasible: Sequence[bool], budget: Sequence[Constraint]) -> Pick:
    allowed = [trial for trial, good in zip(trials, feasible, strict=True) if good]
    bounds = Goals(facts.objective, constraints=tuple(budget))
    names = dict.fromkeys([facts.objective.metric, *(one.metric for one in budget)])
    found = pick(allowed, facts.objective, budget)
    return Pick(
        budget=tuple(str(one) for one in budget),
        trial=None if found is None else allowed[found].name,
        values={} if found is None else _values(facts, allowed[found], names),
        within=sum(is_feasible(bounds, trial) is True for trial in allowed),
    )
