"""The deep kernel: its start, its joint fit, its robustness."""

# ruff: noqa: N806 - X and V are matrices, named as in the modules under test

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.deadline import Deadline
from rankwise.surrogate import deep_kernel
from rankwise.surrogate.deep_kernel import DeepKernelSettings, Projection, fit_deep_kernel
from rankwise.surrogate.gaussian_process import FitError, GaussianProcess, matern_kernel
from rankwise.surrogate.observations import outcomes

SMALL = DeepKernelSettings(projection_dim=16, steps=15)


def language(n: int = 200, d: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, d) that hold three numbers (n, 3) among much else, off centre as real vectors are."""
    generator = np.random.default_rng(seed)
    numbers = generator.random((n, 3))
    mixing = generator.standard_normal((3, d))
    noise = generator.standard_normal((n, 10)) @ generator.standard_normal((10, d))
    return (5 + numbers @ mixing + 0.3 * noise).astype(np.float32), numbers


def test_the_start_reads_the_numbers_off_the_vectors() -> None:
    V, numbers = language()
    projection = Projection(V, numbers, SMALL)
    linear = projection.standardize(torch.tensor(V, dtype=torch.float64)) @ projection.start.T
    for j in range(3):
        assert abs(np.corrcoef(linear[:, j], numbers[:, j])[0, 1]) > 0.95
    assert linear[:, 3:].std() < 0.3 * linear[:, :3].std(), "the random directions are small"


@pytest.mark.parametrize(("n", "d", "p", "q"), [(10, 60, 3, 16), (40, 8, 30, 16), (5, 4, 0, 3), (1, 4, 2, 8)])
def test_features_have_the_promised_shape_and_range(n: int, d: int, p: int, q: int) -> None:
    generator = np.random.default_rng(0)
    V = generator.standard_normal((n, d)).astype(np.float32)
    projection = Projection(V, generator.random((n, p)), DeepKernelSettings(projection_dim=q))
    features = projection.features(np.concatenate([V, 100 * V]))
    assert features.shape == (2 * n, q)
    assert features.dtype is torch.float64
    assert features.abs().max() <= 1.0
    assert not features.requires_grad
    assert projection.features(V[:0]).shape == (0, q)


def test_the_fit_in_the_span_is_the_fit_of_all_weights() -> None:
    """The representer argument: at the fitted weights the full loss has the same value, and nothing to gain."""
    V, numbers = language()
    y = torch.tensor(outcomes(np.sin(5 * numbers[:12, 0])))
    settings_ = DeepKernelSettings(projection_dim=8, steps=60, freedom=0.5)
    projection = Projection(V, numbers, settings_)
    process = GaussianProcess(matern_kernel(8, 1.0))
    vectors = torch.tensor(V[:12], dtype=torch.float64)
    joint = deep_kernel._Joint(projection, process, vectors, y)
    deep_kernel.minimize(joint, joint.loss, [lambda: None], settings_.steps, Deadline.never())
    joint.write_back()
    full = projection.deviation.clone().requires_grad_(True)
    projection.deviation = full
    loss = process.loss(projection(vectors), y) + 0.5 * (full.square().sum() + projection.bias.square().sum()) / 12
    assert loss.item() == pytest.approx(joint.loss().item(), abs=1e-9)
    assert full.detach().norm() > 1e-3, "the weights have moved"
    (gradient,) = torch.autograd.grad(loss, full)
    basis = joint._basis
    # Outside of the span the gradient is exactly that of the prior at zero, which is zero: rounding only.
    outside = gradient - gradient @ basis @ basis.T
    assert outside.abs().max() < 1e-9


def test_it_learns_what_the_vectors_hold() -> None:
    V, numbers = language(n=400)
    truth = np.sin(5 * numbers[:, 0]) + numbers[:, 1]
    fitted = fit_deep_kernel(V[:40], outcomes(truth[:40]), V, numbers, DeepKernelSettings(steps=20))
    mean, variance = fitted.posterior(V[40:])
    # 0.93 was found; a model that learned nothing gives 0.
    assert np.corrcoef(mean, truth[40:])[0, 1] > 0.8
    assert (variance > 0).all()


def test_the_joint_fit_lowers_the_loss_and_moves_the_weights() -> None:
    V, numbers = language()
    y = outcomes(np.sin(5 * numbers[:25, 0]))
    free = fit_deep_kernel(V[:25], y, V, numbers, SMALL)
    frozen = fit_deep_kernel(V[:25], y, V, numbers, DeepKernelSettings(projection_dim=16, steps=15, freedom=0.0))
    assert free.model.log_marginal_likelihood(free.Z, free.y) > frozen.model.log_marginal_likelihood(frozen.Z, frozen.y)
    projection = frozen.features.__self__  # type: ignore[attr-defined]
    assert projection.deviation.abs().max() == 0


def test_the_same_call_gives_the_same_bits_and_leaves_global_state_alone() -> None:
    V, numbers = language()
    y = outcomes(numbers[:20, 0])
    before = torch.get_rng_state()
    first = fit_deep_kernel(V[:20], y, V, numbers, SMALL).posterior(V)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() is torch.float32
    torch.manual_seed(99)
    np.testing.assert_array_equal(fit_deep_kernel(V[:20], y, V, numbers, SMALL).posterior(V), first)
    other = DeepKernelSettings(projection_dim=16, steps=15, seed=1)
    assert not np.array_equal(fit_deep_kernel(V[:20], y, V, numbers, other).posterior(V), first)


def test_the_model_comes_in_eval_mode() -> None:
    V, numbers = language()
    assert not fit_deep_kernel(V[:5], outcomes(numbers[:5, 0]), V, numbers, SMALL).model.training


@settings(deadline=None, max_examples=8)
@given(
    n=st.integers(0, 8),
    distinct=st.integers(1, 8),
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=8, max_size=8),
)
def test_any_observations_give_a_finite_posterior(n: int, distinct: int, values: list[float]) -> None:
    V, numbers = language(n=20, d=12)
    X = V[:distinct][np.arange(n) % distinct]
    quick = DeepKernelSettings(projection_dim=8, steps=5)
    mean, variance = fit_deep_kernel(X, outcomes(np.array(values[:n])), V, numbers, quick).posterior(V)
    assert np.isfinite(mean).all()
    assert (variance > 0).all()


def test_vectors_that_are_all_equal_teach_nothing() -> None:
    V = np.ones((30, 12), dtype=np.float32)
    numbers = np.random.default_rng(0).random((30, 2))
    mean, variance = fit_deep_kernel(V[:10], outcomes(numbers[:10, 0]), V, numbers, SMALL).posterior(V)
    assert np.ptp(mean) < 1e-9
    assert (variance > 0).all()


def test_a_thousand_observations() -> None:
    V, numbers = language(n=1000)
    quick = DeepKernelSettings(projection_dim=16, steps=3)
    mean, _ = fit_deep_kernel(V, outcomes(numbers[:, 0]), V, numbers, quick).posterior(V[:10])
    assert np.isfinite(mean).all()


def test_after_the_deadline_the_start_is_used() -> None:
    V, numbers = language()
    fitted = fit_deep_kernel(V[:20], outcomes(numbers[:20, 0]), V, numbers, SMALL, Deadline(0.0))
    assert fitted.features.__self__.deviation.abs().max() == 0  # type: ignore[attr-defined]
    assert np.isfinite(fitted.posterior(V)[0]).all()


def test_vectors_that_are_not_finite_are_an_error_and_no_nan() -> None:
    V, numbers = language()
    broken = V.copy()
    broken[3] = np.nan
    with pytest.raises(FitError, match=r"gave a finite loss|no Cholesky factor"):
        fit_deep_kernel(broken[:10], outcomes(numbers[:10, 0]), V, numbers, SMALL)


def test_defaults() -> None:
    assert DeepKernelSettings() == DeepKernelSettings(64, 50, 0.03, 0.1, 1.0, 1e-3, 0)
