"""The columns that the process on the numbers sees: positions, what follows from them, and what is known.

To the positions of :func:`rankwise.surrogate.numeric.numeric_features` comes one number more where the space tells it:
the step size, learning rate × scaling, on its log scale. The best learning rate moves with the scaling, so that good
configurations lie along a slanted valley; with the step size as an input of its own the process has a lengthscale
across that valley and needs no observations to find its direction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankwise.language.quantities import STEP_SIZE, quantities
from rankwise.space import Candidates
from rankwise.strategies.knowledge import Knowledge
from rankwise.surrogate.numeric import numeric_features


class Features:
    """Rows [u | ρ] of configurations: numbers for the kernel, knowledge for the mean.

    Args:
        reference: configurations all over the space; the same ones in every request of a search.
        knowledge: may be empty.
    """

    def __init__(self, reference: Candidates, knowledge: Knowledge) -> None:
        self._knowledge = knowledge
        self._low, self._high = 0.0, 0.0
        step = _log_step(reference)
        if step is not None and np.isfinite(step).all():
            self._low, self._high = float(step.min()), float(step.max())

    @property
    def sources(self) -> int:
        """k, the number of columns of ρ."""
        return len(self._knowledge)

    def numbers(self, points: Candidates) -> NDArray[np.float64]:
        """u (m, q)."""
        columns = numeric_features(points.space, points.units)
        if self._high <= self._low:
            return columns
        step = _log_step(points)
        position = np.zeros(len(points)) if step is None else (step - self._low) / (self._high - self._low)
        return np.concatenate([columns, position[:, None]], axis=1)

    def __call__(self, points: Candidates) -> NDArray[np.float64]:
        """[u | ρ] (m, q + k)."""
        return np.concatenate([self.numbers(points), self._knowledge.columns(points)], axis=1)


def _log_step(points: Candidates) -> NDArray[np.float64] | None:
    step = quantities(points).get(STEP_SIZE)
    if step is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm: NDArray[np.float64] = np.log2(step)
    return logarithm
