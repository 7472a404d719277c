"""What the plots of a report share: colours, an empty figure, an axis for values, texts of hover boxes.

Colours are of Okabe and Ito's palette, which people with any common colour vision can tell apart; the best
configuration is always vermilion, the default always a black dash, failed trials always grey. Lines and points of many
trials share few traces (their parts are separated by gaps), so that a thousand trials stay quick to draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from markupsafe import escape

from rankwise.report import words
from rankwise.report.facts import ParameterFacts, SearchFacts, TrialFacts
from rankwise.space.trial import Goal

BLUE, VERMILION, GREY, INK = "#0072B2", "#D55E00", "#9AA0A6", "#22262B"
GREEN, PURPLE, ORANGE = "#009E73", "#A3487F", "#B97A00"
"""Two of them darker than the palette's, which are too light for thin marks on white."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', Arial, sans-serif"


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


def new_figure(height: int, **layout: object) -> go.Figure:
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


def direction(facts: SearchFacts) -> str:
    """Which way is better, for an axis title."""
    return "lower is better" if facts.objective.goal is Goal.MINIMIZE else "higher is better"


def describe(trial: TrialFacts, facts: SearchFacts) -> str:
    """A trial in a hover box: at most 12 parameters."""
    lines = [f"<b>{safe(trial.name, 40)}</b> ({trial.state.value.replace('_', ' ')})"]
    if trial.value is not None:
        lines.append(f"{safe(facts.objective.metric, 30)}: {words.number(trial.value)}")
    lines += [f"{safe(name, 30)}: {safe(text, 40)}" for name, text in list(trial.assignments.items())[:12]]
    return "<br>".join(lines)


def value_axis_options(values: Sequence[float], title: str) -> dict[str, object]:
    """An axis just around the values; log where one diverging trial would press all others flat."""
    low, high = min(values), max(values)
    log = low > 0 and high / low > 20
    if log:
        low, high = math.log10(low), math.log10(high)
    margin = 0.06 * (high - low) or abs(low) * 0.1 or 1.0
    axis: dict[str, object] = {"title": {"text": title}, "range": [low - margin, high + margin]}
    return {**axis, "type": "log"} if log else axis


def trial_axis(trials: int) -> dict[str, object]:
    """The axis of the trials' numbers."""
    ticks = {"dtick": 1} if trials < 8 else {}
    return {"title": {"text": "trial"}, "range": [0.4, trials + 0.6], "tickformat": "d", **ticks}


def jitter(index: int, parameter: ParameterFacts) -> float:
    """A small offset that parts trials with one listed value: the golden-ratio sequence, so that it is always one."""
    if parameter.type not in ("discrete", "categorical"):
        return 0.0
    return 0.03 * ((index * 0.6180339887) % 1.0 - 0.5)


def value_text(facts: SearchFacts, trial: TrialFacts) -> str:
    """A trial's name and value in a hover box."""
    value = "no value" if trial.value is None else f"{safe(facts.objective.metric, 30)}: {words.number(trial.value)}"
    return f"<b>{safe(trial.name, 40)}</b><br>{value}"


def parameter_text(facts: SearchFacts, trial: TrialFacts, parameter: ParameterFacts) -> str:
    """A trial's name, value and one parameter in a hover box: short, since every bend of every line has one."""
    value = safe(trial.assignments.get(parameter.name, "–"), 40)
    return f"{value_text(facts, trial)}<br>{safe(parameter.name, 30)}: {value}"
