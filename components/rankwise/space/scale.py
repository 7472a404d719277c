"""The distribution of a numeric parameter as a map between its values and [0, 1].

Notation
    x      value of the parameter, low ≤ x ≤ high
    d      x − low, the offset. All work is done on offsets: it keeps the digits of a narrow range far from zero.
    g      position on the distribution's own scale: d, or log(x / low) = log1p(d / low) for the log distributions
    G      g(high − low)
    [a, b] the interval of g that carries all the mass. [0, G] for a continuous parameter; half a neighbour's
           distance more on each side where the values are a grid, so that the two end values get a whole share.

uniform and logUniform are uniform in g over [a, b]. normal and logNormal are normal in g with mean G/2 and standard
deviation G/6, truncated to [a, b]: the bounds lie three standard deviations from the mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Array = NDArray[np.float64]

# Where x is this many times ``low``, d and x are the same double: log(x / low) then does without d / low,
# which could overflow.
_FAR = 1e15


@dataclass(frozen=True, slots=True)
class Scale:
    """One distribution over offsets from ``low``.

    Attributes:
        low: the smallest value; greater than 0 when ``log``.
        range: high − low, greater than 0.
        log: whether the distribution lives on a logarithmic scale.
        normal: (truncated) normal on that scale; uniform otherwise.
        below: mass below the smallest value, as a distance in g, ≥ 0.
        above: the same above the largest.
    """

    low: float
    range: float
    log: bool
    normal: bool
    below: float = 0.0
    above: float = 0.0

    def forward(self, offsets: Array) -> Array:
        """Offsets d -> g."""
        if not self.log:
            return offsets  # (n,)
        with np.errstate(over="ignore", divide="ignore"):
            ratio = offsets / self.low
            far = np.log(offsets) - math.log(self.low)
        return np.where(ratio < _FAR, np.log1p(np.minimum(ratio, _FAR)), far)  # (n,)

    def backward(self, positions: Array) -> Array:
        """Positions g -> offsets d."""
        if not self.log:
            return positions  # (n,)
        near = self.low * np.expm1(np.minimum(positions, math.log(_FAR)))
        with np.errstate(over="ignore"):
            far = np.exp(positions + math.log(self.low))
        return np.where(positions < math.log(_FAR), near, far)  # (n,)

    @property
    def length(self) -> float:
        """G, the distance of the bounds on the scale."""
        return float(self.forward(np.array([self.range]))[0])

    def cdf(self, positions: Array) -> Array:
        """Mass at or below each position g."""
        length = self.length
        a, b = -self.below, length + self.above
        if not self.normal:
            return np.clip((positions - a) / (b - a), 0.0, 1.0)  # (n,)
        mean, deviation = length / 2, length / 6
        low_tail, high_tail = ndtr((a - mean) / deviation), ndtr((b - mean) / deviation)
        mass = (ndtr((positions - mean) / deviation) - low_tail) / (high_tail - low_tail)
        return np.asarray(np.clip(mass, 0.0, 1.0), dtype=np.float64)  # (n,)

    def quantile(self, mass: Array) -> Array:
        """The inverse of :meth:`cdf`: position g below which ``mass`` lies."""
        length = self.length
        a, b = -self.below, length + self.above
        if not self.normal:
            return np.clip(a + mass * (b - a), a, b)  # (n,)
        mean, deviation = length / 2, length / 6
        low_tail, high_tail = ndtr((a - mean) / deviation), ndtr((b - mean) / deviation)
        positions = mean + deviation * ndtri(low_tail + mass * (high_tail - low_tail))
        return np.asarray(np.clip(positions, a, b), dtype=np.float64)  # (n,)
