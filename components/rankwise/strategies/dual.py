"""Dual ascent over the trials that were measured: what keeping a bound costs, and what no configuration can beat.

Notation::

    vᵢ, gᵢ    value (L, or F with costs) and relative violations (j,) of trial i
    μ         prices (j,) ≥ 0: units of the value for a violation of one whole bound
    d(μ)      minᵢ vᵢ + μ·gᵢ, the dual function; concave, and a lower bound of the best value among feasible trials
    Δ         spread of the better half of the values: median less least

max over μ ≥ 0 of d(μ) is approached by projected subgradient ascent (Shor 1985; Boyd & Park 2014, "Subgradient
methods", section 3): the violations of a minimizing trial are a subgradient of d. Each constraint is measured in units
of its largest violation or slack, and a step moves μ by Δ / √t in these units, so that neither the metrics' units nor
one diverged training matter. The steps are bounded: where no trial is feasible, d has no maximum, and the prices end
where the steps do, high enough to say "feasible first".

The bound is one over the *measured* trials. A gap between it and the best feasible value is the duality gap of finitely
many configurations, and no promise of better ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS = 400
BINDS = 1e-3
"""A constraint binds when the bound without its price is lower by this part of Δ."""


@dataclass(frozen=True)
class DualPath:
    """An ascent.

    Attributes:
        mu: prices after each step, the first row before any: zeros.  # (t, j)
        bound: best dual bound up to each step; it never falls.  # (t,)
        best: number of the row whose prices gave the best bound.
        binds: which constraints bind at the best prices.  # (j,)
    """

    mu: NDArray[np.float64]
    bound: NDArray[np.float64]
    best: int
    binds: NDArray[np.bool_]

    @property
    def prices(self) -> NDArray[np.float64]:
        """μ (j,) of the best bound."""
        prices: NDArray[np.float64] = self.mu[self.best]
        return prices


def dual_ascent(values: NDArray[np.float64], violations: NDArray[np.float64], steps: int = STEPS) -> DualPath:
    """Approach the prices at which the dual bound is best.

    Args:
        values: of measured trials, smaller is better, in any order, n ≥ 1.  # (n,)
        violations: g, finite.  # (n, j)
        steps: of the ascent.

    Raises:
        ValueError: there is no trial, or a number is not finite.
    """
    if not len(values) or violations.shape[:1] != values.shape or violations.ndim != 2:
        raise ValueError(f"needs values (n,) and violations (n, j), n > 0, got {values.shape} and {violations.shape}")
    if not (np.isfinite(values).all() and np.isfinite(violations).all()):
        raise ValueError("values and violations must be finite")
    # Of equal minimizers the first is taken: the order must not depend on that of the trials.
    order = np.lexsort((*violations.T, values))
    largest = max(float(np.abs(values).max()), 1.0)  # sums of huge values shall not overflow
    v, g = values[order] / largest, violations[order]  # (n,), (n, j)
    unit = np.abs(g).max(0)  # (j,)
    unit[unit == 0] = 1.0
    g = g / unit
    spread = float(np.median(v) - v[0]) or float(v[-1] - v[0]) or max(abs(float(v[0])), 1.0 / largest)
    mu = np.zeros((steps + 1, g.shape[1]))
    dual = np.empty(steps + 1)
    for t in range(steps + 1):
        lagrangian = v + g @ mu[t]  # (n,)
        least = int(np.argmin(lagrangian))
        dual[t] = lagrangian[least]
        if t < steps:
            length = float(np.linalg.norm(g[least])) or 1.0
            mu[t + 1] = np.maximum(0.0, mu[t] + spread / np.sqrt(t + 1.0) * g[least] / length)
    best = int(np.argmax(dual))
    binds = np.zeros(g.shape[1], dtype=bool)
    for j in range(g.shape[1]):
        without = mu[best].copy()
        without[j] = 0.0
        binds[j] = float((v + g @ without).min()) < dual[best] - BINDS * spread
    with np.errstate(over="ignore"):  # prices of values of 1e308
        prices, bound = np.nan_to_num(mu * largest / unit), np.nan_to_num(np.maximum.accumulate(dual) * largest)
    return DualPath(prices, bound, best, binds)
