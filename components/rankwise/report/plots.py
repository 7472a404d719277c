"""The plots of a report, as plotly figures.

Colours are of Okabe and Ito's palette, which people with any common colour vision can tell apart; the best
configuration is always vermilion, the default always a black dash, failed trials always grey crosses. Lines and points
of many trials share few traces (their parts are separated by gaps), so that a thousand trials stay quick to draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from markupsafe import escape

from rankwise.report import words
from rankwise.report.analysis import Analysis, ranks
from rankwise.report.facts import ParameterFacts, SearchFacts, TrialFacts
from rankwise.report.scale import Axis, Scale, axis_of, value_axis
from rankwise.space.trial import Goal, TrialState

BLUE, VERMILION, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#9AA0A6", "#22262B"
LEVELS = ("#C9DCEA", "#9CC3DF", "#69A6CF", "#3586B8", "#0B5F96", "#083B5E")
"""From the worst sixth of the trials to the best one."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', Arial, sans-serif"
MAX_CURVES = 100
"""Training curves are drawn for at most this many trials: the best ones."""
MAX_CURVE_POINTS = 200
MAX_LINES = 150
"""The parallel plot has at most this many lines of trials with a value, evenly from the worst to the best; more of
them are one dark area."""
_LABEL = 15


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot of the page.

    Attributes:
        identifier: id of its element.
        figure: what to draw.
        label: what it shows, for people who cannot see it.
        min_width: pixels below which the plot scrolls rather than shrinks; 0 for none.
    """

    identifier: str
    figure: go.Figure
    label: str
    min_width: int = 0


def safe(text: str, length: int = 60) -> str:
    """A text for plotly, which reads ``<b>`` and the like as markup: escaped, in one line, cut to a length."""
    return str(escape(words.shorten(words.one_line(text), length)))


_AXIS = {
    "gridcolor": "#E6E8EB",
    "zeroline": False,
    "linecolor": "#B8BDC3",
    "title": {"font": {"size": 13}, "standoff": 10},
    "ticks": "outside",
    "tickcolor": "#B8BDC3",
    "automargin": True,
}
_BOX = {"family": FONT, "size": 13, "color": INK}


def _figure(height: int, **layout: object) -> go.Figure:
    """An empty figure in the report's design. One dictionary, since plotly checks anew at every update."""
    return go.Figure(
        layout={
            "template": "none",
            "height": height,
            "font": _BOX,
            "margin": {"l": 64, "r": 20, "t": 16, "b": 48},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "hoverlabel": {"bgcolor": "white", "font": _BOX, "align": "left"},
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
            "hovermode": "closest",
            "xaxis": {**_AXIS, "showgrid": False, "showline": True},
            "yaxis": _AXIS,
            **layout,
        }
    )


def _direction(facts: SearchFacts) -> str:
    return "lower is better" if facts.objective.goal is Goal.MINIMIZE else "higher is better"


def _describe(trial: TrialFacts, facts: SearchFacts) -> str:
    """A trial in a hover box: at most 12 parameters."""
    lines = [f"<b>{safe(trial.name, 40)}</b> ({trial.state.value.replace('_', ' ')})"]
    if trial.value is not None:
        lines.append(f"{safe(facts.objective.metric, 30)}: {words.number(trial.value)}")
    lines += [f"{safe(name, 30)}: {safe(text, 40)}" for name, text in list(trial.assignments.items())[:12]]
    return "<br>".join(lines)


def _value_axis_options(values: Sequence[float], title: str) -> dict[str, object]:
    """An axis just around the values; log where one diverging trial would press all others flat."""
    low, high = min(values), max(values)
    log = low > 0 and high / low > 20
    if log:
        low, high = math.log10(low), math.log10(high)
    margin = 0.06 * (high - low) or abs(low) * 0.1 or 1.0
    axis: dict[str, object] = {"title": {"text": title}, "range": [low - margin, high + margin]}
    return {**axis, "type": "log"} if log else axis


