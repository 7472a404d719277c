"""The plots of a report but the parallel coordinates, as plotly figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from rankwise.report import words
from rankwise.report.analysis import Analysis
from rankwise.report.facts import ParameterFacts, SearchFacts, TrialFacts
from rankwise.report.figure import (
    BLUE,
    GREY,
    INK,
    PURPLE,
    VERMILION,
    Plot,
    describe,
    direction,
    jitter,
    new_figure,
    parameter_text,
    safe,
    trial_axis,
    value_axis_options,
)
from rankwise.report.scale import Axis, Scale, axis_of
from rankwise.space.trial import Goal, TrialState

MAX_CURVES = 100
"""Training curves are drawn for at most this many trials: the best ones."""
MAX_CURVE_POINTS = 200


def history(facts: SearchFacts, analysis: Analysis) -> Plot | None:
    """Value of each trial, best so far, failures, the default's value and the target; None without a value."""
    values = [trial.value for trial in facts.trials if trial.value is not None]
    if not values:
        return None
    figure = new_figure(380)
    numbered = list(enumerate(facts.trials, start=1))
    violating = {name for name, keeps in analysis.goals.keeps.items() if not keeps}
    valued = [(i, t) for i, t in numbered if t.value is not None and t.name not in violating]
    succeeded = [(i, t) for i, t in valued if t.state is TrialState.SUCCEEDED]
    stopped = [(i, t) for i, t in valued if t.state is not TrialState.SUCCEEDED]
    outside = [(i, t) for i, t in numbered if t.value is not None and t.name in violating]
    failed = [(i, t) for i, t in numbered if t.value is None and t.state.is_finished]
    size = 8 if len(values) <= 150 else 5
    marks = (
        ("trial", succeeded, {"color": BLUE, "size": size, "opacity": 0.75}),
        ("early stopped", stopped, {"color": BLUE, "size": size, "symbol": "circle-open", "line": {"width": 1.5}}),
        (
            "violates a bound",
            outside,
            {"color": PURPLE, "size": size + 1, "symbol": "x-thin", "line": {"width": 2, "color": PURPLE}},
        ),
    )
    for name, rows, marker in marks:
        if rows:
            figure.add_scatter(
                x=[i for i, _ in rows],
                y=[t.value for _, t in rows],
                mode="markers",
                name=name,
                marker=marker,
                text=[describe(t, facts) for _, t in rows],
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
            text=[describe(t, facts) for _, t in failed],
            hovertemplate="%{text}<extra></extra>",
        )
    values += _levels(figure, facts)
    figure.update_layout(
        xaxis=trial_axis(len(facts.trials)),
        yaxis=value_axis_options(values, f"{safe(facts.objective.metric, 28)} on validation ({direction(facts)})"),
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


def importances(analysis: Analysis) -> Plot | None:
    """Bars of the parameters' importances; None when there are none."""
    shares = list(analysis.importances.shares.items())
    if not shares:
        return None
    shares.reverse()  # plotly draws the first bar at the bottom
    figure = new_figure(max(150, 70 + 30 * len(shares)), margin={"l": 64, "r": 56, "t": 8, "b": 48})
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
    for name, run in (("best, final run", facts.finals.best), ("default, final run", facts.finals.default)):
        if run is not None and run.cost.seconds is not None:
            bars.append((name, run.cost.seconds, GREY))
    bars.append(("trial (median)", cost.trial_seconds, BLUE))
    figure = new_figure(70 + 42 * len(bars), margin={"l": 64, "r": 84, "t": 8, "b": 48})
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
    return Plot("plot-proxy", figure, "Training time of a trial and of the final runs")


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
    figure = new_figure(250, margin={"l": 52, "r": 36, "t": 10, "b": 48}, showlegend=False)
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
            x=[round(place + jitter(order[id(trial)], parameter), 4) for place, trial in members],
            y=[trial.value for _, trial in members],
            mode="markers",
            marker=marker,
            text=[parameter_text(facts, trial, parameter) for _, trial in members],
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
        yaxis={**value_axis_options(values, safe(facts.objective.metric, 24)), "nticks": 5},
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
    figure = new_figure(380)
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
    options = value_axis_options(values, f"{safe(metric, 28)} ({direction(facts)})")
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
