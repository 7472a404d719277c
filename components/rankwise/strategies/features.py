"""The columns that the process on the numbers sees: positions, what follows from them, and what is known.

Two things are added to the positions of :func:`rankwise.surrogate.numeric.numeric_features`:

- **The reach** (:mod:`rankwise.language.quantities`) on its log scale, where the space tells it. The best learning rate
  moves with scaling, rank and batch size, so that good configurations lie along a slanted valley; with the reach as an
  input of its own the process has a lengthscale across that valley and needs no observations to find its direction.
- **Numbers in categories.** Learning rates are often listed as a categorical parameter. Where every category reads as
  a number, its size counts, and the categories are no longer equally far from each other.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rankwise.language.guide import guide_for
from rankwise.language.quantities import REACH, quantities
from rankwise.space import Candidates, Parameter, ParameterType, parse_finite
from rankwise.strategies.knowledge import Knowledge
from rankwise.surrogate.numeric import numeric_features

LENGTHSCALES = {REACH: 0.4, "learning_rate": 0.6, "dropout": 2.0}
"""Kind of a parameter -> median of its lengthscale's prior, in parts of its range; :data:`USUAL` for others. In every
study of LoRA's hyperparameters results turn on the learning rate, and hardly on dropout."""
USUAL = 1.0
_DIMENSIONS = 6
"""With more inputs lengthscales grow with the root of their number, as distances do (Hvarfner et al. 2024)."""


class Features:
    """Rows [u | ρ] of configurations: numbers for the kernel, knowledge for the mean.

    Args:
        reference: configurations all over the space; the same ones in every request of a search.
        knowledge: may be empty.
    """

    def __init__(self, reference: Candidates, knowledge: Knowledge) -> None:
        self._knowledge = knowledge
        space = self._space = reference.space
        self._sizes = {j: sizes for j, p in enumerate(space.parameters) if (sizes := _sizes(p)) is not None}
        self._plain = [j for j in range(space.dimension) if j not in self._sizes]
        reach = _log_reach(reference)
        self._low, self._high = 0.0, 0.0
        if reach is not None and len(reach) and np.isfinite(reach).all():
            self._low, self._high = float(reach.min()), float(reach.max())

    @property
    def lengthscales(self) -> NDArray[np.float64]:
        """Medians (q,) of the priors of the lengthscales of u."""
        medians: list[float] = []
        for j in self._plain:
            width = numeric_features(self._space, np.zeros((1, self._space.dimension)), [j]).shape[1]
            medians += [_median(self._space.names[j])] * width
        medians += [_median(self._space.names[j]) for j in self._sizes]
        if self._high > self._low:
            medians.append(LENGTHSCALES[REACH])
        return np.array(medians) * math.sqrt(max(1.0, len(medians) / _DIMENSIONS))

    def numbers(self, points: Candidates) -> NDArray[np.float64]:
        """u (m, q)."""
        columns = [numeric_features(points.space, points.units, self._plain)]
        columns += [sizes[points.indices[:, j], None] for j, sizes in self._sizes.items()]
        if self._high > self._low:
            reach = _log_reach(points)
            position = np.zeros(len(points)) if reach is None else (reach - self._low) / (self._high - self._low)
            columns.append(position[:, None])
        return np.concatenate(columns, axis=1)

    def __call__(self, points: Candidates) -> NDArray[np.float64]:
        """[u | ρ] (m, q + k)."""
        return np.concatenate([self.numbers(points), self._knowledge.columns(points)], axis=1)


def _median(name: str) -> float:
    known = guide_for(name)
    return USUAL if known is None else LENGTHSCALES.get(known.kind, USUAL)


def _sizes(parameter: Parameter) -> NDArray[np.float64] | None:
    """Position (k,) of each category of a parameter by its size; None where there are only names."""
    if parameter.type is not ParameterType.CATEGORICAL or parameter.table is None or len(parameter.table.values) < 3:
        return None
    numbers = [parse_finite(text) for text in parameter.table.values]
    if any(number is None for number in numbers):
        return None
    sizes = np.array(numbers, dtype=np.float64)
    if (sizes > 0).all() and sizes.max() >= 10 * sizes.min():
        sizes = np.log2(sizes)
    positions: NDArray[np.float64] = (sizes - sizes.min()) / (np.ptp(sizes) or 1.0)
    return positions


def _log_reach(points: Candidates) -> NDArray[np.float64] | None:
    reach = quantities(points).get(REACH)
    if reach is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm: NDArray[np.float64] = np.log2(reach)
    return logarithm
