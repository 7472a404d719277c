"""The frozen model itself: loading, batches of fixed shape, pooling, a shared prefix and the tokens behind it."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer, DynamicCache
from transformers.cache_utils import DynamicLayer

from rankwise.errors import SurroundingsError
from rankwise.language.tree_attention import Ancestors, Layers, Path, TreePass, fits, run
from rankwise.language.trie import Chunk

Precision = Literal["float32", "bfloat16"]

_PREFIX_BUCKET = 64
_PROBED = 12
"""Tokens on which it is measured whether a model can compute trees."""
_KEPT_PREFIXES = 4
"""Prefixes whose states are kept: one search has one, and a service serves few searches at once."""


@contextlib.contextmanager
def _told_as_ours(folder: str) -> Iterator[None]:
    """Failures to load a model become ours; the libraries' progress bars and reports stay silent."""
    # Loaded by name: the module does not say which of its names are public, so mypy would refuse them.
    log: Any = importlib.import_module("transformers.utils.logging")
    bars, level = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise SurroundingsError(
            f"cannot load the language model {FilePath(folder).name}: {reason}; it has to be a transformers model with "
            "safetensors weights that needs no code of its own"
        ) from error
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def load_tokenizer(folder: str) -> tuple[Any, Any]:
    """Tokenizer and configuration of a model, without its weights.

    Raises:
        SurroundingsError: they are damaged, or of a kind that needs foreign code.
    """
    with _told_as_ours(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        # Sentence encoders were trained on shorter texts than their positions allow.
        note = FilePath(folder) / "sentence_bert_config.json"
        if note.is_file():
            length = json.loads(note.read_text(encoding="utf-8")).get("max_seq_length")
            if isinstance(length, int) and length > 0:
                tokenizer.model_max_length = min(tokenizer.model_max_length, length)
    return tokenizer, config


def load_model(folder: str, precision: Precision, device: str) -> FrozenModel:
    """Load a model's weights, from safetensors only.

    Raises:
        SurroundingsError: they are damaged or do not fit into memory.
    """
    with _told_as_ours(folder):
        model = AutoModel.from_pretrained(
            folder,
            dtype=getattr(torch, precision),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        return FrozenModel(model.to(device))


class FrozenModel:
    """A model that only computes.

    Args:
        model: a transformers model whose output has ``last_hidden_state``.
    """

    def __init__(self, model: Any) -> None:
        self._model = model.eval().requires_grad_(False)
        self._device = next(model.parameters()).device
        names = inspect.signature(model.forward).parameters
        self._knows_cache = "use_cache" in names
        self._prefixes: dict[tuple[int, ...], _Prefix] = {}
        # Whether prefixes can be reused; measured when it first matters. Recurrent models take no keys and values.
        self._reuses: bool | None = None if {"use_cache", "past_key_values"} <= names.keys() else False
        self._trees: bool | None = None

    def pooled(
        self,
        prefix: tuple[int, ...],
        tails: Sequence[tuple[int, ...]],
        rows: int,
        length: int,
        pooling: Literal["mean", "last"],
    ) -> NDArray[np.float32]:
        """Vectors of texts that consist of the prefix and one of the tails.

        Padding stands on the right: in causal models it is never looked at, in others the mask hides it; so the
        tokenizer's own padding side plays no part.

        Args:
            prefix: p tokens that all have in common; may be empty.
            tails: n <= rows tails of 1 … length tokens.
            rows: rows of the batch; missing ones repeat the first tail.
            length: tokens of a row.
            pooling: over the tokens of prefix and tail, or the last one.

        Returns:
            (n, d), finite.

        Raises:
            SurroundingsError: the model yields values that are not finite.
        """
        if prefix and not self._reuses_prefixes(prefix):
            tails, length, prefix = [prefix + tail for tail in tails], len(prefix) + length, ()
        filled = [*tails, *[tails[0]] * (rows - len(tails))]
        lengths = torch.tensor([len(tail) for tail in filled])  # (b,)
        ids = torch.zeros((rows, length), dtype=torch.long)  # (b, l)
        for i, tail in enumerate(filled):
            ids[i, : len(tail)] = torch.tensor(tail)
        mask = torch.arange(length) < lengths[:, None]  # (b, l)
        ids, mask, lengths = ids.to(self._device), mask.to(self._device), lengths.to(self._device)
        with torch.inference_mode():
            if prefix:
                state = self._prefix(prefix)
                seen = torch.ones((rows, len(prefix)), dtype=torch.bool, device=self._device)  # (b, p)
                hidden = self._model(
                    input_ids=ids,
                    attention_mask=torch.cat([seen, mask], dim=1).long(),  # (b, p + l)
                    past_key_values=state.cache(rows),
                    use_cache=True,
                ).last_hidden_state.float()  # (b, l, d)
            else:
                hidden = self._hidden(ids, mask)  # (b, l, d)
            if pooling == "last":
                vectors = hidden[torch.arange(rows, device=self._device), lengths - 1]  # (b, d)
            else:
                total = hidden.masked_fill(~mask[..., None], 0.0).sum(dim=1)  # (b, d)
                if prefix:
                    total = total + state.total
                vectors = total / (lengths[:, None] + len(prefix))
        result: NDArray[np.float32] = vectors[: len(tails)].cpu().numpy().astype(np.float32, copy=True)
        check_finite(result)
        return result

    def _hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        # Without use_cache=False a decoder would keep keys and values that nobody reads.
        extra = {"use_cache": False} if self._knows_cache else {}
        output = self._model(input_ids=ids, attention_mask=mask.long(), **extra)
        hidden: Tensor = output.last_hidden_state.float()
        return hidden  # (b, l, d)

    # -- trees of tokens behind a prefix ---------------------------------------------------------------------------

    def grows_trees(self, prefix: tuple[int, ...]) -> bool:
        """Whether tokens behind a prefix can be computed as a tree; measured once, on some tokens."""
        if self._trees is None:
            # Different ones, so that a state that saw the wrong tokens shows.
            some = tuple(dict.fromkeys((*prefix, *range(2 * _PROBED))))[:_PROBED]
            self._trees = self._reuses_prefixes(some)
            if self._trees:
                states = self._compute_prefix(some[: _PROBED - 4])
                self._trees = fits(self._model, states.layers, torch.tensor(some, device=self._device))
        return self._trees

    def state_bytes(self, prefix: tuple[int, ...]) -> int:
        """Bytes of one token's keys and values: layers × 2 × heads × size of a head × bytes of a number."""
        return sum(2 * keys[0, :, 0].numel() * keys.element_size() for keys, _ in self._prefix(prefix).whole)

    def prefix_total(self, prefix: tuple[int, ...]) -> Tensor:
        """Sum of the final hidden states of a prefix, (d,)."""
        total: Tensor = self._prefix(prefix).total
        return total

    def tree(self, prefix: tuple[int, ...], width: int, keep_all: bool = False) -> TreeRun:
        """Begin a trie behind a prefix; see :class:`TreeRun`."""
        return TreeRun(self, prefix, width, keep_all)

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (n, d) of tokens (n,), as they go into the first layer."""
        embeddings: Tensor = self._model.get_input_embeddings()(ids.to(self._device))
        return embeddings

    def tree_states(
        self,
        prefix: tuple[int, ...],
        ancestors: Ancestors,
        seen: Tensor,
        embeddings: Tensor,
        depths: Tensor,
    ) -> Tensor:
        """Final hidden states (t, d), float32, of tokens behind a prefix and their ancestors.

        Args:
            prefix: p tokens; may be empty.
            ancestors: states of what stands between the prefix and each token.
            seen: which slots of the ancestors count.  # (t, a)
            embeddings: of the tokens.  # (t, d)
            depths: of the tokens, 0 for one that follows the prefix.  # (t,)
        """
        layers = self._prefix(prefix).layers if prefix else None
        positions = depths.to(self._device) + len(prefix)
        states: Tensor = run(self._model, TreePass(layers, ancestors, seen), embeddings, positions).float()
        return states

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self._device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and arithmetic."""
        dtype: torch.dtype = next(self._model.parameters()).dtype
        return dtype

    @property
    def layer_count(self) -> int:
        """Number of layers."""
        return int(self._model.config.num_hidden_layers)

    # -- prefixes --------------------------------------------------------------------------------------------------

    def _prefix(self, tokens: tuple[int, ...]) -> _Prefix:
        if tokens not in self._prefixes:
            while len(self._prefixes) >= _KEPT_PREFIXES:
                del self._prefixes[next(iter(self._prefixes))]
            self._prefixes[tokens] = self._compute_prefix(tokens)
        return self._prefixes[tokens]

    def _compute_prefix(self, tokens: tuple[int, ...]) -> _Prefix:
        # Filled up behind its end, which a causal model does not see: round shapes have steadier bits.
        padded = -(-len(tokens) // _PREFIX_BUCKET) * _PREFIX_BUCKET
        ids = torch.full((1, padded), tokens[-1], dtype=torch.long)  # (1, p')
        ids[0, : len(tokens)] = torch.tensor(tokens)
        # no_grad, and not inference_mode: a gradient with respect to a later token passes through these states.
        with torch.no_grad():
            output = self._model(input_ids=ids.to(self._device), past_key_values=DynamicCache(), use_cache=True)
        return _Prefix(output, len(tokens))

    def _reuses_prefixes(self, tokens: tuple[int, ...]) -> bool:
        """Whether a prefix's states can be reused: measured on the model, since names of architectures do not tell.

        A model qualifies when a change of the last token leaves the states before it as they were (some models with
        a decoder's name look both ways), and when it keeps plain keys and values of every position (sliding windows
        and recurrent states do not). Otherwise every text is computed whole: slower, and as right.
        """
        if self._reuses is None:
            ids = torch.tensor([tokens[:8], tokens[:8]])  # (2, k)
            ids[1, -1] = tokens[0] if tokens[0] != ids[0, -1] else (tokens[0] + 1) % self._model.config.vocab_size
            with torch.inference_mode():
                output = self._model(input_ids=ids.to(self._device), past_key_values=DynamicCache(), use_cache=True)
            before = output.last_hidden_state.float()[:, :-1]  # (2, k - 1, d)
            change = (before[0] - before[1]).norm(dim=-1) / before[0].norm(dim=-1)  # (k - 1,)
            # 0 but for rounding when the model is causal; a few percent and more when it looks both ways.
            rounding = 1e-2 if output.last_hidden_state.dtype is torch.bfloat16 else 1e-4
            causal = bool(change.max() <= rounding)
            self._reuses = causal and _is_plain(output.get("past_key_values"))
        return self._reuses


def _is_plain(cache: object) -> bool:
    return isinstance(cache, DynamicCache) and all(type(layer) is DynamicLayer for layer in cache.layers)


class TreeRun:
    """A trie behind a prefix, one chunk after the other; see :mod:`rankwise.language.trie`.

    Args:
        model: it must grow trees.
        prefix: p tokens; may be empty.
        width: slots for ancestors.
        keep_all: hand over the states of a chunk's tokens, see :attr:`computed`.
    """

    def __init__(self, model: FrozenModel, prefix: tuple[int, ...], width: int, keep_all: bool) -> None:
        self._model = model
        self._prefix = prefix
        self._path = Path(model.layer_count, width, keep_all)

    def compute(self, chunk: Chunk, soft: Tensor | None = None) -> Tensor:
        """Final hidden states (t, d), float32, of the next chunk's tokens.

        Args:
            chunk: the next one; the first one begins at the root.
            soft: embedding of the soft tokens, where the chunk has some.  # (d,)

        Raises:
            SurroundingsError: the model yields values that are not finite.
        """
        model = self._model
        with torch.no_grad():
            embeddings = model.embed(torch.from_numpy(chunk.tokens))  # (t, d)
            if soft is not None and len(chunk.soft):
                embeddings[torch.from_numpy(chunk.soft).to(model.device)] = soft.detach().to(embeddings)
            self._path.enter(*(torch.from_numpy(part).to(model.device) for part in (chunk.ancestors, chunk.path)))
            seen = torch.from_numpy(chunk.seen).to(model.device)
            states = model.tree_states(
                self._prefix, self._path, seen, embeddings, torch.from_numpy(chunk.depths)
            )  # (t, d)
        check_finite(states)
        return states

    @property
    def computed(self) -> Layers:
        """Keys and values of the last chunk's tokens in every layer, each (h, t, e)."""
        return self._path.computed


def check_finite(values: NDArray[np.float32] | Tensor) -> None:
    """Refuse values that are not finite.

    Raises:
        SurroundingsError: some are not.
    """
    if not bool(torch.isfinite(torch.as_tensor(values)).all()):
        raise SurroundingsError("the language model yields values that are not finite: its weights are damaged")


class _Prefix:
    """Keys and values of a prefix in every layer, and the sum of its last hidden states."""

    def __init__(self, output: Any, length: int) -> None:
        # Copies: a view would keep the filled-up states alive.
        self.whole = [
            (layer.keys[:, :, :length].clone(), layer.values[:, :, :length].clone())  # each (1, h, p, e)
            for layer in output.past_key_values.layers
        ]
        self.total = output.last_hidden_state[0, :length].float().sum(dim=0)  # (d,)

    @property
    def layers(self) -> Layers:
        """Keys and values of the prefix in every layer, each (h, p, e)."""
        return [(keys[0], values[0]) for keys, values in self.whole]

    def cache(self, rows: int) -> DynamicCache:
        """A cache with the prefix in each of ``rows`` rows. The model appends to it: each batch needs its own."""
        return DynamicCache([(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in self.whole])
