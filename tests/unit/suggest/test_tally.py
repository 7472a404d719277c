"""What the service counts."""

from __future__ import annotations

import math

from rankwise.space import TrialState
from rankwise.suggest.tally import EXPERIMENTS, FORGOTTEN_AFTER, SECONDS, Histogram, Tally


def test_a_histogram_puts_seconds_into_the_bucket_that_holds_them() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.05, 0.051, 60.0, 61.0):
        histogram.observe(seconds)
    sums = dict(histogram.cumulative())
    assert list(sums) == [*SECONDS, math.inf]
    assert (sums[0.05], sums[0.1], sums[45.0], sums[60.0], sums[math.inf]) == (2, 3, 3, 4, 5)
    assert histogram.total == 121.101


def test_an_experiments_trials_are_those_of_its_last_request() -> None:
    tally = Tally()
    tally.saw_trials("a", [TrialState.PENDING, TrialState.PENDING, TrialState.FAILED])
    tally.saw_trials("a", [TrialState.SUCCEEDED])
    (states,) = tally.figures().trials.values()
    assert states == {state.value: int(state is TrialState.SUCCEEDED) for state in TrialState}


def test_experiments_are_forgotten_after_a_day_and_when_there_are_many() -> None:
    now = [0.0]
    tally = Tally(lambda: now[0])
    for number in range(EXPERIMENTS + 3):
        tally.saw_trials(f"e{number}", [])
        now[0] += 1
    assert list(tally.figures().trials) == [f"e{number}" for number in range(3, EXPERIMENTS + 3)]
    tally.saw_trials("e3", [])  # asked again, so that others are older
    now[0] = FORGOTTEN_AFTER + EXPERIMENTS + 2.5
    assert list(tally.figures().trials) == ["e3"]
    now[0] += 1
    assert tally.figures().trials == {}


def test_figures_are_a_copy() -> None:
    tally = Tally()
    tally.count("requests")
    tally.answered(1.0, None)
    figures = tally.figures()
    tally.count("requests", 2)
    tally.answered(1.0, 2.0)
    assert figures.counts == {"requests": 1}
    assert (figures.suggestion.total, figures.fit.total) == (1.0, 0.0)
    assert (tally.figures().suggestion.total, tally.figures().fit.total) == (2.0, 2.0)
