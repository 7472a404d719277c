"""A text encoder to test with: quick, deterministic, and no language model."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankwise.deadline import Deadline
from rankwise.language.prompt import PromptForm
from rankwise.language.text_encoder import EmbeddingIncomplete

NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
NUMBERS = 6


class FakeEncoder:
    """Numbers of the text in log scale, and how often each letter occurs: a function of the text alone.

    Args:
        limit: how many different texts are embedded before the deadline "comes"; None for no limit.
        error: raised instead of an answer.
        value: fills every vector when given (NaN, or a constant).

    Attributes:
        calls: the texts of every call.
        deadlines: the deadline of every call.
        requested: reference and pooling of every encoder that was asked for.
    """

    identity = "fake-encoder"
    dimension = NUMBERS + len(LETTERS)
    form = PromptForm.COMPACT

    def __init__(
        self, limit: int | None = None, error: BaseException | None = None, value: float | None = None
    ) -> None:
        self.limit = limit
        self.error = error
        self.value = value
        self.calls: list[list[str]] = []
        self.deadlines: list[Deadline | None] = []
        self.requested: list[tuple[str, str]] = []

    def __call__(self, reference: str, pooling: str) -> FakeEncoder:
        """Itself as the factory of encoders."""
        self.requested.append((reference, pooling))
        return self

    def encode(self, texts: Sequence[str], deadline: Deadline | None = None) -> NDArray[np.float32]:
        self.calls.append(list(texts))
        self.deadlines.append(deadline)
        if self.error is not None:
            raise self.error
        different = len(set(texts))
        if self.limit is not None and different > self.limit:
            raise EmbeddingIncomplete(self.limit, different)
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)  # (n, d)
        for row, text in zip(vectors, texts, strict=True):
            found = [float(number) for number in NUMBER.findall(text)[:NUMBERS]]
            row[: len(found)] = [math.copysign(math.log1p(abs(number)), number) for number in found]
            lower = text.lower()
            row[NUMBERS:] = [lower.count(letter) for letter in LETTERS]
        if self.value is not None:
            vectors[:] = self.value
        return vectors
