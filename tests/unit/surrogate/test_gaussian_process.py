"""The shared Gaussian process against GPyTorch, BoTorch and brute force."""

# ruff: noqa: N803, N806 - X and V are matrices, named as in the modules under test

from __future__ import annotations

import gpytorch
import numpy as np
import pytest
import torch
from botorch.models import SingleTaskGP

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
