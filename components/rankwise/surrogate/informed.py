"""A Gaussian process that begins with what is known, averaged over its hyperparameters.

Notation::

    u       (q,)    the configuration's numbers, as :mod:`rankwise.surrogate.numeric` has them
    ρ       (k,)    scores of k sources of knowledge (rules, the user's belief, earlier searches, …); larger is better
    c, b    (), (k,)  constant and trust in each source
    f(x)    c − Σ bₖ ρₖ(x) + a · Matérn-5/2(u / ℓ), the standardized, smaller-is-better outcome without noise
    θ       (q + 2,)  log lengthscales ℓ, log noise σ², log output scale a²
    v       (n,)    known noise variances of the observations, beside σ²

**Knowledge is the mean.** Every source only has to rank configurations: its scores come as the normal quantiles of
their ranks over the space (``rankwise.strategies.knowledge.NormalScores``), so that with b = 1 a source would explain
the outcomes as well as their own ranks do. c and b have normal priors and enter linearly, so that they are integrated
out exactly: the covariance gets 1 + Σ τ² ρₖ ρₖ' (Rasmussen & Williams, section 2.7). Before any trial the search
follows its sources; a source that contradicts the trials loses its weight within a few of them, and where it is right
in the large, the process models only what it leaves. Adding to the acquisition instead (πBO, Hvarfner et al. 2022)
forgets by a fixed schedule, whether the belief was right or wrong.

**Hyperparameters are averaged over.** Ten observations do not tell six lengthscales; their most probable values are
over-confident, and a search that trusts them stops exploring too early or wanders. So the posterior of θ is
represented by weighted draws, found by adaptive multiple importance sampling (Cornuet et al. 2012): the first round
draws from the prior, each later one from a normal distribution with the weighted mean and covariance of all draws
before, widened, and all draws are weighted against the mixture of all rounds. There is no gradient and no start to
choose, all draws of a round are one batch of small Cholesky factorizations, and the quasi-random numbers are fixed: the
same trials give the same model. What is left are a few processes of equal weight, by systematic resampling.

The lengthscales' priors say what is known of the inputs' importance (``rankwise.strategies.features``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtri
from scipy.stats import qmc
from torch import Tensor

from rankwise.deadline import Deadline
from rankwise.surrogate.fit import representative
from rankwise.surrogate.gaussian_process import FitError, FittedSurrogate, GaussianProcess, matern_kernel
from rankwise.surrogate.noise import LEAST, LOG_MODE
from rankwise.surrogate.numeric import identity

TRUST = 0.5
"""Weight of a source before anything was measured."""
TRUST_SPREAD = 0.3
"""Standard deviation τ of that weight's prior."""
LENGTHSCALE_SPREAD = 1.0
"""Standard deviation of a log lengthscale's prior."""
LOG_NOISE = (LOG_MODE + 1.0, 1.0)
"""Mean and standard deviation of the log noise's prior (BoTorch's): the mode is the mean less the variance."""
LOG_SCALE = (0.0, 0.5)
"""Mean and standard deviation of the log output scale's prior: outcomes are standardized."""
ROUNDS = 3
DRAWS = 128
"""Draws of a round, a power of two as the Sobol sequence wants it."""
MEMBERS = 12
"""Processes that represent the posterior, at most."""
_WIDENING = 1.5
"""Factor on the covariance of a later round's proposal: too narrow a proposal misses tails for good."""
_PRIOR_SHARE = (0.15, 0.045)
"""Part of the prior's covariance that is added to it: with few draws of weight, and with enough of them."""
_ENOUGH_DRAWS = 30.0
_CHUNK_ELEMENTS = 1 << 21
"""Kernel entries that are factorized at once (16 MiB)."""


class InformedProcess(GaussianProcess):
    """A process over rows [u | ρ] with given hyperparameters: the kernel sees u, the mean sees ρ.

    Args:
        lengthscales: (q,).
        noise: σ².
        scale: a².
        sources: k.
    """

    def __init__(self, lengthscales: NDArray[np.float64], noise: float, scale: float, sources: int) -> None:
        super().__init__(matern_kernel(len(lengthscales)))
        self.dimensions, self.sources, self.scale = len(lengthscales), sources, scale
        self.covar_module.lengthscale = torch.as_tensor(lengthscales, dtype=torch.float64)
        self.likelihood.noise = torch.as_tensor(noise, dtype=torch.float64)

    def mean(self, Z: Tensor) -> Tensor:  # noqa: N803
        mean: Tensor = -TRUST * Z[..., self.dimensions :].sum(-1)
        return mean

    def covariance(self, A: Tensor, B: Tensor) -> Tensor:  # noqa: N803
        kernel = self.scale * super().covariance(A[..., : self.dimensions], B[..., : self.dimensions])
        linear = TRUST_SPREAD**2 * A[..., self.dimensions :] @ B[..., self.dimensions :].mT
        covariance: Tensor = kernel + linear + 1.0
        return covariance

    def variance(self, Z: Tensor) -> Tensor:  # noqa: N803
        kernel = self.scale * super().variance(Z[:, : self.dimensions])
        variance: Tensor = kernel + TRUST_SPREAD**2 * Z[:, self.dimensions :].square().sum(1) + 1.0
        return variance


