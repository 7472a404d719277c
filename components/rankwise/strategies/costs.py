"""What the trials measured, read with the goals of their search: cost, cost-aware value, violations, the budget's best.

Notation::

    L            the objective's value, turned so that smaller is better (a maximized quality counts as −quality)
    T, M, E      ``seconds``, ``peak_memory_bytes``, ``energy_joules`` of a training, as its trial reports them
    T₀, M₀, E₀   the reference: what the default configuration cost, else the medians of what was measured
    C            α T/T₀ + β M/M₀ + γ E/E₀, without unit; 1 for the default configuration where α + β + γ = 1
    F            L + λ C, the cost-aware value
    gⱼ           (metric − bound) / |bound| for ``<=``, (bound − metric) / |bound| for ``>=``; more than 0: violated

λ is read as "so much of the objective a training that costs as much as the default's is worth". Nothing is invented: a
metric that a trial does not have is absent, and what needs it is None or NaN.

**Which terms count** is one decision for all trials (:func:`counted`): a metric that at least half of the trials with a
value do not report is left out for all of them, and a trial that lacks one that counts has no F. Otherwise a trial
would look cheap because nobody measured what it cost.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankwise.space.trial import Objective, Trial, parse_finite
from rankwise.strategies.dual import dual_ascent
from rankwise.strategies.goals import LARGEST, Constraint, Goals


def metric_of(trial: Trial, metric: str, objective: Objective) -> float | None:
    """A metric of a trial that has a value; None where it, or the value, was not measured."""
    if trial.value is None:
        return None
    found = trial.value if metric == objective.metric else trial.metrics.get(metric)
    return found if found is not None and math.isfinite(found) else None


def counted(metrics: Iterable[str], trials: Sequence[Trial], objective: Objective) -> tuple[list[str], list[str]]:
    """Which metrics count for all trials, and which do not.

    Args:
        metrics: names.
        trials: in any order.
        objective: of the search.

    Returns:
        Those that more than half of the trials with a value report, and the others, in the given order. Where no
        trial has a value, all count.
    """
    valued = [trial for trial in trials if trial.value is not None]
    kept: list[str] = []
    left_out: list[str] = []
    for metric in metrics:
        reports = sum(metric_of(trial, metric, objective) is not None for trial in valued)
        (kept if not valued or 2 * reports > len(valued) else left_out).append(metric)
    return kept, left_out


@dataclass(frozen=True)
class References:
    """What costs are divided by.

    Attributes:
        costs: metric -> T₀, M₀ or E₀, of the terms that count.
        of_default: the metrics whose reference is what the default configuration cost; the others' is the median.
        left_out: metrics that have a weight and too few measurements to count.
    """

    costs: Mapping[str, float]
    of_default: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()


def reference_costs(goals: Goals, trials: Sequence[Trial]) -> References:
    """The costs of the default configuration (the median over its trials), else the medians of all trials.

    Args:
        goals: which terms have a weight.
        trials: in any order.

    Returns:
        References greater than 0; a metric of which nothing greater than 0 was measured does not count.
    """
    kept, left_out = counted(goals.weights, trials, goals.objective)
    costs: dict[str, float] = {}
    of_default: set[str] = set()
    default = [trial for trial in trials if goals.default is not None and same(trial.assignments, goals.default)]
    for metric in kept:
        reference = _median(metric, default, goals.objective)
        if reference is not None:
            of_default.add(metric)
        else:
            reference = _median(metric, trials, goals.objective)
        if reference is None:
            left_out.append(metric)
        else:
            costs[metric] = reference
    return References(costs, frozenset(of_default), tuple(left_out))


def _median(metric: str, trials: Iterable[Trial], objective: Objective) -> float | None:
    measured = [metric_of(trial, metric, objective) for trial in trials]
    positive = [value for value in measured if value is not None and value > 0]
    return statistics.median(positive) if positive else None


def same(a: Mapping[str, str], b: Mapping[str, str]) -> bool:
    """Whether two assignments name one configuration: ``3e-4`` and ``0.0003`` do."""

    def equal(x: str, y: str) -> bool:
        first, second = parse_finite(x), parse_finite(y)
        return x == y if first is None or second is None else first == second

    return a.keys() == b.keys() and all(equal(value, b[name]) for name, value in a.items())


def cost(goals: Goals, references: References, trial: Trial) -> float | None:
    """C of a trial; None where one of the terms that count was not measured, or no term counts."""
    total = 0.0
    for metric, reference in references.costs.items():
        measured = metric_of(trial, metric, goals.objective)
        if measured is None or measured < 0:
            return None
        total += goals.weights[metric] * min(measured / reference, LARGEST)
    return total if references.costs else None


def cost_aware_value(goals: Goals, references: References, trial: Trial) -> float | None:
    """F of a trial, smaller is better; L where no cost counts; None where it has no value or lacks a cost."""
    if trial.value is None:
        return None
    value = goals.sign * trial.value
    if not references.costs:
        return value
    spent = cost(goals, references, trial)
    largest = float(np.finfo(np.float64).max)
    return None if spent is None else min(max(value + goals.cost_weight * spent, -largest), largest)


def violations(goals: Goals, trial: Trial) -> tuple[float | None, ...]:
    """gⱼ of a trial for every constraint; None where the metric was not measured."""
    measured = [metric_of(trial, constraint.metric, goals.objective) for constraint in goals.constraints]
    return tuple(
        None if value is None else constraint.violation(value)
        for constraint, value in zip(goals.constraints, measured, strict=True)
    )


def is_feasible(goals: Goals, trial: Trial) -> bool | None:
    """Whether a trial keeps all bounds; None where that is not known (one was not measured, and none is broken)."""
    found = violations(goals, trial)
    if any(g is not None and g > 0 for g in found):
        return False
    return None if None in found or trial.value is None else True


@dataclass(frozen=True)
class Priced:
    """The trials that the Lagrangian L + λC + Σ μⱼ gⱼ is known of.

    Attributes:
        rows: their numbers (n).
        values: F.  # (n,)
        violations: g of the constraints that count.  # (n, j)
        columns: numbers of these constraints (j).
        left_out: metrics of bounds that too few trials report to count.
    """

    rows: tuple[int, ...]
    values: NDArray[np.float64]
    violations: NDArray[np.float64]
    columns: tuple[int, ...]
    left_out: tuple[str, ...]


def priced(goals: Goals, trials: Sequence[Trial]) -> Priced:
    """What the dual ascent needs (:func:`rankwise.strategies.dual.dual_ascent`), of all trials that have it."""
    kept, left_out = counted(dict.fromkeys(one.metric for one in goals.constraints), trials, goals.objective)
    columns = tuple(j for j, one in enumerate(goals.constraints) if one.metric in kept)
    references = reference_costs(goals, trials)
    rows, values, broken = [], [], []
    for i, trial in enumerate(trials):
        value = cost_aware_value(goals, references, trial)
        found = violations(goals, trial)
        of_counted = [g for j in columns if (g := found[j]) is not None]
        if value is not None and len(of_counted) == len(columns):
            rows.append(i)
            values.append(value)
            broken.append(of_counted)
    return Priced(
        tuple(rows),
        np.array(values, dtype=np.float64),
        np.array(broken, dtype=np.float64).reshape(len(rows), len(columns)),
        columns,
        tuple(left_out),
    )


def dual_by_trial(goals: Goals, trials: Sequence[Trial]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the dual ascent said after each trial of a search: the prices that its next suggestion was made with.

    Args:
        goals: with constraints.
        trials: in their order.

    Returns:
        Prices (t, J), one column a constraint of the goals, and dual bounds (t,); NaN before the first trial that the
        Lagrangian is known of, and for a constraint that does not count. References of costs are those of all trials.
    """
    known = priced(goals, trials)
    prices = np.full((len(trials), len(goals.constraints)), np.nan)
    bounds = np.full(len(trials), np.nan)
    done = 0
    for i in range(len(trials)):
        if done < len(known.rows) and known.rows[done] == i:
            done += 1
            path = dual_ascent(known.values[:done], known.violations[:done])
            prices[i, list(known.columns)] = path.prices
            bounds[i] = path.bound[-1]
        elif i:
            prices[i], bounds[i] = prices[i - 1], bounds[i - 1]
    return prices, bounds


def front_points(goals: Goals, trials: Sequence[Trial]) -> NDArray[np.float64]:
    """The trials in the front's metrics (n, m), the objective first, turned so that smaller is better; NaN: absent."""
    rows = [
        [
            math.nan if (value := metric_of(trial, traded.metric, goals.objective)) is None else traded.sign * value
            for traded in goals.traded
        ]
        for trial in trials
    ]
    return np.array(rows, dtype=np.float64).reshape(len(trials), len(goals.traded))


def pick(trials: Sequence[Trial], objective: Objective, budget: Sequence[Constraint]) -> int | None:
    """Number of the trial with the best value among those within a budget ("best below 8 GB").

    Args:
        trials: those of a front, or all: the best within a budget is on the front of the metrics that it bounds.
        objective: of the search.
        budget: bounds, see :func:`parse_constraints`. A trial that does not report a bounded metric is not within.

    Returns:
        None where no trial is within; of equal values the first.
    """
    goals = Goals(objective, constraints=tuple(budget))
    best: int | None = None
    for i, trial in enumerate(trials):
        if trial.value is None or is_feasible(goals, trial) is not True:
            continue
        leader = None if best is None else trials[best].value
        if leader is None or objective.better(trial.value, leader):
            best = i
    return best
