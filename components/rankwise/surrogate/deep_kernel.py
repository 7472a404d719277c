"""The deep kernel: language vectors → linear projection with ELU → Matérn-5/2 Gaussian process, fitted together.

Notation::

    v       (d,)    vector of a configuration's text, frozen (φ)
    u       (p,)    the configuration's numbers, :func:`rankwise.surrogate.numeric.numeric_features`
    W, b    (q, d), (q,)   the projection (θ);  W = W₀ + s ⊙ E, b = b₀ + s_b e
    E, e    deviations from the start, what is fitted; prior N(0, 1) each
    z       (q,)    features: ELU(W (v − v̄) / std(v) + b), scaled to (−1, 1)

From arXiv 2602.11171 come: one linear layer d → 64 with ELU, outputs scaled to (−1, 1), constant mean, Matérn-5/2,
standardized outcomes, weights and hyperparameters fitted together on the exact marginal likelihood, anew at each call.

Three things differ, because 64 d weights and 30 observations are an invitation to over-confidence (facts and numbers in
the README, "Decisions"):

- **An aligned start.** The paper starts from random weights. Here the first rows of W₀ read the configuration's numbers
  off its vector: ridge regression of u on v over the candidates, which needs no observation. The other rows are random
  directions of a tenth of that size. Without it, 30 observations do not suffice to find out which of 384 directions
  the learning rate is.
- **A prior on the weights.** Deviations from the start have a normal prior of standard deviation ``freedom`` relative
  to the row's weights, so that the fit is a maximum a posteriori and not a free fit of 24,000 weights.
- **A lengthscale per feature** with BoTorch's dimension-scaled prior, so that irrelevant features drop out.

One L-BFGS-B run replaces AdamW's fixed number of steps at two learning rates: fewer settings, and a rounding-exact
repeat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from gpytorch.module import Module
from numpy.typing import NDArray
from torch import Tensor, nn

from rankwise.deadline import Deadline
from rankwise.surrogate.fit import minimize, representative
from rankwise.surrogate.gaussian_process import FittedSurrogate, GaussianProcess, matern_kernel
from rankwise.surrogate.noise import noise_likelihood

MARGIN = 0.95
"""Features of the reference lie within ±MARGIN at the start; the fit may use the rest of (−1, 1)."""
MAX_REFERENCE = 2048
"""Reference vectors that means, scales and the aligned start are read from."""
CHUNK_ROWS = 4096


@dataclass(frozen=True)
class DeepKernelSettings:
    """How the deep kernel is built and fitted; the defaults were chosen on synthetic LoRA surfaces."""

    projection_dim: int = 64
    """Number q of features."""
    steps: int = 50
    """L-BFGS-B iterations of the joint fit."""
    freedom: float = 0.03
    """Prior standard deviation of a weight's deviation from its start, relative to the row's root mean square. 0 keeps
    the projection as it starts."""
    random_size: float = 0.1
    """Size of the random rows of the start, relative to the aligned ones."""
    spread: float = 1.0
    """Standard deviation of the log lengthscales' prior. BoTorch's √3 let 64 lengthscales fit ten observations."""
    ridge: float = 1e-3
    """Regularization of the aligned start, relative to the variance of a standardized vector component."""
    seed: int = 0
    """Seed of the random rows."""


class Projection(nn.Module):
    """Language vectors (m, d) to features (m, q) in (−1, 1).

    Args:
        reference: vectors of configurations all over the space, for means, scales and the start.  # (r, d)
        positions: the numbers of the same configurations.  # (r, p)
        settings: see :class:`DeepKernelSettings`.
    """

    def __init__(
        self, reference: NDArray[np.floating], positions: NDArray[np.float64], settings: DeepKernelSettings
    ) -> None:
        super().__init__()
        chosen = np.linspace(0, len(reference) - 1, min(MAX_REFERENCE, len(reference))).round().astype(np.intp)
        V = torch.tensor(np.asarray(reference[chosen], dtype=np.float64))  # (r, d)  # noqa: N806
        self.mean = V.mean(0)
        # A component that does not vary carries nothing: dividing by 1 leaves it at zero.
        std = (V - self.mean).square().mean(0).sqrt()
        self.std = torch.where(std > 1e-6 * (1.0 + self.mean.abs()), std, 1.0)
        S = self.standardize(V)  # (r, d)  # noqa: N806
        self.start = _start(S, torch.tensor(positions[chosen]), settings)  # (q, d)
        self.size = settings.freedom * self.start.square().mean(1, keepdim=True).sqrt()  # (q, 1)
        self.deviation = torch.zeros_like(self.start)
        self.bias = torch.zeros(len(self.start), dtype=torch.float64)
        h = nn.functional.elu(S @ self.start.T)  # (r, q)
        low, high = float(h.min()), float(h.max())
        self.shift = (low + high) / 2
        self.scale = MARGIN * 2 / (high - low) if high - low > 1e-9 else 1.0

    def standardize(self, v: Tensor) -> Tensor:
        """Vectors with mean 0 and variance 1 in every component over the reference.  # (m, d)"""
        return (v - self.mean) / self.std

    def finish(self, h: Tensor, bias: Tensor) -> Tensor:
        """Features (m, q) from the linear layer's outputs h (m, q), without its bias (q,) in units of its prior."""
        b = self.size.squeeze(-1) * math.sqrt(self.start.shape[1]) * bias  # (q,)
        return ((nn.functional.elu(h + b) - self.shift) * self.scale).clamp(-1.0, 1.0)

    def forward(self, v: Tensor) -> Tensor:
        """Features (m, q) of vectors v (m, d)."""
        W = self.start + self.size * self.deviation  # (q, d)  # noqa: N806
        return self.finish(self.standardize(v) @ W.T, self.bias)

    def features(self, X: NDArray[np.floating]) -> Tensor:  # noqa: N803
        """Features (m, q) of raw vectors X (m, d), in chunks: float64 copies of 50,000 long vectors take gigabytes."""
        with torch.no_grad():
            parts = [
                self(torch.tensor(np.asarray(X[i : i + CHUNK_ROWS], dtype=np.float64)))
                for i in range(0, len(X), CHUNK_ROWS)
            ]
            return torch.cat(parts) if parts else torch.zeros((0, len(self.start)), dtype=torch.float64)


