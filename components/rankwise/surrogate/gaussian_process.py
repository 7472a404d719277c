"""The exact Gaussian process that all surrogates share, on dense float64 matrices.

Notation (Rasmussen & Williams, "Gaussian Processes for Machine Learning", 2006)::

    Z       (n, q)  features of the observed configurations
    y       (n,)    standardized outcomes, smaller is better
    F       (m, q)  features of the rows to predict (candidates, observed, pending)
    K       (n, n)  kernel matrix of Z;  S = K + σ² I + diag(v);  S = L Lᵀ
    σ²              noise variance of every observation, fitted
    v       (n,)    variances that are known beside it, from the observations' standard errors; 0 where none is
    m(Z)    (n,)    prior mean, a constant unless a process says otherwise
    α       (n,)    S⁻¹ (y − m(Z))
    f             the latent function, without observation noise

Kernels, likelihood, constraints and priors are GPyTorch modules. The marginal likelihood is computed here, on a dense
Cholesky factor, and not by ``gpytorch.mlls.ExactMarginalLogLikelihood``: above 800 observations GPyTorch changes to a
stochastic estimate that draws from torch's global generator, its settings are process-wide (two requests at once would
see each other's), and a suggestion has to be a pure function. ``tests/unit/surrogate`` holds both to the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from botorch.models.utils.gpytorch_modules import (
    get_covar_module_with_dim_scaled_prior,
    get_gaussian_likelihood_with_lognormal_prior,
)
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.means import ConstantMean
from gpytorch.module import Module
from gpytorch.priors import LogNormalPrior
from linear_operator import to_dense
from numpy.typing import NDArray
from torch import Tensor

JITTERS = (0.0, 1e-8, 1e-6, 1e-4)
"""Added to the diagonal one after the other until the Cholesky factorization succeeds (outcomes have variance 1)."""
CHUNK_ELEMENTS = 1 << 21
"""Kernel entries that are computed at once (16 MiB in float64): bounds memory, and stays within the caches."""
MIN_VARIANCE = 1e-10
"""Lower bound of a posterior variance: rounding may leave a tiny negative number."""

Features = Callable[[NDArray[np.floating]], Tensor]


class FitError(ArithmeticError):
    """A fit or a factorization failed after bounded attempts. Callers answer with a simpler model."""


class Surrogate(Protocol):
    """A fitted model of the objective in standardized, smaller-is-better units."""

    def posterior(self, X: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # noqa: N803
        """Mean (m,) and variance (m,) of the latent function at the rows of X (m, d)."""
        ...

    def rows(self, X: NDArray[np.floating]) -> RowPosterior:  # noqa: N803
        """The posterior over the fixed rows of X (m, d), which can be asked for covariances."""
        ...

    def leave_one_out(self) -> NDArray[np.float64]:
        """Log predictive density (n,) of each observation given the others, at the fitted hyperparameters."""
        ...


def cholesky(matrix: Tensor) -> Tensor:
    """Lower Cholesky factor of a symmetric matrix (n, n), with a bounded number of growing jitters.

    Raises:
        FitError: the matrix has no factor with the largest jitter, or is not finite.
    """
    for jitter in JITTERS:
        shifted = matrix if jitter == 0.0 else matrix + jitter * torch.eye(matrix.shape[-1], dtype=matrix.dtype)
        factor: Tensor
        factor, info = torch.linalg.cholesky_ex(shifted)
        if not bool(info.any()) and bool(torch.isfinite(factor).all()):
            return factor
    raise FitError(f"no Cholesky factor of a {tuple(matrix.shape)} matrix with jitter {JITTERS[-1]:g}")


def matern_kernel(dimensions: int, spread: float = math.sqrt(3)) -> Kernel:
    """Matérn-5/2 kernel with one lengthscale per dimension and BoTorch's dimension-scaled priors.

    Source: Hvarfner et al. 2024, "Vanilla Bayesian optimization performs great in high dimensions": the lengthscales'
    prior is LogNormal(√2 + ½ log D, √3). The outcomes are standardized, so that no output scale is fitted.

    Args:
        dimensions: D.
        spread: standard deviation of the log lengthscales; another one than √3 keeps the mode of the prior.
    """
    kernel = get_covar_module_with_dim_scaled_prior(ard_num_dims=dimensions, use_rbf_kernel=False).double()
    if spread != math.sqrt(3):
        mode = math.sqrt(2) + math.log(dimensions) / 2 - 3  # of the log-normal: location − scale²
        kernel.lengthscale_prior = LogNormalPrior(mode + spread**2, spread).double()
    return kernel


class GaussianProcess(Module):  # type: ignore[misc]  # gpytorch ships no types
    """Constant mean, a kernel and Gaussian noise.

    The noise has BoTorch's LogNormal(−4, 1) prior and is at least 1e-4 of the outcomes' variance: the paper's surface
    is read through a small validation set, so that two equal configurations never measure exactly equal.

    Args:
        kernel: GPyTorch kernel over features (n, q).
        likelihood: Gaussian likelihood; the default is described above.
    """

    def __init__(self, kernel: Kernel, likelihood: GaussianLikelihood | None = None) -> None:
        super().__init__()
        self.mean_module = ConstantMean()
        self.covar_module = kernel
        self.likelihood = get_gaussian_likelihood_with_lognormal_prior() if likelihood is None else likelihood
        self.double()

    @property
    def noise(self) -> Tensor:
        """Noise variance, a scalar."""
        noise: Tensor = self.likelihood.noise.squeeze(-1)
        return noise

    @property
    def constant(self) -> Tensor:
        """Constant mean, a scalar."""
        constant: Tensor = self.mean_module.constant
        return constant

    def mean(self, Z: Tensor) -> Tensor:  # noqa: N803
        """Prior mean (…, m) at features Z (…, m, q)."""
        return self.constant.expand(Z.shape[:-1])

    def covariance(self, A: Tensor, B: Tensor) -> Tensor:  # noqa: N803
        """Dense prior covariance (…, a, b) between features A (…, a, q) and B (…, b, q)."""
        # forward, and not __call__, which would build a lazy operator: five times slower for 30 observations.
        dense: Tensor = to_dense(self.covar_module.forward(A, B))
        return dense

    def variance(self, Z: Tensor) -> Tensor:  # noqa: N803
        """Prior variance (m,) at features Z (m, q)."""
        variance: Tensor = self.covar_module.forward(Z, Z, diag=True)
        return variance

    def factor(self, Z: Tensor, variances: Tensor | None = None) -> Tensor:  # noqa: N803
        """L (n, n) of S, the noisy kernel matrix of Z (n, q), with variances v (n,); None for 0."""
        K = self.covariance(Z, Z)  # (n, n)  # noqa: N806
        S = K + self.noise * torch.eye(len(Z), dtype=K.dtype)  # (n, n)  # noqa: N806
        return cholesky(S if variances is None else S + torch.diag(variances))

    def log_marginal_likelihood(self, Z: Tensor, y: Tensor, variances: Tensor | None = None) -> Tensor:  # noqa: N803
        """log N(y | m(Z), K + σ² I + diag(v)): Rasmussen & Williams eq. 2.30."""
        L = self.factor(Z, variances)  # (n, n)  # noqa: N806
        r: Tensor = torch.linalg.solve_triangular(L, (y - self.mean(Z)).unsqueeze(-1), upper=False)  # (n, 1)
        return -0.5 * r.square().sum() - L.diagonal().log().sum() - 0.5 * len(y) * math.log(2 * math.pi)

    def log_prior(self) -> Tensor:
        """Sum of the log densities of all hyperparameters under their priors."""
        total = torch.zeros((), dtype=torch.float64)
        for _, module, prior, closure, _ in self.named_priors():
            total = total + prior.log_prob(closure(module)).sum()
        return total

    def loss(self, Z: Tensor, y: Tensor, variances: Tensor | None = None) -> Tensor:  # noqa: N803
        """Negative log posterior of the hyperparameters per observation (GPyTorch's scaling)."""
        return -(self.log_marginal_likelihood(Z, y, variances) + self.log_prior()) / len(y)


class FittedSurrogate:
    """A Gaussian process on fitted features, in eval mode, conditioned on its observations.

    Args:
        model: fitted process; it is set to eval mode and never trained again.
        features: map from raw rows (m, d) to features (m, q), float64 and without gradient.
        X: observed rows (n, d); n may be 0, then the posterior is the prior.
        y: standardized outcomes (n,).
        variances: what is known of their noise variances, beside the fitted one; None for nothing.  # (n,)

    Raises:
        FitError: the kernel matrix cannot be factorized.
    """

    def __init__(
        self,
        model: GaussianProcess,
        features: Features,
        X: NDArray[np.floating],  # noqa: N803
        y: NDArray[np.float64],
        variances: NDArray[np.float64] | None = None,
    ) -> None:
        self.model = model.eval()
        self.features = features
        with torch.no_grad():
            self.Z = features(X)  # (n, q)
            self.y = torch.as_tensor(y, dtype=torch.float64)  # (n,)
            v = None if variances is None else torch.as_tensor(variances, dtype=torch.float64)  # (n,)
            self.L = model.factor(self.Z, v) if len(self.y) else torch.zeros((0, 0), dtype=torch.float64)  # (n, n)
            residual = (self.y - model.mean(self.Z)).unsqueeze(-1)  # (n, 1)
            self.alpha = torch.cholesky_solve(residual, self.L).squeeze(-1) if len(self.y) else self.y  # (n,)

    def posterior(self, X: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # noqa: N803
        """See :class:`Surrogate`."""
        rows = self.rows(X)
        return rows.mean.numpy(), rows.variance.numpy()

    def rows(self, X: NDArray[np.floating]) -> RowPosterior:  # noqa: N803
        """See :class:`Surrogate`."""
        return RowPosterior(self, X)

    def leave_one_out(self) -> NDArray[np.float64]:
        """See :class:`Surrogate`; Rasmussen & Williams eq. 5.10-5.12."""
        with torch.no_grad():
            diagonal = torch.cholesky_inverse(self.L).diagonal()  # (n,) of S⁻¹
            variance = 1.0 / diagonal
            residual = self.alpha * variance  # y − μ₋ᵢ
            return (-0.5 * (residual.square() / variance + variance.log() + math.log(2 * math.pi))).numpy()

    def log_density(self, X: NDArray[np.floating], y: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: N803
        """Log predictive density (m,) of new outcomes y (m,) with the noise σ² alone at rows X (m, d)."""
        mean, latent = self.posterior(X)
        variance = latent + self.model.noise.item()
        density: NDArray[np.float64] = -0.5 * ((y - mean) ** 2 / variance + np.log(2 * math.pi * variance))
        return density


class RowPosterior:
    """Posterior of the latent function over a fixed set of rows.

    Only features, mean and variance of the rows are kept, (m, q) and twice (m,); a covariance column is computed when
    it is asked for, in chunks, so that 50,000 rows and 1,000 observations stay within tens of MiB.

    Attributes:
        mean: (m,).
        variance: (m,).
    """

    def __init__(self, surrogate: FittedSurrogate, X: NDArray[np.floating]) -> None:  # noqa: N803
        self._s = surrogate
        with torch.no_grad():
            self.F = surrogate.features(X)  # (m, q)
            means, variances = [], []
            for part in self._chunks():
                k = surrogate.model.covariance(part, surrogate.Z)  # (c, n)
                prior = surrogate.model.variance(part)  # (c,)
                v = torch.linalg.solve_triangular(surrogate.L, k.T, upper=False)  # (n, c)
                means.append(surrogate.model.mean(part) + k @ surrogate.alpha)
                variances.append((prior - v.square().sum(0)).clamp_min(MIN_VARIANCE))
            empty = torch.zeros(0, dtype=torch.float64)
            self.mean = torch.cat(means) if means else empty
            self.variance = torch.cat(variances) if variances else empty

    def __len__(self) -> int:
        return len(self.F)

    def _chunks(self) -> list[Tensor]:
        width = max(1, len(self._s.y), self.F.shape[-1])
        size = max(1, CHUNK_ELEMENTS // width)
        return [self.F[i : i + size] for i in range(0, len(self.F), size)]

    def covariance(self, row: int) -> Tensor:
        """Posterior covariance (m,) of every row with row ``row``."""
        s = self._s
        with torch.no_grad():
            point = self.F[row : row + 1]  # (1, q)
            w = torch.cholesky_solve(s.model.covariance(s.Z, point), s.L).squeeze(-1) if len(s.y) else s.y  # (n,)
            parts = [
                s.model.covariance(part, point).squeeze(-1) - s.model.covariance(part, s.Z) @ w
                for part in self._chunks()
            ]
            column = torch.cat(parts)  # (m,)
            column[row] = self.variance[row]
            return column