def history(facts: SearchFacts, analysis: Analysis) -> Plot | None:
    """Value of each trial, best so far, failures, the default's value and the target; None without a value."""
    values = [trial.value for trial in facts.trials if trial.value is not None]
    if not values:
        return None
    figure = _figure(380)
    numbered = list(enumerate(facts.trials, start=1))
    succeeded = [(i, t) for i, t in numbered if t.value is not None and t.state is TrialState.SUCCEEDED]
    stopped = [(i, t) for i, t in numbered if t.value is not None and t.state is not TrialState.SUCCEEDED]
    failed = [(i, t) for i, t in numbered if t.value is None and t.state.is_finished]
    size = 8 if len(values) <= 150 else 5
    marks = (
        ("trial", succeeded, {"color": BLUE, "size": size, "opacity": 0.75}),
        ("early stopped", stopped, {"color": BLUE, "size": size, "symbol": "circle-open", "line": {"width": 1.5}}),
    )
    for name, rows, marker in marks:
        if rows:
            figure.add_scatter(
                x=[i for i, _ in rows],
                y=[t.value for _, t in rows],
                mode="markers",
                name=name,
                marker=marker,
                text=[_describe(t, facts) for _, t in rows],
                hovertemplate="%{text}<extra></extra>",
            )
    figure.add_scatter(
        x=[i for i, _ in numbered],
        y=list(analysis.best_so_far),
        mode="lines",
        name="best so far",
        line={"color": VERMILION, "width": 2.5, "shape": "hv"},
        hovertemplate="best so far: %{y:.4g}<extra></extra>",
    )
    if failed:  # on an axis of their own, since they have no value
        figure.add_scatter(
            x=[i for i, _ in failed],
            y=[0.02] * len(failed),
            yaxis="y2",
            mode="markers",
            name="failed, no value",
            marker={"color": GREY, "size": 8, "symbol": "x-thin", "line": {"width": 2, "color": GREY}},
            text=[_describe(t, facts) for _, t in failed],
            hovertemplate="%{text}<extra></extra>",
        )
    values += _levels(figure, facts)
    last = len(facts.trials)
    figure.update_layout(
        xaxis={
            "title": {"text": "trial"},
            "range": [0.4, last + 0.6],
            "tickformat": "d",
            **({"dtick": 1} if last < 8 else {}),
        },
        yaxis=_value_axis_options(values, f"{safe(facts.objective.metric, 28)} on validation ({_direction(facts)})"),
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    )
    return Plot("plot-history", figure, f"{facts.objective.metric} of each trial and the best so far")


def _levels(figure: go.Figure, facts: SearchFacts) -> list[float]:
    """The default's value and the target as lines over the whole width; returns the values drawn."""
    ends = [0.5, len(facts.trials) + 0.5]
    default = facts.default_trial
    lines = (
        ("default configuration", default.value if default else None, "dash"),
        ("target", facts.objective.target, "dot"),
    )
    for name, value, dash in lines:
        if value is not None:
            figure.add_scatter(
                x=ends,
                y=[value, value],
                mode="lines",
                name=f"{name}: {words.number(value)}",
                line={"color": INK, "width": 1.3, "dash": dash},
                hovertemplate=f"{name}: {words.number(value)}<extra></extra>",
            )
    return [value for _, value, _ in lines if value is not None]


def _jitter(index: int, parameter: ParameterFacts) -> float:
    """A small offset that parts trials with one listed value: the golden-ratio sequence, so that it is always one."""
    if parameter.type not in ("discrete", "categorical"):
        return 0.0
    return 0.03 * ((index * 0.6180339887) % 1.0 - 0.5)


def parallel(facts: SearchFacts) -> Plot | None:
    """Every trial as a line through its parameters to its value; None without a value or a parameter."""
    valued = [(i, t) for i, t in enumerate(facts.trials) if t.value is not None]
    if not valued or not facts.parameters:
        return None
    axes = [axis_of(parameter) for parameter in facts.parameters]
    objective = value_axis([t.value for _, t in valued if t.value is not None])
    figure = _figure(460, margin={"l": 24, "r": 70, "t": 16, "b": 56})
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
        row.append(None if place is None else round(place + _jitter(index, parameter), 4))
    return row


def _value_text(facts: SearchFacts, trial: TrialFacts) -> str:
    value = "no value" if trial.value is None else f"{safe(facts.objective.metric, 30)}: {words.number(trial.value)}"
    return f"<b>{safe(trial.name, 40)}</b><br>{value}"


def _line_texts(facts: SearchFacts, trial: TrialFacts) -> list[str]:
    """One hover text a parameter, short because there is one for every bend of every line."""
    return [_parameter_text(facts, trial, parameter) for parameter in facts.parameters]


