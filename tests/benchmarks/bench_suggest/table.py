"""Statistics and how they are told: Markdown tables and a JSON file."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_suggest.rounds import Cell, Sample

NONE = "–"
COLUMNS = ("observations", "method", "wall, s", "processor, s", "× plain loop, wall", "× plain loop, processor", "MiB")


def number(value: float) -> str:
    """Three digits that count, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def spread(values: Sequence[float]) -> str:
    """Median and, where there are several, least to greatest."""
    if not values:
        return NONE
    if len(values) == 1:
        return number(values[0])
    return f"{number(float(np.median(values)))} ({number(min(values))}–{number(max(values))})"


def mebibytes(count: int | None) -> str:
    return NONE if count is None else f"{count / 2**20:.0f}"


def ratios(samples: Mapping[int, Sample], reference: Mapping[int, Sample], what: str) -> list[float]:
    """A method's seconds by the reference's of the same round, for rounds that have both.

    Args:
        samples: of the method, by round.
        reference: of the reference, by round.
        what: ``wall`` or ``cpu``.
    """
    return [getattr(samples[r], what) / getattr(reference[r], what) for r in sorted(samples.keys() & reference.keys())]


def peak(cell: Cell) -> int:
    """Peak memory in bytes, of the first round: later ones have had more observations before."""
    return cell.samples[min(cell.samples)].peak


def suggestion_rows(cells: Iterable[Cell], labels: Mapping[str, str], reference: str) -> list[list[str]]:
    """One row for each cell, in the order of :data:`COLUMNS`."""
    cells = list(cells)
    base = {cell.observations: cell.samples for cell in cells if cell.method == reference}
    rows = []
    for cell in cells:
        head = [str(cell.observations), labels.get(cell.method, cell.method)]
        if not cell.samples:
            rows.append([*head, cell.reason or NONE, *[NONE] * 4])
            continue
        samples = [cell.samples[r] for r in sorted(cell.samples)]
        known = base.get(cell.observations, {})
        rows.append(
            [
                *head,
                spread([s.wall for s in samples]),
                spread([s.cpu for s in samples]),
                *(
                    "1" if cell.method == reference else spread(ratios(cell.samples, known, what))
                    for what in ("wall", "cpu")
                ),
                mebibytes(peak(cell)),
            ]
        )
    return rows


def embedding_rows(cells: Iterable[Cell], labels: Mapping[str, str]) -> list[list[str]]:
    """What embedding the whole space takes, extrapolated from each round's texts."""
    rows = []
    for cell in cells:
        label = labels.get(cell.method, cell.method)
        if not cell.samples:
            rows.append([NONE, f"not cached: {label}", cell.reason or NONE, *[NONE] * 4])
            continue
        samples = [cell.samples[r] for r in sorted(cell.samples)]
        texts, of = samples[0].details["texts"], samples[0].details["of"]
        wall, cpu = ([getattr(s, what) / texts * of for s in samples] for what in ("wall", "cpu"))
        times = "once" if len(samples) == 1 else f"{len(samples)} times"
        said = f"not cached: {label}; **extrapolated** to {of:.0f} from {texts:.0f} texts, {times}"
        rows.append([NONE, said, spread(wall), spread(cpu), NONE, NONE, mebibytes(max(s.peak for s in samples))])
    return rows


def tail(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Median, 95th percentile (by linear interpolation) and maximum."""
    return float(np.median(seconds)), float(np.quantile(seconds, 0.95)), max(seconds)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar within a cell would end it, so it is escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Everything that was measured; dataclasses become objects, numbers that JSON has not become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
