"""The ordinary Gaussian process and its fit."""

# ruff: noqa: N803, N806 - X and V are matrices, named as in the modules under test

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from gpytorch.mlls import ExactMarginalLogLikelihood
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.deadline import Deadline
from rankwise.space import ParameterText, parse_space
from rankwise.surrogate import fit
from rankwise.surrogate.fit import minimize, representative
from rankwise.surrogate.gaussian_process import FitError, GaussianProcess, matern_kernel
from rankwise.surrogate.numeric import fit_numeric, numeric_features
from rankwise.surrogate.observations import outcomes


def smooth(n: int, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    X = generator.random((n, d))
    return X, outcomes(np.sin(6 * X[:, 0]) + 0.05 * generator.standard_normal(n))


def loss_of(model: GaussianProcess, X: np.ndarray, y: np.ndarray) -> float:
    return model.loss(torch.tensor(X), torch.tensor(y)).item()


def test_fit_is_as_good_as_botorchs() -> None:
    X, y = smooth(25)
    twin = SingleTaskGP(
        torch.tensor(X), torch.tensor(y).unsqueeze(-1), covar_module=matern_kernel(3), outcome_transform=None
    )
    likelihood = ExactMarginalLogLikelihood(twin.likelihood, twin)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit_gpytorch_mll(likelihood)
    reference = GaussianProcess(twin.covar_module, twin.likelihood)
    reference.mean_module.load_state_dict(twin.mean_module.state_dict())
    # Per observation; BoTorch runs to convergence, ours stops after 50 steps.
    assert loss_of(fit_numeric(X, y).model, X, y) <= loss_of(reference, X, y) + 1e-3


def test_a_parameter_without_effect_gets_a_long_lengthscale() -> None:
    X, y = smooth(40)
    lengths = fit_numeric(X, y).model.covar_module.lengthscale.detach().squeeze()
    assert lengths[1:].min() > 3 * lengths[0]


def test_it_predicts() -> None:
    X, y = smooth(60)
    new, truth = smooth(200, seed=1)
    mean, _ = fit_numeric(X, y, steps=20).posterior(new)
    assert np.corrcoef(mean, truth)[0, 1] > 0.95


def test_fit_leaves_torchs_global_state_alone() -> None:
    X, y = smooth(10)
    before = torch.get_rng_state()
    first = fit_numeric(X, y).posterior(X)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() is torch.float32
    torch.manual_seed(5)
    np.testing.assert_array_equal(fit_numeric(X, y).posterior(X), first)


@settings(deadline=None, max_examples=10)
@given(
    n=st.integers(0, 8),
    distinct=st.integers(1, 8),
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=8, max_size=8),
)
def test_any_observations_give_a_finite_posterior(n: int, distinct: int, values: list[float]) -> None:
    points = np.random.default_rng(0).random((distinct, 2))
    X = points[np.arange(n) % distinct]
    mean, variance = fit_numeric(X, outcomes(np.array(values[:n])), steps=5).posterior(points)
    assert np.isfinite(mean).all()
    assert (variance > 0).all()


def test_a_thousand_observations() -> None:
    X, y = smooth(1000)
    mean, variance = fit_numeric(X, y, steps=3).posterior(X[:10])
    assert np.isfinite(mean).all()
    assert (variance > 0).all()


def test_a_fit_after_the_deadline_keeps_the_prior() -> None:
    X, y = smooth(20)
    fitted = fit_numeric(X, y, deadline=Deadline(0.0))
    prior = matern_kernel(3).lengthscale
    torch.testing.assert_close(fitted.model.covar_module.lengthscale.detach(), prior.detach())
    assert np.isfinite(fitted.posterior(X)[0]).all()


class FakeModel(torch.nn.Module):
    """One weight; a loss that fails as often as it is told."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
        self.failures = failures
        self.starts: list[float] = []

    def loss(self) -> torch.Tensor:
        if len(self.starts) <= self.failures:
            raise FitError("planted")
        return self.weight.square().sum()

    def begin(self) -> None:
        self.starts.append(self.weight.item())
        with torch.no_grad():
            self.weight.fill_(1.0)


def test_a_failed_attempt_is_followed_by_another_from_the_initial_state() -> None:
    model = FakeModel(failures=1)
    least = minimize(model, model.loss, [model.begin] * 3, 20, Deadline.never())
    # L-BFGS-B ends where the gradient is below 1e-5, here |w| < 5e-6.
    assert least == pytest.approx(0.0, abs=1e-9)
    assert model.starts == [3.0, 3.0], "two attempts, both from the initial state"
    assert not model.training


def test_attempts_are_bounded_and_the_initial_state_is_kept() -> None:
    model = FakeModel(failures=99)
    with pytest.raises(FitError, match="none of 3 attempts of the fit gave a finite loss"):
        minimize(model, model.loss, [model.begin] * 3, 20, Deadline.never())
    assert model.weight.item() == 3.0
    assert len(model.starts) == 3


def test_representative_observations_keep_the_best() -> None:
    y = np.random.default_rng(0).standard_normal(1000)
    chosen = representative(y, 100)
    assert len(set(chosen)) == 100
    assert set(np.argsort(y)[:50]) <= set(chosen)
    assert int(np.argmax(y)) in chosen
    np.testing.assert_array_equal(representative(y[:50], 100), np.arange(50))
    assert fit.MAX_FIT_OBSERVATIONS == 300


def test_categories_become_columns_at_distance_one() -> None:
    space = parse_space(
        (
            ParameterText("lr", "double", "0", "1"),
            ParameterText("variant", "categorical", list=("lora", "dora", "pissa")),
            ParameterText("binary", "categorical", list=("a", "b")),
        )
    )
    points = [{"lr": "0.25", "variant": v, "binary": "a"} for v in ("lora", "dora", "pissa")]
    features = numeric_features(space, space.encode(points))
    assert features.shape == (3, 5)
    np.testing.assert_allclose(features[:, 0], 0.25)
    distances = np.linalg.norm(features[:, None] - features[None], axis=-1)
    np.testing.assert_allclose(distances, 1 - np.eye(3))
