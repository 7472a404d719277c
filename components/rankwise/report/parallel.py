"""Parallel coordinates: every trial as a line through its parameters to its value."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from rankwise.report import words
from rankwise.report.analysis import ranks
from rankwise.report.facts import SearchFacts, TrialFacts
from rankwise.report.figure import GREY, INK, VERMILION, Plot, jitter, new_figure, parameter_text, safe, value_text
from rankwise.report.scale import Axis, axis_of, value_axis
from rankwise.space.trial import Goal

LEVELS = ("#C9DCEA", "#9CC3DF", "#69A6CF", "#3586B8", "#0B5F96", "#083B5E")
"""From the worst sixth of the trials to the best one."""
MAX_LINES = 150
"""The parallel plot has at most this many lines of trials with a value, evenly from the worst to the best; more of
them are one dark area."""
_LABEL = 15


def parallel(facts: SearchFacts) -> Plot | None:
    """Every trial as a line through its parameters to its value; None without a value or a parameter."""
    valued = [(i, t) for i, t in enumerate(facts.trials) if t.value is not None]
    if not valued or not facts.parameters:
        return None
    axes = [axis_of(parameter) for parameter in facts.parameters]
    objective = value_axis([t.value for _, t in valued if t.value is not None])
    figure = new_figure(460, margin={"l": 24, "r": 70, "t": 16, "b": 56})
    _add_failed(figure, facts, axes)
    valued, places = _sample(valued, facts)
    for level, colour in enumerate(LEVELS):
        rows = [
            (i, t)
            for (i, t), place in zip(valued, places, strict=True)
            if min(int(place * len(LEVELS)), len(LEVELS) - 1) == level
        ]
        last = level == len(LEVELS) - 1
        name = "worst sixth" if level == 0 else "best sixth" if last else f"level {level + 1}"
        _add_lines(figure, facts, axes, objective, rows, name, {"color": colour, "width": 1.4}, level == 0 or last)
    default, best = facts.default_trial, facts.best
    if default is not None:
        row = [(facts.trials.index(default), default)]
        _add_lines(figure, facts, axes, objective, row, "default", {"color": INK, "width": 2, "dash": "dash"}, True)
    if best is not None:
        row = [(facts.trials.index(best), best)]
        _add_lines(figure, facts, axes, objective, row, "best", {"color": VERMILION, "width": 3}, True)
    names = [*(parameter.name for parameter in facts.parameters), facts.objective.metric]
    drawn = list(enumerate([*axes, objective]))
    figure.update_layout(
        shapes=[_axis_line(position) for position, _ in drawn],
        annotations=[mark for position, axis in drawn for mark in _axis_marks(position, axis)],
        xaxis={
            "tickvals": list(range(len(names))),
            "ticktext": ["<br>".join(safe(part, _LABEL) for part in _wrap(name)) for name in names],
            "range": [-0.15, len(names) - 0.7],
            "tickangle": 0,
            "showline": False,
            "ticks": "",
            "fixedrange": True,
        },
        yaxis={"range": [-0.04, 1.04], "visible": False, "fixedrange": True},
    )
    width = max(640, 105 * len(names))
    return Plot("plot-parallel", figure, "Parameters and value of each trial as one line", width)


def _sample(rows: list[tuple[int, TrialFacts]], facts: SearchFacts) -> tuple[list[tuple[int, TrialFacts]], list[float]]:
    """At most MAX_LINES trials with their places among all, evenly over the places; the worst and best stay in."""
    places = ranks([t.value for _, t in rows if t.value is not None], facts.objective.goal is Goal.MINIMIZE)
    order = sorted(range(len(rows)), key=lambda i: (places[i], i))
    if len(order) > MAX_LINES:
        order = [order[round(i * (len(order) - 1) / (MAX_LINES - 1))] for i in range(MAX_LINES)]
    return [rows[i] for i in order], [places[i] for i in order]


def _wrap(name: str) -> list[str]:
    """A parameter's name in up to two lines, parted at a dash or an underscore."""
    name = words.one_line(name)
    if len(name) <= 12:
        return [name]
    marks = [i for i, character in enumerate(name) if character in "-_ ." and 0 < i < len(name) - 1]
    if not marks:
        return [name]
    middle = min(marks, key=lambda i: abs(i - len(name) / 2))
    return [name[: middle + 1], name[middle + 1 :]]


def _line(facts: SearchFacts, axes: Sequence[Axis], index: int, trial: TrialFacts) -> list[float | None]:
    row: list[float | None] = []
    for parameter, axis in zip(facts.parameters, axes, strict=True):
        text = trial.assignments.get(parameter.name)
        place = None if text is None else axis.place(text, parameter)
        row.append(None if place is None else round(place + jitter(index, parameter), 4))
    return row


def _line_texts(facts: SearchFacts, trial: TrialFacts) -> list[str]:
    return [parameter_text(facts, trial, parameter) for parameter in facts.parameters]


def _add_lines(
    figure: go.Figure,
    facts: SearchFacts,
    axes: Sequence[Axis],
    objective: Axis,
    rows: Sequence[tuple[int, TrialFacts]],
    name: str,
    line: dict[str, object],
    legend: bool,
) -> None:
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for index, trial in rows:
        end = None if trial.value is None else objective.position(trial.value)
        y += [*_line(facts, axes, index, trial), end, None]
        x += [*range(len(axes) + 1), None]
        text += [*_line_texts(facts, trial), value_text(facts, trial), ""]
    figure.add_scatter(
        x=x, y=y, text=text, mode="lines", name=name, line=line, showlegend=legend and bool(rows), connectgaps=False,
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _add_failed(figure: go.Figure, facts: SearchFacts, axes: Sequence[Axis]) -> None:
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    failed = [(i, t) for i, t in enumerate(facts.trials) if t.value is None and t.state.is_finished]
    for index, trial in failed[:: math.ceil(len(failed) / MAX_LINES) or 1]:
        if axes:
            x += [*range(len(axes)), None]
            y += [*_line(facts, axes, index, trial), None]
            text += [*_line_texts(facts, trial), ""]
    if x:
        figure.add_scatter(
            x=x, y=y, text=text, mode="lines", name="failed", line={"color": GREY, "width": 1, "dash": "dot"},
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip


def _axis_line(position: int) -> dict[str, object]:
    line = {"color": "#80868B", "width": 1}
    return {"type": "line", "x0": position, "x1": position, "y0": 0, "y1": 1, "line": line, "layer": "below"}


def _axis_marks(position: int, axis: Axis) -> list[dict[str, object]]:
    return [
        {
            "x": position,
            "y": axis.position(value),
            "text": safe(text, 14),
            "showarrow": False,
            "xanchor": "left",
            "xshift": 4,
            "font": {"size": 11, "color": INK},
            "bgcolor": "rgba(255,255,255,0.75)",
            "borderpad": 1,
        }
        for value, text in axis.marks
    ]