@dataclass(frozen=True)
class Averaged:
    """The posterior of a process over its hyperparameters.

    Attributes:
        weights: of the processes, sum 1.  # (s,)
        surrogates: the processes, conditioned on the same observations.
    """

    weights: NDArray[np.float64]
    surrogates: tuple[FittedSurrogate, ...]

    def posterior(self, X: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # noqa: N803
        """Mean (m,) and variance (m,) of the mixture at rows X (m, q + k)."""
        means, variances = (np.stack(part) for part in zip(*(s.posterior(X) for s in self.surrogates), strict=True))
        mean: NDArray[np.float64] = self.weights @ means
        variance: NDArray[np.float64] = self.weights @ (variances + (means - mean) ** 2)
        return mean, variance

    def leave_one_out(self) -> NDArray[np.float64]:
        """Log density (n,) of each observation given the others; the weights are those of all observations."""
        densities = np.stack([s.leave_one_out() for s in self.surrogates])  # (s, n)
        together: NDArray[np.float64] = logsumexp(densities, axis=0, b=self.weights[:, None])
        return together

    def trust(self) -> list[float]:
        """Posterior mean of b (k,)."""
        total = torch.zeros(0, dtype=torch.float64)
        for weight, surrogate in zip(self.weights, self.surrogates, strict=True):
            model = surrogate.model
            assert isinstance(model, InformedProcess)  # noqa: S101
            scores = surrogate.Z[:, model.dimensions :]  # (n, k)
            # A larger outcome than the mean said of a well-scored configuration takes trust away.
            part = weight * (TRUST - TRUST_SPREAD**2 * scores.T @ surrogate.alpha)
            total = part if len(total) == 0 else total + part
        trust: list[float] = total.tolist()
        return trust


def fit_informed(
    X: NDArray[np.float64],  # noqa: N803
    y: NDArray[np.float64],
    lengthscales: NDArray[np.float64],
    deadline: Deadline | None = None,
    variances: NDArray[np.float64] | None = None,
    members: int = MEMBERS,
) -> Averaged:
    """Fit the informed process.

    Args:
        X: rows [u | ρ] (n, q + k), n ≥ 0.
        y: outcomes (n,), standardized, smaller is better.
        lengthscales: medians (q,) of the lengthscales' priors.
        deadline: no further round is begun after it.
        variances: v; None for nothing.  # (n,)
        members: processes of the average, at most.

    Raises:
        FitError: no draw gave a finite likelihood.
    """
    q = len(lengthscales)
    sources = X.shape[1] - q
    rows = representative(y)
    known = np.zeros(len(y)) if variances is None else variances
    theta, weights = _draws(_Evidence(X[rows], y[rows], known[rows], q), lengthscales, deadline or Deadline.never())
    # Systematic resampling: every process stands for an equal share of the posterior.
    places = np.searchsorted(np.cumsum(weights), (np.arange(members) + 0.5) / members)
    chosen, counts = np.unique(np.minimum(places, len(weights) - 1), return_counts=True)
    surrogates = []
    for i in chosen:
        process = InformedProcess(np.exp(theta[i, :q]), _noise(theta[i, q]), math.exp(theta[i, q + 1]), sources)
        surrogates.append(FittedSurrogate(process, identity, X, y, variances))
    return Averaged(counts / counts.sum(), tuple(surrogates))


def _noise(log_noise: float) -> float:
    return max(math.exp(log_noise), LEAST)


class _Evidence:
    """Log marginal likelihood of many hyperparameters at once.

    Args:
        X: rows [u | ρ] (n, q + k).
        y: outcomes (n,).
        variances: v (n,).
        q: width of u.
    """

    def __init__(
        self,
        X: NDArray[np.float64],  # noqa: N803
        y: NDArray[np.float64],
        variances: NDArray[np.float64],
        q: int,
    ) -> None:
        U, R = torch.tensor(X[:, :q]), torch.tensor(X[:, q:])  # (n, q), (n, k)  # noqa: N806
        n = self.n = len(y)
        self.q = q
        self._squares = (U[:, None] - U[None]).square().reshape(n * n, q)
        self._fixed = 1.0 + TRUST_SPREAD**2 * R @ R.T + torch.diag(torch.tensor(variances))  # (n, n)
        self._residual = torch.tensor(y) + TRUST * R.sum(1)  # (n,)

    def __call__(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evidence (s,) of θ (s, q + 2), up to a constant; -inf where it cannot be computed."""
        if self.n == 0:
            return np.zeros(len(theta))
        size = max(1, _CHUNK_ELEMENTS // self.n**2)
        return np.concatenate([self._of(torch.tensor(theta[i : i + size])) for i in range(0, len(theta), size)])

    def _of(self, theta: Tensor) -> NDArray[np.float64]:
        n = self.n
        inverse = torch.exp(-2.0 * theta[:, : self.q])  # (s, q)
        distance = (inverse @ self._squares.T).mul_(5.0).sqrt_().reshape(len(theta), n, n)  # √5 d
        kernel = (1.0 + distance + distance.square() / 3.0) * torch.exp(-distance)
        noise = theta[:, self.q].exp().clamp_min(LEAST)
        S = theta[:, self.q + 1].exp()[:, None, None] * kernel + self._fixed  # (s, n, n)  # noqa: N806
        S.diagonal(dim1=1, dim2=2).add_(noise[:, None])
        factor, info = torch.linalg.cholesky_ex(S)
        solved = torch.linalg.solve_triangular(factor, self._residual[None, :, None], upper=False)
        evidence = -0.5 * solved.square().sum((1, 2)) - factor.diagonal(dim1=1, dim2=2).log().sum(1)
        found: NDArray[np.float64] = torch.where(info == 0, evidence, -math.inf).nan_to_num(nan=-math.inf).numpy()
        return found


@dataclass(frozen=True)
class _Normal:
    """A normal distribution of θ by its mean (d,) and the Cholesky factor (d, d) of its covariance."""

    mean: NDArray[np.float64]
    factor: NDArray[np.float64]

    def draw(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """θ (s, d) from standard normal z (s, d)."""
        return self.mean + z @ self.factor.T

    def log_density(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """(s,), up to a constant that all normal distributions share."""
        z = np.linalg.solve(self.factor, (theta - self.mean).T)  # (d, s)
        density: NDArray[np.float64] = -0.5 * (z**2).sum(0) - np.log(np.diag(self.factor)).sum()
        return density


def _prior(lengthscales: NDArray[np.float64]) -> _Normal:
    mean = np.concatenate([np.log(lengthscales), [LOG_NOISE[0], LOG_SCALE[0]]])
    spread = np.concatenate([np.full(len(lengthscales), LENGTHSCALE_SPREAD), [LOG_NOISE[1], LOG_SCALE[1]]])
    return _Normal(mean, np.diag(spread))


def _draws(
    evidence: _Evidence, lengthscales: NDArray[np.float64], deadline: Deadline
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draws θ (s, q + 2) of the posterior and their weights (s,), which sum to 1.

    Raises:
        FitError: no draw gave a finite likelihood.
    """
    prior = proposal = _prior(lengthscales)
    proposals: list[_Normal] = []
    theta = np.zeros((0, len(prior.mean)))
    found = np.zeros(0)
    weights = np.zeros(0)
    for round_ in range(ROUNDS if evidence.n else 1):
        fresh = proposal.draw(_normal_numbers(len(prior.mean), round_))
        proposals.append(proposal)
        theta, found = np.concatenate([theta, fresh]), np.concatenate([found, evidence(fresh)])
        if not np.isfinite(found).any():
            raise FitError(f"none of {len(found)} hyperparameters gave a finite likelihood")
        mixture = logsumexp(np.stack([one.log_density(theta) for one in proposals]), axis=0) - math.log(len(proposals))
        log_weights = found + prior.log_density(theta) - mixture
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        if deadline.expired:
            break
        proposal = _next_proposal(theta, weights, prior)
    return theta, weights


def _next_proposal(theta: NDArray[np.float64], weights: NDArray[np.float64], prior: _Normal) -> _Normal:
    mean = weights @ theta
    centred = theta - mean
    few, enough = _PRIOR_SHARE
    share = enough if 1.0 / np.sum(weights**2) >= _ENOUGH_DRAWS else few
    around = (centred.T * weights) @ centred  # (d, d)
    covariance = _WIDENING * around + share * prior.factor @ prior.factor.T
    return _Normal(mean, np.asarray(np.linalg.cholesky(covariance), dtype=np.float64))


@lru_cache(maxsize=64)
def _normal_numbers(dimension: int, round_: int) -> NDArray[np.float64]:
    """Quasi-random standard normal numbers (DRAWS, dimension), the same in every call."""
    uniform = qmc.Sobol(dimension, seed=round_).random(DRAWS)
    numbers: NDArray[np.float64] = ndtri(uniform.clip(1e-6, 1 - 1e-6))
    numbers.flags.writeable = False
    return numbers
