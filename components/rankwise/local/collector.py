"""Reads metrics from what a trial writes, as Katib's StdOut and File metrics collectors do.

Three deliberate differences, all towards keeping information: a value that is no finite number never counts for ``min``
and ``max`` (in Katib a first ``NaN`` stays the minimum for good), additional metrics are kept when the objective is
missing, and a JSON timestamp's fraction is read as a fraction (Katib reads the digits as nanoseconds).
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from rankwise.local.records import UNAVAILABLE, MetricSummary, Report
from rankwise.space.trial import parse_finite

DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
TIMESTAMP_KEY = "timestamp"
_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:(Z)|([+-])(\d\d):(\d\d))", re.ASCII)


class UnreadableMetrics(ValueError):
    """A metrics file holds a line that its format does not allow; Katib fails the collection then."""


@dataclass(frozen=True, slots=True)
class MetricsSource:
    """Where and how a trial's metrics are read.

    Attributes:
        path: the file to read: the trial's output (StdOut) or a file that it writes (File).
        format: ``TEXT`` or ``JSON``.
        filters: regular expressions with two groups, name and value (TEXT); empty: :data:`DEFAULT_FILTER`.
        metrics: names to look for, the objective first.
    """

    path: Path
    format: str
    filters: tuple[str, ...]
    metrics: tuple[str, ...]

    def parse(self, lines: Iterable[str]) -> list[Report]:
        """Reports of complete lines.

        Raises:
            UnreadableMetrics: a line is not a JSON object (JSON).
        """
        if self.format == "JSON":
            return [report for line in lines for report in parse_json_line(line, self.metrics)]
        patterns = compile_filters(self.filters)
        return [report for line in lines for report in parse_text_line(line, self.metrics, patterns)]


def compile_filters(filters: Sequence[str]) -> list[re.Pattern[str]]:
    """The filters' patterns; ASCII classes, as in Go's regular expressions."""
    return [re.compile(text, re.ASCII) for text in filters or (DEFAULT_FILTER,)]


def parse_text_line(line: str, metrics: Sequence[str], patterns: Sequence[re.Pattern[str]]) -> list[Report]:
    """Reports of one line of text, in the order filter by filter, match by match.

    A first word in RFC 3339 form is the reports' time. A pattern with fewer than two groups finds nothing.
    """
    if not any(metric in line for metric in metrics):
        return []
    first, blank, _ = line.partition(" ")
    timestamp = first if blank and timestamp_key(first) is not None else ""
    reports = []
    for pattern in patterns:
        if pattern.groups < 2:
            continue
        for match in pattern.finditer(line):
            name, value = (match[1] or "").strip(), (match[2] or "").strip()
            if name in metrics:
                reports.append(Report(name, value, timestamp))
    return reports


def parse_json_line(line: str, metrics: Sequence[str]) -> list[Report]:
    """Reports of one JSON line, in the order of ``metrics``. Values that are no JSON strings are not seen.

    Raises:
        UnreadableMetrics: the line is not a JSON object.
    """
    if not line:
        return []
    try:
        # NaN and Infinity are no JSON: Go's parser, which reads the same file on a cluster, refuses them.
        entry = json.loads(line, parse_constant=_refuse_constant, parse_float=Decimal)
    except ValueError as error:
        raise UnreadableMetrics(f"not JSON: {line[:80]!r} ({error})") from error
    if entry is None:
        return []
    if not isinstance(entry, dict):
        raise UnreadableMetrics(f"not a JSON object: {line[:80]!r}")
    timestamp = _json_timestamp(entry.get(TIMESTAMP_KEY))
    return [Report(metric, entry[metric], timestamp) for metric in metrics if isinstance(entry.get(metric), str)]


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON value")


def _json_timestamp(value: object) -> str:
    if isinstance(value, str):
        return value if timestamp_key(value) is not None else ""
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        try:
            whole = int(value // 1)
            moment = dt.datetime.fromtimestamp(whole, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
        except (ArithmeticError, OverflowError, OSError, ValueError):
            return ""
        nanoseconds = int((Decimal(value) - whole) * 10**9)
        fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
        return f"{moment}{fraction}Z"
    return ""


def timestamp_key(text: str) -> tuple[int, int] | None:
    """An RFC 3339 time (any number of fraction digits) as (seconds since 1970, nanoseconds); None when it is none."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match[group]) for group in range(1, 7))
    offset = 0
    if match[8] is None:
        hours, minutes = int(match[10]), int(match[11])
        if hours > 24 or minutes > 59:
            return None
        offset = (hours * 60 + minutes) * (60 if match[9] == "+" else -60)
    try:
        moment = dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC)
    except ValueError:
        return None
    days = moment.toordinal() - dt.date(1970, 1, 1).toordinal()
    seconds = days * 86400 + hour * 3600 + minute * 60 + second - offset
    return seconds, int(((match[7] or "") + "0" * 9)[:9])


