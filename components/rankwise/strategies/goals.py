"""What a search is for beside the objective itself: what it costs, bounds that it keeps, a front. The settings.

Strategies and reports read them with the same function, and what follows from them for trials stands in
:mod:`rankwise.strategies.costs`, so that the two cannot disagree.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rankwise.errors import InvalidInput, Problem
from rankwise.space.search_space import SearchSpace
from rankwise.space.trial import Goal, Objective, parse_finite
from rankwise.strategies.options import Option, OptionTable

SECONDS, MEMORY, ENERGY = "seconds", "peak_memory_bytes", "energy_joules"
LARGEST = 1e6
"""Ratios of costs and relative violations beyond it count as this: sums of them stay finite."""
MAX_TRADED = 3
"""Further metrics of a front, at most: the cells of the dominated region grow exponentially with their number."""


class ConstraintMethod(enum.Enum):
    """Names as in the option ``constraint_method``."""

    FEASIBILITY = "feasibility"
    LAGRANGIAN = "lagrangian"


_TERMS = (("cost_seconds", SECONDS, 1.0), ("cost_memory", MEMORY, 0.0), ("cost_energy", ENERGY, 0.0))
"""Option, metric, default. Time alone by default: every trial can measure it, whatever it runs on."""

GOAL_OPTIONS = (
    Option(
        "cost_weight",
        float,
        0.0,
        "λ of the cost-aware objective L + λ (α T/T₀ + β M/M₀ + γ E/E₀): so much of the objective a training of the "
        "reference's cost is worth; the reference is what `default_configuration` cost, else the median of the trials",
        0.0,
        1e9,
    ),
    *(
        Option(name, float, default, f"{letter}, the weight of `{metric}` in the cost", 0.0, 1e6)
        for letter, (name, metric, default) in zip("αβγ", _TERMS, strict=True)
    ),
    Option(
        "constraints",
        str,
        "",
        "bounds that a configuration has to keep, separated by commas, on the objective or additionalMetricNames: "
        "`peak_memory_bytes<=8GB, seconds<=10min, rouge1>=0.36`; units: s, min, h; B, kB, MB, GB, TB, KiB, MiB, GiB, "
        "TiB; J, kJ, MJ, Wh, kWh",
    ),
    Option(
        "constraint_method",
        str,
        ConstraintMethod.FEASIBILITY.value,
        "`feasibility` (expected improvement times the probability that all bounds are kept) or `lagrangian` (the "
        "models see L + λC + Σ μ g, with prices μ from dual ascent over the trials)",
        choices=tuple(method.value for method in ConstraintMethod),
    ),
    Option(
        "pareto",
        str,
        "",
        f"at most {MAX_TRADED} metrics to trade off against the objective, separated by commas: `seconds, "
        "peak_memory_bytes, rouge1:maximize`; the search then looks for the whole front, with the numbers alone",
    ),
    Option(
        "default_configuration",
        str,
        "",
        'the configuration to compare with, a JSON object: {"learning_rate": 5e-5, "rank": 8}; it is the first '
        "trial, and its cost the unit of the others'",
    ),
)
"""Settings that strategies share which know goals."""

_TABLE = OptionTable(GOAL_OPTIONS)
_UNITS = {
    "seconds": {"s": 1.0, "min": 60.0, "h": 3600.0},
    "bytes": {
        "B": 1.0,
        "kB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
        "TB": 1e12,
        "KiB": 2.0**10,
        "MiB": 2.0**20,
        "GiB": 2.0**30,
        "TiB": 2.0**40,
    },
    "joules": {"J": 1.0, "kJ": 1e3, "MJ": 1e6, "Wh": 3.6e3, "kWh": 3.6e6},
}
"""Word in a metric's name -> its units in the metric's own."""
_BOUND = re.compile(r"([\w|./-]+?)\s*(<=|>=|≤|≥)\s*([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)")
_BOUND_ALLOWED = "METRIC<=NUMBER or METRIC>=NUMBER, separated by commas, such as peak_memory_bytes<=8GB"


@dataclass(frozen=True, slots=True)
class Constraint:
    """One bound on a metric.

    Attributes:
        metric: its name.
        bound: in the metric's own unit.
        at_most: whether the metric must not be larger than the bound, or not smaller.
    """

    metric: str
    bound: float
    at_most: bool = True

    def __str__(self) -> str:
        return f"{self.metric} {'<=' if self.at_most else '>='} {self.bound:.15g}"

    def violation(self, value: float) -> float:
        """g of a metric's value: more than 0 where the bound is broken; in parts of the bound (of 1 for a bound of 0).

        Between −:data:`LARGEST` and :data:`LARGEST`.
        """
        beyond = value - self.bound if self.at_most else self.bound - value
        return min(max(beyond / (abs(self.bound) or 1.0), -LARGEST), LARGEST)


@dataclass(frozen=True, slots=True)
class Traded:
    """One metric of a front."""

    metric: str
    goal: Goal = Goal.MINIMIZE

    @property
    def sign(self) -> float:
        """What values are multiplied with so that smaller is better."""
        return 1.0 if self.goal is Goal.MINIMIZE else -1.0


@dataclass(frozen=True)
class Goals:
    """What a search is for.

    Attributes:
        objective: the Experiment's own.
        cost_weight: λ.
        weights: metric -> α, β or γ, those that are not 0; empty where λ is 0.
        constraints: in the order of the setting.
        method: what is made of them.
        traded: the front's metrics with the objective first; empty where no front is looked for.
        default: the default configuration; None where none is given.
    """

    objective: Objective
    cost_weight: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)
    constraints: tuple[Constraint, ...] = ()
    method: ConstraintMethod = ConstraintMethod.FEASIBILITY
    traded: tuple[Traded, ...] = ()
    default: Mapping[str, str] | None = None

    @property
    def sign(self) -> float:
        """What the objective's value is multiplied with so that smaller is better."""
        return 1.0 if self.objective.goal is Goal.MINIMIZE else -1.0


