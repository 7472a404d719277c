"""Dual ascent against the linear program that it approaches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from rankwise.strategies.dual import STEPS, dual_ascent
from support.spaces import untimed


def problem(seed: int, n: int, j: int) -> tuple[np.ndarray, np.ndarray]:
    """Values that are better where bounds are broken; the first trial keeps all of them."""
    generator = np.random.default_rng(seed)
    v = generator.normal(size=n)
    g = 0.3 * generator.normal(size=(n, j)) - 0.1 - 0.3 * generator.random() * v[:, None]
    g[0] = -np.abs(g[0]) - 0.01
    return v, g


def exact(v: np.ndarray, g: np.ndarray) -> tuple[float, np.ndarray]:
    """max over μ ≥ 0 of minᵢ vᵢ + μ·gᵢ, as a linear program in (μ, d): d − μ·gᵢ ≤ vᵢ."""
    j = g.shape[1]
    solved = linprog(
        np.r_[np.zeros(j), -1.0], A_ub=np.c_[-g, np.ones(len(v))], b_ub=v, bounds=[(0, None)] * j + [(None, None)]
    )
    return -float(solved.fun), solved.x[:j]


@untimed
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 3))
def test_the_bound_approaches_the_best_dual_bound(seed: int, n: int, j: int) -> None:
    v, g = problem(seed, n, j)
    best, mu = exact(v, g)
    path = dual_ascent(v, g)
    assert path.mu.shape == (STEPS + 1, j)
    assert (path.mu >= 0).all()
    # Every bound is one: weak duality, up to rounding of numbers of size 1.
    assert path.bound[-1] <= best + 1e-9 * (1 + np.abs(mu).max())
    # Steps that move the scaled prices by γₜ = Δ/√t at most: the best bound is within G (R² + Σ γₜ²) / (2 Σ γₜ) of the
    # optimum, G the largest subgradient and R the distance from the start (Shor 1985; Boyd & Park 2014, section 3).
    scaled = g / np.abs(g).max(0)
    spread = np.median(v) - v.min() or np.ptp(v)
    gamma = spread / np.sqrt(np.arange(1, STEPS + 1))
    radius = np.linalg.norm(mu * np.abs(g).max(0))
    largest = np.linalg.norm(scaled, axis=1).max()
    assert best - path.bound[-1] <= largest * (radius**2 + (gamma**2).sum()) / (2 * gamma.sum())
    # The bounds are those of the prices on the path.
    np.testing.assert_allclose(path.bound[-1], (v + g @ path.prices).min(), atol=1e-9)
    assert (np.diff(path.bound) >= 0).all()


@untimed
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 3))
def test_order_and_units_do_not_matter(seed: int, n: int, j: int) -> None:
    v, g = problem(seed, n, j)
    path = dual_ascent(v, g)
    order = np.random.default_rng(seed).permutation(n)
    shuffled = dual_ascent(v[order], g[order])
    np.testing.assert_array_equal(shuffled.mu, path.mu)
    np.testing.assert_array_equal(shuffled.binds, path.binds)
    # Another unit of a metric: the price is in its unit. A power of two changes no digit.
    other = dual_ascent(v, g * 4.0)
    np.testing.assert_allclose(other.mu * 4.0, path.mu)
    np.testing.assert_allclose(other.bound, path.bound)


def test_a_bound_in_the_way_binds_and_another_does_not() -> None:
    v = np.array([0.0, 1.0, 2.0])
    g = np.array([[0.5, -0.9], [-0.1, -0.9], [-0.5, -0.9]])
    path = dual_ascent(v, g)
    assert path.binds.tolist() == [True, False]
    # Between the first two trials: 0 + 0.5 μ = 1 − 0.1 μ, at μ = 5/3 and a bound of 5/6.
    assert path.prices[0] == pytest.approx(5 / 3, rel=0.01)
    assert path.prices[1] == pytest.approx(0.0, abs=0.01)
    assert path.bound[-1] == pytest.approx(5 / 6, rel=0.01)
    assert path.bound[-1] <= 1.0, "the best trial within the bounds has 1"


def test_nothing_binds_where_the_best_trial_keeps_all_bounds() -> None:
    path = dual_ascent(np.array([0.0, 1.0]), np.array([[-0.1], [0.4]]))
    assert not path.binds.any()
    assert path.prices.tolist() == [0.0]
    assert path.bound[-1] == 0.0


def test_without_a_feasible_trial_prices_grow_and_stay_finite() -> None:
    path = dual_ascent(np.array([0.0, 1.0]), np.array([[0.8], [0.2]]))
    assert path.binds.all()
    # High enough that breaking the bound less is worth a worse value.
    assert (np.array([0.0, 1.0]) + np.array([[0.8], [0.2]]) @ path.prices).argmin() == 1
    assert np.isfinite(path.mu).all()


@pytest.mark.parametrize("values", [[1.0], [5.0, 5.0, 5.0], [-1e308, 0.0, 1e308], [0.0, 0.0], [5e-324, 1e-300]])
def test_values_without_spread_or_beyond_all_sizes(values: list[float]) -> None:
    v = np.array(values)
    g = np.linspace(0.5, -1e6, len(v))[:, None]
    path = dual_ascent(v, g)
    assert np.isfinite(path.mu).all()
    assert np.isfinite(path.bound).all()
    assert path.bound[-1] >= v.min() - 1e-9 * abs(v.min())


def test_no_constraint_is_no_price() -> None:
    path = dual_ascent(np.array([2.0, 1.0]), np.zeros((2, 0)))
    assert path.prices.shape == (0,)
    assert path.bound[-1] == 1.0


@pytest.mark.parametrize(
    ("v", "g", "said"),
    [
        (np.zeros(0), np.zeros((0, 1)), "needs values"),
        (np.zeros(2), np.zeros((3, 1)), "needs values"),
        (np.array([np.nan]), np.zeros((1, 1)), "must be finite"),
        (np.zeros(1), np.full((1, 1), np.inf), "must be finite"),
    ],
)
def test_wrong_arguments(v: np.ndarray, g: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dual_ascent(v, g)
