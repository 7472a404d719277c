# ruff: noqa: N803, N806 - X, Z and K are matrices, named as in the modules under test

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from gpytorch.utils.grid import ScaleToBounds
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from rankwise.deadline import Deadline
from rankwise.language.text_encoder import EmbeddingIncomplete
from rankwise.surrogate.gaussian_process import FitError, Surrogate
from rankwise.surrogate.paper_kernel import (
    MAX_TOKEN_OBSERVATIONS,
    PaperKernelSettings,
    SoftStates,
    fit_paper_kernel,
)

QUICK = PaperKernelSettings(steps=10, projection_dim=8)
FROZEN = PaperKernelSettings(steps=10, projection=False)
TOKEN = PaperKernelSettings(steps=10, projection_dim=8, token=True)


class FakeStates:
    """Vectors that depend on ψ smoothly: tanh(M (x ⊙ ψ)), as a language model's do in a more complicated way."""

    def __init__(self, rows: NDArray[np.float64], broken: bool = False) -> None:
        generator = torch.Generator().manual_seed(0)
        self._rows = torch.tensor(rows, dtype=torch.float32)  # (n, e)
        self._mixing = torch.randn((6, rows.shape[1]), generator=generator)  # (d, e)
        self._broken = broken
        self.initial = np.ones(rows.shape[1], dtype=np.float32)
        self.dimension = 6
        self.calls = 0

    def __len__(self) -> int:
        return len(self._rows)

    def last_states(self, psi: Tensor, rows: Sequence[int] | None = None, deadline: Deadline | None = None) -> Tensor:
        self.calls += 1
        if self._broken:
            raise EmbeddingIncomplete(0, len(self))
        chosen = self._rows if rows is None else self._rows[list(rows)]
        return torch.tanh((chosen * psi) @ self._mixing.T)


def data(n: int, d: int = 6, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(n, d)).astype(np.float32)
    y = X[:, 0].astype(np.float64) ** 2 + 0.05 * generator.normal(size=n)
    return X, (y - y.mean()) / y.std() if n > 1 else np.zeros(n)


def check_answers(surrogate: Surrogate, X: NDArray[np.floating], n: int) -> None:
    mean, variance = surrogate.posterior(X)
    assert mean.shape == variance.shape == (len(X),)
    assert np.isfinite(mean).all()
    assert np.isfinite(variance).all()
    assert (variance > 0).all()
    rows = surrogate.rows(X)
    assert np.isfinite(rows.covariance(0).numpy()).all()
    loo = surrogate.leave_one_out()
    assert loo.shape == (n,)
    assert np.isfinite(loo).all()


# -- what it is ----------------------------------------------------------------------------------------------------


def test_defaults_are_the_papers() -> None:
    defaults = PaperKernelSettings()
    assert (defaults.projection, defaults.token, defaults.projection_dim) == (True, False, 64)
    assert (defaults.lr_gp, defaults.lr_weights) == (0.2, 0.002)
    assert (defaults.steps, defaults.weight_decay, defaults.seed) == (100, 0.01, 0)


