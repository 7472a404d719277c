"""What every text encoder is, and how it says that its time was over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankwise.deadline import Deadline
from rankwise.errors import RankwiseError
from rankwise.language.prompt import PromptForm


class EmbeddingIncomplete(RankwiseError):
    """The deadline came before every text had its vector.

    Attributes:
        done: different texts of the call that have a vector now.
        total: different texts of the call.
        texts: those computed in this call, where the raiser hands them over; empty when they are in a cache.
        vectors: their vectors (len(texts), d).
    """

    def __init__(
        self, done: int, total: int, texts: Sequence[str] = (), vectors: NDArray[np.float32] | None = None
    ) -> None:
        self.done = done
        self.total = total
        self.texts = tuple(texts)
        self.vectors = np.zeros((0, 0), dtype=np.float32) if vectors is None else vectors
        super().__init__(f"the time was over after {done} of {total} texts had been embedded")


def embedding_order(form: PromptForm) -> Callable[[str], tuple[int, str]]:
    """Key to sort many texts by before they are embedded in parts; it changes the time and never a vector.

    Full prompts go by their beginnings, which a decoder computes once for all that share them. Compact ones go by
    length, so that an encoder's batches are filled well.
    """
    if form is PromptForm.FULL:
        return lambda text: (0, text)
    return lambda text: (len(text), text)


class TextEncoder(Protocol):
    """Turns texts into vectors. Implementations are safe to call from several threads."""

    @property
    def identity(self) -> str:
        """Names everything besides the text that a vector depends on; goes into cache keys."""

    @property
    def dimension(self) -> int:
        """Length d of a vector."""

    @property
    def form(self) -> PromptForm:
        """The form of prompt that suits the model."""

    def encode(self, texts: Sequence[str], deadline: Deadline | None = None) -> NDArray[np.float32]:
        """Vectors of texts.

        Args:
            texts: n texts; repeated ones are computed once.
            deadline: checked between batches; None for no limit.

        Returns:
            (n, d).

        Raises:
            EmbeddingIncomplete: the deadline came first.
            SurroundingsError: the model cannot be loaded.
        """
