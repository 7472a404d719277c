"""What an earlier search found ranks the configurations of a later one, whatever its space was."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from rankwise.errors import InvalidInput
from rankwise.language.text_encoder import TextEncoder
from rankwise.space import Goal, Objective, ParameterText, SearchSpace, parse_space
from rankwise.strategies.base import SuggestRequest
from rankwise.strategies.earlier import MOST_SEARCHES, EarlierTrials, SearchName, read_names
from rankwise.strategies.knowledge import EarlierSearch
from rankwise.strategies.language_bo import LanguageBO

LATER = parse_space(
    [
        ParameterText("lora_rank", "discrete", list=("4", "16", "64")),
        ParameterText("lr", "discrete", list=("1e-5", "1e-4", "1e-3", "1e-2")),
        ParameterText("alpha", "discrete", list=("8", "16", "64")),
        ParameterText("target_modules", "categorical", list=("q,v", "all-linear")),
    ]
)
EARLIER = [
    {"rank": rank, "learningRate": rate, "alpha_ratio": ratio, "epochs": "3"}
    for rank in ("2", "8", "32")
    for rate in ("3e-5", "3e-4", "3e-3")
    for ratio in ("0.5", "2")
]
"""Other names, other values, alpha as a ratio, and a constant."""


def loss(rate: float, scaling: float) -> float:
    """Best where rate · scaling is 2e-3."""
    return 2.0 + 0.3 * math.log2(rate * scaling / 2e-3) ** 2


def found(
    configurations: Sequence[Mapping[str, str]] = EARLIER,
    *,
    goal: Goal = Goal.MINIMIZE,
    diverged: Sequence[Mapping[str, str]] = (),
) -> EarlierTrials:
    sign = 1.0 if goal is Goal.MINIMIZE else -1.0
    values = [sign * loss(float(one["learningRate"]), float(one["alpha_ratio"])) for one in configurations]
    return EarlierTrials("before", goal, tuple(configurations), tuple(values), tuple(diverged))


def later_losses(space: SearchSpace = LATER) -> list[float]:
    return [loss(float(p["lr"]), float(p["alpha"]) / float(p["lora_rank"])) for p in space.enumerate()]


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", list(Goal))
def test_it_ranks_a_space_with_other_names_and_values(goal: Goal) -> None:
    scores = EarlierSearch(found(goal=goal)).scores(LATER.enumerate())
    assert scores is not None
    # 12 of the 72 points lie within what was tried; the process says less of the order of the others. Orders that have
    # nothing to do with each other have |ρ| < 0.31 with probability 0.99 (normal approximation, sd 1 / √71 = 0.12).
    assert spearmanr(scores, later_losses()).statistic < -0.9


def test_it_knows_nothing_of_a_space_without_a_common_quantity() -> None:
    other = parse_space([ParameterText("temperature", "double", min="0", max="1")])
    assert EarlierSearch(found()).scores(other.candidates(8, 0)) is None


@pytest.mark.parametrize(
    "trials",
    [
        EarlierTrials("before", Goal.MINIMIZE, (), ()),
        EarlierTrials("before", Goal.MINIMIZE, (), (), tuple(EARLIER[:4])),  # nothing but diverged ones
        found(EARLIER[:1]),
        found([EARLIER[0]] * 5),  # nothing varied
        EarlierTrials("before", Goal.MINIMIZE, ({"rank": "1"}, {"lr": "1"}), (1.0, 2.0)),  # nothing in common
        EarlierTrials("before", Goal.MINIMIZE, ({"x": "1"}, {"x": "2"}), (1.0, 2.0)),  # a parameter that nobody knows
        EarlierTrials("before", Goal.MINIMIZE, ({"rank": "a"}, {"rank": "b"}), (1.0, 2.0)),  # no numbers
    ],
)
def test_too_little_is_nothing(trials: EarlierTrials) -> None:
    assert EarlierSearch(trials).scores(LATER.enumerate()) is None


def test_configurations_that_diverged_count_as_the_worst() -> None:
    """The highest measured rate is the best one; above it every training broke."""
    rates = ("1e-5", "1e-4", "1e-3")
    measured = tuple({"lr": rate} for rate in rates)
    broken = tuple({"lr": rate} for rate in ("1e-2", "2e-2", "5e-2"))
    space = parse_space([ParameterText("lr", "discrete", list=("1e-3", "5e-2"))])
    without = EarlierSearch(EarlierTrials("before", Goal.MAXIMIZE, measured, (1.0, 2.0, 3.0)))
    with_them = EarlierSearch(EarlierTrials("before", Goal.MAXIMIZE, measured, (1.0, 2.0, 3.0), broken))
    low, high = with_them.scores(space.enumerate())  # type: ignore[misc]
    assert low > high
    low, high = without.scores(space.enumerate())  # type: ignore[misc]
    assert low - high < 0.5 * np.ptp(with_them.scores(space.enumerate()))


def test_the_scale_of_an_axis_is_that_of_the_earlier_values() -> None:
    """A dropout of 0 was tried, so that the axis is linear, also where the later space has no 0."""
    trials = EarlierTrials(
        "before", Goal.MINIMIZE, tuple({"dropout": d} for d in ("0", "0.1", "0.2", "0.3")), (1.0, 2.0, 3.0, 4.0)
    )
    space = parse_space([ParameterText("lora_dropout", "discrete", list=("0.01", "0.1", "0.2", "0.3"))])
    scores = EarlierSearch(trials).scores(space.enumerate())
    assert scores is not None
    assert np.all(np.diff(scores) < 0)
    # Linear, 0.01 lies at 0.03 of the axis, next to 0: by far nearer to the best value than to that of 0.1.
    assert scores[0] - scores[1] > 0.6 * (scores[1] - scores[2])


def test_the_order_of_the_answer_is_that_of_the_points_and_no_point_depends_on_others() -> None:
    search = EarlierSearch(found())
    points = LATER.enumerate()
    scores = search.scores(points)
    assert scores is not None
    some = np.array([50, 3, 3, 17])
    # Sums in matrix products of another shape are rounded differently: some ulp of numbers of size 1.
    np.testing.assert_allclose(search.scores(points.take(some)), scores[some], atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=6),
    rates=st.lists(st.sampled_from(["1e-5", "3e-4", "0", "-1", "1e300", "x", "nan", "inf"]), min_size=6, max_size=6),
    broken=st.integers(0, 3),
)
def test_whatever_was_found_the_scores_are_finite(values: list[float], rates: list[str], broken: int) -> None:
    configurations = tuple({"lr": rate, "rank": str(2**i)} for i, rate in enumerate(rates))
    trials = EarlierTrials(
        "before", Goal.MINIMIZE, configurations[: len(values)], tuple(values), configurations[:broken]
    )
    scores = EarlierSearch(trials).scores(LATER.enumerate())
    assert scores is not None  # the rank always varies
    assert np.isfinite(scores).all()


def test_values_and_configurations_belong_together() -> None:
    with pytest.raises(ValueError, match="2 configurations have 1 values"):
        EarlierTrials("before", Goal.MINIMIZE, ({}, {}), (1.0,))


# --- a search that is told --------------------------------------------------------------------------------------------


def first_choice(*earlier: EarlierTrials) -> dict[str, str]:
    def no_encoder(_reference: str, _pooling: str) -> TextEncoder:
        raise AssertionError("the numbers need no language model")

    settings = {"surrogate": "numeric", "prior": "none"}
    objective = Objective("loss", Goal.MINIMIZE)
    request = SuggestRequest("later", LATER, objective, settings, (), 1, max_trials=10, earlier=earlier)
    (chosen,) = LanguageBO(no_encoder).suggest(request).assignments
    return chosen


def test_a_search_begins_where_an_earlier_one_was_good() -> None:
    losses = dict(zip(LATER.enumerate().keys, later_losses(), strict=True))

    def rank(configuration: Mapping[str, str]) -> int:
        return sum(other < losses[LATER.key(configuration)] for other in losses.values())

    # A choice at random would be among the best 8 of 72 once in 9 times.
    assert rank(first_choice(found())) < 8
    # It is the earlier search that says so: the opposite values send it elsewhere, and without one it knows nothing.
    opposite = replace(found(), goal=Goal.MAXIMIZE)
    assert rank(first_choice(opposite)) > 36
    assert first_choice() not in (first_choice(found()), first_choice(opposite))


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        (" \n", ()),
        ("exp-a", (SearchName("exp-a"),)),
        (" exp-a ,other-namespace/exp-b\n", (SearchName("exp-a"), SearchName("exp-b", "other-namespace"))),
        ("a, n/a", (SearchName("a"), SearchName("a", "n"))),
        ("x" * 63, (SearchName("x" * 63),)),
    ],
)
def test_names_are_read(text: str, names: tuple[SearchName, ...]) -> None:
    assert read_names(text, "path") == names


@pytest.mark.parametrize(
    "wrong", ["Exp", "a b", "a/b/c", "/a", "a/", "-a", "a-", "a_b", "../a", "..", "a.b", "a" * 64, "n/" + "a" * 64, "é"]
)
def test_what_is_no_name_is_told_with_what_is_allowed(wrong: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(f"path: got {wrong!r}")) as caught:
        read_names(f"good, {wrong}", "path")
    assert [problem.value for problem in caught.value.problems] == [wrong]
    assert "NAME or NAMESPACE/NAME" in caught.value.problems[0].allowed


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("a,", [""]),
        ("a,,b", [""]),
        ("a, a", ["a"]),
        ("A, b, C", ["A", "C"]),
        (",".join(f"a{i}" for i in range(MOST_SEARCHES + 1)), [f"{MOST_SEARCHES + 1} names"]),
    ],
)
def test_every_mistake_of_a_list_is_told(text: str, given: list[str]) -> None:
    with pytest.raises(InvalidInput, match="different names") as caught:
        read_names(text, "path")
    assert [problem.value for problem in caught.value.problems] == given


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        names = read_names(text, "path")
    except InvalidInput:
        return
    assert read_names(",".join(map(str, names)), "path") == names
