from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.report.compare import Verdict, compare, compare_metric, goal_of, plain_metric
from rankwise.report.facts import FinalRun
from rankwise.space.trial import Goal, Objective

LOSS = Objective("loss", Goal.MINIMIZE)
CLOSE = 1e-12  # sums of a few floats near 1: some rounding errors of 2^-53 each


def run(
    values: tuple[float, ...] = (), *, metric: str = "loss", value: float | None = None, error: float | None = None
):
    metrics = {metric: statistics.fmean(values) if value is None else value}
    return FinalRun({}, metrics, {} if error is None else {metric: error}, {metric: values} if values else {})


def test_runs_on_the_same_examples_are_compared_example_by_example() -> None:
    default, best = run((1.0, 2.0, 3.0, 4.0)), run((0.8, 1.9, 2.7, 3.8))
    result = compare_metric("loss", default, best, LOSS)
    # differences -0.2, -0.1, -0.3, -0.2: mean -0.2, variance (0 + .01 + .01 + 0) / 3
    assert result.difference == pytest.approx(-0.2, abs=CLOSE)
    assert result.standard_error == pytest.approx(math.sqrt(0.02 / 3) / 2, abs=CLOSE)
    assert (result.method, result.examples, result.verdict) == ("paired", 4, Verdict.BETTER)
    assert result.gain == pytest.approx(0.2 / 2.5, abs=CLOSE)
    assert result.words == "better by 0.200 ± 0.041"


def test_pairing_shows_what_independent_means_hide() -> None:
    rng = np.random.default_rng(0)
    level = rng.normal(2, 1, 100)
    before, after = tuple(map(float, level)), tuple(map(float, level - 0.05 + rng.normal(0, 0.05, 100)))
    errors = [statistics.stdev(values) / 10 for values in (before, after)]
    paired = compare_metric("loss", run(before, error=errors[0]), run(after, error=errors[1]), LOSS)
    alone = compare_metric(
        "loss",
        run(value=statistics.fmean(before), error=errors[0]),
        run(value=statistics.fmean(after), error=errors[1]),
        LOSS,
    )
    assert (paired.verdict, alone.verdict) == (Verdict.BETTER, Verdict.NO_DIFFERENCE)
    assert alone.standard_error == pytest.approx(math.hypot(*errors), abs=CLOSE)
    assert alone.words.startswith("no difference that this test set can show (−0.05 ± 0.1")


def test_values_that_do_not_add_up_to_the_metric_are_not_paired() -> None:
    # A corpus metric such as BLEU: its value is not the mean of the values per example.
    default = FinalRun({}, {"bleu": 20.0}, {"bleu": 1.0}, {"bleu": (10.0, 12.0, 14.0)})
    best = FinalRun({}, {"bleu": 30.0}, {"bleu": 1.0}, {"bleu": (11.0, 13.5, 15.0)})
    result = compare_metric("bleu", default, best, LOSS)
    assert (result.method, result.verdict) == ("independent", Verdict.BETTER)
    assert result.standard_error == pytest.approx(math.sqrt(2), abs=CLOSE)


@pytest.mark.parametrize("best", [(1.0, 2.0), (1.0,), ()])
def test_other_numbers_of_examples_are_not_paired(best: tuple[float, ...]) -> None:
    result = compare_metric("loss", run((1.0, 2.0, 3.0)), run(best) if best else run(value=1.0), LOSS)
    assert (result.method, result.standard_error, result.verdict) == ("none", None, Verdict.UNKNOWN)
    assert "no standard error, so this cannot be judged" in result.words


def test_one_example_cannot_be_judged() -> None:
    assert compare_metric("loss", run((1.0,)), run((0.5,)), LOSS).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("difference", "goal", "verdict"),
    [
        (-0.21, Goal.MINIMIZE, Verdict.BETTER),
        (0.21, Goal.MINIMIZE, Verdict.WORSE),
        (0.21, Goal.MAXIMIZE, Verdict.BETTER),
        (-0.21, Goal.MAXIMIZE, Verdict.WORSE),
        (0.19, Goal.MAXIMIZE, Verdict.NO_DIFFERENCE),
        (-0.19, Goal.MINIMIZE, Verdict.NO_DIFFERENCE),
        (0.0, Goal.MINIMIZE, Verdict.NO_DIFFERENCE),
    ],
)
def test_two_standard_errors_are_the_line(difference: float, goal: Goal, verdict: Verdict) -> None:
    # standard errors 0.06 and 0.08 give 0.1 for the difference: the line is at 0.2
    result = compare_metric(
        "m",
        run(metric="m", value=1.0, error=0.06),
        run(metric="m", value=1.0 + difference, error=0.08),
        Objective("m", goal),
    )
    assert result.verdict is verdict


def test_equal_predictions_are_no_difference() -> None:
    same = run((1.0, 2.0, 3.0))
    result = compare_metric("loss", same, same, LOSS)
    assert (result.standard_error, result.verdict) == (0.0, Verdict.NO_DIFFERENCE)


def test_a_metric_of_unknown_direction_is_not_called_better() -> None:
    before, after = run(metric="novelty", value=1.0, error=0.1), run(metric="novelty", value=9.0, error=0.1)
    result = compare_metric("novelty", before, after, LOSS)
    assert (result.goal, result.gain, result.verdict) == (None, None, Verdict.UNKNOWN)


@given(
    st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=20),
    st.sampled_from(list(Goal)),
)
def test_turning_the_runs_round_turns_the_verdict_round(pairs: list[tuple[float, float]], goal: Goal) -> None:
    a, b = (run(tuple(column)) for column in zip(*pairs, strict=True))
    there, back = (compare_metric("loss", x, y, Objective("loss", goal)) for x, y in ((a, b), (b, a)))
    opposite = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    assert back.verdict is opposite.get(there.verdict, there.verdict)
    assert back.difference == -there.difference


@pytest.mark.parametrize(
    ("metric", "goal"),
    [
        ("rouge1", Goal.MAXIMIZE), ("rougeL", Goal.MAXIMIZE), ("bleu", Goal.MAXIMIZE), ("exact_match", Goal.MAXIMIZE),
        ("test_loss", Goal.MINIMIZE), ("eval-perplexity", Goal.MINIMIZE), ("seconds", Goal.MINIMIZE),
        ("peak_memory_bytes", Goal.MINIMIZE), ("sentiment", None), ("lossless", None),
    ],
)  # fmt: skip
def test_directions_of_well_known_metrics(metric: str, goal: Goal | None) -> None:
    assert goal_of(metric, Objective("other", Goal.MAXIMIZE)) is goal


def test_the_objectives_own_goal_goes_before_its_name() -> None:
    assert goal_of("test-loss", Objective("loss", Goal.MAXIMIZE)) is Goal.MAXIMIZE
    assert plain_metric("test/RougeL") == "rougel"


def test_the_objectives_metric_comes_first_and_only_common_ones() -> None:
    a = FinalRun({}, {"bleu": 1.0, "test_loss": 1.0, "accuracy": 1.0, "only_a": 1.0})
    b = FinalRun({}, {"bleu": 1.0, "test_loss": 1.0, "accuracy": 1.0})
    assert [item.metric for item in compare(a, b, LOSS)] == ["test_loss", "accuracy", "bleu"]
