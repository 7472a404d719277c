"""Which configurations need further seeds: the incumbent, and those whose being the best is still open.

Notation::

    c        configuration with n_c measured values yᵢ of mean ȳ_c, ν_c = n_c − 1; smaller values are better
    SS_c     Σᵢ (yᵢ − ȳ_c)²
    m        median of the means ȳ_c; a configuration is called good where ȳ_c ≤ m
    V        mean of (ȳ_c − m)² over the good ones
    σ₀²      variance of one training of a typical good configuration
    σ_c²     variance of one training of configuration c; e_c² = σ_c² / n_c
    ν₀       degrees of freedom that σ₀² counts for in σ_c²
    τ²       variance of the true means μ_c around m, among good ones
    b        the incumbent

**Typical variance.** SS is pooled over the repeated good configurations (over all repeated ones where no good one is):
bad ones spread widely and would make good ones look undecided. With ν = Σ ν_c degrees of freedom, log(SS / ν) − ψ(ν/2)
+ log(ν/2) estimates log σ₀² with variance ψ'(ν/2). It is averaged by precision with a prior
around log V − 5, the mode that :mod:`rankwise.surrogate.noise` has for outcomes.

**One configuration's variance.** Two or three seeds say little about σ_c², so that it is shrunk to σ₀²: the moderated
variance (ν₀ σ₀² + SS_c) / (ν₀ + ν_c) with ν₀ + ν_c degrees of freedom (Smyth 2004, "Linear models and empirical Bayes
methods for assessing differential expression in microarray experiments", section 3). A configuration with one training
has σ₀².

**True means.** The least of many means is that of the luckiest configuration as much as of the best one. With μ_c
normal around m with variance τ², estimated as V less the mean e_c² of the good ones, the posterior of μ_c has the mean
m + w_c (ȳ_c − m) and the variance w_c e_c², w_c = τ² / (τ² + e_c²) (Efron and Morris 1975, "Data analysis using Stein's
estimator and its generalizations", section 2): the worse a mean is known, the less it is believed. The incumbent b is
the configuration with the least posterior mean.

**Open.** μ_b − μ_c is about Student's t around the difference of the posterior means, with scale² w_b e_b² + w_c e_c²
and Welch-Satterthwaite's degrees of freedom. A configuration is open where P(μ_c < μ_b) is greater than :data:`OPEN`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, polygamma, stdtr

OPEN = 0.2
"""Least probability of being better than the incumbent with which a configuration gets further seeds. In random
searches of 30 trainings over the table of tests/benchmarks/lora_runs (minilm-section), with simulated seeds of 1, 5 and
20 times the measured spread, 0.1, 0.2 and 0.3 differed by less than could be told from 0 in 300 repetitions."""
PRIOR_FREEDOM = 2.0
"""ν₀. Variances within configurations differ widely: over eleven configurations of real LoRA runs with five seeds each
(tests/benchmarks/lora_runs, minilm-section without the one that is worse than guessing) log s_c² has the variance 3.9,
of which ψ'(2) = 0.6 comes from five seeds being few; ψ'(ν₀/2) = 3.3 gives ν₀ = 1.3, and ψ'(1) = 1.6."""
LOG_MODE = -5.0
"""Prior mode of log(σ₀² / V), see :data:`rankwise.surrogate.noise.LOG_MODE`."""
LOG_VARIANCE = 4.0
"""Prior variance of log(σ₀² / V): a factor of 7 either way. Wider than that of the models' noise, which is fitted
beside a kernel that could explain the same differences; repeats are the noise itself."""
LEAST = 1e-4
"""Least σ₀² / V, and least τ² / V."""
_HUGE = 1e100


@dataclass(frozen=True)
class Measured:
    """k configurations as their values tell them; smaller is better.

    Attributes:
        means: ȳ, in units of ``unit``.  # (k,)
        posterior_means, posterior_variances: of μ, in units of ``unit`` and its square.  # (k,)
        variances: σ_c² of one training, in units of ``unit`` squared.  # (k,)
        freedom: degrees of freedom of the variances.  # (k,)
        counts: n.  # (k,)
        unit: what the values were divided by, so that their squares do not overflow; 1 but for huge ones.
        repeated: whether any configuration was measured twice.
    """

    means: NDArray[np.float64]
    posterior_means: NDArray[np.float64]
    posterior_variances: NDArray[np.float64]
    variances: NDArray[np.float64]
    freedom: NDArray[np.float64]
    counts: NDArray[np.float64]
    unit: float
    repeated: bool

    @property
    def squared_errors(self) -> NDArray[np.float64]:
        """Squared standard errors of the means, σ_c² / n_c.  # (k,)"""
        return self.variances / self.counts

    @property
    def standard_errors(self) -> NDArray[np.float64]:
        """Standard errors of the means in the values' own units.  # (k,)"""
        errors: NDArray[np.float64] = np.minimum(np.sqrt(self.squared_errors) * self.unit, np.finfo(np.float64).max)
        return errors

    def first(self) -> int:
        """Index of the incumbent; the first of equals."""
        return int(np.argmin(self.posterior_means))


