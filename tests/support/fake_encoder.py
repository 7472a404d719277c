"""An encoder without a model, for tests of everything around one. Imports no torch: other processes start with it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankwise.deadline import Deadline
from rankwise.language.prompt import PromptForm
from rankwise.language.text_encoder import EmbeddingIncomplete


class FakeEncoder:
    """Vectors from a hash of the text; remembers what it was asked for.

    Args:
        dimension: length of a vector.
        capacity: texts that are computed in all before the deadline is taken to have come; None for no limit.
    """

    def __init__(self, dimension: int = 4, capacity: int | None = None) -> None:
        self.identity = f"fake of {dimension}"
        self.dimension = dimension
        self.form = PromptForm.COMPACT
        self.capacity = capacity
        self.asked: list[str] = []

    def vector(self, text: str) -> NDArray[np.float32]:
        digest = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(2 * self.dimension)
        return np.frombuffer(digest, dtype="<u2").astype(np.float32)

    def encode(self, texts: Sequence[str], deadline: Deadline | None = None) -> NDArray[np.float32]:
        room = len(texts) if self.capacity is None else max(0, self.capacity - len(self.asked))
        done = list(texts[:room])
        self.asked += done
        vectors = np.array([self.vector(text) for text in done], dtype=np.float32).reshape(-1, self.dimension)
        if room < len(texts):
            raise EmbeddingIncomplete(room, len(texts), done, vectors)
        return vectors
