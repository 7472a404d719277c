"""What a user sees."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from rankwise.local.progress import LiveOutput, PlainOutput, Snapshot, choose_output, duration_text, seconds_left
from rankwise.local.records import Condition, Kind, TrialRecord

RUNNING = TrialRecord("t-2", Kind.SEARCH, 1, {"rank": "8", "lr": "3e-4"})
ENDED = TrialRecord("t-2", Kind.SEARCH, 1, {"rank": "8"}, condition=Condition.SUCCEEDED, seconds=61.0)
SNAPSHOT = Snapshot("loss", 2, 10, ("t-3",), ("t-1", 0.25, {"rank": "4[x]"}), 600.0)


@pytest.mark.parametrize(
    ("durations", "elapsed", "remaining", "parallel", "expected"),
    [
        ([], [], 5, 1, None),
        ([10.0], [], None, 1, None),
        ([10.0, 30.0], [], 5, 1, 100.0),
        ([10.0], [4.0], 5, 1, 46.0),
        ([10.0], [99.0], 1, 1, 0.0),  # a trial that takes longer than the others is about to end
        ([10.0], [0.0, 0.0], 4, 2, 20.0),
        ([10.0], [0.0], 1, 3, 10.0),  # one trial is not shared by three
        ([10.0], [], 0, 3, 0.0),
    ],
)
def test_seconds_left(
    durations: list[float], elapsed: list[float], remaining: int | None, parallel: int, expected: float | None
) -> None:
    assert seconds_left(durations, elapsed, remaining, parallel) == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0.0, "0 s"),
        (0.2, "1 s"),
        (89.9, "90 s"),
        (90.0, "2 min"),
        (3599.0, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text


def test_plain_lines() -> None:
    stream = io.StringIO()
    output = PlainOutput(stream)
    output.started(RUNNING, SNAPSHOT)
    output.tick(SNAPSHOT)
    output.started(replace(RUNNING, labels={"rankwise.dev/fallback": "deadline"}, attempts=1), SNAPSHOT)
    output.finished(ENDED, 0.5, SNAPSHOT)
    failed = TrialRecord(
        "t-3", Kind.SEARCH, 2, {}, condition=Condition.FAILED, reason="exit code 1: \x1b[31mred\x1b[0m"
    )
    output.finished(failed, None, SNAPSHOT)
    final = TrialRecord("e-final-best", Kind.FINAL, 1, {}, condition=Condition.SUCCEEDED, seconds=3.0)
    output.finished(final, 0.5, SNAPSHOT)
    output.close()
    assert stream.getvalue().splitlines() == [
        "trial 2/10 started: t-2 rank=8 lr=3e-4",
        "trial 2/10 started again: t-2 rank=8 lr=3e-4 (a fallback's choice: deadline)",
        "trial 2/10 succeeded in 61 s, loss=0.5: t-2; best loss=0.25 (t-1); about 10 min left",
        "trial 3/10 failed: t-3 (exit code 1:  [31mred [0m); best loss=0.25 (t-1); about 10 min left",
        "final run succeeded in 3 s, loss=0.5: e-final-best",
    ]


def test_live_output_shows_trial_best_and_time_left() -> None:
    stream = io.StringIO()
    output = LiveOutput(Console(file=stream, force_terminal=True, width=160, color_system=None))
    output.started(RUNNING, SNAPSHOT)
    output.tick(SNAPSHOT)
    output.finished(ENDED, 0.5, SNAPSHOT)
    output.close()
    shown = stream.getvalue()
    for part in ("2/10 trials", "1 running", "best loss 0.25: rank=4[x]", "10 min left", "trial 2/10 started: t-2"):
        assert part in shown


def test_output_is_plain_where_there_is_no_terminal() -> None:
    assert isinstance(choose_output(io.StringIO()), PlainOutput)
    silent = choose_output(io.StringIO(), quiet=True)
    assert not isinstance(silent, PlainOutput | LiveOutput)
    silent.message("nothing")