# ------------------------------------------------------------------------------------------------------- settings


def read_goals(
    settings: Mapping[str, str],
    objective: Objective,
    space: SearchSpace | None = None,
    path: str = "spec.algorithm.algorithmSettings",
) -> Goals:
    """The goals that an Experiment's settings name.

    Args:
        settings: raw ``algorithmSettings``; others than :data:`GOAL_OPTIONS` are not looked at.
        objective: of the Experiment. Katib delivers its metric and the additional ones and no others.
        space: which has to contain the default configuration; None: it is not checked.
        path: where the settings stand in the user's file, for messages.

    Raises:
        InvalidInput: with every mistake in them.
    """
    names = {option.name for option in _TABLE}
    options = _TABLE.parse({name: text for name, text in settings.items() if name in names}, path)
    delivered = (objective.metric, *objective.additional_metrics)
    problems: list[Problem] = []

    def text(name: str) -> str:
        return options.text(name).strip()

    weight = options.number("cost_weight")
    weights = {metric: options.number(name) for name, metric, _ in _TERMS if weight > 0 and options.number(name) > 0}
    if weight > 0 and not weights:
        allowed = "0, or one of " + ", ".join(f"{name} greater than 0" for name, _, _ in _TERMS)
        problems.append(Problem(f"{path}.cost_weight", f"{weight:g}", allowed))
    for name, metric, _ in _TERMS:
        if metric in weights and metric not in delivered:
            allowed = f"0, or {metric} among spec.objective.additionalMetricNames (Katib delivers no other metrics)"
            problems.append(Problem(f"{path}.{name}", f"{weights[metric]:g}", allowed))
    constraints = _constraints(text("constraints"), delivered, f"{path}.constraints", problems)
    traded = _traded(text("pareto"), objective, f"{path}.pareto", problems)
    method = ConstraintMethod(options.text("constraint_method"))
    if traded and weight > 0:
        said = "0 beside pareto: a front shows every trade-off, and needs no weight"
        problems.append(Problem(f"{path}.cost_weight", f"{weight:g}", said))
    if traded and constraints and method is ConstraintMethod.LAGRANGIAN:
        said = "feasibility beside pareto: a front has no price"
        problems.append(Problem(f"{path}.constraint_method", method.value, said))
    default = _default(text("default_configuration"), space, f"{path}.default_configuration", problems)
    if problems:
        raise InvalidInput(problems)
    return Goals(objective, weight, weights, tuple(constraints), method, traded, default)


