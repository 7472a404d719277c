"""What is known of the observations' noise reaches a surrogate's fit and posterior."""

# ruff: noqa: N803, N806 - X and Z are matrices, named as in the modules under test

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from rankwise.surrogate.deep_kernel import DeepKernelSettings, fit_deep_kernel
from rankwise.surrogate.fit import MAX_FIT_OBSERVATIONS
from rankwise.surrogate.gaussian_process import FittedSurrogate, GaussianProcess
from rankwise.surrogate.informed import Averaged, fit_informed
from rankwise.surrogate.numeric import fit_numeric
from rankwise.surrogate.observations import outcomes

Fit = Callable[[np.ndarray, np.ndarray, np.ndarray | None, int], FittedSurrogate | Averaged]


def numeric(X: np.ndarray, y: np.ndarray, variances: np.ndarray | None, steps: int) -> FittedSurrogate:
    return fit_numeric(X, y, steps, variances=variances)


def deep(X: np.ndarray, y: np.ndarray, variances: np.ndarray | None, steps: int) -> FittedSurrogate:
    settings = DeepKernelSettings(projection_dim=8, steps=steps)
    return fit_deep_kernel(X, y, X, X[:, :2], settings, variances=variances)


def averaged(X: np.ndarray, y: np.ndarray, variances: np.ndarray | None, _steps: int) -> Averaged:
    return fit_informed(X, y, np.ones(2), variances=variances)


each_surrogate = pytest.mark.parametrize("fit", [numeric, deep, averaged])


def data(n: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    X = generator.random((n, 3))
    return X, outcomes(np.sin(6 * X[:, 0]) + 0.05 * generator.standard_normal(n))


@each_surrogate
def test_variances_of_zero_are_no_variances(fit: Fit) -> None:
    X, y = data(15)
    plain, known = fit(X, y, None, 10), fit(X, y, np.zeros(15), 10)
    np.testing.assert_array_equal(known.posterior(X), plain.posterior(X))
    np.testing.assert_array_equal(known.leave_one_out(), plain.leave_one_out())


@pytest.mark.parametrize("fit", [numeric, deep])  # the averaged one has its own way to the likelihood: test_informed
def test_the_variances_stay_with_their_outcomes_where_a_fit_reads_a_part(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = MAX_FIT_OBSERVATIONS + 20
    X, y = data(n)
    variances = np.random.default_rng(1).random(n)
    read: list[tuple[torch.Tensor, torch.Tensor | None]] = []
    loss = GaussianProcess.loss

    def spy(self: GaussianProcess, Z: torch.Tensor, t: torch.Tensor, v: torch.Tensor | None = None) -> torch.Tensor:
        read.append((t, v))
        return loss(self, Z, t, v)

    monkeypatch.setattr(GaussianProcess, "loss", spy)
    fitted = fit(X, y, variances, 1)
    assert isinstance(fitted, FittedSurrogate)
    assert read
    of_outcome = dict(zip(y.tolist(), variances.tolist(), strict=True))
    assert len(of_outcome) == n
    for t, v in read:
        assert v is not None
        assert len(t) == MAX_FIT_OBSERVATIONS
        assert [of_outcome[value] for value in t.tolist()] == v.tolist()
    # The posterior is conditioned on all: S = L Lᵀ has all variances on its diagonal. Rounding of numbers of size 1.
    with torch.no_grad():
        diagonal = fitted.model.variance(fitted.Z) + fitted.model.noise
    np.testing.assert_allclose(fitted.L.square().sum(1) - diagonal, variances, atol=1e-10)


@each_surrogate
def test_a_wrong_value_that_is_known_to_be_uncertain_is_not_believed(fit: Fit) -> None:
    X, y = data(25)
    wrong = y.copy()
    wrong[3] = y[3] + 5.0
    rest = np.arange(25) != 3
    truth = fit(X[rest], y[rest], None, 30).posterior(X)[0]
    told = fit(X, wrong, np.where(rest, 0.0, 1e6), 30).posterior(X)[0]
    believed = fit(X, wrong, None, 30).posterior(X)[0]
    # An observation of variance 1e6 adds next to a constant to the likelihood. The optimum is the same, though 30
    # iterations end some way before it, and so are draws of the hyperparameters: less than a tenth of the harm is left.
    assert abs(told - truth).max() < abs(believed - truth).max() / 10
