"""How one parameter lies on [0, 1]: three kinds of axis behind one Protocol.

=============  ==========================================================  ================================
axis           used for                                                    position of a value
=============  ==========================================================  ================================
Table          int, discrete, categorical, stepped double                  centre of the value's bin
Lattice        the same grids with more than ``TABLE_LIMIT`` values         centre of the value's bin
Continuous     double without a step                                       mass below the value
=============  ==========================================================  ================================

A bin is as wide as the probability of its value. Bins meet at the midpoint of neighbouring values on the
distribution's own scale (see :mod:`rankwise.space.scale`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankwise.space.number import double_text, parse_integer, parse_number
from rankwise.space.scale import Array, Scale

TABLE_LIMIT = 2**16
"""A grid with more values is not written out and counts as infinite. A table of 65,536 values takes 10 MB and is made
in a tenth of a second, at each request."""

# A value off the grid by less than this part of a step is the grid's value: texts written by programs
# (0.30000000000000004) are meant.
_GRID_TOLERANCE = Fraction(1, 10**9)

# No value gets less than this part of an equal share. It keeps bins of nearly equal values wider than rounding.
_LEAST_SHARE = 1e-6


class Axis(Protocol):
    """One parameter on [0, 1]."""

    def canonical(self, text: str) -> Hashable | None:
        """One identity for all texts of the same value; None when it is none of the parameter's."""

    def unit(self, canonical: Hashable) -> float:
        """Position of a value in [0, 1]."""

    def texts(self, units: Array) -> list[str]:
        """Text of the value at each position."""

    def identities(self, units: Array) -> list[Hashable]:
        """Canonical value at each position."""

    def snap(self, units: Array) -> Array:
        """Positions of the values at the given positions, in other words ``unit(text(u))`` of each."""


@dataclass(frozen=True)
class Table:
    """A finite row of values with one bin each.

    Attributes:
        values: texts, in the order of the bins.
        identity: canonical value of each text.
        edges: bounds of the bins from 0 to 1.
        numeric: whether two texts of the same number are the same value; verbatim otherwise.
        grid: reads the texts of a grid's values (whole numbers, doubles off by rounding); None for lists.
    """

    values: tuple[str, ...]
    identity: tuple[Hashable, ...]
    edges: Array  # (k + 1,)
    numeric: bool
    grid: Grid | None = None
    centres: Array = field(init=False)  # (k,)
    _index: dict[Hashable, int] = field(init=False)

    def __post_init__(self) -> None:
        centres = (self.edges[1:] + self.edges[:-1]) / 2
        for array in (self.edges, centres):
            array.flags.writeable = False
        object.__setattr__(self, "centres", centres)
        object.__setattr__(self, "_index", {value: i for i, value in enumerate(self.identity)})

    def canonical(self, text: str) -> Hashable | None:
        if self.grid is not None:
            return self.grid.canonical(text)
        identity: Hashable | None
        if self.numeric:
            number = parse_number(text)
            identity = None if number is None else float(number)
        else:
            identity = text
        return identity if identity in self._index else None

    def index(self, canonical: Hashable) -> int:
        """Position of a canonical value in :attr:`values`."""
        return self._index[canonical]

    def indices(self, units: Array) -> NDArray[np.int64]:
        """The bin that holds each position."""
        return np.searchsorted(self.edges[1:-1], units, side="right").astype(np.int64)  # (n,)

    def unit(self, canonical: Hashable) -> float:
        return float(self.centres[self._index[canonical]])

    def texts(self, units: Array) -> list[str]:
        return [self.values[i] for i in self.indices(units).tolist()]

    def identities(self, units: Array) -> list[Hashable]:
        return [self.identity[i] for i in self.indices(units).tolist()]

    def snap(self, units: Array) -> Array:
        return self.centres[self.indices(units)]  # (n,)


