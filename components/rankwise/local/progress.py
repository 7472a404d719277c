"""What a user sees while a run goes on: a live bar on a terminal, one plain line an event elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichBar
from rich.table import Column

from rankwise.local.records import Condition, Kind, TrialRecord

_WORDS = {
    Condition.SUCCEEDED: "succeeded",
    Condition.FAILED: "failed",
    Condition.METRICS_UNAVAILABLE: "ended without a metric",
    Condition.EARLY_STOPPED: "stopped early",
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far the search is.

    Attributes:
        metric: the objective's name.
        finished: trials that have ended.
        total: trials that were asked for; None without a limit.
        running: names of running trials.
        best: name, value and configuration of the best trial; None before the first.
        seconds_left: estimate; None when nothing is known yet.
    """

    metric: str
    finished: int
    total: int | None
    running: tuple[str, ...]
    best: tuple[str, float, Mapping[str, str]] | None
    seconds_left: float | None


class Output(Protocol):
    """Where events go."""

    def message(self, text: str) -> None: ...

    def started(self, trial: TrialRecord, snapshot: Snapshot) -> None: ...

    def finished(self, trial: TrialRecord, value: float | None, snapshot: Snapshot) -> None: ...

    def tick(self, snapshot: Snapshot) -> None: ...

    def close(self) -> None: ...


def seconds_left(durations: list[float], elapsed: list[float], remaining: int | None, parallel: int) -> float | None:
    """Time left from the mean duration of the finished trials.

    Args:
        durations: seconds of the finished trials.
        elapsed: seconds that the running trials have run.
        remaining: trials that have not ended, the running ones among them; None without a limit.
        parallel: how many run side by side.
    """
    if not durations or remaining is None:
        return None
    mean = sum(durations) / len(durations)
    done = sum(min(seconds, mean) for seconds in elapsed)
    return max(0.0, (mean * remaining - done) / max(1, min(parallel, remaining or 1)))


def duration_text(seconds: float | None) -> str:
    """``3 s``, ``4 min``, ``1 h 05 min``; ``?`` when not known."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def configuration_text(assignments: Mapping[str, str]) -> str:
    """``name=value`` pairs on one line."""
    return " ".join(f"{name}={value}" for name, value in assignments.items())


def started_text(trial: TrialRecord, snapshot: Snapshot) -> str:
    """The line of a trial's start."""
    again = " again" if trial.attempts else ""
    fallback = next((f" (a fallback's choice: {trial.labels[key]})" for key in trial.labels if _is_fallback(key)), "")
    return f"{_label(trial, snapshot)} started{again}: {trial.name} {configuration_text(trial.assignments)}{fallback}"


def _is_fallback(label: str) -> bool:
    """Whether a reply's label says that the strategy itself could not answer."""
    return label.endswith("/fallback")


def finished_text(trial: TrialRecord, value: float | None, snapshot: Snapshot) -> str:
    """The line of a trial's end."""
    took = "" if trial.seconds is None else f" in {duration_text(trial.seconds)}"
    result = "" if value is None else f", {snapshot.metric}={value:g}"
    why = "" if trial.condition is Condition.SUCCEEDED else f" ({trial.reason})"
    line = f"{_label(trial, snapshot)} {_WORDS[trial.condition]}{took}{result}: {trial.name}{why}"
    if trial.kind is Kind.FINAL:
        return line
    best = "" if snapshot.best is None else f"; best {snapshot.metric}={snapshot.best[1]:g} ({snapshot.best[0]})"
    left = "" if snapshot.seconds_left is None else f"; about {duration_text(snapshot.seconds_left)} left"
    return f"{line}{best}{left}"


def _label(trial: TrialRecord, snapshot: Snapshot) -> str:
    if trial.kind is Kind.FINAL:
        return "final run"
    return f"trial {trial.position + 1}" + ("" if snapshot.total is None else f"/{snapshot.total}")


class PlainOutput:
    """One line an event, no control characters: for files, pipes and CI logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def message(self, text: str) -> None:
        printable = "".join(character if character.isprintable() else " " for character in text)
        self._stream.write(printable + "\n")
        self._stream.flush()

    def started(self, trial: TrialRecord, snapshot: Snapshot) -> None:
        self.message(started_text(trial, snapshot))

    def finished(self, trial: TrialRecord, value: float | None, snapshot: Snapshot) -> None:
        self.message(finished_text(trial, value, snapshot))

    def tick(self, snapshot: Snapshot) -> None:
        """Nothing: time alone is no event."""

    def close(self) -> None:
        self._stream.flush()


class SilentOutput:
    """Says nothing."""

    def message(self, text: str) -> None:
        """Nothing."""

    def started(self, trial: TrialRecord, snapshot: Snapshot) -> None:
        """Nothing."""

    def finished(self, trial: TrialRecord, value: float | None, snapshot: Snapshot) -> None:
        """Nothing."""

    def tick(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class LiveOutput:
    """A bar at the terminal's last line, with the trial, the best so far and the time left; events above it."""

    def __init__(self, console: Console) -> None:
        self._bar = RichBar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.fields[limit]} trials"),
            TextColumn(
                "{task.fields[best]}", style="bold green", table_column=Column(no_wrap=True, overflow="ellipsis")
            ),
            TextColumn("{task.fields[left]}", style="cyan"),
            console=console,
            refresh_per_second=2,
            transient=True,
        )
        self._task: TaskID | None = None
        self._last_tick = 0.0

    def message(self, text: str) -> None:
        self._bar.console.print(escape(text), highlight=False)

    def started(self, trial: TrialRecord, snapshot: Snapshot) -> None:
        self.message(started_text(trial, snapshot))
        self._show(snapshot)

    def finished(self, trial: TrialRecord, value: float | None, snapshot: Snapshot) -> None:
        self.message(finished_text(trial, value, snapshot))
        self._show(snapshot)

    def tick(self, snapshot: Snapshot) -> None:
        if time.monotonic() - self._last_tick > 0.5:
            self._show(snapshot)

    def close(self) -> None:
        self._bar.stop()

    def _show(self, snapshot: Snapshot) -> None:
        self._last_tick = time.monotonic()
        best = ""
        if snapshot.best is not None:
            name, value, assignments = snapshot.best
            best = f"best {snapshot.metric} {value:g}: {escape(configuration_text(assignments)) or name}"
        fields: dict[str, Any] = {
            "limit": "?" if snapshot.total is None else str(snapshot.total),
            "best": best,
            "left": f"{duration_text(snapshot.seconds_left)} left",
        }
        running = f"{len(snapshot.running)} running"
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(running, total=snapshot.total, **fields)
        self._bar.update(self._task, description=running, completed=snapshot.finished, total=snapshot.total, **fields)


def choose_output(stream: TextIO, *, quiet: bool = False) -> Output:
    """Live on a terminal, plain elsewhere, silent when asked for."""
    if quiet:
        return SilentOutput()
    console = Console(file=stream)
    return LiveOutput(console) if console.is_terminal and not console.is_dumb_terminal else PlainOutput(stream)