def _start(S: Tensor, P: Tensor, settings: DeepKernelSettings) -> Tensor:  # noqa: N803
    """W₀ (q, d): aligned rows, then random ones.

    Args:
        S: standardized reference vectors (r, d).
        P: their numbers (r, p).
        settings: sizes and seed.
    """
    q, (r, d) = settings.projection_dim, S.shape
    generator = torch.Generator().manual_seed(settings.seed)
    random = torch.randn((q, d), generator=generator, dtype=torch.float64) * (settings.random_size / math.sqrt(d))
    centred = P - P.mean(0)
    deviation = centred.square().mean(0).sqrt()  # (p,)
    varying = deviation > 1e-9
    if not bool(varying.any()):
        return random
    targets = centred[:, varying] / deviation[varying]  # (r, p')
    if targets.shape[1] > q // 2:
        # More numbers than room: their q/2 leading directions.
        left, size, _ = torch.linalg.svd(targets, full_matrices=False)
        targets = (left * size)[:, : q // 2]
        targets = targets / targets.square().mean(0).sqrt().clamp_min(1e-9)
    ridge = settings.ridge * r
    if d <= r:
        gram = S.T @ S + ridge * torch.eye(d, dtype=S.dtype)  # (d, d)
        aligned: Tensor = torch.linalg.solve(gram, S.T @ targets).T  # (p', d)
    else:
        gram = S @ S.T + ridge * torch.eye(r, dtype=S.dtype)  # (r, r)
        aligned = (S.T @ torch.linalg.solve(gram, targets)).T
    return torch.cat([aligned, random[len(aligned) :]])


class _Joint(Module):  # type: ignore[misc]  # gpytorch ships no types
    """Projection and process, fitted together on the observed vectors.

    The prior of the deviations E is the same in every direction, and the likelihood sees them only through the k ≤ n
    directions that the observed vectors span: the most probable E lies in that span (representer theorem). With
    orthonormal Q (d, k), E = A Qᵀ and |E|² = |A|². So A (q, k) is fitted and not E (q, d): the same optimum, and a step
    that costs the same for 384 and for 4,096 components.

    Args:
        projection: at its start; :meth:`write_back` changes it.
        process: the Gaussian process.
        vectors: of the observations.  # (n, d)
        y: standardized outcomes.  # (n,)
        variances: known noise variances of the outcomes, beside the fitted one; None for nothing.  # (n,)
    """

    def __init__(
        self,
        projection: Projection,
        process: GaussianProcess,
        vectors: Tensor,
        y: Tensor,
        variances: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.process = process
        self._projection = [projection]  # in a list: no submodule, its tensors are not fitted
        S = projection.standardize(vectors)  # (n, d)  # noqa: N806
        self._basis = torch.linalg.qr(S.T).Q  # (d, k)
        self._coordinates = S @ self._basis  # (n, k)
        self._start = S @ projection.start.T  # (n, q)
        self._y = y
        self._variances = variances
        free = bool((projection.size > 0).any())
        shape = (len(projection.start), self._basis.shape[1])
        self.register_parameter("A", nn.Parameter(torch.zeros(shape, dtype=torch.float64), requires_grad=free))
        self.register_parameter("bias", nn.Parameter(torch.zeros_like(projection.bias), requires_grad=free))

    def freeze(self) -> None:
        """Leave only the process to fit."""
        self.A.requires_grad_(False)
        self.bias.requires_grad_(False)

    def loss(self) -> Tensor:
        """Negative log posterior of weights and hyperparameters per observation."""
        projection = self._projection[0]
        h = self._start + self._coordinates @ (projection.size * self.A).T  # (n, q)
        prior = 0.5 * (self.A.square().sum() + self.bias.square().sum())
        Z = projection.finish(h, self.bias)  # (n, q)  # noqa: N806
        total: Tensor = self.process.loss(Z, self._y, self._variances) + prior / len(self._y)
        return total

    def write_back(self) -> None:
        """Give the fitted weights to the projection."""
        with torch.no_grad():
            self._projection[0].deviation = self.A @ self._basis.T  # (q, d)
            self._projection[0].bias = self.bias.detach().clone()


def fit_deep_kernel(
    X: NDArray[np.floating],  # noqa: N803
    y: NDArray[np.float64],
    reference: NDArray[np.floating],
    positions: NDArray[np.float64],
    settings: DeepKernelSettings | None = None,
    deadline: Deadline | None = None,
    variances: NDArray[np.float64] | None = None,
) -> FittedSurrogate:
    """Fit the deep kernel.

    Args:
        X: vectors of the observed configurations, n ≥ 0.  # (n, d)
        y: outcomes (n,), standardized, smaller is better.
        reference: vectors of configurations all over the space, at least one.  # (r, d)
        positions: numbers of the reference configurations.  # (r, p)
        settings: how to build and fit.
        deadline: the fit stops when it comes.
        variances: known noise variances of the outcomes, beside the fitted one; None for nothing.  # (n,)

    Returns:
        The surrogate over raw vectors (m, d), in eval mode. With fewer than two observations nothing is fitted.

    Raises:
        FitError: the fit failed numerically in every attempt; the last one leaves the projection as it starts.
    """
    settings = settings or DeepKernelSettings()
    projection = Projection(reference, positions, settings)
    kernel = matern_kernel(settings.projection_dim, settings.spread)
    process = GaussianProcess(kernel, noise_likelihood(X, y, variances))
    if len(y) >= 2:
        rows = representative(y)
        vectors = torch.tensor(np.asarray(X[rows], dtype=np.float64))  # (r, d)
        known = None if variances is None else torch.tensor(variances[rows])  # (r,)
        joint = _Joint(projection, process, vectors, torch.tensor(y[rows]), known)
        # The second attempt fixes the projection: a plain process is the most robust thing to fit.
        minimize(joint, joint.loss, [lambda: None, joint.freeze], settings.steps, deadline or Deadline.never())
        joint.write_back()
    return FittedSurrogate(process, projection.features, X, y, variances)
