"""The process whose mean is knowledge: trust is earned, and lost; hyperparameters are averaged over."""

# ruff: noqa: N803, N806 - X is a matrix, named as in the module under test

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gpytorch.kernels import MaternKernel
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.deadline import Deadline
from rankwise.surrogate import informed
from rankwise.surrogate.gaussian_process import FitError
from rankwise.surrogate.informed import (
    MEMBERS,
    TRUST,
    TRUST_SPREAD,
    Averaged,
    InformedProcess,
    fit_informed,
)
from rankwise.surrogate.observations import outcomes
from support.spaces import untimed

SCALES = np.ones(2)


def fit(U: np.ndarray, y: np.ndarray, *sources: np.ndarray, **options: object) -> Averaged:
    return fit_informed(np.column_stack([U, *sources]), y, SCALES, **options)  # type: ignore[arg-type]


def surface(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 2) and a loss with its least value at 0.7 of the first."""
    generator = np.random.default_rng(seed)
    U = generator.random((n, 2))
    return U, outcomes((U[:, 0] - 0.7) ** 2 + 0.01 * generator.standard_normal(n))


def right(U: np.ndarray) -> np.ndarray:
    return 2 - 12 * (U[:, :1] - 0.7) ** 2


def wrong(U: np.ndarray) -> np.ndarray:
    return -right(U)


# ------------------------------------------------------------------------------------------------------- knowledge


def test_before_any_trial_the_search_follows_its_sources() -> None:
    U, _ = surface(50)
    surrogate = fit(U[:0], np.zeros(0), right(U[:0]))
    assert surrogate.trust() == pytest.approx([TRUST])
    mean, variance = surrogate.posterior(np.c_[U, right(U)])
    np.testing.assert_allclose(mean, -TRUST * right(U)[:, 0], atol=1e-12)
    assert (variance > 0).all()


def test_trust_is_earned_and_lost() -> None:
    U, y = surface(12)
    # Each by itself: opposite columns cancel, and only the difference of their weights could be told.
    (good,) = fit(U, y, right(U)).trust()
    (bad,) = fit(U, y, wrong(U)).trust()
    slope = -np.polyfit(right(U)[:, 0], y, 1)[0]
    # What the source would explain alone is the slope; the process may take a part of it: one deviation of the prior.
    assert abs(good - slope) < TRUST_SPREAD
    # The trials speak against the other one by twice the slope: more than one deviation has to be gone.
    assert bad < TRUST - TRUST_SPREAD
    assert fit(U, y).trust() == []


def test_the_trust_of_a_linear_problem_is_that_of_bayesian_regression() -> None:
    """With a process of almost no scale only constant and trust are left: ridge regression by hand."""
    generator = np.random.default_rng(3)
    n, noise = 9, 0.05
    R = generator.standard_normal((n, 2))
    y = 0.3 - R @ [0.9, 0.1] + 0.1 * generator.standard_normal(n)
    process = InformedProcess(np.ones(1), noise, 1e-12, 2)
    from rankwise.surrogate.gaussian_process import FittedSurrogate
    from rankwise.surrogate.numeric import identity

    averaged = Averaged(np.ones(1), (FittedSurrogate(process, identity, np.c_[np.zeros(n), R], y),))
    A = np.c_[np.ones(n), -R]
    prior = np.diag([1.0, TRUST_SPREAD**-2, TRUST_SPREAD**-2])
    centre = np.array([0.0, TRUST, TRUST])
    by_hand = np.linalg.solve(A.T @ A / noise + prior, A.T @ y / noise + prior @ centre)
    # A process of scale 1e-12 is left out by hand: relative to the noise 2e-11.
    np.testing.assert_allclose(averaged.trust(), by_hand[1:], atol=1e-8)


def test_a_misplaced_source_is_forgotten() -> None:
    """After 15 trials a search that was told the opposite predicts nearly as well as one that was told nothing."""
    U, y = surface(15)
    grid, truth = surface(200, seed=1)
    misled = fit(U, y, wrong(U)).posterior(np.c_[grid, wrong(grid)])[0]
    plain = fit(U, y).posterior(grid)[0]

    def error(mean: np.ndarray) -> float:
        return float(1 - np.corrcoef(mean, truth)[0, 1])

    # What is left of the belief in the mean, and the noise; twice the error is "nearly".
    assert error(misled) < 2 * error(plain) + 0.01


# -------------------------------------------------------------------------------------------------- hyperparameters


def test_the_evidence_is_the_marginal_likelihood_of_the_process() -> None:
    """The batch over hyperparameters against each process by itself."""
    U, y = surface(8)
    X = np.c_[U, right(U)]
    v = np.linspace(0, 0.3, 8)
    theta = np.random.default_rng(0).standard_normal((5, 4))
    theta[:, 2] -= 3
    batched = informed._Evidence(X, y, v, 2)(theta)
    single = []
    for t in theta:
        process = InformedProcess(np.exp(t[:2]), informed._noise(t[2]), math.exp(t[3]), 1)
        likelihood = process.log_marginal_likelihood(torch.tensor(X), torch.tensor(y), torch.tensor(v))
        single.append(float(likelihood.detach()) + 4 * math.log(2 * math.pi))  # n / 2 of the constant left out
    np.testing.assert_allclose(batched, single, atol=1e-8)  # float64, condition numbers below 1e4


def test_the_covariance_is_gpytorchs_matern_with_constant_and_trust_integrated_out() -> None:
    A, B = np.random.default_rng(0).random((4, 3)), np.random.default_rng(1).random((5, 3))
    process = InformedProcess(np.array([0.3, 2.0]), 0.1, 1.7, 1)
    kernel = MaternKernel(nu=2.5, ard_num_dims=2).double()
    kernel.lengthscale = torch.tensor([0.3, 2.0], dtype=torch.float64)
    expected = 1.7 * kernel(torch.tensor(A[:, :2]), torch.tensor(B[:, :2])).to_dense().detach().numpy()
    expected += 1.0 + TRUST_SPREAD**2 * A[:, 2:] @ B[:, 2:].T
    found = process.covariance(torch.tensor(A), torch.tensor(B)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)
    diagonal = process.variance(torch.tensor(A)).detach().numpy()
    np.testing.assert_allclose(diagonal, np.diag(process.covariance(torch.tensor(A), torch.tensor(A)).detach()))


def test_the_average_is_that_of_brute_force() -> None:
    """Importance sampling against 200,000 plain draws from the prior, weighted by their likelihood."""
    U, y = surface(6)
    prior = informed._prior(SCALES)
    theta = prior.draw(np.random.default_rng(0).standard_normal((200_000, 4)))
    evidence = informed._Evidence(U, y, np.zeros(6), 2)
    found = evidence(theta)
    weights = np.exp(found - found.max())
    weights /= weights.sum()
    ours, share = informed._draws(evidence, SCALES, Deadline.never())
    by_force, by_us = weights @ theta, share @ ours
    spread = np.sqrt(weights @ (theta - by_force) ** 2)
    # 384 draws of which 100 or more have weight: a standard error of a tenth of the posterior's spread; quasi-random
    # numbers do better. Three of them.
    assert (np.abs(by_us - by_force) < 0.3 * spread).all()


def test_it_is_less_sure_than_its_most_probable_hyperparameters() -> None:
    U, y = surface(5)
    averaged = fit(U, y)
    assert len(averaged.surrogates) > MEMBERS / 2, "five observations leave many hyperparameters possible"
    assert averaged.weights.sum() == pytest.approx(1.0)
    grid, _ = surface(50, seed=1)
    mean, variance = averaged.posterior(grid)
    parts = [s.posterior(grid) for s in averaged.surrogates]
    within = averaged.weights @ np.stack([v for _, v in parts])
    assert (variance >= within).all()
    assert (variance > within * 1.01).any(), "the processes disagree"
    np.testing.assert_allclose(mean, averaged.weights @ np.stack([m for m, _ in parts]))


def test_leave_one_out_is_the_mixtures() -> None:
    U, y = surface(7)
    averaged = fit(U, y)
    parts = np.exp([s.leave_one_out() for s in averaged.surrogates])
    np.testing.assert_allclose(averaged.leave_one_out(), np.log(averaged.weights @ parts))


def test_the_same_trials_give_the_same_model_and_another_order_the_same_up_to_rounding() -> None:
    U, y = surface(10)
    grid, _ = surface(20, seed=1)
    first, again = fit(U, y).posterior(grid), fit(U, y).posterior(grid)
    np.testing.assert_array_equal(first, again)
    turned = fit(U[::-1].copy(), y[::-1].copy()).posterior(grid)
    np.testing.assert_allclose(turned, first, atol=1e-6)


def test_after_the_deadline_one_round_has_to_do() -> None:
    U, y = surface(10)
    assert np.isfinite(fit(U, y, deadline=Deadline(0.0)).posterior(U)[0]).all()


def test_no_finite_likelihood_is_an_error() -> None:
    U, y = surface(4)
    with pytest.raises(FitError, match="finite likelihood"):
        fit(U, np.where(np.arange(4) == 0, np.nan, y))


def test_what_is_known_to_be_noise_has_no_weight() -> None:
    U, y = surface(10)
    grid, _ = surface(20, seed=1)
    loud = y.copy()
    loud[0] = 50.0
    # A variance of 1e12 leaves 50 / 1e12 of the outlier in the mean.
    told = fit(U, loud, variances=np.where(np.arange(10) == 0, 1e12, 0.0)).posterior(grid)[0]
    without = fit(U[1:], y[1:]).posterior(grid)[0]
    np.testing.assert_allclose(told, without, atol=1e-5)


# -------------------------------------------------------------------------------------------------------- any input


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("sources", [0, 1, 3])
def test_few_observations(n: int, sources: int) -> None:
    U, y = surface(n)
    known = [right(U)] * sources
    mean, variance = fit(U, y, *known).posterior(np.column_stack([U, *known]))
    assert np.isfinite(mean).all()
    assert np.isfinite(variance).all()


@settings(untimed, max_examples=40)
@given(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e6, 1e300, 1e-300, 3.7]), min_size=0, max_size=12),
    st.integers(0, 5),
    st.integers(0, 2),
)
def test_any_values_give_a_finite_posterior_and_finite_trust(values: list[float], seed: int, sources: int) -> None:
    U, _ = surface(len(values), seed)
    X = np.column_stack([U, *[right(U)] * sources])
    surrogate = fit_informed(X, outcomes(np.array(values)), SCALES)
    mean, variance = surrogate.posterior(np.r_[X, X])
    assert np.isfinite(mean).all()
    assert (variance >= 0).all()
    assert np.isfinite(surrogate.trust()).all()


def test_a_thousand_trials() -> None:
    U, y = surface(1000)
    surrogate = fit(U, y, right(U), members=4)
    assert len(surrogate.surrogates) <= 4
    assert np.isfinite(surrogate.posterior(np.c_[U, right(U)])[0]).all()
