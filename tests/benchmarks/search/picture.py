"""Regret over trials as an SVG: one panel over all tasks with bands, and a small one for each task.

Written by hand: the project's lock has no library that makes a still picture. Colours are of Okabe and Ito's palette,
which people with any common colour vision can tell apart; no two lines share both colour and dashes, and each has its
name at its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.search.figures import Curve, Group, Row, is_ours, is_rule

WIDTH = 860
INK, QUIET, GRID = "#22262B", "#5B6168", "#E6E8EB"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', Arial, sans-serif"
FLOOR = 1e-3
"""Regret below it is drawn at it: 0 has no place on a logarithmic axis."""
TICKS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
LINES = 11
"""More lines cannot be told apart."""
PREFERRED = (
    "botorch-gp@pool",
    "botorch-gp",
    "optuna-gp",
    "optuna-tpe",
    "smac",
    "hebo",
    "optuna-auto",
    "random",
    "sobol",
)
STYLES = {
    "botorch-gp": ("#0072B2", ""),
    "optuna-gp": ("#009E73", ""),
    "optuna-tpe": ("#E69F00", ""),
    "optuna-auto": ("#009E73", "6 3"),
    "smac": ("#CC79A7", ""),
    "hebo": ("#56B4E9", ""),
    "random": ("#7A8087", ""),
    "sobol": ("#7A8087", "2 3"),
    "largest-rank": (INK, "8 3 2 3"),
    "peft-default": (INK, "2 2"),
}
OURS_STYLES = (("#D55E00", ""), ("#D55E00", "7 3"), ("#D55E00", "2 3"))
FURTHER = ("9 4", "1 3", "10 3 2 3")
"""Dashes of the second and further variants of a peer."""


@dataclass(frozen=True)
class Line:
    """How one optimizer is drawn."""

    row: Row
    colour: str
    dash: str
    width: float


def pictured(group: Group, show: Sequence[str] = ()) -> list[Line]:
    """The optimizers to draw: the asked ones, else the best of ours and the peers at their plainest.

    Raises:
        ValueError: one that is asked for is not in the group.
    """
    rows = {row.optimizer: row for row in group.rows}
    if unknown := [name for name in show if name not in rows]:
        raise ValueError(f"{unknown[0]!r} has no searches on all tasks; there are {', '.join(rows)}")
    if show:
        names = list(show)
    else:
        ours = [row.optimizer for row in group.rows if is_ours(row.optimizer)][:1]
        peers = [name for name in PREFERRED if name in rows]
        if "botorch-gp@pool" in peers and "botorch-gp" in peers:
            peers.remove("botorch-gp")  # the same one with worse means
        rules = [name for name in rows if is_rule(name)]
        names = [*ours, *peers, *rules][:LINES]
    lines: list[Line] = []
    for name in names:
        base = name.partition("@")[0].partition(":")[0]
        before = sum(line.row.optimizer.partition("@")[0].partition(":")[0] == base for line in lines)
        if is_ours(name):
            colour, dash = OURS_STYLES[before % len(OURS_STYLES)]
        else:
            colour, dash = STYLES.get(base, (QUIET, ""))
            dash = dash if before == 0 else FURTHER[(before - 1) % len(FURTHER)]
        lines.append(Line(rows[name], colour, dash, 3.0 if is_ours(name) else 1.8))
    return lines


@dataclass(frozen=True)
class Panel:
    """A plot's place on the page and its scales. Trials are linear from 1, regret is logarithmic."""

    left: float
    top: float
    width: float
    height: float
    trials: int
    least: float

    def x(self, trial: float) -> float:
        return self.left + self.width * (trial - 1) / max(self.trials - 1, 1)

    def y(self, regret: float) -> float:
        part = math.log(min(max(regret, self.least), 1.0)) / math.log(self.least)
        return self.top + self.height * part

    def path(self, values: Sequence[float]) -> str:
        """Points of a line."""
        return " ".join(f"{self.x(i):.1f},{self.y(value):.1f}" for i, value in enumerate(values, start=1))