def _parameter_text(facts: SearchFacts, trial: TrialFacts, parameter: ParameterFacts) -> str:
    value = safe(trial.assignments.get(parameter.name, "–"), 40)
    return f"{_value_text(facts, trial)}<br>{safe(parameter.name, 30)}: {value}"


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
        text += [*_line_texts(facts, trial), _value_text(facts, trial), ""]
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


def importances(analysis: Analysis) -> Plot | None:
    """Bars of the parameters' importances; None when there are none."""
    shares = list(analysis.importances.shares.items())
    if not shares:
        return None
    shares.reverse()  # plotly draws the first bar at the bottom
    figure = _figure(max(150, 70 + 30 * len(shares)), margin={"l": 64, "r": 56, "t": 8, "b": 48})
    figure.add_bar(
        x=[share for _, share in shares],
        y=list(range(len(shares))),
        orientation="h",
        marker={"color": BLUE},
        width=0.62,
        text=[words.percent(share) for _, share in shares],
        textposition="outside",
        cliponaxis=False,
        hovertext=[f"{safe(name)}: {words.percent(share)}" for name, share in shares],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    figure.update_layout(
        xaxis={
            "title": {"text": f"importance ({analysis.importances.evaluator})"},
            "tickformat": ".0%",
            "rangemode": "tozero",
        },
        yaxis={"tickvals": list(range(len(shares))), "ticktext": [safe(name, 28) for name, _ in shares], "ticks": ""},
    )
    return Plot("plot-importances", figure, "Importance of each parameter")


def proxy(facts: SearchFacts, analysis: Analysis) -> Plot | None:
    """Training seconds of a trial beside those of the final runs; None when either was not measured."""
    cost = analysis.proxy
    if cost.trial_seconds is None or cost.full_seconds is None:
        return None
    bars: list[tuple[str, float, str]] = []
    for name, run in (("best, all data", facts.finals.best), ("default, all data", facts.finals.default)):
        if run is not None and run.cost.seconds is not None:
            bars.append((name, run.cost.seconds, GREY))
    bars.append(("trial (median)", cost.trial_seconds, BLUE))
    figure = _figure(70 + 42 * len(bars), margin={"l": 64, "r": 84, "t": 8, "b": 48})
    figure.add_bar(
        x=[value for _, value, _ in bars],
        y=[name for name, _, _ in bars],
        orientation="h",
        marker={"color": [colour for _, _, colour in bars]},
        width=0.62,
        text=[words.seconds(value) for _, value, _ in bars],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{text}<extra></extra>",
    )
    figure.update_layout(
        xaxis={"title": {"text": "training time in seconds"}, "rangemode": "tozero"}, yaxis={"ticks": ""}
    )
    return Plot("plot-proxy", figure, "Training time of a trial and of a full training")


def slices(facts: SearchFacts) -> list[Plot]:
    """One small plot for each parameter that took two values: value of the objective against it."""
    valued = [trial for trial in facts.trials if trial.value is not None]
    plots = []
    for index, parameter in enumerate(facts.parameters):
        axis = axis_of(parameter)
        rows = [
            (place, trial)
            for trial in valued
            if (text := trial.assignments.get(parameter.name)) is not None
            and (place := axis.place(text, parameter)) is not None
        ]
        if len({place for place, _ in rows}) >= 2:
            plots.append(_slice(facts, parameter, index, axis, rows))
    return plots


def _slice(
    facts: SearchFacts, parameter: ParameterFacts, index: int, axis: Axis, rows: list[tuple[float, TrialFacts]]
) -> Plot:
    figure = _figure(250, margin={"l": 52, "r": 36, "t": 10, "b": 48}, showlegend=False)
    best = facts.best
    groups = (
        ([row for row in rows if row[1] is not best], {"color": BLUE, "size": 6, "opacity": 0.55}),
        (
            [row for row in rows if row[1] is best],
            {"color": VERMILION, "size": 11, "symbol": "diamond", "line": {"color": "white", "width": 1}},
        ),
    )
    order = {id(trial): number for number, trial in enumerate(facts.trials)}
    for members, marker in groups:
        figure.add_scatter(
            x=[round(place + _jitter(order[id(trial)], parameter), 4) for place, trial in members],
            y=[trial.value for _, trial in members],
            mode="markers",
            marker=marker,
            text=[_parameter_text(facts, trial, parameter) for _, trial in members],
            hovertemplate="%{text}<extra></extra>",
        )
    values = [trial.value for _, trial in rows if trial.value is not None]
    log = " (log)" if axis.scale is Scale.LOG else ""
    marks = axis.marks
    if axis.scale is not Scale.CATEGORY and len(marks) > 5:  # a small plot has no room for more numbers
        marks = marks[:: math.ceil(len(marks) / 5)]
    figure.update_layout(
        xaxis={
            "title": {"text": safe(parameter.name, 32) + log},
            "tickvals": [axis.position(value) for value, _ in marks],
            "ticktext": [safe(text, 12) for _, text in marks],
            "tickangle": 0 if sum(len(text) + 2 for _, text in marks) <= 36 else 40,
            "ticklabeloverflow": "allow",
            "range": [-0.06, 1.06],
        },
        yaxis={**_value_axis_options(values, safe(facts.objective.metric, 24)), "nticks": 5},
    )
    return Plot(f"plot-slice-{index}", figure, f"{facts.objective.metric} against {parameter.name}")


def curves(facts: SearchFacts) -> Plot | None:
    """The objective's metric while each trial trained; None when no trial reported it twice."""
    metric = facts.objective.metric
    tracks = [(trial, _track(trial, metric)) for trial in facts.trials]
    tracks = [(trial, track) for trial, track in tracks if len(track) >= 2]
    if not tracks:
        return None
    worst = math.inf if facts.objective.goal is Goal.MINIMIZE else -math.inf

    def place(item: tuple[TrialFacts, object]) -> float:
        value = worst if item[0].value is None else item[0].value
        return value if facts.objective.goal is Goal.MINIMIZE else -value

    tracks = sorted(tracks, key=place)[:MAX_CURVES]
    best, default = facts.best, facts.default_trial
    marked = [
        ("default", default, {"color": INK, "width": 2, "dash": "dash"}),
        ("best", best, {"color": VERMILION, "width": 3}),
    ]
    figure = _figure(380)
    special = [trial for _, trial, _ in marked if trial is not None]
    groups = [
        (
            "trial",
            [x for x in tracks if x[0].value is not None and x[0] not in special],
            {"color": "#69A6CF", "width": 1.2},
        ),
        ("failed", [x for x in tracks if x[0].value is None], {"color": GREY, "width": 1.2, "dash": "dot"}),
        *((name, [x for x in tracks if x[0] is trial], line) for name, trial, line in marked),
    ]
    for name, members, line in groups:
        if members:
            _add_tracks(figure, facts, name, members, line)
    steps = all(report.step is not None for trial, _ in tracks for report in trial.history)
    values = [value for trial, track in tracks if trial.value is not None for _, value in track]
    values = values or [value for _, track in tracks for _, value in track]
    options = _value_axis_options(values, f"{safe(metric, 28)} ({_direction(facts)})")
    figure.update_layout(xaxis={"title": {"text": "step" if steps else "report"}, "rangemode": "tozero"}, yaxis=options)
    return Plot("plot-curves", figure, f"{metric} while each trial trained")


def _track(trial: TrialFacts, metric: str) -> list[tuple[int, float]]:
    points = [
        (index if report.step is None else report.step, report.metrics[metric])
        for index, report in enumerate(trial.history, start=1)
        if metric in report.metrics
    ]
    stride = max(1, math.ceil(len(points) / MAX_CURVE_POINTS))
    return points if stride == 1 else [*points[:-1:stride], points[-1]]


def _add_tracks(
    figure: go.Figure,
    facts: SearchFacts,
    name: str,
    members: Sequence[tuple[TrialFacts, list[tuple[int, float]]]],
    line: dict[str, object],
) -> None:
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial, track in members:
        x += [*(step for step, _ in track), None]
        y += [*(value for _, value in track), None]
        text += [*([safe(trial.name, 40)] * len(track)), ""]
    template = f"%{{text}}<br>{safe(facts.objective.metric, 30)}: %{{y:.4g}} at %{{x}}<extra></extra>"
    figure.add_scatter(x=x, y=y, text=text, mode="lines", name=name, line=line, hovertemplate=template)