def summarize(reports: Iterable[Report], metrics: Sequence[str]) -> tuple[MetricSummary, ...]:
    """Katib's summary of each metric, in the order of ``metrics``.

    ``latest`` is the report with the greatest time, among equal times (or without any time) the last one; a report
    without a time counts as older than any with one.
    """
    latest: dict[str, tuple[tuple[int, int] | tuple[()], str]] = {}
    extremes: dict[str, tuple[tuple[float, str], tuple[float, str]]] = {}
    for report in reports:
        when = timestamp_key(report.timestamp) or ()
        if report.metric not in latest or latest[report.metric][0] <= when:
            latest[report.metric] = (when, report.value)
        number = parse_finite(report.value)
        if number is None:
            continue
        entry = (number, report.value)
        low, high = extremes.get(report.metric, (entry, entry))
        extremes[report.metric] = (entry if number < low[0] else low, entry if number > high[0] else high)
    summaries = []
    for name in metrics:
        low, high = extremes.get(name, ((0.0, UNAVAILABLE), (0.0, UNAVAILABLE)))
        summaries.append(MetricSummary(name, latest.get(name, ((), UNAVAILABLE))[1], low[1], high[1]))
    return tuple(summaries)


def collect(source: MetricsSource) -> list[Report]:
    """Every report of a finished trial. A file that is not there holds none.

    A last line without its end is left out when it cannot be read: its writer was stopped in the middle of it.

    Raises:
        UnreadableMetrics: a line is not what the format allows.
    """
    try:
        text = source.path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    *lines, rest = text.split("\n")
    reports = source.parse(lines)
    try:
        return reports + source.parse([rest])
    except UnreadableMetrics:
        return reports


class Follower:
    """Reads a growing file's complete lines, each once. A file that became shorter is read from its start."""

    def __init__(self, source: MetricsSource) -> None:
        self._source = source
        self._offset = 0

    def new_reports(self) -> list[Report]:
        """Reports of the lines that were completed since the last call.

        Raises:
            UnreadableMetrics: a line is not what the format allows.
        """
        try:
            with self._source.path.open("rb") as file:
                if file.seek(0, 2) < self._offset:
                    self._offset = 0
                file.seek(self._offset)
                chunk = file.read()
        except FileNotFoundError:
            return []
        complete, newline, _ = chunk.rpartition(b"\n")
        if not newline:
            return []
        self._offset += len(complete) + 1
        return self._source.parse(complete.decode("utf-8", errors="replace").split("\n"))


def is_available(summary: MetricSummary | None, strategy: str) -> bool:
    """Whether a trial ended with a usable value of this metric."""
    return summary is not None and summary.value(strategy) is not None


def strategies_of(metrics: Sequence[str], given: Mapping[str, str], default: str) -> dict[str, str]:
    """Each metric's strategy: the given one or the objective type's (Katib fills it in so for every metric)."""
    return {metric: given.get(metric, default) for metric in metrics}
