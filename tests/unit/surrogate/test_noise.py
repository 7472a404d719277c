"""What repeats say of the noise: the prior of fits by their mode."""

# ruff: noqa: N806 - X is a matrix, named as in the module under test

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from botorch.models.utils.gpytorch_modules import get_gaussian_likelihood_with_lognormal_prior
from hypothesis import given
from hypothesis import strategies as st

from rankwise.deadline import Deadline
from rankwise.surrogate.gaussian_process import GaussianProcess, matern_kernel
from rankwise.surrogate.noise import LEAST, LOG_MODE, log_mode, noise_likelihood
from rankwise.surrogate.numeric import fit_numeric, identity, maximize_posterior


def repeats(counts: list[int], noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows and outcomes of configurations far apart, each measured so often with a noise of variance ``noise``."""
    generator = np.random.default_rng(seed)
    X = np.repeat(generator.random((len(counts), 2)), counts, axis=0)
    levels = np.repeat(10 * generator.standard_normal(len(counts)), counts)
    return X, levels + math.sqrt(noise) * generator.standard_normal(len(X))


def test_without_repeats_it_is_botorchs() -> None:
    X, y = repeats([1] * 9, 0.1)
    ours, theirs = noise_likelihood(X, y, np.ones(9)), get_gaussian_likelihood_with_lognormal_prior()
    assert ours.noise.item() == theirs.noise.item()
    grid = torch.logspace(-4, 1, 20)
    prior, same = ours.noise_covar.noise_prior, theirs.noise_covar.noise_prior
    torch.testing.assert_close(prior.log_prob(grid), same.log_prob(grid), rtol=0, atol=0)
    assert ours.noise_covar.raw_noise_constraint.lower_bound == theirs.noise_covar.raw_noise_constraint.lower_bound
    assert noise_likelihood(X[:0], y[:0]).noise.item() == theirs.noise.item()


@pytest.mark.parametrize("noise", [1e-3, 0.05, 1.0])
def test_many_repeats_say_what_the_noise_is(noise: float) -> None:
    counts = [4] * 100
    found = log_mode(*repeats(counts, noise))
    # 300 degrees of freedom: a standard deviation of √(2 / 300) = 0.08, and a 151st part of the way to the prior.
    assert abs(found - math.log(noise)) < 5 * 0.082 + abs(LOG_MODE - math.log(noise)) / 151


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    noise=st.floats(1e-3, 1.0),
    seed=st.integers(0, 99),
)
def test_levels_and_order_do_not_matter(counts: list[int], noise: float, seed: int) -> None:
    X, y = repeats(counts, noise, seed)
    v = np.random.default_rng(seed).random(len(y))
    found = log_mode(X, y, v)
    order = np.random.default_rng(seed + 1).permutation(len(y))
    levels = np.repeat(np.arange(len(counts)), counts)
    # Differences of numbers of size 50 within 1e-14, squared and summed; the logarithm of their sum is of 1e-4 or more.
    assert log_mode(X[order], y[order] + levels[order], v[order]) == pytest.approx(found, abs=1e-7)
    assert math.isfinite(found)
    if max(counts) == 1:
        assert found == LOG_MODE


def test_what_the_known_variances_explain_is_not_noise() -> None:
    generator = np.random.default_rng(0)
    X, y = repeats([4] * 100, 0.05)
    noisy = y + generator.standard_normal(len(y)) * math.sqrt(0.1)
    # A variance of 0.15 in all within 300 degrees of freedom, of which 0.1 are known: s² is 0.05 ± 0.15 · √(2 / 300),
    # a quarter of it, and weighs as 150 / 9 observations.
    assert abs(log_mode(X, noisy, np.full(len(y), 0.1)) - math.log(0.05)) < 4 * 0.25 + 2 / 17
    assert log_mode(X, noisy) == pytest.approx(math.log(0.15), abs=5 * 0.082 + 3 / 151)
    # Under an error a thousand times as large nothing is seen of it.
    assert log_mode(X, y, np.full(len(y), 1e3)) == pytest.approx(LOG_MODE, abs=1e-6)


def test_equal_repeats_are_finite_and_move_the_prior_down() -> None:
    X, y = np.zeros((2, 2)), np.zeros(2)
    found = log_mode(X, y)
    assert math.log(LEAST) < found < LOG_MODE
    assert noise_likelihood(np.zeros((1000, 2)), np.zeros(1000)).noise.item() >= LEAST


def test_the_fitted_noise_is_nearer_to_the_truth() -> None:
    """Few and noisy observations, of which ten are repeats; the mean over ten data sets of the error of log σ²."""
    before, after = [], []
    for seed in range(10):
        X, y = repeats([3] * 5 + [1] * 3, 1.0, seed)
        generator = np.random.default_rng(seed)
        y = np.sin(4 * X[:, 0]) + 0.7 * generator.standard_normal(len(X))
        truth = math.log(0.49 / y.var())
        y = (y - y.mean()) / y.std()
        plain = GaussianProcess(matern_kernel(2))
        maximize_posterior(plain, identity(X), torch.tensor(y), 30, Deadline.never())
        before.append(abs(math.log(plain.noise.item()) - truth))
        after.append(abs(math.log(fit_numeric(X, y, 30).model.noise.item()) - truth))
    assert np.mean(after) < np.mean(before)
