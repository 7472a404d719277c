"""The median stopping rule."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.errors import InvalidInput
from rankwise.local.early_stopping import MedianStop, RuleWatch, check_early_stopping
from rankwise.local.records import Comparison, StopRule
from rankwise.space.trial import Goal, Objective

MINIMIZE = Objective("loss", Goal.MINIMIZE)
MAXIMIZE = Objective("loss", Goal.MAXIMIZE)


def test_settings() -> None:
    assert MedianStop.from_settings({}) == MedianStop(min_trials_required=3, start_step=4)
    assert MedianStop.from_settings({"min_trials_required": "1", "start_step": "2"}) == MedianStop(1, 2)


def test_every_wrong_setting_is_named() -> None:
    with pytest.raises(InvalidInput, match="min_trials_required") as error:
        MedianStop.from_settings({"min_trials_required": "0", "start_step": "x", "patience": "3"})
    assert [problem.value for problem in error.value.problems] == ["0", "x", "patience"]


def test_no_rule_before_enough_trials() -> None:
    stop = MedianStop(min_trials_required=3, start_step=2)
    histories = [["1"], ["2", "4"], ["nan", ""]]  # the third reported no number
    assert stop.rule(MINIMIZE, histories) is None
    rule = stop.rule(MINIMIZE, [*histories, ["5", "7", "1000"]])  # only the first two reports count
    assert rule == StopRule("loss", 3.0, Comparison.GREATER, 2)  # median of 1, 3, 6


def test_it_is_the_median_and_not_the_mean() -> None:
    rule = MedianStop(3, 1).rule(MAXIMIZE, [["1"], ["2"], ["100"]])
    assert rule == StopRule("loss", 2.0, Comparison.LESS, 1)


FINITE = st.floats(-1e6, 1e6)


@given(st.lists(st.lists(FINITE, min_size=1, max_size=6), min_size=1, max_size=6), st.integers(1, 5))
def test_rule_value(histories: list[list[float]], start_step: int) -> None:
    rule = MedianStop(1, start_step).rule(MINIMIZE, [[repr(v) for v in history] for history in histories])
    assert rule is not None
    assert rule.value == statistics.median(statistics.fmean(history[:start_step]) for history in histories)


@given(st.lists(FINITE, max_size=10), st.integers(1, 6), FINITE, st.booleans())
def test_a_trial_is_judged_once_at_its_nth_report_by_its_best(
    values: list[float], start_step: int, threshold: float, minimize: bool
) -> None:
    comparison = Comparison.GREATER if minimize else Comparison.LESS
    watch = RuleWatch(StopRule("loss", threshold, comparison, start_step))
    struck = [watch.add(repr(value)) for value in values]
    expected = [False] * len(values)
    if len(values) >= start_step:
        first = values[:start_step]
        expected[start_step - 1] = min(first) > threshold if minimize else max(first) < threshold
    assert struck == expected


def test_reports_without_a_number_count_but_do_not_stop() -> None:
    watch = RuleWatch(StopRule("loss", 1.0, Comparison.GREATER, 2))
    assert [watch.add(""), watch.add("nan"), watch.add("5")] == [False, False, False]
    watch = RuleWatch(StopRule("loss", 1.0, Comparison.GREATER, 2))
    assert [watch.add("nan"), watch.add("5")] == [False, True]


def test_other_algorithms_are_refused() -> None:
    check_early_stopping("medianstop", {"start_step": "3"})
    with pytest.raises(InvalidInput, match=r"algorithmName: got 'hyperband'; allowed: medianstop"):
        check_early_stopping("hyperband", {})
    with pytest.raises(InvalidInput, match="start_step"):
        check_early_stopping("medianstop", {"start_step": "-3"})
