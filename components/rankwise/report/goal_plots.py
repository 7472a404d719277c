"""Plots of costs, bounds and fronts, as plotly figures."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from rankwise.report import words
from rankwise.report.analysis import Analysis
from rankwise.report.facts import SearchFacts
from rankwise.report.figure import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    VERMILION,
    Plot,
    direction,
    new_figure,
    safe,
    trial_axis,
    value_axis_options,
)
from rankwise.report.front import Front, FrontPoint
from rankwise.report.goal_tables import turned_name
from rankwise.space.trial import Goal

_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, INK)
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_UNITS = (("bytes", 2.0**30, "GiB"), ("bytes", 2.0**20, "MiB"), ("seconds", 60.0, "min"), ("joules", 1e3, "kJ"))
_PLAIN = {"bytes": "B", "seconds": "s", "joules": "J"}


def unit_of(metric: str, values: Sequence[float]) -> tuple[float, str]:
    """What a metric's values are divided by on an axis, and the axis' title: ``(2**30, "peak memory bytes in GiB")``.

    A larger unit is taken where half of the values are at least one of it (seconds: five of it).
    """
    parts = metric.lower().split("_")
    middle = sorted(abs(value) for value in values)[len(values) // 2] if values else 0.0
    for word, size, unit in _UNITS:
        if word in parts and middle >= size * (5 if word == "seconds" else 1):
            return size, f"{safe(metric, 32)} in {unit}"
    unit = next((unit for word, unit in _PLAIN.items() if word in parts), "")
    return 1.0, safe(metric, 32) + (f" in {unit}" if unit else "")


# ------------------------------------------------------------------------------------------------ cost against value


def cost_against_value(facts: SearchFacts, analysis: Analysis) -> list[Plot]:
    """One small plot for each cost: value of the objective against it, with the front of the two."""
    fronts = analysis.fronts.fronts
    whole = next((front for front in fronts if len(front.metrics) > 2), None)
    return [
        _pair(facts, analysis, front, whole, index)
        for index, front in enumerate(front for front in fronts if len(front.metrics) == 2)
    ]


def _pair(facts: SearchFacts, analysis: Analysis, front: Front, whole: Front | None, index: int) -> Plot:
    own, other = front.metrics
    points = [p for p in analysis.fronts.points if own in p.values and other in p.values]
    size, title = unit_of(other, [point.values[other] for point in points])
    figure = new_figure(300, margin={"l": 56, "r": 16, "t": 10, "b": 48})
    on = [point for point in points if point.trial in front.trials]
    best, default = facts.best, facts.default_trial
    marked = {trial.name for trial in (best,) if trial is not None}
    groups: list[tuple[str, list[FrontPoint], dict[str, object]]] = [
        (
            "violates a bound",
            [p for p in points if not p.feasible],
            {"color": PURPLE, "size": 8, "symbol": "x-thin", "line": {"width": 2, "color": PURPLE}},
        ),
        (
            "trial",
            [p for p in points if p.feasible and p not in on and p.trial not in marked],
            {"color": BLUE, "size": 6, "opacity": 0.6},
        ),
        ("on the front", [p for p in on if p.trial not in marked], {"color": BLUE, "size": 9}),
        (
            "default",
            [p for p in points if default is not None and p.trial == default.name],
            {"color": "rgba(0,0,0,0)", "size": 15, "line": {"color": INK, "width": 1.6}},
        ),
        (
            "best",
            [p for p in points if p.trial in marked],
            {"color": VERMILION, "size": 12, "symbol": "diamond", "line": {"color": "white", "width": 1}},
        ),
    ]
    if whole is not None:
        ringed = {"color": "rgba(0,0,0,0)", "size": 12, "line": {"color": GREEN, "width": 1.6}}
        groups.insert(3, ("on the front of all", [p for p in points if p.trial in whole.trials], ringed))
    _add_stairs(figure, front, on, size)
    for name, members, marker in groups:
        if members:
            figure.add_scatter(
                x=[p.values[other] / size for p in members],
                y=[p.values[own] for p in members],
                mode="markers",
                name=name,
                marker=marker,
                text=[_point_text(p, (own, other)) for p in members],
                hovertemplate="%{text}<extra></extra>",
            )
    options = value_axis_options([p.values[other] / size for p in points], title)
    figure.update_layout(
        xaxis={**options, "nticks": 6},
        yaxis={
            **value_axis_options([p.values[own] for p in points], f"{safe(own, 20)} ({direction(facts)})"),
            "nticks": 6,
        },
        showlegend=False,
    )
    return Plot(f"plot-front-{index}", figure, f"{own} against {other} with the Pareto front")


def _add_stairs(figure: go.Figure, front: Front, on: Sequence[FrontPoint], size: float) -> None:
    """The border of what the front dominates, from its cheapest to its best point."""
    own, other = front.metrics
    ordered = sorted(on, key=lambda point: (point.values[other], point.values[own]))
    if Goal(front.goals[1]) is Goal.MAXIMIZE:
        ordered.reverse()
    figure.add_scatter(
        x=[p.values[other] / size for p in ordered],
        y=[p.values[own] for p in ordered],
        mode="lines",
        name="Pareto front",
        line={"color": BLUE, "width": 1.5, "shape": "hv"},
        hoverinfo="skip",
    )


def _point_text(point: FrontPoint, metrics: Sequence[str]) -> str:
    lines = [f"<b>{point.number}: {safe(point.trial, 40)}</b>"]
    lines += [f"{safe(name, 30)}: {words.amount(name, point.values[name])}" for name in metrics]
    return "<br>".join(lines)


def hypervolume(facts: SearchFacts, analysis: Analysis) -> Plot | None:
    """The hypervolume of each front by trial; None without a front."""
    fronts = analysis.fronts.fronts[: len(_COLOURS)]
    numbers = [point.number for point in analysis.fronts.points]
    if not fronts or len(numbers) < 2:
        return None
    figure = new_figure(300)
    for front, colour, dash in zip(fronts, _COLOURS, _DASHES, strict=False):
        name = " and ".join(safe(metric, 24) for metric in front.metrics)
        figure.add_scatter(
            x=numbers,
            y=list(front.hypervolumes),
            mode="lines+markers" if len(numbers) <= 60 else "lines",
            name=name + (" (searched for)" if front.searched else ""),
            line={"color": colour, "width": 2, "shape": "hv", "dash": dash},
            marker={"size": 4},
            hovertemplate=f"{name}: %{{y:.1%}} at trial %{{x}}<extra></extra>",
        )
    figure.update_layout(
        xaxis=trial_axis(len(facts.trials)),
        yaxis={"title": {"text": "hypervolume"}, "tickformat": ".0%", "rangemode": "tozero"},
    )
    return Plot("plot-hypervolume", figure, "Hypervolume of the Pareto fronts by trial")


# ------------------------------------------------------------------------------------------------------------- goals


def cost_aware(facts: SearchFacts, analysis: Analysis) -> Plot | None:
    """F of each trial and the least so far; None where costs do not count, or nothing has an F."""
    cost = analysis.goals.cost
    if cost is None or all(row.value is None for row in cost.rows):
        return None
    rows = [(n, row) for n, row in zip(analysis.goals.numbers, cost.rows, strict=True) if row.value is not None]
    keeps = analysis.goals.keeps
    figure = new_figure(320)
    groups = (
        ("trial", [item for item in rows if keeps.get(item[1].trial) is not False], {"color": BLUE, "size": 8}),
        (
            "violates a bound",
            [item for item in rows if keeps.get(item[1].trial) is False],
            {"color": PURPLE, "size": 9, "symbol": "x-thin", "line": {"width": 2, "color": PURPLE}},
        ),
    )
    for name, members, marker in groups:
        if members:
            figure.add_scatter(
                x=[number for number, _ in members],
                y=[row.value for _, row in members],
                mode="markers",
                name=name,
                marker=marker,
                text=[f"<b>{safe(row.trial, 40)}</b><br>F: {words.number(row.value)}" for _, row in members],
                hovertemplate="%{text}<extra></extra>",
            )
    _add_best(figure, analysis.goals.ranks)
    values = [row.value for _, row in rows if row.value is not None]
    figure.update_layout(
        xaxis=trial_axis(len(facts.trials)),
        yaxis=value_axis_options(values, f"F = {safe(turned_name(facts), 20)} + λ C (lower is better)"),
    )
    return Plot("plot-cost-aware", figure, "Cost-aware value of each trial and the least so far")


def _add_best(figure: go.Figure, ranks: Sequence[float | None], **line: object) -> None:
    figure.add_scatter(
        x=list(range(1, len(ranks) + 1)),
        y=list(ranks),
        mode="lines",
        name="best so far",
        line={"color": VERMILION, "width": 2.5, "shape": "hv", **line},
        hovertemplate="best so far: %{y:.4g}<extra></extra>",
    )


def prices(facts: SearchFacts, analysis: Analysis) -> list[Plot]:
    """The prices of the bounds, and the dual bound beside the best feasible value, by trial; none without prices."""
    dual = analysis.goals.dual
    if dual is None:
        return []
    numbers = list(analysis.goals.numbers)
    figure = new_figure(280)
    for j, bound in enumerate(analysis.goals.bounds):
        if bound.counts:
            name = safe(bound.text, 40)
            figure.add_scatter(
                x=numbers,
                y=[row[j] for row in dual.prices],
                mode="lines+markers" if len(numbers) <= 60 else "lines",
                name=name,
                line={
                    "color": _COLOURS[j % len(_COLOURS)],
                    "width": 2,
                    "dash": _DASHES[j % len(_DASHES)],
                    "shape": "hv",
                },
                marker={"size": 4},
                hovertemplate=f"μ of {name}: %{{y:.4g}} after trial %{{x}}<extra></extra>",
            )
    figure.update_layout(
        xaxis=trial_axis(len(facts.trials)),
        yaxis={"title": {"text": "price μ"}, "rangemode": "tozero"},
        showlegend=True,
    )
    gap = new_figure(280)
    gap.add_scatter(
        x=numbers,
        y=list(dual.bounds),
        mode="lines+markers" if len(numbers) <= 60 else "lines",
        name="dual bound",
        line={"color": INK, "width": 2, "dash": "dash", "shape": "hv"},
        marker={"size": 4},
        hovertemplate="dual bound: %{y:.4g} after trial %{x}<extra></extra>",
    )
    _add_best(gap, analysis.goals.ranks)
    title = ("F" if analysis.goals.cost else safe(turned_name(facts), 28)) + " (lower is better)"
    values = [value for value in (*dual.bounds, *analysis.goals.ranks) if value is not None]
    gap.update_layout(xaxis=trial_axis(len(facts.trials)), yaxis=value_axis_options(values or [0.0], title))
    return [
        Plot("plot-prices", figure, "Price of each bound by trial"),
        Plot("plot-dual", gap, "Dual bound and the best that keeps all bounds, by trial"),
    ]


# ----------------------------------------------------------------------------------------------------- other metrics


def other_metrics(facts: SearchFacts) -> list[Plot]:
    """One small plot for each further metric that trials reported: its value by trial."""
    names = dict.fromkeys(name for trial in facts.trials for name in trial.metrics)
    best = facts.best
    plots = []
    for index, metric in enumerate(name for name in names if name != facts.objective.metric):
        rows = [(i, t, t.metrics[metric]) for i, t in enumerate(facts.trials, start=1) if metric in t.metrics]
        if len(rows) < 2:
            continue
        size, title = unit_of(metric, [value for _, _, value in rows])
        figure = new_figure(230, margin={"l": 56, "r": 16, "t": 10, "b": 44}, showlegend=False)
        for members, marker in (
            ([row for row in rows if row[1] is not best], {"color": BLUE, "size": 6, "opacity": 0.75}),
            (
                [row for row in rows if row[1] is best],
                {"color": VERMILION, "size": 11, "symbol": "diamond", "line": {"color": "white", "width": 1}},
            ),
        ):
            figure.add_scatter(
                x=[i for i, _, _ in members],
                y=[value / size for _, _, value in members],
                mode="markers",
                marker=marker,
                text=[
                    f"<b>{safe(t.name, 40)}</b><br>{safe(metric, 30)}: {words.amount(metric, v)}" for _, t, v in members
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        figure.update_layout(
            xaxis=trial_axis(len(facts.trials)),
            yaxis={**value_axis_options([value / size for _, _, value in rows], title), "nticks": 5},
        )
        plots.append(Plot(f"plot-metric-{index}", figure, f"{metric} of each trial"))
    return plots