def test_features_are_a_linear_layer_with_elu_scaled_as_gpytorch_does() -> None:
    X, y = data(12)
    surrogate = fit_paper_kernel(X, y, QUICK)
    fresh = data(40, seed=1)[0] * 3
    features = surrogate.features.__self__  # type: ignore[attr-defined]  # the bound method's module
    layer = torch.nn.Linear(6, 8).double()
    with torch.no_grad():
        layer.weight.copy_(features.weight)
        layer.bias.copy_(features.bias)
        scale = ScaleToBounds(-1.0, 1.0)
        observed = torch.nn.functional.elu(layer(torch.tensor(X, dtype=torch.float64)))
        expected_observed = scale.train()(observed)
        expected = scale.eval()(torch.nn.functional.elu(layer(torch.tensor(fresh, dtype=torch.float64))))
        torch.testing.assert_close(surrogate.Z, expected_observed, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(surrogate.features(fresh), expected, rtol=1e-9, atol=1e-9)
    assert float(surrogate.Z.abs().max()) == pytest.approx(0.95)


def test_loss_is_the_exact_marginal_likelihood_of_a_scaled_matern_without_ard() -> None:
    X, y = data(12)
    surrogate = fit_paper_kernel(X, y, QUICK)
    process = surrogate.model
    kernel = process.covar_module
    assert kernel.base_kernel.lengthscale.shape == (1, 1)
    Z = surrogate.Z
    distance = (
        math.sqrt(5) * torch.cdist(Z, Z, compute_mode="donot_use_mm_for_euclid_dist") / kernel.base_kernel.lengthscale
    )
    K = kernel.outputscale * (1 + distance + distance**2 / 3) * torch.exp(-distance)
    with torch.no_grad():
        normal = MultivariateNormal(process.constant.expand(12), K + process.noise * torch.eye(12, dtype=K.dtype))
        expected = -normal.log_prob(torch.tensor(y)) / 12
    # GPyTorch's jitter and the square root near zero distance cost some digits.
    assert surrogate.loss == pytest.approx(float(expected), rel=1e-4, abs=1e-4)


def test_one_step_is_that_of_adamw_with_two_learning_rates() -> None:
    X, y = data(12)
    still = fit_paper_kernel(X, y, PaperKernelSettings(steps=0, projection_dim=8))
    moved = fit_paper_kernel(X, y, PaperKernelSettings(steps=1, projection_dim=8, weight_decay=0.0))
    assert (still.steps, moved.steps) == (0, 1)
    assert moved.loss < still.loss
    raw = [s.model.covar_module.base_kernel.raw_lengthscale.item() for s in (still, moved)]
    weight = [s.features.__self__.weight for s in (still, moved)]  # type: ignore[attr-defined]
    # The first step of Adam has the size of the learning rate in every coordinate.
    assert abs(raw[1] - raw[0]) == pytest.approx(0.2, rel=1e-3)
    step = (weight[1] - weight[0]).abs().detach().numpy()
    assert np.median(step) == pytest.approx(0.002, rel=1e-3)


@pytest.mark.parametrize("settings_", [FROZEN, QUICK])
def test_fit_improves_the_likelihood(settings_: PaperKernelSettings) -> None:
    X, y = data(20)
    start = fit_paper_kernel(X, y, PaperKernelSettings(steps=0, projection=settings_.projection, projection_dim=8))
    fitted = fit_paper_kernel(X, y, settings_)
    assert fitted.loss < start.loss - 0.01
    assert fitted.psi is None


def test_frozen_vectors_have_no_weights() -> None:
    X, y = data(8)
    surrogate = fit_paper_kernel(X, y, FROZEN)
    expected = ScaleToBounds(-1.0, 1.0).train()(torch.tensor(X, dtype=torch.float64))
    torch.testing.assert_close(surrogate.Z, expected, rtol=1e-9, atol=1e-9)
    assert list(surrogate.features.__self__.parameters()) == []  # type: ignore[attr-defined]


# -- the token -----------------------------------------------------------------------------------------------------


def test_token_is_learned_and_the_surrogate_stands_on_its_vectors() -> None:
    states: SoftStates = FakeStates(np.random.default_rng(0).normal(size=(15, 4)))
    y = data(15)[1]
    surrogate = fit_paper_kernel(states, y, TOKEN)
    assert surrogate.psi is not None
    assert surrogate.psi.shape == (4,)
    assert not np.array_equal(surrogate.psi, states.initial)
    vectors = states.last_states(torch.tensor(surrogate.psi)).numpy()
    torch.testing.assert_close(surrogate.features(vectors), surrogate.Z, rtol=0, atol=0)
    fixed = fit_paper_kernel(states.last_states(torch.tensor(states.initial)).numpy(), y, QUICK)
    # The first loss of both is the same one; from there ψ helps the fit.
    assert surrogate.loss < fixed.loss
    check_answers(surrogate, vectors, 15)


def test_fit_with_the_token_reads_a_bounded_number_of_observations() -> None:
    n = MAX_TOKEN_OBSERVATIONS + 20
    states = FakeStates(np.random.default_rng(0).normal(size=(n, 4)))
    seen = []
    ask = states.last_states

    def watched(psi: Tensor, rows: Sequence[int] | None = None, deadline: Deadline | None = None) -> Tensor:
        seen.append(n if rows is None else len(rows))
        return ask(psi, rows, deadline)

    states.last_states = watched  # type: ignore[method-assign]
    surrogate = fit_paper_kernel(states, data(n)[1], PaperKernelSettings(steps=2, projection_dim=8, token=True))
    assert seen == [MAX_TOKEN_OBSERVATIONS] * 3 + [n]
    assert len(surrogate.y) == n


def test_language_model_that_is_not_free_in_time_is_a_failed_fit() -> None:
    for n in (0, 1, 2, 5):
        states = FakeStates(np.ones((n, 4)), broken=True)
        with pytest.raises(FitError, match=r"none of 3 attempts|gave no vectors"):
            fit_paper_kernel(states, np.zeros(n), TOKEN)


# -- whatever comes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings_", [FROZEN, QUICK, TOKEN])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_observations(n: int, settings_: PaperKernelSettings) -> None:
    X, y = data(n)
    given_ = FakeStates(X.astype(np.float64)) if settings_.token else X
    surrogate = fit_paper_kernel(given_, y, settings_)
    check_answers(surrogate, data(9, seed=2)[0], n)
    assert math.isnan(surrogate.loss) == (n < 2)
    assert (surrogate.psi is not None) == settings_.token
    assert surrogate.steps == (10 if n == 2 else 0)


@pytest.mark.parametrize("settings_", [FROZEN, QUICK, TOKEN])
@settings(max_examples=12, deadline=None)
@given(
    n=st.integers(2, 12),
    seed=st.integers(0, 1000),
    shape=st.sampled_from(["constant", "outlier", "equal rows", "huge vectors", "one value", "ordinary"]),
)
def test_always_a_valid_answer_and_the_same_one(settings_: PaperKernelSettings, n: int, seed: int, shape: str) -> None:
    X, y = data(n, seed=seed)
    match shape:
        case "constant":
            y = np.zeros(n)
        case "outlier":
            y[0] = 1e6
        case "equal rows":
            X[:] = X[0]
        case "huge vectors":
            X = X * np.float32(1e6)
        case "one value":
            X[:] = 3.0
    given_ = FakeStates(X.astype(np.float64)) if settings_.token else X
    surrogate = fit_paper_kernel(given_, y, settings_)
    fresh = data(7, seed=seed + 1)[0]
    check_answers(surrogate, fresh, n)
    assert math.isfinite(surrogate.loss)
    again = fit_paper_kernel(given_, y, settings_)
    assert again.posterior(fresh)[0].tobytes() == surrogate.posterior(fresh)[0].tobytes()
    assert again.posterior(fresh)[1].tobytes() == surrogate.posterior(fresh)[1].tobytes()


def test_observation_is_followed_and_far_points_are_uncertain() -> None:
    X, y = data(30)
    surrogate = fit_paper_kernel(X, y, PaperKernelSettings(steps=60, projection_dim=8))
    mean, variance = surrogate.posterior(X)
    # Noise is a twentieth of the outcomes: a fit that follows them explains most of the variance.
    assert np.corrcoef(mean, y)[0, 1] > 0.8
    assert variance.mean() < surrogate.posterior(data(200, seed=5)[0] * 2)[1].mean()


def test_other_seed_is_another_start() -> None:
    X, y = data(10)
    one, two = (fit_paper_kernel(X, y, PaperKernelSettings(steps=3, projection_dim=8, seed=s)) for s in (0, 1))
    assert not np.array_equal(one.posterior(X)[0], two.posterior(X)[0])


def test_global_generator_plays_no_part() -> None:
    X, y = data(10)
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(fit_paper_kernel(X, y, QUICK).posterior(X)[0].tobytes())
        assert torch.equal(torch.get_rng_state(), before)
    assert results[0] == results[1]


# -- limits --------------------------------------------------------------------------------------------------------


def test_deadline_keeps_the_best_state_so_far() -> None:
    X, y = data(10)
    ticks = itertools.count()
    surrogate = fit_paper_kernel(X, y, QUICK, Deadline(4, clock=lambda: float(next(ticks))))
    assert 0 < surrogate.steps < QUICK.steps
    at_once = fit_paper_kernel(X, y, QUICK, Deadline(0))
    assert at_once.steps == 0
    assert math.isfinite(at_once.loss)
    assert surrogate.loss < at_once.loss


def test_steps_that_overshoot_are_rolled_back() -> None:
    X, y = data(10)
    wild = PaperKernelSettings(steps=30, projection_dim=8, lr_gp=50.0, lr_weights=10.0)
    start = fit_paper_kernel(X, y, PaperKernelSettings(steps=0, projection_dim=8))
    surrogate = fit_paper_kernel(X, y, wild)
    assert surrogate.loss <= start.loss
    check_answers(surrogate, X, 10)


def test_values_that_are_not_finite_fail_the_fit() -> None:
    X, y = data(5)
    y[2] = np.nan
    with pytest.raises(FitError, match="none of 3 attempts of the fit gave a finite loss"):
        fit_paper_kernel(X, y, QUICK)


def test_what_does_not_go_together_is_refused() -> None:
    X, y = data(5)
    with pytest.raises(ValueError, match="5 rows and 4 outcomes"):
        fit_paper_kernel(X, y[:4], QUICK)
    with pytest.raises(ValueError, match="a token is learned from token states"):
        fit_paper_kernel(X, y, TOKEN)
    with pytest.raises(ValueError, match="a token is learned from token states"):
        fit_paper_kernel(FakeStates(X.astype(np.float64)), y, QUICK)
