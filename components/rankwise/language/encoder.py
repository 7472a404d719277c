"""A frozen language model turns texts into vectors.

A vector is a function of its text alone, bit for bit: not of the other texts of the call, their order, the batch or
the state of a cache. Floating-point sums depend on how a matrix product is cut into blocks, and that depends on the
shapes; so the shapes never vary with the company. Every text belongs to a bucket of token lengths, every batch of a
bucket has the same number of rows, and missing rows are filled up. Decoders compute what texts have in common once,
as a trie in chunks of one shape; :mod:`rankwise.language.trie` says what that costs and why it keeps the promise.

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
from rankwise.language.learnable_token import MAX_STATE_BYTES, Branch, TokenStates, held, refusal
from rankwise.language.model import FrozenModel, Precision, load_model, load_tokenizer
from rankwise.language.prompt import PREFIX_END, PromptForm
from rankwise.language.text_encoder import EmbeddingIncomplete
from rankwise.language.trie import MAX_WIDTH, Chunk, Trie, rows_for, width_for
from rankwise.pretrained import ResolvedModel, resolve

logger = logging.getLogger(__name__)

Pooling = Literal["mean", "last", "auto"]

BUCKET = 8
"""Token lengths are rounded up to a multiple of this."""
_MAX_TOKENS = 4096
"""Longest text where neither the model nor its tokenizer says one."""
_SCHEME = {"causal": 2, "other": 1}
"""Grows when the same text gets another vector through a change of ours, so that old caches are not used."""
_TOKENIZED_AT_ONCE = 1024
_DECODER = "a decoder with causal attention to all earlier tokens"
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

    Causal decoders compute the states of a prompt's prefix (everything up to the last blank line) once, and what
    follows as a trie: attention looks back only, so that keys and values of common beginnings are the same in all
    texts. The prefix is read off each text by itself and not off the texts of a call, as the longest common one would
    make bits depend on the company. Decoders with windows or other specialities run the whole rest of each text
    against the prefix. In a bidirectional encoder every state depends on the whole text: nothing can be reused there,
    and short prompts are the only saving.

    Causal decoders can put a learnable token behind a text, too: they are a
    :class:`~rankwise.language.learnable_token.TokenEncoder`.
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
            f"|{versions}|scheme={_SCHEME['causal' if causal else 'other']}"
        )
        # 512 tokens keep a CPU's matrix units as busy as more do, and a short call short.
        self._batch_tokens = 512 if device == "cpu" else 16384
        # Of a trie's chunk. On a CPU 512 tokens are some 5% quicker when the chunks are full, and twice as many when
        # there is one text to embed.
        self._chunk_tokens = 256 if device == "cpu" else 4096
        self._model: FrozenModel | None = None
        self._lock = threading.Lock()
        self._truncation_told = False

    def encode(self, texts: Sequence[str], deadline: Deadline | None = None) -> NDArray[np.float32]:
        """See :meth:`TextEncoder.encode`."""
        work = _Work(texts, self.dimension, deadline)
        if work.texts:
            # One call computes at a time: two would only share the processor.
            with held(self._lock, work.deadline, len(work.texts)):
                self._encode(work)
        return work.result(texts)

    def _encode(self, work: _Work) -> None:
        tokens = self._tokenize(work)
        tries, whole = self._sorted_out(tokens, work)
        for batch in self._batches(tokens, whole):
            work.check()
            states = self._loaded().pooled(batch.prefix, batch.tails, batch.rows, batch.length, self.pooling)
            work.put(batch.places, states)
        for (prefix, width), places in tries.items():
            trie = Trie([tokens[i].tail for i in places])
            for chunk, states in self._grow(prefix, width, trie, work):
                rows = [(row, places[i]) for row, ends in chunk.ends.items() for i in ends]
                work.put([place for _, place in rows], states[[row for row, _ in rows]])

    def _loaded(self) -> FrozenModel:
        if self._model is None:
            self._model = load_model(self._source.path_or_id, self._precision, self._device)
        return self._model

    def _sorted_out(self, tokens: list[_Tokens], work: _Work) -> tuple[_Groups, list[int]]:
        """Which texts form a trie, by prefix and width, and which are computed each by itself."""
        tries: _Groups = {}
        whole = []
        for i, item in enumerate(tokens):
            width = width_for(len(item.tail))
            if item.prefix and width <= MAX_WIDTH:
                tries.setdefault((item.prefix, width), []).append(i)
            else:
                whole.append(i)
        if tries:
            work.check()
            if not self._loaded().grows_trees(next(iter(tries))[0]):
                return {}, list(range(len(tokens)))
        return tries, whole

    def _grow(
        self, prefix: tuple[int, ...], width: int, trie: Trie, work: _Work
    ) -> Iterator[tuple[Chunk, NDArray[np.float32]]]:
        """Compute a trie: its chunks with the vector that a text has when it ends with a row's token, (t, d)."""
        model = self._loaded()
        run = model.tree(prefix, width)
        mean = self.pooling == "mean"
        sums = np.zeros((width + 1, self.dimension), dtype=np.float32)  # of the open path's states, by depth
        if mean:
            sums[0] = model.prefix_total(prefix).cpu().numpy()
        for chunk in trie.chunks(rows_for(width, self._chunk_tokens), width):
            work.check()
            states = run.compute(chunk).cpu().numpy()  # (t, d)
            # One after the other along the path, so that a mean's bits depend on its text alone, too.
            for row, depth in enumerate(chunk.depths[: chunk.count].tolist() if mean else ()):
                sums[depth + 1] = sums[depth] + states[row]
                states[row] = sums[depth + 1] / (len(prefix) + depth + 1)
            yield chunk, states

    # -- the learnable token ---------------------------------------------------------------------------------------

    def initial_token(self) -> NDArray[np.float32]:
        """See :meth:`TokenEncoder.initial_token`."""
        with self._lock:
            return self._initial_token()

    def _initial_token(self) -> NDArray[np.float32]:
        with torch.no_grad():
            start: NDArray[np.float32] = self._loaded().embed(torch.tensor([self._filler]))[0].float().cpu().numpy()
            return start

    def token_states(
        self, texts: Sequence[str], deadline: Deadline | None = None, most_bytes: int = MAX_STATE_BYTES
    ) -> TokenStates:
        """See :meth:`TokenEncoder.token_states`."""
        work = _Work(texts, self.dimension, deadline, hand_over=False)
        with held(self._lock, work.deadline, len(work.texts)):
            branches = self._branches(work)
            places = [work.place[text] for text in texts]
            return TokenStates(
                self._loaded(),
                self._lock,
                branches,
                places,
                self._initial_token(),
                self.dimension,
                most_bytes,
                self._chunk_tokens,
                work.check,
            )

    def encode_with_token(
        self, texts: Sequence[str], psi: NDArray[np.floating], deadline: Deadline | None = None
    ) -> NDArray[np.float32]:
        """See :meth:`TokenEncoder.encode_with_token`."""
        work = _Work(texts, self.dimension, deadline, hand_over=False)
        soft = torch.tensor(np.asarray(psi, dtype=np.float32))  # (e,)
        with held(self._lock, work.deadline, len(work.texts)):
            for branch in self._branches(work):
                run = self._loaded().tree(branch.prefix, branch.width)
                for chunk in branch.nodes.chunks(rows_for(branch.width, self._chunk_tokens), branch.width, soft=True):
                    work.check()
                    states = run.compute(chunk, soft).cpu().numpy()  # (t, d)
                    for row, ends in chunk.ends.items():
                        work.put([branch.places[i] for i in ends], states[row])
        return work.result(texts)

    def _branches(self, work: _Work) -> list[Branch]:
        """The texts as tries that can have a soft token behind each text.

        Raises:
            InvalidInput: a text is too long, or the model is not of the kind.
        """
        if work.texts and self.form is not PromptForm.FULL:
            raise refusal(self._source.reference, _DECODER)
        groups: _Groups = {}
        tokens = self._tokenize(work)
        for i, item in enumerate(tokens):
            if not item.prefix and len(item.tail) > 1:
                # Any tokens can stand for the prefix; without a blank line it is the first one.
                item = tokens[i] = _Tokens(item.tail[:1], item.tail[1:])
            width = width_for(len(item.tail) + 1)
            length = len(item.prefix) + len(item.tail)
            if not item.prefix or width > MAX_WIDTH or length >= self.max_tokens:
                raise refusal(
                    f"a text of {length} tokens",
                    f"2 to {self.max_tokens - 1} tokens, and less than {MAX_WIDTH} after its last blank line",
                )
            groups.setdefault((item.prefix, width), []).append(i)
        if groups:
            work.check()
            if not self._loaded().grows_trees(next(iter(groups))[0]):
                raise refusal(self._source.reference, _DECODER)
        return [
            Branch(prefix, width, Trie([tokens[i].tail for i in places]), places)
            for (prefix, width), places in groups.items()
        ]

    # -- texts to tokens -------------------------------------------------------------------------------------------

    def _tokenize(self, work: _Work) -> list[_Tokens]:
        """Tokens of all texts, in parts: the whole texts of a large space are longer than their tries by far."""
        result: list[_Tokens] = []
        for start in range(0, len(work.texts), _TOKENIZED_AT_ONCE):
            if start:
                work.check()
            result += self._tokenize_some(work.texts[start : start + _TOKENIZED_AT_ONCE], work.prefixes)
        return result

    def _tokenize_some(self, texts: list[str], prefixes: dict[tuple[int, ...], tuple[int, ...]]) -> list[_Tokens]:
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
            prefix = tuple(ids[:cut])
            result.append(_Tokens(prefixes.setdefault(prefix, prefix), tuple(ids[cut:]) or (self._filler,)))
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

    def _batches(self, tokens: list[_Tokens], chosen: list[int]) -> Iterator[_Batch]:
        groups: _Groups = {}
        # Texts of like length together, so that few batches have to be filled up.
        for i in sorted(chosen, key=lambda i: len(tokens[i].prefix) + len(tokens[i].tail)):
            item = tokens[i]
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


