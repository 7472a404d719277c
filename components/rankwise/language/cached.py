"""An encoder with its cache, and a whole space embedded ahead of time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankwise.deadline import Deadline
from rankwise.errors import SurroundingsError
from rankwise.language.cache import VectorCache
from rankwise.language.prompt import Prompt, PromptForm, describe_all
from rankwise.language.text_encoder import EmbeddingIncomplete, TextEncoder
from rankwise.space import Candidates

logger = logging.getLogger(__name__)

STORED_AT_ONCE = 512
"""Texts that are embedded before their vectors are stored: what a killed process loses at most, some seconds' work."""


class CachedEncoder:
    """An encoder that asks its cache first and stores what it computed. Itself a :class:`TextEncoder`.

    A vector that was computed is never lost to a deadline: all that is done is stored before
    :class:`EmbeddingIncomplete` is raised, so that the next call goes on where this one stopped. A cache that cannot
    be written costs time and not the search: that is logged once, and counted.

    Args:
        encoder: computes what is missing.
        root: the cache folder (``Settings.cache``).

    Attributes:
        hits: different texts, summed over calls, that were found.
        misses: different texts, summed over calls, that had to be computed.
        unsaved: vectors that could not be stored.
    """

    def __init__(self, encoder: TextEncoder, root: Path) -> None:
        self._encoder = encoder
        self._cache = VectorCache(root, encoder.identity, encoder.dimension)
        self._counting = threading.Lock()
        self.hits = 0
        self.misses = 0
        self.unsaved = 0

    @property
    def identity(self) -> str:
        return self._encoder.identity

    @property
    def dimension(self) -> int:
        return self._encoder.dimension

    @property
    def form(self) -> PromptForm:
        return self._encoder.form

    def encode(self, texts: Sequence[str], deadline: Deadline | None = None) -> NDArray[np.float32]:
        """Vectors of texts, (n, d); see :meth:`TextEncoder.encode`.

        Raises:
            EmbeddingIncomplete: the deadline came first; what is done is stored.
            SurroundingsError: the model cannot be loaded.
        """
        unique = list(dict.fromkeys(texts))
        vectors, found = self._cache.get(unique)  # (u, d), (u,)
        # Texts of like length go together, so that an encoder's batches are filled well.
        missing = sorted(np.flatnonzero(~found).tolist(), key=lambda i: len(unique[i]))
        with self._counting:
            self.hits += len(unique) - len(missing)
            self.misses += len(missing)
        for start in range(0, len(missing), STORED_AT_ONCE):
            part = missing[start : start + STORED_AT_ONCE]
            batch = [unique[i] for i in part]
            try:
                vectors[part] = self._encoder.encode(batch, deadline)
            except EmbeddingIncomplete as incomplete:
                self._store(incomplete.texts, incomplete.vectors)
                done = len(unique) - len(missing) + start + len(incomplete.texts)
                raise EmbeddingIncomplete(done, len(unique)) from None
            self._store(batch, vectors[part])
        place = {text: i for i, text in enumerate(unique)}
        return vectors[[place[text] for text in texts]]  # (n, d)

    def _store(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        if not texts:
            return
        try:
            self._cache.put(texts, vectors)
        except SurroundingsError as error:
            if not self.unsaved:
                logger.warning("vectors are not kept: %s", error)
            with self._counting:
                self.unsaved += len(texts)


@dataclass(frozen=True, slots=True)
class EmbedSummary:
    """How a space was embedded.

    Attributes:
        total: different texts.
        found: texts whose vectors were in the cache already.
        computed: texts that were embedded now.
        seconds: wall-clock time.
    """

    total: int
    found: int
    computed: int
    seconds: float


def embed_space(
    encoder: CachedEncoder,
    prompt: Prompt,
    candidates: Candidates,
    deadline: Deadline | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EmbedSummary:
    """Embed every candidate and store the vectors, so that a search finds them.

    Args:
        encoder: where the vectors go.
        prompt: how a candidate becomes a text.
        candidates: points of a space.
        deadline: None for no limit.
        progress: called with (done, total) after each part.

    Raises:
        EmbeddingIncomplete: the deadline came first; what is done is stored, and a second call goes on from there.
        SurroundingsError: the vectors cannot be stored.
    """
    began = time.monotonic()
    hits, misses, unsaved = encoder.hits, encoder.misses, encoder.unsaved
    texts = list(dict.fromkeys(describe_all(prompt, candidates.space, candidates)))
    # Texts of like length go together, as in the encoder.
    texts.sort(key=len)
    for start in range(0, len(texts), STORED_AT_ONCE):
        part = texts[start : start + STORED_AT_ONCE]
        try:
            encoder.encode(part, deadline)
        except EmbeddingIncomplete as incomplete:
            raise EmbeddingIncomplete(start + incomplete.done, len(texts)) from None
        if encoder.unsaved > unsaved:
            raise SurroundingsError(
                f"the vectors cannot be stored; {start} of {len(texts)} were stored or found before; free some space "
                "or set RANKWISE_CACHE to another folder"
            )
        if progress is not None:
            progress(start + len(part), len(texts))
    return EmbedSummary(len(texts), encoder.hits - hits, encoder.misses - misses, time.monotonic() - began)