def measure(groups: Sequence[Sequence[float]]) -> Measured:
    """Means and variances of k ≥ 1 configurations.

    Args:
        groups: the finite values of each, at least one; smaller is better.

    Raises:
        ValueError: there is no configuration, or one without a value.
    """
    if not groups or not all(groups):
        raise ValueError("at least one configuration with a value each is needed")
    largest = max(abs(value) for group in groups for value in group)
    unit = largest if largest > _HUGE else 1.0
    scaled = [np.asarray(group, dtype=np.float64) / unit for group in groups]
    means = np.array([math.fsum(y) / len(y) for y in scaled])  # (k,)
    # Equal values must have no spread, whatever rounding makes of their mean.
    squares = np.array(
        [float(np.sum((y - mean) ** 2)) if np.ptp(y) else 0.0 for y, mean in zip(scaled, means, strict=True)]
    )
    counts = np.array([len(y) for y in scaled], dtype=np.float64)
    nu = counts - 1
    median = float(np.median(means))
    good = means <= median
    spread = float(np.mean((means[good] - median) ** 2))
    freedom = PRIOR_FREEDOM + nu
    variances = (PRIOR_FREEDOM * _typical(spread, good, squares, nu) + squares) / freedom
    errors = variances / counts  # (k,), e²
    tau = max(spread - float(np.mean(errors[good])), LEAST * spread)
    # Without any spread there is nothing to be drawn to, and without any error no reason to.
    weights = np.divide(tau, tau + errors, out=np.ones_like(errors), where=(errors > 0) & (tau > 0))
    posterior = median + weights * (means - median)
    return Measured(means, posterior, weights * errors, variances, freedom, counts, unit, bool(nu.any()))


def _typical(spread: float, good: NDArray[np.bool_], squares: NDArray[np.float64], nu: NDArray[np.float64]) -> float:
    """σ₀² from V, and which configurations are good, sums of squares and degrees of freedom of all, (k,) each."""
    used = good & (nu > 0)
    if not used.any():
        used = nu > 0
    freedom = float(nu[used].sum())
    pooled = float(squares[used].sum()) / freedom if freedom else 0.0
    if spread == 0.0:
        # Nothing to measure the prior in: one configuration, or all good ones equal.
        return pooled
    mode = LOG_MODE + math.log(spread)
    if not freedom:
        return math.exp(mode)
    half = freedom / 2
    estimate = math.log(max(pooled, LEAST * spread)) - float(digamma(half)) + math.log(half)
    precision = 1.0 / float(polygamma(1, half))
    return math.exp((mode / LOG_VARIANCE + precision * estimate) / (1.0 / LOG_VARIANCE + precision))


def chances(measured: Measured) -> NDArray[np.float64]:
    """P(μ_c < μ_b) for every configuration (k,); 1/2 for the incumbent itself and what nothing tells from it."""
    b = measured.first()
    errors = measured.posterior_variances
    total = errors + errors[b]
    difference = measured.posterior_means - measured.posterior_means[b]  # (k,), at least 0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        # Shares of the total keep tiny variances from underflowing when they are squared.
        mine, theirs = errors / total, errors[b] / total
        freedom = 1.0 / (mine**2 / measured.freedom + theirs**2 / measured.freedom[b])
        found = stdtr(freedom, -difference / np.sqrt(total))
    # Without any variance what is not equal is decided.
    certain = np.where(difference > 0, 0.0, 0.5)
    known: NDArray[np.float64] = np.where((total > 0) & np.isfinite(found), found, certain)
    known[b] = 0.5
    return known


def further(measured: Measured, room: Sequence[int], count: int) -> list[int]:
    """Which configurations get the next seeds, in this order; an index as often as it gets one.

    First the incumbent gets all its seeds: it is what the search would choose, and a lucky training is found out by
    nothing else. Then the open ones do, those with the greatest chance first.

    Args:
        measured: the k configurations.
        room: how many further seeds each may get; what is running is no longer among them.
        count: how many seeds are wanted at most.
    """
    b = measured.first()
    chance = chances(measured)
    rivals = [c for c in np.argsort(-chance, kind="stable").tolist() if c != b and chance[c] > OPEN]
    return [c for c in (b, *rivals) for _ in range(room[c])][:count]