@dataclass(frozen=True)
class Grid:
    """The values low, low + step, …, low + (count − 1)·step, in exact arithmetic."""

    low: Fraction
    step: Fraction
    count: int
    whole: bool

    @cached_property
    def _parts(self) -> tuple[int, int, int]:
        """(a, b, c) with value k = (a + k·b) / c: whole numbers, since sums of fractions are slow."""
        denominator = math.lcm(self.low.denominator, self.step.denominator)
        return int(self.low * denominator), int(self.step * denominator), denominator

    def identity(self, k: int) -> int | float:
        a, b, c = self._parts
        # Python divides whole numbers with one rounding: the double nearest to the exact value.
        return a + k * b if self.whole else (a + k * b) / c + 0.0

    def text(self, k: int) -> str:
        return repr(self.identity(k))

    def index(self, value: Fraction) -> int | None:
        """k of the grid value that is meant; None when it is off the grid or outside of the bounds."""
        exact = (value - self.low) / self.step
        k = round(exact)
        if self.whole:
            on_grid = exact == k
        else:
            last = self.low + (self.count - 1) * self.step
            # As doubles: they may be one even where their texts differ in the 20th digit.
            inside = float(self.low) <= float(value) <= float(last)
            near = abs(exact - k) <= _GRID_TOLERANCE or float(value) == float(self.low + k * self.step)
            on_grid = inside and near
        return k if on_grid and 0 <= k < self.count else None

    def canonical(self, text: str) -> int | float | None:
        if self.whole:
            integer = parse_integer(text)
            value = None if integer is None else Fraction(integer)
        else:
            value = parse_number(text)
        if value is None:
            return None
        k = self.index(value)
        return None if k is None else self.identity(k)


@dataclass(frozen=True)
class Lattice:
    """A grid too long to be written out; positions are computed.

    Beyond about 2**50 values a double cannot tell neighbouring bins apart: a value then comes back as one that
    is next to it on the scale of 1e-15 of the range.
    """

    grid: Grid
    scale: Scale

    def canonical(self, text: str) -> Hashable | None:
        return self.grid.canonical(text)

    def unit(self, canonical: Hashable) -> float:
        if not isinstance(canonical, (int, float)):
            raise TypeError(f"a number is needed, got {canonical!r}")
        k = self.grid.index(Fraction(canonical))
        if k is None:
            raise ValueError(f"{canonical!r} is not on the grid")
        return self._units([k])[0]

    @property
    def _equal_bins(self) -> bool:
        return not (self.scale.log or self.scale.normal)

    def _units(self, indices: list[int]) -> list[float]:
        if self._equal_bins:  # Python's division of whole numbers is exact to the last digit
            return [(2 * k + 1) / (2 * self.grid.count) for k in indices]
        k = np.array(indices, dtype=np.float64)
        edges = self.scale.cdf(np.stack([self._lower_edges(k), self._lower_edges(k + 1)]))  # (2, n)
        centres: list[float] = edges.mean(axis=0).tolist()
        return centres

    def _lower_edges(self, k: Array) -> Array:
        """Position g of the edge between values k − 1 and k, for 0 ≤ k ≤ count."""
        step = float(self.grid.step)
        below = self.scale.forward(np.maximum(k - 1, 0) * step)
        at = self.scale.forward(np.minimum(k, self.grid.count - 1) * step)
        middle = (below + at) / 2
        middle = np.where(k <= 0, -self.scale.below, middle)
        return np.where(k >= self.grid.count, self.scale.length + self.scale.above, middle)  # (n,)

    def _indices(self, units: Array) -> list[int]:
        last = self.grid.count - 1
        if self._equal_bins:
            return [min(math.floor(Fraction(u) * self.grid.count), last) for u in units.tolist()]
        positions = self.scale.quantile(units)
        k = np.clip(np.floor(self.scale.backward(positions) / float(self.grid.step)), 0, last)
        k += positions >= self._lower_edges(k + 1)
        return [min(int(index), last) for index in k.tolist()]

    def texts(self, units: Array) -> list[str]:
        return [self.grid.text(k) for k in self._indices(units)]

    def identities(self, units: Array) -> list[Hashable]:
        return [self.grid.identity(k) for k in self._indices(units)]

    def snap(self, units: Array) -> Array:
        return np.array(self._units(self._indices(units)), dtype=np.float64)  # (n,)