_Groups = dict[tuple[tuple[int, ...], int], list[int]]
"""Texts by prefix and by a rounded length of the rest."""


class _Work:
    """One call: its different texts, their vectors, and its time.

    Args:
        texts: of the call.
        dimension: d.
        deadline: None for no limit.
        hand_over: whether what is done goes to the caller when the time is over.

    Attributes:
        texts: different ones.  # u
        vectors: (u, d).
        place: text -> its number.
        prefixes: every prefix that was met, once.
    """

    def __init__(self, texts: Sequence[str], dimension: int, deadline: Deadline | None, hand_over: bool = True) -> None:
        self.texts = list(dict.fromkeys(texts))
        self.place = {text: i for i, text in enumerate(self.texts)}
        self.vectors = np.zeros((len(self.texts), dimension), dtype=np.float32)
        self.deadline = deadline or Deadline.never()
        self.prefixes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._hand_over = hand_over
        self._done: list[int] = []

    def put(self, places: list[int], vectors: NDArray[np.float32]) -> None:
        """Vectors (k, d), or one (d,), of the texts with these numbers."""
        self.vectors[places] = vectors
        self._done.extend(places)

    def check(self) -> None:
        """Go on only while there is time.

        Raises:
            EmbeddingIncomplete: there is none.
        """
        if self.deadline.expired:
            done = self._done if self._hand_over else []
            finished = [self.texts[i] for i in done]
            raise EmbeddingIncomplete(len(self._done), len(self.texts), finished, self.vectors[done])

    def result(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (n, d) in the order of the call."""
        return self.vectors[[self.place[text] for text in texts]]


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
