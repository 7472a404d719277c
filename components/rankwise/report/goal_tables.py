"""Costs, bounds, fronts and budget as sentences and rows of texts, the same ones in every form of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rankwise.report import words
from rankwise.report.analysis import Analysis
from rankwise.report.facts import SearchFacts
from rankwise.report.front import Front
from rankwise.report.goals import Bound
from rankwise.space.trial import Goal

KEEPS = {True: "kept", False: "violated", None: "not known"}
"""Whether a trial keeps all bounds, in a cell."""
_NAMED = 12
"""Trials whose numbers stand in a cell."""


def is_constrained_or_weighed(analysis: Analysis) -> bool:
    """Whether the search was for more than its objective."""
    goals = analysis.goals
    return bool(goals.cost or goals.bounds or goals.problem)


# ---------------------------------------------------------------------------------------------------------- costs


def cost_words(facts: SearchFacts, analysis: Analysis) -> str:
    """What F is, with its weights, references and units; "" where costs do not count."""
    cost = analysis.goals.cost
    if cost is None:
        return (
            f"The goals in the settings could not be read: {analysis.goals.problem}." if analysis.goals.problem else ""
        )
    loss = turned_name(facts)
    counting = [term for term in cost.terms if term.reference is not None]
    said = f"The search minimizes F = {loss} + {words.number(cost.weight)} · C. "
    if not counting:
        return said + "No trial measured a cost that has a weight, so F is the objective alone."
    shown = [
        f"{words.number(term.weight)} · {term.metric} / {words.amount(term.metric, term.reference)}"
        for term in counting
    ]
    said += f"C = {' + '.join(shown)}, without unit. "
    of_default = [term.metric for term in counting if term.of_default]
    of_trials = [term.metric for term in counting if not term.of_default]
    if of_default:
        said += f"The unit of {_listed(of_default)} is what the default configuration took. "
    if of_trials:
        said += f"The unit of {_listed(of_trials)} is the trials’ median, since no trial of a default measured it. "
    if left_out := [term.metric for term in cost.terms if term.reference is None]:
        said += f"Too few trials measured {_listed(left_out)} to count it. "
    return said.strip()


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def turned_name(facts: SearchFacts) -> str:
    """The objective as something to make small: ``loss``, ``−rougeL``."""
    objective = facts.objective
    return objective.metric if objective.goal is Goal.MINIMIZE else f"−{objective.metric}"


def cost_table(facts: SearchFacts, analysis: Analysis) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each trial's objective, costs as measured, their parts of C, C and F, the least F first."""
    cost = analysis.goals.cost
    if cost is None:
        return [], []
    metrics = [term.metric for term in cost.terms if term.reference is not None]
    header = ["#", "trial", facts.objective.metric, *metrics, *(f"part of {name}" for name in metrics), "C", "F"]
    points = {point.trial: point for point in analysis.fronts.points}
    numbered = list(zip(analysis.goals.numbers, cost.rows, strict=True))
    known = [(number, row) for number, row in numbered if row.trial in points]
    known.sort(key=lambda item: (item[1].value is None, item[1].value or 0.0, item[0]))
    rows = []
    for number, row in known:
        measured = {
            term.metric: row.parts[term.metric] / term.weight * term.reference
            for term in cost.terms
            if term.reference is not None and term.metric in row.parts
        }
        rows.append(
            [
                str(number),
                row.trial,
                words.number(points[row.trial].values.get(facts.objective.metric)),
                *(words.amount(name, measured.get(name)) for name in metrics),
                *(words.number(row.parts.get(name)) for name in metrics),
                words.number(row.cost),
                words.number(row.value),
            ]
        )
    return header, rows


# ---------------------------------------------------------------------------------------------------------- bounds


def bound_rows(analysis: Analysis) -> list[list[str]]:
    """Bound, in a person's unit, trials that keep it, numbers of those that violate it, whether it binds, price."""
    numbers = {point.trial: point.number for point in analysis.fronts.points}
    return [
        [
            one.text,
            words.amount(one.metric, one.limit),
            f"{one.kept:,}",
            _violators(one, numbers),
            _binds(one),
            words.number(one.price),
        ]
        for one in analysis.goals.bounds
    ]


