"""Which configurations further seeds could decide between."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import digamma, polygamma
from scipy.stats import t as student

from rankwise.strategies.racing import LOG_MODE, LOG_VARIANCE, OPEN, PRIOR_FREEDOM, chances, further, measure
from rankwise.surrogate import noise
from support.spaces import untimed

FINITE = st.floats(allow_nan=False, allow_infinity=False)
GROUPS = st.lists(st.lists(FINITE, min_size=1, max_size=4), min_size=1, max_size=8)


def test_the_prior_is_that_of_the_models_noise() -> None:
    assert LOG_MODE == noise.LOG_MODE


def test_without_a_repeat_the_typical_variance_is_the_priors() -> None:
    found = measure([[1.0], [2.0], [3.0], [10.0]])
    # The good half lies at 1 and 2, the median at 2.5.
    spread = (1.5**2 + 0.5**2) / 2
    assert not found.repeated
    np.testing.assert_allclose(found.variances, math.exp(-5) * spread, rtol=1e-12)
    np.testing.assert_allclose(found.freedom, PRIOR_FREEDOM)


def test_repeats_move_the_typical_variance_and_each_configuration_is_drawn_to_it() -> None:
    """By hand, from the formulas in the module's text."""
    groups = [[1.0, 1.2], [2.0], [3.0, 3.4, 3.2], [9.0]]
    found = measure(groups)
    means = [1.1, 2.0, 3.2, 9.0]
    median = 2.6
    spread = ((1.1 - median) ** 2 + (2.0 - median) ** 2) / 2
    pooled, freedom = 0.02, 1  # the third is not good: it is left out
    estimate = math.log(pooled) - digamma(freedom / 2) + math.log(freedom / 2)
    precision = 1 / polygamma(1, freedom / 2)
    typical = math.exp(((math.log(spread) - 5) / LOG_VARIANCE + precision * estimate) / (1 / LOG_VARIANCE + precision))
    variances = [(2 * typical + 0.02) / 3, typical, (2 * typical + 0.08) / 4, typical]
    np.testing.assert_allclose(found.variances, variances, rtol=1e-9)
    assert found.repeated
    squared = np.array(variances) / [2, 1, 3, 1]
    np.testing.assert_allclose(found.standard_errors, np.sqrt(squared), rtol=1e-9)
    tau = spread - squared[:2].mean()
    weights = tau / (tau + squared)
    np.testing.assert_allclose(found.posterior_means, median + weights * (np.array(means) - median), rtol=1e-9)
    np.testing.assert_allclose(found.posterior_variances, weights * squared, rtol=1e-9)
    assert found.first() == 0
    # Welch and Satterthwaite, by scipy's distribution.
    a, c = found.posterior_variances[0], found.posterior_variances[1]
    degrees = (a + c) ** 2 / (a**2 / found.freedom[0] + c**2 / found.freedom[1])
    difference = found.posterior_means[1] - found.posterior_means[0]
    expected = student.cdf(-difference / math.sqrt(a + c), degrees)
    assert chances(found)[1] == pytest.approx(expected, rel=1e-9)


def test_bad_configurations_do_not_tell_how_noisy_good_ones_are() -> None:
    quiet = [[1.0, 1.01], [1.1, 1.11], [5.0], [6.0]]
    wild = [*quiet[:2], [5.0, 50.0], [6.0, 0.0]]
    # The variance of a good configuration is the same but for the shift of the median.
    assert measure(wild).variances[0] < 10 * measure(quiet).variances[0]
    assert measure(wild).variances[2] > 100 * measure(wild).variances[0]


def test_a_single_lucky_training_does_not_beat_three_good_ones() -> None:
    noisy = [[1.0, 1.6, 1.3], [1.25], [1.2, 2.2, 1.9], [2.4, 1.6, 2.1], [2.0], [2.6]]
    found = measure(noisy)
    assert int(np.argmin(found.means)) == 1
    assert found.first() == 0


def test_where_nothing_is_noisy_nothing_is_open() -> None:
    groups = [[0.1 * i, 0.1 * i] for i in range(6)]
    found = measure(groups)
    assert chances(found)[0] == 0.5
    assert (chances(found)[1:] < OPEN).all()
    assert further(found, [0, 5, 5, 5, 5, 5], 3) == []


def test_where_all_is_noise_everything_is_open() -> None:
    """Eight equal configurations: each one's chance is 1/2 but for what chance made of three seeds."""
    open_ones = []
    for seed in range(20):
        values = np.random.default_rng(seed).normal(size=(8, 3))
        open_ones.append(int((chances(measure(values.tolist())) > OPEN).sum()))
    # Of eight normal means the second and the third lie on average 0.57 and 0.95 standard errors behind the first: in
    # units of the difference's error 0.40 and 0.67, with 0.34 and 0.25 beyond. Both are open, and the first counts too.
    assert np.mean(open_ones) > 3


def test_the_incumbent_comes_first_and_then_what_is_most_open() -> None:
    found = measure([[1.0], [1.001], [1.05], [3.0], [4.0], [5.0]])
    order = np.argsort(-chances(found), kind="stable").tolist()
    assert order[:2] == [0, 1]
    chosen = further(found, [2, 1, 2, 2, 2, 2], 10)
    assert chosen[:3] == [0, 0, 1]
    assert 5 not in chosen
    assert further(found, [2, 1, 2, 2, 2, 2], 2) == [0, 0]
    assert further(found, [0] * 6, 4) == []
    assert further(found, [-1] * 6, 4) == []


def test_a_configuration_alone_is_the_incumbent() -> None:
    found = measure([[2.0]])
    assert further(found, [2], 5) == [0, 0]
    assert found.standard_errors.tolist() == [0.0]


@pytest.mark.parametrize("groups", [[], [[1.0], []]])
def test_configurations_need_values(groups: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least one configuration with a value each"):
        measure(groups)


@untimed
@given(GROUPS, st.integers(0, 5))
def test_any_finite_values_are_judged(groups: list[list[float]], count: int) -> None:
    found = measure(groups)
    for numbers in (found.means, found.variances, found.posterior_means, found.standard_errors, chances(found)):
        assert np.isfinite(numbers).all()
    assert (found.standard_errors >= 0).all()
    assert ((chances(found) >= 0) & (chances(found) <= 0.5 + 1e-12)).all()
    chosen = further(found, [3 - len(group) for group in groups], count)
    assert len(chosen) <= count
    assert all(chosen.count(c) <= max(0, 3 - len(groups[c])) for c in chosen)


@untimed
@given(st.lists(st.lists(st.integers(-50, 50), min_size=1, max_size=3), min_size=2, max_size=6), st.integers(-20, 20))
def test_shift_and_scale_change_no_decision(groups: list[list[int]], shift: int) -> None:
    """Powers of two and whole numbers: the same arithmetic but for the exponent."""
    plain = measure([[float(y) for y in group] for group in groups])
    moved = measure([[4.0 * y + shift for y in group] for group in groups])
    np.testing.assert_allclose(chances(plain), chances(moved), rtol=1e-6, atol=1e-9)
