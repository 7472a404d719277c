"""The shared Gaussian process against GPyTorch, BoTorch and brute force."""

# ruff: noqa: N803, N806 - X and V are matrices, named as in the modules under test

from __future__ import annotations

import gpytorch
import numpy as np
import pytest
import torch
from botorch.models import SingleTaskGP
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rankwise.surrogate.gaussian_process import FitError, FittedSurrogate, GaussianProcess, cholesky, matern_kernel
from rankwise.surrogate.numeric import identity

# Both sides are float64 Cholesky solutions of well-conditioned 20 x 20 systems (noise 0.05): rounding is about 1e-14
# times the condition number, below 1e3.
EXACT = 1e-9


def data(n: int = 20, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    X = generator.random((n, d))
    y = np.sin(5 * X[:, 0]) + X[:, 1] + 0.1 * generator.standard_normal(n)
    return X, (y - y.mean()) / y.std()


def process(d: int = 3) -> GaussianProcess:
    model = GaussianProcess(matern_kernel(d))
    model.covar_module.lengthscale = torch.linspace(0.3, 0.9, d, dtype=torch.float64)
    model.likelihood.noise = 0.05
    model.mean_module.constant = 0.2
    return model


def botorch_twin(model: GaussianProcess, X: np.ndarray, y: np.ndarray) -> SingleTaskGP:
    twin = SingleTaskGP(
        torch.tensor(X),
        torch.tensor(y).unsqueeze(-1),
        likelihood=model.likelihood,
        covar_module=model.covar_module,
        mean_module=model.mean_module,
        outcome_transform=None,
    )
    return twin.double().eval()


def test_loss_is_gpytorchs_marginal_likelihood_with_priors() -> None:
    X, y = data()
    model = process()
    twin = botorch_twin(model, X, y).train()
    likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(twin.likelihood, twin)
    expected = -likelihood(twin(torch.tensor(X)), torch.tensor(y))
    assert model.loss(torch.tensor(X), torch.tensor(y)).item() == pytest.approx(expected.item(), abs=EXACT)


def test_posterior_is_botorchs() -> None:
    X, y = data()
    model = process()
    new = np.random.default_rng(1).random((7, 3))
    expected = botorch_twin(model, X, y).posterior(torch.tensor(new))
    fitted = FittedSurrogate(model, identity, X, y)
    mean, variance = fitted.posterior(new)
    np.testing.assert_allclose(mean, expected.mean.detach().squeeze(-1).numpy(), atol=EXACT)
    np.testing.assert_allclose(variance, expected.variance.detach().squeeze(-1).numpy(), atol=EXACT)
    joint = expected.distribution.covariance_matrix.detach().numpy()
    rows = fitted.rows(new)
    for i in range(len(new)):
        np.testing.assert_allclose(rows.covariance(i).numpy(), joint[i], atol=EXACT)
    assert not fitted.model.training


def test_chunks_do_not_change_the_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data()
    fitted = FittedSurrogate(process(), identity, X, y)
    new = np.random.default_rng(1).random((50, 3))
    whole = fitted.posterior(new)
    column = fitted.rows(new).covariance(3)
    monkeypatch.setattr("rankwise.surrogate.gaussian_process.CHUNK_ELEMENTS", 140)  # seven rows at once
    np.testing.assert_allclose(fitted.posterior(new), whole, atol=EXACT)
    np.testing.assert_allclose(fitted.rows(new).covariance(3), column, atol=EXACT)


def test_leave_one_out_is_leaving_one_out() -> None:
    X, y = data(n=8)
    model = process()
    expected = []
    for i in range(8):
        rest = np.arange(8) != i
        expected.append(FittedSurrogate(model, identity, X[rest], y[rest]).log_density(X[i : i + 1], y[i : i + 1])[0])
    actual = FittedSurrogate(model, identity, X, y).leave_one_out()
    np.testing.assert_allclose(actual, expected, atol=EXACT)


def test_without_observations_the_posterior_is_the_prior() -> None:
    fitted = FittedSurrogate(process(), identity, np.zeros((0, 3)), np.zeros(0))
    mean, variance = fitted.posterior(np.random.default_rng(0).random((4, 3)))
    np.testing.assert_allclose(mean, 0.2)
    np.testing.assert_allclose(variance, 1.0)


def test_repeated_rows_are_repeated_observations() -> None:
    X = np.full((50, 2), 0.5)
    y = np.random.default_rng(0).standard_normal(50)
    model = process(2)
    mean, variance = FittedSurrogate(model, identity, X, y).posterior(X[:1])
    # Conjugate normal: 50 observations of noise 0.05 of one value with prior N(0.2, 1).
    precision = 1.0 + 50 / 0.05
    assert mean[0] == pytest.approx((0.2 + y.sum() / 0.05) / precision, abs=1e-8)
    assert variance[0] == pytest.approx(1 / precision, abs=1e-8)


def test_cholesky_adds_jitter_to_a_singular_matrix_and_gives_up_on_a_negative_one() -> None:
    ones = torch.ones((3, 3), dtype=torch.float64)
    factor = cholesky(ones)
    torch.testing.assert_close(factor @ factor.T, ones, atol=1e-5, rtol=0)
    with pytest.raises(FitError, match=r"no Cholesky factor of a \(3, 3\) matrix with jitter 0.0001"):
        cholesky(-ones)
    with pytest.raises(FitError, match="no Cholesky factor"):
        cholesky(torch.full((2, 2), torch.nan, dtype=torch.float64))


def test_tighter_lengthscales_keep_the_mode_of_the_prior() -> None:
    wide, tight = matern_kernel(64), matern_kernel(64, 1.0)
    assert float(tight.lengthscale_prior.mode) == pytest.approx(float(wide.lengthscale_prior.mode))
    assert float(tight.lengthscale_prior.stddev) < float(wide.lengthscale_prior.stddev)
    (name,) = [name for name, *_ in tight.named_priors()]
    assert name == "lengthscale_prior"


# --- known variances --------------------------------------------------------------------------------------------------


def test_variances_of_zero_change_no_bit() -> None:
    X, y = data()
    model, zeros = process(), np.zeros(len(y))
    plain, known = FittedSurrogate(model, identity, X, y), FittedSurrogate(model, identity, X, y, zeros)
    np.testing.assert_array_equal(known.posterior(X + 0.1), plain.posterior(X + 0.1))
    np.testing.assert_array_equal(known.rows(X).covariance(2).numpy(), plain.rows(X).covariance(2).numpy())
    np.testing.assert_array_equal(known.leave_one_out(), plain.leave_one_out())
    Z, t = torch.tensor(X), torch.tensor(y)
    assert model.loss(Z, t, torch.tensor(zeros)).item() == model.loss(Z, t).item()


# A standard error that is known may be as small as rounding or a hundred times the outcomes' spread. The condition
# number stays below 20 times (n + 1e4) / 0.05: rounding of 1e-16 times that is below 1e-9.
known_variances = hnp.arrays(np.float64, 12, elements=st.just(0.0) | st.floats(1e-12, 1e4))


def normal_log_density(y: np.ndarray, mean: np.ndarray | float, variance: np.ndarray) -> np.ndarray:
    return -0.5 * ((y - mean) ** 2 / variance + np.log(2 * np.pi * variance))


@given(variances=known_variances, seed=st.integers(0, 1000))
def test_known_variances_are_added_to_the_diagonal(variances: np.ndarray, seed: int) -> None:
    """Posterior, marginal likelihood and leave-one-out by their formulas on dense matrices, without a factorization."""
    X, y = data(n=12, seed=seed)
    new = np.random.default_rng(seed + 1).random((4, 3))
    model = process()
    with torch.no_grad():
        joint = model.covariance(*[torch.tensor(np.concatenate([X, new]))] * 2).numpy()
    K, k, prior = joint[:12, :12], joint[12:, :12], joint[12:, 12:]
    constant, noise = model.constant.item(), model.noise.item()
    S, r = K + np.diag(noise + variances), y - constant

    fitted = FittedSurrogate(model, identity, X, y, variances)
    mean, variance = fitted.posterior(new)
    covariance = prior - k @ np.linalg.solve(S, k.T)
    np.testing.assert_allclose(mean, constant + k @ np.linalg.solve(S, r), atol=EXACT)
    np.testing.assert_allclose(variance, np.diag(covariance), atol=EXACT)
    np.testing.assert_allclose(fitted.rows(new).covariance(1).numpy(), covariance[1], atol=EXACT)

    with torch.no_grad():
        log_likelihood = model.log_marginal_likelihood(*map(torch.tensor, (X, y, variances))).item()
    expected = -0.5 * (r @ np.linalg.solve(S, r) + np.linalg.slogdet(2 * np.pi * S).logabsdet)
    assert log_likelihood == pytest.approx(expected, abs=EXACT)

    left_out = []
    for i in range(12):
        rest = np.arange(12) != i
        w = np.linalg.solve(S[np.ix_(rest, rest)], K[rest, i])
        left_out.append(normal_log_density(y[i], constant + w @ r[rest], S[i, i] - w @ K[rest, i]))
    np.testing.assert_allclose(fitted.leave_one_out(), left_out, atol=EXACT)


@given(variance=st.floats(1e3, 1e12), seed=st.integers(0, 1000))
def test_an_observation_of_huge_variance_has_no_influence(variance: float, seed: int) -> None:
    X, y = data(seed=seed)
    y[7] = 50.0
    new = np.random.default_rng(seed + 1).random((6, 3))
    model, variances = process(), np.where(np.arange(20) == 7, variance, 0.0)
    rest = np.arange(20) != 7
    without = FittedSurrogate(model, identity, X[rest], y[rest])
    mean, spread = FittedSurrogate(model, identity, X, y, variances).posterior(new)
    expected_mean, expected_spread = without.posterior(new)
    # One more observation moves the mean by c (y − μ) / (s² + σ² + v) and the variance by c² / (s² + σ² + v), where c
    # is its posterior covariance with the row: at most 1, the prior variance.
    surprise = abs(50.0 - without.posterior(X[7:8])[0][0])
    np.testing.assert_allclose(mean, expected_mean, atol=surprise / variance + EXACT)
    np.testing.assert_allclose(spread, expected_spread, atol=1 / variance + EXACT)
    # With a variance of 0 it does count, by s² / (s² + σ²) of its surprise at its own row; s² is no less than σ² / 20,
    # for 19 others of noise σ² cannot tell more about f there than 19 measurements there.
    moved = FittedSurrogate(model, identity, X, y).posterior(X[7:8])[0][0] - without.posterior(X[7:8])[0][0]
    assert moved > surprise / 21 - EXACT


@given(n=st.integers(1, 40), variance=st.floats(0.0, 10.0))
def test_the_posterior_variance_falls_as_one_by_the_number_of_measurements(n: int, variance: float) -> None:
    X, y = np.full((n, 2), 0.5), np.linspace(-1.0, 1.0, n)
    model = process(2)
    mean, spread = FittedSurrogate(model, identity, X, y, np.full(n, variance)).posterior(X[:1])
    # Conjugate normal: n measurements of noise σ² + v of one value with prior N(c, 1).
    constant, noise = model.constant.item(), model.noise.item() + variance
    precision = 1.0 + n / noise
    assert spread[0] == pytest.approx(1 / precision, abs=EXACT)
    assert mean[0] == pytest.approx((constant + y.sum() / noise) / precision, abs=EXACT)


@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=6), noise=st.floats(1e-3, 1.0), seed=st.integers(0, 99))
def test_the_likelihood_holds_the_variance_within_configurations_once(
    counts: list[int], noise: float, seed: int
) -> None:
    """Repeats are the mean with noise σ² / n, and evidence on σ² of n − 1 degrees of freedom that no kernel alters."""
    generator = np.random.default_rng(seed)
    model = process(2)
    model.likelihood.noise = torch.tensor(noise, dtype=torch.float64)
    configurations, n = generator.random((len(counts), 2)), np.array(counts)
    groups = [generator.standard_normal(count) for count in counts]
    whole = model.log_marginal_likelihood(
        torch.tensor(np.repeat(configurations, n, axis=0)), torch.tensor(np.concatenate(groups))
    )

    # σ² is lowered to the least σ² / n of them, the difference is known variance: the means, each with its own noise.
    least = noise / n.max()
    model.likelihood.noise = torch.tensor(least, dtype=torch.float64)
    means = torch.tensor([group.mean() for group in groups])
    between = model.log_marginal_likelihood(torch.tensor(configurations), means, torch.tensor(noise / n - least))
    within = [
        -0.5 * ((c - 1) * np.log(2 * np.pi * noise) + np.log(c) + c * group.var() / noise)
        for c, group in zip(counts, groups, strict=True)
    ]
    # Sums of squares up to some 50 over a noise of 1e-3, with a condition number of 24 / 1e-3: 1e-16 · 5e4 · 2.4e4.
    assert whole.item() == pytest.approx((between + sum(within)).item(), abs=1e-6)
