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
from rankwise.language.learnable_token import MAX_STATE_BYTES, TokenEncoder, TokenStates, refusal
from rankwise.language.prompt import Prompt, PromptForm, describe_all
from rankwise.language.text_encoder import EmbeddingIncomplete, TextEncoder, embedding_order
from rankwise.space import Candidates

logger = logging.getLogger(__name__)

STORED_AT_ONCE = 1024
"""Texts that are embedded before their vectors are stored: what a killed process loses at most, some seconds' work."""
WRITE_AGAIN_AFTER = 60.0
"""Seconds until a cache that could not be written is tried again. A full disk may be emptied; but to find that another
process holds the lock takes seconds, which a search does not have for each part."""
KEPT_BYTES = 256 * 2**20
"""Most memory for vectors that cannot be stored: 170,000 of a small encoder's, 16,000 of a large decoder's."""


class CachedEncoder:
    """An encoder that asks its cache first and stores what it computed. Itself a :class:`TextEncoder`.

    A vector that was computed is never lost to a deadline: all that is done is stored before
    :class:`EmbeddingIncomplete` is raised, so that the next call goes on where this one stopped. A cache that cannot
    be written (a read-only volume, one that belongs to somebody else, a full disk) costs a restart's time and not the
    search: the vectors stay in memory, up to :data:`KEPT_BYTES`; that is logged once, and counted. Every now and then
    they are offered to the disk again.

    Args:
        encoder: computes what is missing.
        root: the cache folder (``Settings.cache``).
        kept_bytes: most memory for vectors that cannot be stored.
        clock: monotonic clock in seconds (tests pass their own).

    Attributes:
        hits: different texts, summed over calls, that were found.
        misses: different texts, summed over calls, that had to be computed.
        unsaved: vectors, summed over calls, that could not be stored when they were made.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        root: Path,
        kept_bytes: int = KEPT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._encoder = encoder
        self._cache = VectorCache(root, encoder.identity, encoder.dimension)
        self._counting = threading.Lock()
        self._most_kept = kept_bytes // (4 * encoder.dimension)
        self._kept: dict[str, NDArray[np.float32]] = {}  # text -> (d,), what could not be stored
        self._clock = clock
        self._write_from = clock()  # no try to write before
        self._told = False
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
        self._recall(unique, vectors, found)
        order = embedding_order(self.form)
        missing = sorted(np.flatnonzero(~found).tolist(), key=lambda i: order(unique[i]))
        with self._counting:
            self.hits += len(unique) - len(missing)
        for start in range(0, len(missing), STORED_AT_ONCE):
            part = missing[start : start + STORED_AT_ONCE]
            batch = [unique[i] for i in part]
            try:
                vectors[part] = self._encoder.encode(batch, deadline)
            except EmbeddingIncomplete as incomplete:
                self._computed(incomplete.texts, incomplete.vectors)
                done = len(unique) - len(missing) + start + len(incomplete.texts)
                raise EmbeddingIncomplete(done, len(unique)) from None
            self._computed(batch, vectors[part])
        place = {text: i for i, text in enumerate(unique)}
        return vectors[[place[text] for text in texts]]  # (n, d)

    # -- the learnable token: its vectors change with every fit and are not stored -----------------------------------

    def initial_token(self) -> NDArray[np.float32]:
        """See :meth:`TokenEncoder.initial_token`."""
        return self._for_tokens().initial_token()

    def token_states(
        self, texts: Sequence[str], deadline: Deadline | None = None, most_bytes: int = MAX_STATE_BYTES
    ) -> TokenStates:
        """See :meth:`TokenEncoder.token_states`."""
        return self._for_tokens().token_states(texts, deadline, most_bytes)

    def encode_with_token(
        self, texts: Sequence[str], psi: NDArray[np.floating], deadline: Deadline | None = None
    ) -> NDArray[np.float32]:
        """See :meth:`TokenEncoder.encode_with_token`."""
        return self._for_tokens().encode_with_token(texts, psi, deadline)

    def _for_tokens(self) -> TokenEncoder:
        if not isinstance(self._encoder, TokenEncoder):
            raise refusal(self.identity, "an encoder that can put a token behind a text")
        return self._encoder

    # -- vectors that cannot be stored -------------------------------------------------------------------------------

    def _computed(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        if not texts:
            return
        with self._counting:
            self.misses += len(texts)
        if self._clock() >= self._write_from:
            with self._counting:
                waiting = dict(self._kept)
            try:
                self._cache.put([*waiting, *texts], np.concatenate([*(v[None] for v in waiting.values()), vectors]))
            except SurroundingsError as error:
                self._write_from = self._clock() + WRITE_AGAIN_AFTER
                if not self._told:
                    self._told = True
                    logger.warning("vectors are kept in memory only and made again after a restart: %s", error)
            else:
                with self._counting:
                    for text in waiting:
                        self._kept.pop(text, None)
                return
        with self._counting:
            self.unsaved += len(texts)
            room = max(0, self._most_kept - len(self._kept))
            # Copies: a row of `vectors` would hold the whole array in memory.
            self._kept.update((text, row.copy()) for text, row in zip(texts[:room], vectors, strict=False))

    def _recall(self, texts: Sequence[str], vectors: NDArray[np.float32], found: NDArray[np.bool_]) -> None:
        """Fill in what is kept in memory."""
        with self._counting:
            if not self._kept:
                return
            for i in np.flatnonzero(~found).tolist():
                if (row := self._kept.get(texts[i])) is not None:
                    vectors[i] = row
                    found[i] = True


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
    texts.sort(key=embedding_order(encoder.form))
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
