"""What follows from the goals of a search beside its objective: cost-aware values, bounds, prices, the best so far.

Read from the settings and the trials with the functions that the strategies use (:mod:`rankwise.strategies.goals` and
``costs``, whose notation is kept here), so that a report cannot disagree with the search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rankwise.report.facts import SearchFacts
from rankwise.space.trial import Trial
from rankwise.strategies.choice import Aims, keeps_bounds, leader, leaders, tried
from rankwise.strategies.costs import (
    cost,
    cost_aware_value,
    counted,
    dual_by_trial,
    metric_of,
    priced,
    reference_costs,
    violations,
)
from rankwise.strategies.dual import dual_ascent
from rankwise.strategies.goals import ConstraintMethod, Goals


@dataclass(frozen=True, slots=True)
class CostTerm:
    """One term of C.

    Attributes:
        metric: its name.
        weight: α, β or γ.
        reference: T₀, M₀ or E₀ in the metric's own unit; None where the term does not count, since too few trials
            measured it.
        of_default: whether the reference is what the default configuration cost; else it is the trials' median.
    """

    metric: str
    weight: float
    reference: float | None
    of_default: bool


@dataclass(frozen=True, slots=True)
class CostRow:
    """The cost-aware value of one trial (of one configuration, where it was trained with several seeds).

    Attributes:
        trial: its name (of the configuration's first training with a value).
        parts: metric -> weight × measured / reference, of the terms that count and were measured.
        cost: C, the sum of the parts; None where one is missing.
        value: F = L + λ C, smaller is better; None without C or without a value.
    """

    trial: str
    parts: Mapping[str, float]
    cost: float | None
    value: float | None


@dataclass(frozen=True, slots=True)
class CostAware:
    """The objective F = L + λ C.

    Attributes:
        weight: λ.
        terms: of C.
        rows: in the order of suggestion.
    """

    weight: float
    terms: tuple[CostTerm, ...]
    rows: tuple[CostRow, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """One constraint.

    Attributes:
        text: e.g. ``peak_memory_bytes <= 8000000000``.
        metric: its name.
        limit: the bound in the metric's own unit.
        at_most: whether the metric must not be larger, or not smaller.
        counts: whether enough trials report the metric for the bound to count.
        kept: how many trials keep it.
        violated: names of the trials that do not.
        unknown: how many trials with a value do not report the metric.
        binds: whether it costs something: without it, a better trial would have been found (``feasibility``), or the
            dual bound would be lower without its price (``lagrangian``); None where that is not known.
        price: μ after all trials, in units of F (of the objective without costs) for a violation of one whole bound;
            None but for ``lagrangian``, and where no trial keeps all bounds.
    """

    text: str
    metric: str
    limit: float
    at_most: bool
    counts: bool
    kept: int
    violated: tuple[str, ...]
    unknown: int
    binds: bool | None
    price: float | None


@dataclass(frozen=True, slots=True)
class Dual:
    """The dual ascent by trial.

    As long as no trial keeps all bounds, the dual function has no maximum, and its steps end at no meaningful price.

    Attributes:
        prices: μ of each bound after each trial; None before a trial keeps all bounds.
        bounds: the dual bound after each trial: no measured trial that keeps all bounds has a smaller F (objective,
            without costs; turned, where more is better); None before a trial keeps all bounds.
    """

    prices: tuple[tuple[float | None, ...], ...]
    bounds: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class GoalAnalysis:
    """All of it.

    Where a configuration was trained with several seeds, it is one row here, with the means over its trainings.

    Attributes:
        numbers: of the rows' trials, from 1.
        cost: None where the search does not weigh costs.
        bounds: in the order of the setting.
        method: ``feasibility`` or ``lagrangian``; "" without bounds.
        keeps: name of each trial that is known to keep all bounds that count, or not to -> which of the two.
        dual: None but for ``lagrangian`` with bounds that count.
        ranks: what the search makes small, of the best up to each trial: F, or the objective, turned where more is
            better; None until something was found.
        problem: why the settings could not be read, in a sentence; "" when they could.
    """

    numbers: tuple[int, ...]
    cost: CostAware | None
    bounds: tuple[Bound, ...]
    method: str
    keeps: Mapping[str, bool]
    dual: Dual | None
    ranks: tuple[float | None, ...]
    problem: str


def analyse_goals(facts: SearchFacts) -> GoalAnalysis:
    """Derive everything that a report says of goals."""
    aims = facts.aims
    goals = aims.goals
    every = [trial.as_trial() for trial in facts.trials]
    rows = tried(every, aims)
    trials = [row.trial for row in rows]
    keeps = keeps_bounds(goals, trials) if goals.constraints else [None] * len(rows)
    lagrangian = bool(goals.constraints) and goals.method is ConstraintMethod.LAGRANGIAN
    return GoalAnalysis(
        numbers=tuple(row.row + 1 for row in rows),
        cost=_cost_aware(goals, trials) if goals.cost_weight > 0 else None,
        bounds=_bounds(goals, trials, lagrangian),
        method=goals.method.value if goals.constraints else "",
        keeps={
            every[i].name: kept for row, kept in zip(rows, keeps, strict=True) if kept is not None for i in row.rows
        },
        dual=_dual(goals, trials, keeps) if lagrangian else None,
        ranks=tuple(None if found is None else found.rank for found in leaders(every, aims)),
        problem=aims.problem,
    )


def _cost_aware(goals: Goals, trials: Sequence[Trial]) -> CostAware:
    references = reference_costs(goals, trials)
    terms = tuple(
        CostTerm(metric, weight, references.costs.get(metric), metric in references.of_default)
        for metric, weight in goals.weights.items()
    )

    def parts(trial: Trial) -> dict[str, float]:
        measured = {metric: metric_of(trial, metric, goals.objective) for metric in references.costs}
        return {
            metric: goals.weights[metric] * value / references.costs[metric]
            for metric, value in measured.items()
            if value is not None and value >= 0
        }

    rows = tuple(
        CostRow(trial.name, parts(trial), cost(goals, references, trial), cost_aware_value(goals, references, trial))
        for trial in trials
    )
    return CostAware(goals.cost_weight, terms, rows)


def _bounds(goals: Goals, trials: Sequence[Trial], lagrangian: bool) -> tuple[Bound, ...]:
    counting, _ = counted(dict.fromkeys(one.metric for one in goals.constraints), trials, goals.objective)
    binds, prices = _prices(goals, trials) if lagrangian else (_primal(goals, trials), {})
    if not any(keeps_bounds(goals, trials)):
        binds, prices = {}, {}
    found = [violations(goals, trial) for trial in trials]
    rows = []
    for j, one in enumerate(goals.constraints):
        column = [row[j] for row in found]
        rows.append(
            Bound(
                text=str(one),
                metric=one.metric,
                limit=one.bound,
                at_most=one.at_most,
                counts=one.metric in counting,
                kept=sum(g is not None and g <= 0 for g in column),
                violated=tuple(t.name for t, g in zip(trials, column, strict=True) if g is not None and g > 0),
                unknown=sum(g is None and t.value is not None for t, g in zip(trials, column, strict=True)),
                binds=binds.get(j),
                price=prices.get(j),
            )
        )
    return tuple(rows)


def _primal(goals: Goals, trials: Sequence[Trial]) -> dict[int, bool]:
    """Number of a bound -> whether another trial would be the best one without it."""
    best = leader(trials, Aims(goals))
    if best is None:
        return {}
    found = {}
    for j in range(len(goals.constraints)):
        rest = tuple(one for i, one in enumerate(goals.constraints) if i != j)
        other = leader(trials, Aims(replace(goals, constraints=rest)))
        found[j] = other is not None and other.rank < best.rank
    return found


def _prices(goals: Goals, trials: Sequence[Trial]) -> tuple[dict[int, bool], dict[int, float]]:
    """Number of a bound -> whether it binds at the best prices, and its price."""
    known = priced(goals, trials)
    if not known.rows:
        return {}, {}
    path = dual_ascent(known.values, known.violations)
    binds = dict(zip(known.columns, path.binds.tolist(), strict=True))
    return binds, dict(zip(known.columns, path.prices.tolist(), strict=True))


def _dual(goals: Goals, trials: Sequence[Trial], keeps: Sequence[bool | None]) -> Dual | None:
    if not priced(goals, trials).columns:
        return None
    prices, bounds = dual_by_trial(goals, trials)
    first = next((i for i, kept in enumerate(keeps) if kept), len(trials))

    def known(i: int, value: float) -> float | None:
        return value if i >= first and math.isfinite(value) else None

    return Dual(
        prices=tuple(tuple(known(i, value) for value in row) for i, row in enumerate(prices.tolist())),
        bounds=tuple(known(i, value) for i, value in enumerate(bounds.tolist())),
    )
