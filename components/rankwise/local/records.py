"""What the local engine remembers of a trial, as types."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from rankwise.space.trial import parse_finite

UNAVAILABLE = "unavailable"
"""Katib's word for a metric that was not reported."""


def utc_now() -> str:
    """The time now as Kubernetes writes it: RFC 3339, UTC, whole seconds."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Condition(enum.Enum):
    """A trial's last condition; the values are Katib's condition types, but for ``INTERRUPTED``."""

    CREATED = "Created"
    RUNNING = "Running"
    INTERRUPTED = "Interrupted"
    """The engine was told to end while the trial ran. It is started again; for Katib's status it is pending."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    EARLY_STOPPED = "EarlyStopped"

    @property
    def is_finished(self) -> bool:
        return self not in (Condition.CREATED, Condition.RUNNING, Condition.INTERRUPTED)

    @property
    def is_failure(self) -> bool:
        """Whether it counts for ``maxFailedTrialCount``: Katib counts failed trials and those without metrics."""
        return self in (Condition.FAILED, Condition.METRICS_UNAVAILABLE)


class Kind(enum.Enum):
    """What a trial is for."""

    SEARCH = "search"
    FINAL = "final"
    """Compares the default configuration with the best one after the search; not counted as a trial."""


class Comparison(enum.Enum):
    """When a stop rule holds: the trial's value is less or greater than the rule's."""

    LESS = "less"
    GREATER = "greater"


@dataclass(frozen=True, slots=True)
class StopRule:
    """Stops a trial whose best value after ``start_step`` reports compares so with ``value`` (Katib's rule)."""

    metric: str
    value: float
    comparison: Comparison
    start_step: int


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that can be told from a later one with the same pid.

    Attributes:
        pid: its pid, which is the id of its process group too.
        started: boot and start time of the process as the kernel tells them; "" where it does not.
    """

    pid: int
    started: str


@dataclass(frozen=True, slots=True)
class Report:
    """One value of one metric as a trial reported it.

    Attributes:
        metric: its name.
        value: its text, e.g. ``"0.41"`` or ``""``.
        timestamp: RFC 3339 text; "" where the line had none.
    """

    metric: str
    value: str
    timestamp: str = ""


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """A metric over one trial in Katib's form; each value is a text, ``unavailable`` where there is none."""

    name: str
    latest: str = UNAVAILABLE
    min: str = UNAVAILABLE
    max: str = UNAVAILABLE

    def extract(self, strategy: str) -> str:
        """The one text that counts under a metric strategy (``min``, ``max`` or ``latest``), as Katib takes it."""
        chosen = {"min": self.min, "max": self.max, "latest": self.latest}[strategy]
        return self.latest if chosen == UNAVAILABLE else chosen

    def value(self, strategy: str) -> float | None:
        """The same as a finite number; None when it is none."""
        return parse_finite(self.extract(strategy))


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial as the journal holds it.

    Attributes:
        name: unique within the run folder.
        kind: search or final.
        position: 0-based place among the suggestions; final runs: place among the final runs.
        assignments: parameter -> value text.
        arguments: appended to the container's command (final runs).
        labels: labels of the suggestion's reply.
        rule: early stopping rule, fixed when the trial was made.
        condition: last condition.
        stopping: whether the early stopping rule has struck (the process may still be ending).
        attempts: how often its process was started.
        process: the last attempt's process.
        attempt_started: when the last attempt began, in seconds since 1970.
        start_time, completion_time: RFC 3339; None while it has not come to that.
        seconds: wall-clock time of the last attempt.
        exit_code: of the process; 128 + n after signal n.
        reason: one sentence on how it ended; "" when it is not finished.
        summaries: the objective's and the additional metrics' summaries, when it is finished.
    """

    name: str
    kind: Kind
    position: int
    assignments: Mapping[str, str]
    arguments: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    rule: StopRule | None = None
    condition: Condition = Condition.CREATED
    stopping: bool = False
    attempts: int = 0
    process: ProcessId | None = None
    attempt_started: float | None = None
    start_time: str | None = None
    completion_time: str | None = None
    seconds: float | None = None
    exit_code: int | None = None
    reason: str = ""
    summaries: tuple[MetricSummary, ...] = ()

    def summary(self, metric: str) -> MetricSummary | None:
        """The summary of one metric."""
        return next((summary for summary in self.summaries if summary.name == metric), None)

    def value(self, metric: str, strategy: str) -> float | None:
        """The metric's finite value, when the trial ended with one (succeeded or stopped early)."""
        if self.condition not in (Condition.SUCCEEDED, Condition.EARLY_STOPPED):
            return None
        summary = self.summary(metric)
        return None if summary is None else summary.value(strategy)
