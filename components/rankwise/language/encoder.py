"""A frozen language model turns texts into vectors.

A vector is a function of its text alone, bit for bit: not of the other texts of the call, their order, the batch or
the state of a cache. Floating-point sums depend on how a matrix product is cut into blocks, and that depends on the
shapes; so the shapes never vary with the company. Every text belongs to a bucket of token lengths, every batch of a
bucket has the same number of rows, and missing rows are filled up.

What was found on CPUs (torch 2.13, AVX-512, float32): with fixed shapes, a row's bits depend neither on the other
rows nor on its place, and the shapes used here gave the same bits with one and with two threads. Other shapes did not
(16 tokens × 7 rows differ between one and two threads), nor does bfloat16. Different kinds of processors, a GPU among
them, can be expected to agree to rounding only. They share the cache, so that a space that was embedded on a GPU
serves a service without one; the vector that was stored first stays.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, Problem
from rankwise.language.model import FrozenModel, Precision, load_model, load_tokenizer
from rankwise.language.prompt import PREFIX_END, PromptForm
from rankwise.language.text_encoder import EmbeddingIncomplete
from rankwise.pretrained import ResolvedModel, resolve

logger = logging.getLogger(__name__)

Pooling = Literal["mean", "last", "auto"]

BUCKET = 8
"""Token lengths are rounded up to a multiple of this."""
_MAX_TOKENS = 4096
"""Longest text where neither the model nor its tokenizer says one."""
_SCHEME = 1
"""Grows when the same text gets another vector through a change of ours, so that old caches are not used."""
_TOKENIZED_AT_ONCE = 1024
_SHORTEST_PREFIX = 8
"""Shorter prefixes, in tokens, are not worth their states."""


def load_encoder(
    reference: str,
    *,
    cache: Path,
    pooling: Pooling = "auto",
    max_tokens: int | None = None,
    precision: Precision = "float32",
    device: str = "auto",
) -> TransformersEncoder:
    """Prepare a frozen transformers model as an encoder. Its weights are loaded when the first text needs them.

    Args:
        reference: a folder, a hub's id or ``package:NAME`` (see :mod:`rankwise.pretrained`).
        cache: folder for what can be made again.
        pooling: ``mean`` over the tokens, the ``last`` token, or ``auto``: last for causal decoders, where it alone
            has seen the whole text, and mean for all others.
        max_tokens: longest text in tokens. Of a longer one the **beginning** is dropped, since the configuration
            stands at the end; that is logged once. None: what the model was trained with, at most 4,096.
        precision: of weights and arithmetic. ``bfloat16`` halves memory and, where the processor has instructions for
            it, time, but its bits depend on the number of threads.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.

    Raises:
        InvalidInput: the reference names nothing usable, or an argument is out of its range.
        SurroundingsError: the model is missing here, or its files are damaged.
    """
    problems = []
    if pooling not in ("mean", "last", "auto"):
        problems.append(Problem("pooling", str(pooling), "mean, last or auto"))
    if precision not in ("float32", "bfloat16"):
        problems.append(Problem("precision", str(precision), "float32 or bfloat16"))
    if max_tokens is not None and max_tokens < BUCKET:
        problems.append(Problem("max_tokens", str(max_tokens), f"at least {BUCKET}"))
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        problems.append(Problem("device", device, "auto, cpu, or cuda where there is a GPU"))
    if problems:
        raise InvalidInput(problems)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return TransformersEncoder(resolve(reference, cache), pooling, max_tokens, precision, device)


class TransformersEncoder:
    """A frozen encoder, decoder, or encoder half of a sequence-to-sequence model. Made by :func:`load_encoder`.

    Causal decoders compute the states of a prompt's prefix (everything up to the last blank line) once and run only
    the rest of each text against them: attention looks back only, so that the prefix's keys and values are the same
    in all texts. The prefix is read off each text by itself and not off the texts of a call, as the longest common
    one would make bits depend on the company. In a bidirectional encoder every state depends on the whole text:
    nothing can be reused there, and short prompts are the only saving.
    """

    def __init__(
        self, source: ResolvedModel, pooling: Pooling, max_tokens: int | None, precision: Precision, device: str
    ) -> None:
        self._source = source
        self._precision: Precision = precision
        self._device = device
        self._tokenizer, config = load_tokenizer(source.path_or_id)
        causal = _is_causal(config)
        self.pooling: Literal["mean", "last"] = ("last" if causal else "mean") if pooling == "auto" else pooling
        self.form = PromptForm.FULL if causal else PromptForm.COMPACT
        self.dimension = int(config.hidden_size)
        self.max_tokens = min(_trained_length(self._tokenizer, config), max_tokens or _MAX_TOKENS)
        name = Path(source.reference).name if Path(source.reference).is_dir() else source.reference
        versions = f"torch {torch.__version__.partition('+')[0]}, transformers {transformers.__version__}"
        self.identity = (
            f"{name}@{source.revision}|pooling={self.pooling}|max_tokens={self.max_tokens}|precision={precision}"
            f"|{versions}|scheme={_SCHEME}"
        )
        # 512 tokens keep a CPU's matrix units as busy as more do, and a short call short.
        self._batch_tokens = 512 if device == "cpu" else 16384
        self._model: FrozenModel | None = None
        self._lock = threading.Lock()
        self._truncation_told = False

    def encode(self, texts: Sequence[str], deadline: Deadline | None = None) -> NDArray[np.float32]:
        """See :meth:`TextEncoder.encode`."""
        unique = list(dict.fromkeys(texts))
        vectors = np.zeros((len(unique), self.dimension), dtype=np.float32)  # (u, d)
        if unique:
            deadline = deadline or Deadline.never()
            # One call computes at a time: two would only share the processor. Waiting counts against the deadline.
            if not self._lock.acquire(timeout=min(deadline.remaining(), threading.TIMEOUT_MAX)):
                raise EmbeddingIncomplete(0, len(unique))
            try:
                self._encode_unique(unique, vectors, deadline)
            finally:
                self._lock.release()
        place = {text: i for i, text in enumerate(unique)}
        return vectors[[place[text] for text in texts]]  # (n, d)

    def _encode_unique(self, texts: list[str], vectors: NDArray[np.float32], deadline: Deadline) -> None:
        done: list[int] = []
        # Texts of like length together, so that few batches have to be filled up.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), _TOKENIZED_AT_ONCE):
            part = order[start : start + _TOKENIZED_AT_ONCE]
            tokens = self._tokenize([texts[i] for i in part])
            for batch in self._batches(tokens):
                if deadline.expired:
                    finished = [texts[i] for i in done]
                    raise EmbeddingIncomplete(len(done), len(texts), finished, vectors[done])
                if self._model is None:
                    self._model = load_model(self._source.path_or_id, self._precision, self._device)
                states = self._model.pooled(batch.prefix, batch.tails, batch.rows, batch.length, self.pooling)
                places = [part[i] for i in batch.places]
                vectors[places] = states
                done.extend(places)

    # -- texts to tokens -------------------------------------------------------------------------------------------

    def _tokenize(self, texts: list[str]) -> list[_Tokens]:
        encoded = self._tokenizer(texts, return_offsets_mapping=self._tokenizer.is_fast, verbose=False)
        offsets = encoded.get("offset_mapping") if self.form is PromptForm.FULL else None
        result = []
        for i, (text, ids) in enumerate(zip(texts, encoded["input_ids"], strict=True)):
            if len(ids) > self.max_tokens:
                result.append(_Tokens((), tuple(self._truncated(text, len(ids)))))
                continue
            end = text.rfind(PREFIX_END)
            cut = 0
            if offsets is not None and end > 0:
                # Tokens that lie wholly before the configuration. A token may reach across; it goes to the rest.
                limit = end + len(PREFIX_END)
                cut = next((k for k, (_, stop) in enumerate(offsets[i]) if stop > limit), 0)
                cut = cut if cut >= _SHORTEST_PREFIX else 0
            result.append(_Tokens(tuple(ids[:cut]), tuple(ids[cut:]) or (self._filler,)))
        return result

    def _truncated(self, text: str, length: int) -> list[int]:
        if not self._truncation_told:
            self._truncation_told = True
            logger.warning(
                "a text is longer than the model reads; its beginning is dropped",
                extra={"tokens": length, "max_tokens": self.max_tokens},
            )
        side, self._tokenizer.truncation_side = self._tokenizer.truncation_side, "left"
        try:
            ids = self._tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        finally:
            self._tokenizer.truncation_side = side
        return list(ids)

    @property
    def _filler(self) -> int:
        """Stands for a text without a token."""
        for token in (self._tokenizer.eos_token_id, self._tokenizer.pad_token_id, 0):
            if token is not None:
                return int(token)
        raise AssertionError("0 is not None")

    # -- tokens to batches -----------------------------------------------------------------------------------------

    def _batches(self, tokens: list[_Tokens]) -> Iterator[_Batch]:
        groups: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for i, item in enumerate(tokens):
            length = min(-(-len(item.tail) // BUCKET) * BUCKET, max(self.max_tokens - len(item.prefix), 1))
            groups.setdefault((item.prefix, max(length, len(item.tail))), []).append(i)
        for (prefix, length), members in groups.items():
            rows = self._rows(len(prefix), length)
            for start in range(0, len(members), rows):
                places = members[start : start + rows]
                yield _Batch(prefix, [tokens[i].tail for i in places], places, rows, length)

    def _rows(self, prefix: int, length: int) -> int:
        """Rows of a batch: a function of its shape alone, and a power of two (other numbers change bits, see above)."""
        # A prefix's states are copied for each row: its memory is bounded, too.
        most = min(self._batch_tokens // length, 16 * self._batch_tokens // (prefix + length))
        return 1 << (max(most, 1).bit_length() - 1)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """A text's tokens: those of the prefix that other texts share, empty where nothing is reused, and the rest."""

    prefix: tuple[int, ...]
    tail: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Texts that are computed together: at most ``rows``, each of at most ``length`` tokens after the prefix."""

    prefix: tuple[int, ...]
    tails: list[tuple[int, ...]]
    places: list[int]
    rows: int
    length: int


def _is_causal(config: Any) -> bool:
    """Whether the architecture is a decoder. BERT-like models are registered as causal models, too: they can be."""
    if config.is_encoder_decoder:
        return False
    kind = config.model_type
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return False
    return kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or bool(getattr(config, "is_decoder", False))


def _trained_length(tokenizer: Any, config: Any) -> int:
    """The longest text that the model was made for."""
    limits = [_MAX_TOKENS, int(tokenizer.model_max_length)]
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions)
    return min(limits)
