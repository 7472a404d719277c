"""The process whose mean is knowledge: trust is earned, and lost."""

# ruff: noqa: N803, N806 - X is a matrix, named as in the module under test

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.surrogate.informed import MOST_TRUST, TRUST, fit_informed, trust_in_sources
from rankwise.surrogate.numeric import fit_numeric
from rankwise.surrogate.observations import outcomes
from support.spaces import untimed


def surface(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 2) and a loss with its least value at 0.7 of the first."""
    generator = np.random.default_rng(seed)
    U = generator.random((n, 2))
    return U, outcomes((U[:, 0] - 0.7) ** 2 + 0.01 * generator.standard_normal(n))


def right(U: np.ndarray) -> np.ndarray:
    return 2 - 12 * (U[:, :1] - 0.7) ** 2


def wrong(U: np.ndarray) -> np.ndarray:
    return -right(U)


def test_before_any_trial_the_search_follows_its_sources() -> None:
    U, _ = surface(50)
    X = np.c_[U, right(U)]
    surrogate = fit_informed(X[:0], np.zeros(0), 1)
    assert trust_in_sources(surrogate) == [TRUST]
    mean, variance = surrogate.posterior(X)
    np.testing.assert_allclose(mean, -TRUST * right(U)[:, 0], atol=1e-12)
    assert (variance > 0).all()


def test_without_sources_it_is_the_ordinary_process() -> None:
    U, y = surface(20)
    ours, plain = fit_informed(U, y, 0), fit_numeric(U, y)
    grid = np.random.default_rng(1).random((30, 2))
    for a, b in zip(ours.posterior(grid), plain.posterior(grid), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)  # the same arithmetic in another order
    assert trust_in_sources(ours) == []


def test_trust_is_earned_and_lost() -> None:
    U, y = surface(12)
    # Each by itself: opposite columns cancel, and only the difference of their weights could be told.
    (good,) = trust_in_sources(fit_informed(np.c_[U, right(U)], y, 1))
    (bad,) = trust_in_sources(fit_informed(np.c_[U, wrong(U)], y, 1))
    slope = -np.polyfit(right(U)[:, 0], y, 1)[0]
    # The source explains the outcomes but for noise of a few percent; the prior pulls a little towards TRUST.
    assert good == pytest.approx(slope, rel=0.1)
    assert bad < 0.1


def test_a_misplaced_source_is_forgotten() -> None:
    """After 15 trials a search that was told the opposite predicts nearly as well as one that was told nothing."""
    U, y = surface(15)
    grid, truth = surface(200, seed=1)
    misled = fit_informed(np.c_[U, wrong(U)], y, 1).posterior(np.c_[grid, wrong(grid)])[0]
    plain = fit_informed(U, y, 0).posterior(grid)[0]

    def error(mean: np.ndarray) -> float:
        return float(1 - np.corrcoef(mean, truth)[0, 1])

    # The unknown constant and the noise leave some of the belief in the mean; twice the error is "nearly".
    assert error(misled) < 2 * error(plain) + 0.01


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("sources", [0, 1, 3])
def test_few_observations(n: int, sources: int) -> None:
    U, y = surface(n)
    X = np.c_[U, np.tile(right(U), sources)]
    mean, variance = fit_informed(X, y, sources).posterior(X)
    assert np.isfinite(mean).all()
    assert np.isfinite(variance).all()


@untimed
@given(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e6, 1e300, 1e-300, 3.7]), min_size=0, max_size=12),
    st.integers(0, 5),
    st.integers(0, 2),
)
def test_any_values_give_a_finite_posterior_and_bounded_trust(values: list[float], seed: int, sources: int) -> None:
    U, _ = surface(len(values), seed)
    X = np.c_[U, np.tile(right(U), sources)]
    surrogate = fit_informed(X, outcomes(np.array(values)), sources, steps=5)
    mean, variance = surrogate.posterior(np.r_[X, X])
    assert np.isfinite(mean).all()
    assert (variance >= 0).all()
    assert all(0 <= b <= MOST_TRUST for b in trust_in_sources(surrogate))


def test_a_thousand_trials() -> None:
    U, y = surface(1000)
    surrogate = fit_informed(np.c_[U, right(U)], y, 1, steps=3)
    assert np.isfinite(surrogate.posterior(np.c_[U, right(U)])[0]).all()
