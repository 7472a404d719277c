"""The embedding space of a search in two dimensions: candidates by what the model predicts, and the trials' path."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.colors import get_colorscale

from rankwise.report import words
from rankwise.report.facts import SearchFacts, TrialFacts
from rankwise.report.figure import GREY, INK, VERMILION, Plot, describe, direction, new_figure, safe
from rankwise.report.landscape_facts import AxisFacts, LandscapeFacts, ViewFacts
from rankwise.space.trial import Goal

TITLES = {
    "frozen": "Frozen: the language model alone",
    "projected": "After the projection was fitted",
    "token": "With the learnable token",
}
_SHORT_TITLES = {"frozen": "frozen", "projected": "+ projection", "token": "+ token"}
_ABOVE, _BELOW = 66, 128
"""Pixels for the legend and the titles, and for the axes' titles and the colours."""
_GAP = 0.05
"""Between two panels, as a share of the figure's width."""
_PANEL = 300
"""Pixels that a panel needs to be read."""
_FAR = 2.5
"""Predictions beyond this many times the range of the better nine tenths share the last colour."""
MANY = 150
"""Of more trials the path and its marks are drawn lighter."""
_PARAMETERS = 12
"""Most parameters in a hover box."""

Numbered = tuple[int, TrialFacts]
"""A trial with its number among all of the search, from 1."""


def landscape(facts: SearchFacts) -> Plot | None:
    """One panel for each view, side by side; None without a landscape."""
    found = facts.landscape
    if found is None:
        return None
    count = len(found.views)
    known = {trial.name: (number, trial) for number, trial in enumerate(facts.trials, start=1)}
    trials = [known[name] for name in found.trials]
    low, high = colour_range(found.predicted, facts.objective.goal)
    inner = 380 if count < 3 else 320  # pixels of the panels' height
    figure = new_figure(inner + _ABOVE + _BELOW, margin={"l": 16, "r": 16, "t": _ABOVE, "b": _BELOW})
    texts = _candidate_texts(facts, found)
    width = (1 - _GAP * (count - 1)) / count
    for number, view in enumerate(found.views):
        left = number * (width + _GAP)
        _add_panel(figure, facts, view, trials, texts, number)
        suffix = "" if number == 0 else str(number + 1)
        figure.update_layout(
            {
                f"xaxis{suffix}": {**_bare(view.axes[0], 1), "domain": [left, left + width], "anchor": f"y{suffix}"},
                f"yaxis{suffix}": {**_bare(view.axes[1], 2), "anchor": f"x{suffix}", "scaleanchor": f"x{suffix}"},
            }
        )
        figure.add_annotation(
            x=left + width / 2, y=1, xref="paper", yref="paper", xanchor="center", yanchor="bottom", yshift=4,
            showarrow=False, text=f"<b>{(TITLES if count < 3 else _SHORT_TITLES)[view.name]}</b>",
        )  # fmt: skip
    figure.update_layout(
        coloraxis={
            "colorscale": _scale(facts.objective.goal),
            "cmin": low,
            "cmax": high,
            "colorbar": {
                "orientation": "h",
                "x": 0.5,
                "xanchor": "center",
                "y": -56 / inner,
                "yanchor": "top",
                "thickness": 12,
                "len": 0.6,
                "outlinewidth": 0,
                "title": {
                    "text": f"predicted {safe(facts.objective.metric, 28)} ({direction(facts)})",
                    "side": "top",
                    "font": {"size": 13},
                },
            },
        },
        legend={"y": 1 + 26 / inner},
    )
    return Plot("plot-landscape", figure, _label(found), _PANEL * count if count > 1 else 0)


def _label(found: LandscapeFacts) -> str:
    views = " and ".join(_SHORT_TITLES[view.name] for view in found.views)
    return f"Embedding space in two dimensions ({views}) with the path of {words.plural(len(found.trials), 'trial')}"


def colour_range(predicted: Sequence[float], goal: Goal) -> tuple[float, float]:
    """Values of the first and the last colour.

    The whole range; but where the worst tenth of the predictions would press all others into one colour, it shares
    the last one.
    """
    if not predicted:
        return 0.0, 1.0
    ordered = sorted(predicted, reverse=goal is Goal.MAXIMIZE)
    best, worst, most = ordered[0], ordered[-1], ordered[int(0.9 * (len(ordered) - 1))]
    if abs(worst - best) > _FAR * abs(most - best) > 0:
        worst = most
    low, high = min(best, worst), max(best, worst)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _scale(goal: Goal) -> list[tuple[float, str]]:
    """Cividis, which is even for all eyes; the dark end is the better one, as in the other plots."""
    colours = [colour for _, colour in get_colorscale("cividis")]
    if goal is Goal.MAXIMIZE:
        colours.reverse()
    return [(i / (len(colours) - 1), colour) for i, colour in enumerate(colours)]


