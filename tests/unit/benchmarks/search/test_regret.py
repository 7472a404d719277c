"""Regret, intervals and ranks on cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.search.regret import (
    interval,
    mean_curve,
    mean_ranks,
    paired_difference,
    ratio,
    regret_curve,
    resampled_means,
)
from support.spaces import untimed


def test_regret_is_the_best_so_far_on_a_scale_from_the_best_to_the_median() -> None:
    curve = regret_curve([5.0, 3.0, 4.0, 2.0], 4, best=2.0, median=4.0, worst=9.0)
    np.testing.assert_array_equal(curve, [1.0, 0.5, 0.5, 0.0])  # (5 − 2) / 2 is capped at 1
    np.testing.assert_array_equal(regret_curve([5.0, 3.0], 2, 2.0, 4.0, 9.0, capped=False), [1.5, 0.5])


def test_before_any_value_a_search_is_as_bad_as_the_median_or_uncapped_as_the_worst() -> None:
    np.testing.assert_array_equal(regret_curve([None, 3.0], 2, 2.0, 4.0, 9.0), [1.0, 0.5])
    np.testing.assert_array_equal(regret_curve([None, 3.0], 2, 2.0, 4.0, 9.0, capped=False), [3.5, 0.5])


def test_a_search_that_ended_keeps_its_regret_and_a_longer_one_is_cut() -> None:
    np.testing.assert_array_equal(regret_curve([3.0], 3, 2.0, 4.0, 9.0), [0.5] * 3)
    np.testing.assert_array_equal(regret_curve([3.0, 2.0], 1, 2.0, 4.0, 9.0), [0.5])


def test_regret_needs_a_trial_and_a_pool_with_a_scale() -> None:
    with pytest.raises(ValueError, match="a search needs a trial"):
        regret_curve([], 3, 2.0, 4.0, 9.0)
    with pytest.raises(ValueError, match="median is worse than its best"):
        regret_curve([3.0], 3, 2.0, 2.0, 9.0)


@untimed
@given(st.lists(st.one_of(st.none(), st.floats(2, 9)), min_size=1, max_size=40), st.booleans())
def test_regret_never_rises_and_is_never_negative(values: list[float | None], capped: bool) -> None:
    curve = regret_curve(values, 30, 2.0, 4.0, 9.0, capped)
    assert curve.shape == (30,)
    assert (np.diff(curve) <= 0).all()
    assert curve.min() >= 0
    assert curve.max() <= (1.0 if capped else 3.5)


def test_equal_searches_have_an_interval_without_width() -> None:
    value, low, high = mean_curve([np.full((20, 2), 0.25), np.full((5, 2), 0.75)])
    # The weights of a resample are sums of 1/20: they add up to 1 within 20 roundings.
    np.testing.assert_allclose([value, low, high], 0.5, atol=1e-14)


def test_the_interval_of_a_mean_is_the_normal_one_where_there_are_many_searches() -> None:
    count = 400
    samples = (np.arange(count) % 2).astype(float)[:, None]  # half 0, half 1: standard deviation 1/2
    value, low, high = mean_curve([samples])
    half = 1.96 * 0.5 / math.sqrt(count)  # 0.049
    # The 2.5 % quantile of R = 2,000 draws has a standard error of sqrt(.025·.975/R) / density at it; the density of
    # the mean (sd 0.025) there is 0.0584 / 0.025 = 2.34, which gives 0.0015; means are multiples of 1/400 = 0.0025.
    # Four standard errors and one step: 0.0085.
    assert value[0] == 0.5
    assert low[0] == pytest.approx(0.5 - half, abs=0.0085)
    assert high[0] == pytest.approx(0.5 + half, abs=0.0085)


def test_tasks_are_strata_each_counts_the_same() -> None:
    # Between the tasks lies much, within them nothing: resampling tasks would give a wide interval.
    value, low, high = mean_curve([np.zeros((30, 1)), np.ones((3, 1))])
    assert value[0] == 0.5
    assert low[0] == pytest.approx(0.5, abs=1e-14)
    assert high[0] == pytest.approx(0.5, abs=1e-14)


def test_resamples_are_of_the_given_searches_and_repeat() -> None:
    samples = np.array([[0.0, 10.0], [1.0, 11.0], [2.0, 12.0]])
    drawn = resampled_means(samples, seed=4, resamples=500)
    np.testing.assert_array_equal(drawn, resampled_means(samples, seed=4, resamples=500))
    assert drawn.min() >= 0.0
    # A search's trials are drawn together.
    np.testing.assert_allclose(drawn[:, 1] - drawn[:, 0], 10.0, atol=1e-12)
    assert len(np.unique(drawn[:, 0].round(9))) == 7  # sums of three of 0, 1, 2


def test_differences_are_paired_by_seed() -> None:
    theirs = {seed: float(seed**2) for seed in range(20)}
    ours = {seed: value + 0.5 for seed, value in theirs.items() if seed != 7}
    difference = paired_difference(ours, theirs)
    # Whatever is drawn, the difference is 0.5; unpaired it would be lost among values up to 361.
    assert [difference.value, difference.low, difference.high] == pytest.approx([0.5] * 3, abs=1e-12)
    with pytest.raises(ValueError, match="no seed in common"):
        paired_difference({1: 0.0}, {2: 0.0})


def test_a_ratio_is_of_means_over_tasks() -> None:
    half = ratio([np.full(20, 0.1), np.full(20, 0.2)], [np.full(20, 0.2), np.full(20, 0.4)])
    assert [half.value, half.low, half.high] == pytest.approx([0.5] * 3, abs=1e-12)


def test_a_ratio_to_nothing_is_infinite_and_of_two_nothings_one() -> None:
    assert ratio([np.ones(3)], [np.zeros(3)]).value == math.inf
    nothing = ratio([np.zeros(3)], [np.zeros(3)])
    assert (nothing.value, nothing.low, nothing.high) == (1.0, 1.0, 1.0)


def test_an_interval_holds_95_of_100_draws() -> None:
    found = interval(0.0, np.arange(1001.0))
    assert (found.low, found.high) == (25.0, 975.0)


def test_ranks_are_means_over_tasks_and_equal_ones_share() -> None:
    ranks = mean_ranks({"a": [0.1, 0.3, 0.2], "b": [0.2, 0.1, 0.2], "c": [0.3, 0.2, 0.2]})
    assert ranks == {"a": (1 + 3 + 2) / 3, "b": (2 + 1 + 2) / 3, "c": (3 + 2 + 2) / 3}