@dataclass(frozen=True)
class Continuous:
    """All doubles between two bounds.

    Decoded values are rounded to a resolution that is coarser than the rounding error of the way to [0, 1] and back,
    so that a decoded text comes back as the same text.
    """

    low: float
    high: float
    scale: Scale

    def canonical(self, text: str) -> Hashable | None:
        number = parse_number(text)
        if number is None:
            return None
        value = float(number)
        return value + 0.0 if self.low <= value <= self.high else None

    def unit(self, canonical: Hashable) -> float:
        if not isinstance(canonical, float):
            raise TypeError(f"a float is needed, got {canonical!r}")
        return float(self._units(np.array([canonical]))[0])

    def _units(self, values: Array) -> Array:
        offsets = np.clip(values - self.low, 0.0, self.scale.range)
        return self.scale.cdf(self.scale.forward(offsets))  # (n,)

    def _values(self, units: Array) -> list[float]:
        raw = self.low + self.scale.backward(self.scale.quantile(units))
        # Rounding error of u is 1e-16; of g up to 1e-16·G divided by the density, which the normal distribution's
        # tails (0.0044 at three standard deviations, G = 6 of them) lower to about 4e-15·G. 1e-11·G is far above.
        if self.scale.log:
            relative = min(max(1e-11 * self.scale.length, 1e-14), 1e-10)
            digits = math.ceil(-math.log10(relative))
            rounded = [float(f"{x:.{digits - 1}e}") for x in raw.tolist()]
        else:
            resolution = max(1e-11 * self.scale.range, 1e-14 * max(abs(self.low), abs(self.high)))
            decimals = math.floor(-math.log10(resolution))
            rounded = [round(x, decimals) for x in raw.tolist()]
        return [min(max(x, self.low), self.high) for x in rounded]

    def texts(self, units: Array) -> list[str]:
        return [double_text(x) for x in self._values(units)]

    def identities(self, units: Array) -> list[Hashable]:
        return [x + 0.0 for x in self._values(units)]

    def snap(self, units: Array) -> Array:
        return self._units(np.array(self._values(units), dtype=np.float64))


def equal_edges(count: int) -> Array:
    """Bounds of ``count`` bins of the same width."""
    return np.arange(count + 1) / count  # (count + 1,)


def scaled_edges(offsets: Array, *, low: float, span: float, log: bool, normal: bool) -> Array:
    """Bounds of the bins of ascending values under a distribution.

    Args:
        offsets: value − low of each, strictly ascending, from 0, at least two.  # (k,)
        low: smallest value.
        span: high − low of the parameter (the last value may lie below ``high`` where steps do not reach it).
        log: logarithmic scale.
        normal: normal distribution, else uniform.
    """
    scale, positions = _scale_of(offsets, low=low, span=span, log=log, normal=normal)
    middle = (positions[1:] + positions[:-1]) / 2  # (k - 1,)
    mass = np.diff(scale.cdf(middle), prepend=0.0, append=1.0)  # (k,)
    mass = np.maximum(mass, _LEAST_SHARE / len(mass))
    edges = np.concatenate([[0.0], np.cumsum(mass / mass.sum())])  # (k + 1,)
    edges[-1] = 1.0
    return edges


def lattice_scale(grid: Grid, *, span: float, log: bool, normal: bool) -> Scale:
    """The scale of a grid that is not written out."""
    ends = [0, 1, grid.count - 2, grid.count - 1]
    offsets = np.array([float(k * grid.step) for k in ends])
    low = float(grid.low)
    plain = Scale(low=low, range=span, log=log, normal=normal)
    return _with_margins(plain, plain.forward(offsets))


def _scale_of(offsets: Array, *, low: float, span: float, log: bool, normal: bool) -> tuple[Scale, Array]:
    plain = Scale(low=low, range=span, log=log, normal=normal)
    positions = plain.forward(offsets)  # (k,)
    return _with_margins(plain, positions), positions


def _with_margins(scale: Scale, positions: Array) -> Scale:
    """Half the distance of the neighbours is added beyond both end values."""
    below = float(positions[1] - positions[0]) / 2
    end = float(positions[-1] + (positions[-1] - positions[-2]) / 2)
    return Scale(scale.low, scale.range, scale.log, scale.normal, below=below, above=end - scale.length)