def parse_constraints(text: str, delivered: Sequence[str] | None = None, path: str = "constraints") -> list[Constraint]:
    """Bounds from a text such as ``peak_memory_bytes<=8GB, seconds<=10min``; none of an empty one.

    Args:
        text: bounds, separated by commas.
        delivered: names that they may have; None for any.
        path: where the text stands, for messages.

    Raises:
        InvalidInput: with every mistake in it.
    """
    problems: list[Problem] = []
    found = _constraints(text, delivered, path, problems)
    if problems:
        raise InvalidInput(problems)
    return found


def _constraints(text: str, delivered: Sequence[str] | None, path: str, problems: list[Problem]) -> list[Constraint]:
    found: list[Constraint] = []
    if not text.strip():
        return found
    for part in text.split(","):
        given = part.strip()
        match = _BOUND.fullmatch(given)
        number = None if match is None else parse_finite(match[3])
        if match is None or number is None:
            problems.append(Problem(path, given, _BOUND_ALLOWED))
            continue
        metric, at_most = match[1], match[2] in ("<=", "≤")
        units = next((units for word, units in _UNITS.items() if word in metric), {})
        scale = units.get(match[4], 1.0 if not match[4] else math.nan)
        bound = number * scale
        if not math.isfinite(bound):
            allowed = f"a number, alone or with one of the units {', '.join(units)}" if units else "a number, no unit"
            problems.append(Problem(path, given, allowed))
        elif delivered is not None and metric not in delivered:
            problems.append(Problem(path, given, _metrics_allowed(delivered)))
        elif any(one.metric == metric and one.at_most == at_most for one in found):
            problems.append(Problem(path, given, "each bound once"))
        else:
            found.append(Constraint(metric, bound, at_most))
    problems += [
        Problem(path, f"{low}, {high}", "bounds that can be kept together")
        for low in found
        for high in found
        if low.metric == high.metric and high.at_most and not low.at_most and low.bound > high.bound
    ]
    return found


def _metrics_allowed(delivered: Sequence[str]) -> str:
    """What is said of a metric that does not reach the search."""
    return f"a metric of the Experiment: {', '.join(delivered)} (add others to spec.objective.additionalMetricNames)"


def _traded(text: str, objective: Objective, path: str, problems: list[Problem]) -> tuple[Traded, ...]:
    if not text:
        return ()
    found = [Traded(objective.metric, objective.goal)]
    for part in text.split(","):
        given = part.strip()
        metric, colon, direction = (word.strip() for word in given.partition(":"))
        if not metric or (colon and direction not in ("minimize", "maximize")):
            problems.append(Problem(path, given, "METRIC, METRIC:minimize or METRIC:maximize, separated by commas"))
        elif metric not in objective.additional_metrics:
            problems.append(Problem(path, given, _metrics_allowed(objective.additional_metrics or ("none so far",))))
        elif any(one.metric == metric for one in found):
            problems.append(Problem(path, given, "each metric once"))
        else:
            found.append(Traded(metric, Goal(direction or "minimize")))
    if len(found) > 1 + MAX_TRADED:
        problems.append(Problem(path, text, f"at most {MAX_TRADED} metrics beside the objective"))
    return tuple(found)


def _default(text: str, space: SearchSpace | None, path: str, problems: list[Problem]) -> dict[str, str] | None:
    if not text:
        return None
    allowed = 'a JSON object of parameter values such as {"learning_rate": 5e-5, "rank": 8}'
    try:
        # Numbers keep the digits that the user wrote.
        given = json.loads(text, parse_float=str, parse_int=str)
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        problems.append(Problem(path, text, allowed))
        return None
    if space is None:
        return given
    mistakes = [
        Problem(f"{path}.{name}", given.get(name, ""), parameter.allowed)
        for name, parameter in zip(space.names, space.parameters, strict=True)
        if name not in given or not parameter.contains(given[name])
    ]
    known = ", ".join(space.names)
    mistakes += [
        Problem(f"{path}.{name}", value, f"one of the parameters {known}")
        for name, value in given.items()
        if name not in space.names
    ]
    problems += mistakes
    return None if mistakes else given