def draw(group: Group, lines: Sequence[Line]) -> str:
    """The picture as the text of an SVG file."""
    columns, small, gap = 3, 150.0, 46.0
    count = len(group.tasks)
    below = 0 if count < 2 else math.ceil(count / columns)
    height = 430 + below * (small + gap)
    drawn = [line.row.curve for line in lines]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" role="img" font-family="{escape(FONT)}" font-size="13" fill="{INK}">',
        f"<title>Normalized simple regret over {group.trials} trials, mean over {count} tasks</title>",
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>',
        text(16, 24, f"Distance to the best measured configuration, mean over {count} tasks", size=15, bold=True),
        text(
            16, 43, "normalized simple regret (1 = median configuration), 95 % bootstrap bands; lower is better", QUIET
        ),
    ]
    main = Panel(64, 62, 560, 310, group.trials, least(drawn))
    parts += [*axes(main, "trials, initial points included"), *bands(main, lines, drawn), *curves(main, lines, drawn)]
    parts += labels(main, lines, drawn)
    own = [[line.row.tasks[task] for line in lines] for task in group.tasks]
    for number, (task, mine) in enumerate(zip(group.tasks, own, strict=True) if below else ()):
        width = (WIDTH - 16 - 48 * columns) / columns
        left = 48 + (number % columns) * (width + 48)
        top = 440 + (number // columns) * (small + gap)
        panel = Panel(left, top, width, small, group.trials, least([c for curves in own for c in curves]))
        parts += [text(left, top - 8, task, bold=True), *axes(panel), *curves(panel, lines, mine)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def least(drawn: Sequence[Curve]) -> float:
    """The lower bound of the axis: the next tick below the least mean."""
    lowest = min(min(curve.value) for curve in drawn)
    return next((tick for tick in TICKS[1:] if tick <= lowest), FLOOR)


def text(
    x: float, y: float, said: str, colour: str = INK, size: int = 13, bold: bool = False, end: bool = False
) -> str:
    """A line of text."""
    weight = ' font-weight="600"' if bold else ""
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}"{weight}{anchor}>{escape(said)}</text>'


def axes(panel: Panel, title: str = "") -> list[str]:
    """Grid lines with their numbers."""
    parts = []
    for tick in TICKS:
        if tick >= panel.least:
            y = panel.y(tick)
            right = panel.left + panel.width
            parts.append(f'<line x1="{panel.left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
            parts.append(text(panel.left - 7, y + 4, f"{tick:g}", QUIET, 12, end=True))
    bottom = panel.top + panel.height
    for trial in sorted({1, *range(5 if title else 10, panel.trials + 1, 5 if title else 10)}):
        x = panel.x(trial)
        parts.append(f'<line x1="{x:.1f}" y1="{bottom:.1f}" x2="{x:.1f}" y2="{bottom + 4:.1f}" stroke="{QUIET}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 18:.1f}" fill="{QUIET}" font-size="12" text-anchor="middle">{trial}</text>'
        )
    if title:
        parts.append(text(panel.left + panel.width / 2 - 90, bottom + 38, title, QUIET))
    return parts


def bands(panel: Panel, lines: Sequence[Line], drawn: Sequence[Curve]) -> list[str]:
    """The intervals."""
    parts = []
    for line, curve in zip(lines, drawn, strict=True):
        if not is_rule(line.row.optimizer):
            back = panel.path(curve.high).split(" ")[::-1]
            points = f"{panel.path(curve.low)} {' '.join(back)}"
            parts.append(f'<polygon points="{points}" fill="{line.colour}" fill-opacity="0.13"/>')
    return parts


def curves(panel: Panel, lines: Sequence[Line], drawn: Sequence[Curve]) -> list[str]:
    """The means; ours last, on top of the others."""
    parts = []
    for line, curve in reversed(list(zip(lines, drawn, strict=True))):
        dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
        parts.append(
            f'<polyline points="{panel.path(curve.value)}" fill="none" stroke="{line.colour}" '
            f'stroke-width="{line.width}" stroke-linejoin="round"{dash}/>'
        )
    return parts


def labels(panel: Panel, lines: Sequence[Line], drawn: Sequence[Curve], space: float = 17.0) -> list[str]:
    """The lines' names at their ends, moved apart where they would overlap."""
    ends = sorted((panel.y(curve.value[-1]), i) for i, curve in enumerate(drawn))
    places = apart([y for y, _ in ends], space, panel.top, panel.top + panel.height)
    x = panel.left + panel.width
    parts = []
    for (y, i), place in zip(ends, places, strict=True):
        line = lines[i]
        name = f"{line.row.optimizer} (1 trial)" if is_rule(line.row.optimizer) else line.row.optimizer
        parts.append(
            f'<polyline points="{x:.1f},{y:.1f} {x + 12:.1f},{place:.1f} {x + 18:.1f},{place:.1f}" fill="none" '
            f'stroke="{line.colour}" stroke-width="{line.width}"/>'
        )
        # Ink, not the line's colour: some of the palette are too light for text on white.
        parts.append(text(x + 24, place + 4, name, bold=is_ours(line.row.optimizer)))
    return parts


def apart(wanted: Sequence[float], space: float, low: float, high: float) -> list[float]:
    """Places at least ``space`` from each other, in the same order and near the wanted ones (ascending).

    The whole row stays above ``high`` where there is room for it from ``low`` on.
    """
    places: list[float] = []
    for y in wanted:
        places.append(max(y, places[-1] + space) if places else max(y, low))
    limit = high
    for i in range(len(places) - 1, -1, -1):
        places[i] = min(places[i], limit)
        limit = places[i] - space
    return places