BOUND_HEADER = ["bound", "that is", "kept by", "violated by", "binds", "price μ"]


def _violators(bound: Bound, numbers: Mapping[str, int]) -> str:
    if not bound.violated:
        return "none" if bound.counts else "not measured"
    more = len(bound.violated) - _NAMED
    named = ", ".join(f"#{numbers[name]}" for name in bound.violated[:_NAMED])
    return f"{len(bound.violated):,}: {named}" + (f" and {more:,} more" if more > 0 else "")


def _binds(bound: Bound) -> str:
    if not bound.counts:
        return "does not count: too few trials report it"
    return "–" if bound.binds is None else "yes" if bound.binds else "no"


def bound_words(analysis: Analysis) -> str:
    """How to read the table of bounds; "" without bounds."""
    method = analysis.goals.method
    if not method:
        return ""
    said = "The best trial is the best of those that keep all bounds. "
    if method == "lagrangian":
        return said + (
            "μ is the price of violating one whole bound, in units of what the search makes small, by dual ascent over "
            "the trials that were measured. A bound binds when the dual bound would be lower without its price. The "
            "dual bound is one over the measured trials: none of them that keeps all bounds is better than it, and it "
            "says nothing of configurations that were not tried. Before a trial keeps all bounds, neither is known."
        )
    return said + "A bound binds when a better trial would have been found without it."


# ----------------------------------------------------------------------------------------------------------- fronts


@dataclass(frozen=True, slots=True)
class FrontTable:
    """The front as a table.

    Attributes:
        header: number, trial, metrics, and on which fronts.
        rows: the configurations that are on any front, the best value of the objective first.
        has_whole: whether there is a front of more than two metrics.
    """

    header: list[str]
    rows: list[list[str]]
    has_whole: bool


def front_name(front: Front) -> str:
    """``loss and peak_memory_bytes``."""
    return _listed(list(front.metrics))


def front_table(facts: SearchFacts, analysis: Analysis) -> FrontTable:
    """Every configuration that is on a front, with what it costs."""
    fronts = analysis.fronts.fronts
    metrics = list(dict.fromkeys(metric for front in fronts for metric in front.metrics))
    on = {name: [front for front in fronts if name in front.trials] for front in fronts for name in front.trials}
    sign = 1.0 if facts.objective.goal is Goal.MINIMIZE else -1.0
    points = [point for point in analysis.fronts.points if point.trial in on]
    points.sort(key=lambda point: (sign * point.values[facts.objective.metric], point.number))
    rows = [
        [
            str(point.number),
            point.trial,
            *(words.amount(metric, point.values.get(metric)) for metric in metrics),
            ", ".join(_front_label(front) for front in on[point.trial]),
        ]
        for point in points
    ]
    return FrontTable(["#", "trial", *metrics, "on the front of"], rows, any(len(f.metrics) > 2 for f in fronts))


def _front_label(front: Front) -> str:
    return "all" if len(front.metrics) > 2 else front.metrics[1]


def pick_words(facts: SearchFacts, analysis: Analysis) -> str:
    """The best within the reader's budget, in a sentence; "" without a budget."""
    pick = analysis.fronts.pick
    if pick is None:
        return ""
    budget = " and ".join(pick.budget)
    if pick.trial is None:
        return f"No trial is known to be within the budget {budget}."
    number = next(i for i, trial in enumerate(facts.trials, start=1) if trial.name == pick.trial)
    assignments = facts.trials[number - 1].assignments
    reached = ", ".join(f"{name} {words.amount(name, value)}" for name, value in pick.values.items())
    settings = ", ".join(f"{name} {value}" for name, value in assignments.items())
    trials = words.plural(pick.within, "configuration")
    return f"Best within the budget {budget} ({trials} within): trial {number}, {pick.trial}: {reached}; {settings}."
