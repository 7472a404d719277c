"""The probability that a configuration keeps the bounds of a search: memory, time, energy, a least quality.

Notation::

    c(x)      one metric, without noise, on its scale: the logarithm where all its values and bounds are greater than
              0, as costs are products of sizes; else the values themselves
    [a, b]    what its bounds allow on that scale; one end may be infinite
    q(x)      Π P(a ≤ c(x) ≤ b), over the metrics

Each metric has a Gaussian process of its own on the numbers of the configurations (:mod:`rankwise.surrogate.numeric`),
fitted to the trials that report it. q multiplies the acquisition (Schonlau et al. 1998; Gardner et al. 2014).

Only what lies near a bound decides, and a metric may be anything: values farther from the bounds than
:data:`FARTHEST` times the median distance count as that far. A few values tell little of a metric's spread, and a bound
far outside of them could seem safe: to their variance s²/n is added, s being a spread to expect before any was seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from botorch.utils.probability.utils import log_prob_normal_in
from numpy.typing import NDArray
from scipy.special import log_ndtr

from rankwise.deadline import Deadline
from rankwise.surrogate.gaussian_process import FittedSurrogate
from rankwise.surrogate.numeric import FIT_STEPS, fit_numeric
from rankwise.surrogate.observations import HUGE

FARTHEST = 5.0
BEYOND = 1e6
"""Typical distances from a bound that count as endless."""
LOG_SPREAD = 0.5
"""Spread s of a cost's logarithm to expect: a factor of 1.6. Of other metrics it is their distance from the bounds."""


@dataclass(frozen=True)
class Bounds:
    """What one metric may be.

    Attributes:
        metric: its name.
        lower: least allowed value; −∞ for any.
        upper: largest allowed value; ∞ for any.
    """

    metric: str
    lower: float = -math.inf
    upper: float = math.inf


class MetricModel:
    """The process of one metric.

    Args:
        X: rows of the trials that report it (n, q), n ≥ 1.
        values: finite.  # (n,)
        bounds: at least one is finite.
        steps: L-BFGS-B iterations.
        deadline: the fit stops when it comes.

    Attributes:
        surrogate: fitted to the metric on its scale, standardized.
        lower, upper: the bounds on the same scale.

    Raises:
        FitError: the fit failed numerically in every attempt.
    """

    def __init__(
        self,
        X: NDArray[np.float64],  # noqa: N803
        values: NDArray[np.float64],
        bounds: Bounds,
        steps: int = FIT_STEPS,
        deadline: Deadline | None = None,
    ) -> None:
        ends = np.array([end for end in (bounds.lower, bounds.upper) if math.isfinite(end)])  # (1,) or (2,)
        self._logarithmic = bool((values > 0).all() and (ends > 0).all())
        # Huge numbers are scaled down first: their differences would overflow.
        largest = float(max(np.abs(values).max(), np.abs(ends).max()))
        self._unit = largest if largest > HUGE and not self._logarithmic else 1.0
        c, ends = (np.log(part) if self._logarithmic else part / self._unit for part in (values, ends))
        distance = np.abs(c[:, None] - ends).min(1)  # (n,)
        typical = float(np.median(distance))
        self._anchor, self._distance = float(ends[0]), typical or float(distance.max()) or 1.0
        relative = self._relative(ends)
        c = np.clip(self._relative(c), relative.min() - FARTHEST, relative.max() + FARTHEST)
        expected = LOG_SPREAD / self._distance if self._logarithmic else 1.0
        self._centre = float(c.mean())
        self._scale = math.sqrt(float(c.var()) + expected**2 / len(c))
        self.surrogate: FittedSurrogate = fit_numeric(X, (c - self._centre) / self._scale, steps, deadline)
        self.lower, self.upper = self._on_scale(bounds.lower), self._on_scale(bounds.upper)

    def _relative(self, c: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distances from the first bound, in typical ones; what is :data:`BEYOND` of them away is at the end of it."""
        with np.errstate(over="ignore"):
            relative: NDArray[np.float64] = ((c - self._anchor) / self._distance).clip(-BEYOND, BEYOND)
        return relative

    def _on_scale(self, end: float) -> float:
        if not math.isfinite(end):
            return end
        c = np.array([math.log(end) if self._logarithmic else end / self._unit])
        return (float(self._relative(c)[0]) - self._centre) / self._scale

    def log_probability(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: N803
        """Log probability (m,) that rows X (m, q) keep the bounds."""
        mean, variance = self.surrogate.posterior(X)
        sigma = np.sqrt(variance)
        if math.isinf(self.lower):
            found: NDArray[np.float64] = log_ndtr((self.upper - mean) / sigma)
        elif math.isinf(self.upper):
            found = log_ndtr((mean - self.lower) / sigma)
        else:
            a, b = torch.tensor((self.lower - mean) / sigma), torch.tensor((self.upper - mean) / sigma)
            # Bounds that are equal leave no interval: what is left is the least that a double can tell.
            found = log_prob_normal_in(a, torch.maximum(b, a + 1e-12)).numpy()
        return found


class FeasibilityModel:
    """All bounds of a search.

    Args:
        models: one a metric; none where there are no bounds.
    """

    def __init__(self, models: Sequence[MetricModel]) -> None:
        self.models = tuple(models)

    def log_probability(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: N803
        """log q (m,) of rows X (m, q)."""
        total: NDArray[np.float64] = np.zeros(len(X))
        for model in self.models:
            total = total + model.log_probability(X)
        return total
