"""``sobol``: quasi-random search, and the fallback of the suggestion service."""

from __future__ import annotations

from rankwise.space import SearchSpace
from rankwise.strategies.sequence import PointSequence, SequenceStrategy, SobolSequence


class Sobol(SequenceStrategy):
    """The different points of a scrambled Sobol sequence, one after the other."""

    name = "sobol"

    def sequence(self, space: SearchSpace, seed: int) -> PointSequence:
        return SobolSequence(space, seed)