def _bare(axis: AxisFacts, number: int) -> dict[str, object]:
    """An axis without numbers: coordinates mean nothing, distances do."""
    title = f"axis {number}: {words.percent(axis.explained)} of the variance"
    if axis.parameter:
        title += f"<br>follows {safe(axis.parameter, 28)}"
    return {
        "title": {"text": title, "standoff": 6, "font": {"size": 12}},
        "showticklabels": False,
        "ticks": "",
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "mirror": True,
        "linecolor": "#DFE2E6",
    }


def _candidate_texts(facts: SearchFacts, found: LandscapeFacts) -> list[str]:
    names = [parameter.name for parameter in facts.parameters if parameter.name in found.candidates][:_PARAMETERS]
    metric = safe(facts.objective.metric, 30)
    columns = [[f"{safe(name, 30)}: {safe(text, 40)}" for text in found.candidates[name]] for name in names]
    heads = [f"predicted {metric}: {words.number(value)}" for value in found.predicted]
    return ["<br>".join(row) for row in zip(heads, *columns, strict=True)]


def _add_panel(
    figure: go.Figure,
    facts: SearchFacts,
    view: ViewFacts,
    trials: Sequence[Numbered],
    texts: Sequence[str],
    number: int,
) -> None:
    """Candidates, the path, and the trials on it."""
    assert facts.landscape is not None  # noqa: S101 - it holds the view
    place = {"xaxis": f"x{number + 1}" if number else "x", "yaxis": f"y{number + 1}" if number else "y"}
    # Not scattergl: its shaders are made by eval, which the page's policy forbids.
    figure.add_scatter(
        x=view.x,
        y=view.y,
        mode="markers",
        showlegend=False,
        marker={"color": facts.landscape.predicted, "coloraxis": "coloraxis", "size": 5, "opacity": 0.8},
        text=texts,
        hovertemplate="%{text}<extra></extra>",
        **place,
    )
    many = len(trials) > MANY
    for line in ({"color": "white", "width": 2.5}, {"color": INK, "width": 0.6 if many else 1}):
        figure.add_scatter(
            x=view.trial_x, y=view.trial_y, mode="lines", line=line, opacity=0.35 if many else 0.7,
            name="path of the trials", legendgroup="path", hoverinfo="skip",
            showlegend=number == 0 and line["color"] == INK and len(trials) > 1, **place,
        )  # fmt: skip
    for name, members, marker in _groups(facts, trials, 5 if many else 8):
        figure.add_scatter(
            x=[view.trial_x[i] for i in members],
            y=[view.trial_y[i] for i in members],
            mode="markers",
            name=name,
            legendgroup=name,
            showlegend=number == 0 and bool(members),
            marker=marker,
            text=[f"{trials[i][0]}. {describe(trials[i][1], facts)}" for i in members],
            hovertemplate="%{text}<extra></extra>",
            **place,
        )
    for i, text, where in _marks(facts, trials):
        figure.add_annotation(
            x=view.trial_x[i], y=view.trial_y[i], xref=place["xaxis"], yref=place["yaxis"], text=text,
            showarrow=False, **where, font={"size": 12, "color": INK}, bgcolor="rgba(255,255,255,0.7)",
        )  # fmt: skip


def _groups(
    facts: SearchFacts, trials: Sequence[Numbered], size: int
) -> list[tuple[str, list[int], dict[str, object]]]:
    """Trials (by their place in the path) that share a mark: name, members, mark."""
    best = facts.best
    valued = [i for i, (_, t) in enumerate(trials) if t.value is not None and t is not best]
    colours = [trials[i][1].value for i in valued]
    edge = {"color": INK, "width": 1.2}
    light = {"color": "white", "width": 1.2}
    return [
        ("running", [i for i, (_, t) in enumerate(trials) if not t.state.is_finished],
         {"color": "white", "size": size, "line": edge}),
        ("failed, no value", [i for i, (_, t) in enumerate(trials) if t.value is None and t.state.is_finished],
         {"color": GREY, "size": size, "symbol": "x", "line": {**edge, "width": 0.8}}),
        ("trial, by its value", valued, {"color": colours, "coloraxis": "coloraxis", "size": size, "line": edge}),
        ("best", [i for i, (_, t) in enumerate(trials) if t is best],
         {"color": VERMILION, "size": size + 5, "symbol": "diamond", "line": light}),
    ]  # fmt: skip


def _marks(facts: SearchFacts, trials: Sequence[Numbered]) -> list[tuple[int, str, dict[str, object]]]:
    """Numbers of the first, the best and the last trial: place in the path, text, and on which side it stands.

    Each has a side of its own, since they often lie together.
    """
    left = {"xanchor": "right", "xshift": -7}
    right = {"xanchor": "left", "xshift": 7}
    best = facts.best
    marks: dict[int, dict[str, object]] = {len(trials) - 1: {**right}, 0: {**left}} if trials else {}
    marks |= {i: {"yshift": 18} for i, (_, trial) in enumerate(trials) if trial is best}
    return [(i, str(trials[i][0]), where) for i, where in sorted(marks.items())]
