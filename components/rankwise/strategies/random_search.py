"""``random``: every configuration is drawn independently from the parameters' distributions."""

from __future__ import annotations

from rankwise.space import SearchSpace
from rankwise.strategies.sequence import PointSequence, RandomSequence, SequenceStrategy


class RandomSearch(SequenceStrategy):
    """Random search without repetition."""

    name = "random"

    def sequence(self, space: SearchSpace, seed: int) -> PointSequence:
        return RandomSequence(space, seed)
