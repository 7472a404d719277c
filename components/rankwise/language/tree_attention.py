"""Attention of tokens that stand in a tree, for any transformers model that computes attention behind its interface.

Notation::

    t        tokens of a pass; they stand in one row of the model's batch, each at its own position
    p        tokens of the prefix, which all of them have before them
    a        slots for a token's own ancestors after the prefix
    h, g, e  key/value heads, query heads for each of them, size of a head

A token sees the prefix, its ancestors and itself. The prefix's keys stand once in memory and are met by the queries of
all tokens in one matrix product; the ancestors' are gathered for each token into slots by depth. The sums of a token
are therefore cut in the same way wherever it stands (see :mod:`rankwise.language.trie`).

The model itself stays as it is: for the length of a pass its configuration names this attention instead of its own.
Whether a model lends itself to that is measured by :func:`fits`, since some know more than queries, keys and values
(windows, sinks, soft caps).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

logger = logging.getLogger(__name__)

NAME = "rankwise_tree"
"""What this attention is registered as."""
_NOT_KNOWN = ("sliding_window", "softcap", "s_aux", "position_bias")
"""What some models hand to their attention besides queries, keys and values, and this one does not know."""

Layers = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of some tokens in every layer, each (h, n, e)."""


class Ancestors(Protocol):
    """Where the states of a token's ancestors come from."""

    def gather(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (h, t, a, e) of the ancestors by slot; key and value (h, t, e) are the pass's own."""


@dataclass
class TreePass:
    """One pass of tokens through the model.

    Attributes:
        prefix: states of the prefix, each (h, p, e); None when there is none.
        ancestors: of the tokens.
        seen: which slots count.  # (t, a)
        layers: how many layers have computed attention.
    """

    prefix: Layers | None
    ancestors: Ancestors
    seen: Tensor
    layers: int = 0


class Path:
    """States of the open path, for chunks that are computed one after the other.

    Args:
        layers: of the model.
        width: slots, a.
        keep_all: hand over the states of all tokens of a chunk, see :attr:`computed`.

    Attributes:
        computed: states of the last chunk's tokens in every layer, each (h, t, e); empty unless asked for.
    """

    def __init__(self, layers: int, width: int, keep_all: bool = False) -> None:
        self._states: list[tuple[Tensor, Tensor] | None] = [None] * layers
        self._width = width
        self._keep_all = keep_all
        self.computed: list[tuple[Tensor, Tensor]] = []
        self.slots = torch.zeros((0, 0), dtype=torch.long)
        self.path = torch.zeros(0, dtype=torch.long)

    def enter(self, slots: Tensor, path: Tensor) -> None:
        """Begin a chunk: slots (t, a) of its ancestors, and those that stay for the next one (a,)."""
        self.slots, self.path, self.computed = slots, path, []

    def gather(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Ancestors`."""
        before = self._states[layer]
        if before is None:
            empty = key.new_zeros((key.shape[0], self._width, key.shape[2]))
            before = (empty, empty)
        keys, values = torch.cat([before[0], key], dim=1), torch.cat([before[1], value], dim=1)  # (h, a + t, e)
        self._states[layer] = (keys.index_select(1, self.path), values.index_select(1, self.path))
        if self._keep_all:
            self.computed.append((key, value))
        return take(keys, self.slots), take(values, self.slots)


def take(states: Tensor, slots: Tensor) -> Tensor:
    """States (h, t, a, e) of tokens by slot (t, a), out of (h, n, e)."""
    h, e = states.shape[0], states.shape[-1]
    return states.index_select(1, slots.flatten()).view(h, *slots.shape, e)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix: tuple[Tensor, Tensor] | None,
    ancestors: tuple[Tensor, Tensor],
    seen: Tensor,
    scaling: float,
) -> Tensor:
    """Attention of every token to the prefix, to its ancestors and to itself.

    Args:
        query: (h, t, g, e).
        key: (h, t, e).
        value: (h, t, e).
        prefix: keys and values, each (h, p, e).
        ancestors: keys and values, each (h, t, a, e).
        seen: which ancestors count.  # (t, a)
        scaling: of the scores.

    Returns:
        (h, t, g, e).
    """
    h, t, g, e = query.shape
    query = query * scaling
    scores = [
        (query @ ancestors[0].transpose(-1, -2)).masked_fill(~seen[:, None, :], -torch.inf),  # (h, t, g, a)
        (query * key.unsqueeze(2)).sum(-1, keepdim=True),  # (h, t, g, 1)
    ]
    if prefix is not None:
        flat = query.reshape(h, t * g, e)
        scores.append((flat @ prefix[0].transpose(-1, -2)).view(h, t, g, -1))  # (h, t, g, p)
    weights = torch.cat(scores, dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    a = ancestors[0].shape[2]
    result = weights[..., :a] @ ancestors[1] + weights[..., a : a + 1] * value.unsqueeze(2)  # (h, t, g, e)
    if prefix is not None:
        result = result + (weights[..., a + 1 :].reshape(h, t * g, -1) @ prefix[1]).view(h, t, g, e)
    return result


# ------------------------------------------------------------------------------------- inside a transformers model

_current: ContextVar[TreePass] = ContextVar("rankwise_tree_pass")


class Unsupported(RuntimeError):
    """The model's attention is of a kind that this module does not compute."""


def _tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - the interface's
    scaling: float | None = None,
    **extra: Any,
) -> tuple[Tensor, None]:
    """Transformers' interface: queries (1, h g, t, e), keys and values (1, h, t, e) to (1, t, h g, e)."""
    for name in _NOT_KNOWN:
        if extra.get(name) is not None:
            raise Unsupported(f"the model's attention uses {name}")
    tree = _current.get()
    heads, (_, h, t, e) = query.shape[1], key.shape
    layer: Any = module.layer_idx
    prefix = None if tree.prefix is None else tree.prefix[layer]
    result = attend(
        query[0].reshape(h, heads // h, t, e).transpose(1, 2),
        key[0],
        value[0],
        prefix,
        tree.ancestors.gather(layer, key[0], value[0]),
        tree.seen,
        e**-0.5 if scaling is None else scaling,
    )  # (h, t, g, e)
    tree.layers += 1
    return result.transpose(0, 1).reshape(1, t, heads, value.shape[-1]), None


@contextmanager
def _in_place_of_its_own(model: Any) -> Iterator[None]:
    config, own = model.config, model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(NAME, _tree_attention)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = own


def run(model: Any, tree: TreePass, embeddings: Tensor, positions: Tensor) -> Tensor:
    """Final hidden states of tokens in a tree, (t, d).

    Not for two threads at once: the model's configuration changes meanwhile.

    Args:
        model: a transformers model.
        tree: what the tokens see.
        embeddings: of the tokens, as the model's embedding layer gives them.  # (t, d)
        positions: of the tokens in their texts.  # (t,)

    Raises:
        Unsupported: the model's attention is of another kind.
    """
    token = _current.set(tree)
    try:
        with _in_place_of_its_own(model):
            output = model(inputs_embeds=embeddings[None], position_ids=positions[None], use_cache=False)
    finally:
        _current.reset(token)
    if tree.layers != model.config.num_hidden_layers:
        raise Unsupported(f"{tree.layers} of {model.config.num_hidden_layers} layers compute attention as expected")
    hidden: Tensor = output.last_hidden_state[0]
    return hidden


def fits(model: Any, prefix: Layers, tokens: Tensor) -> bool:
    """Whether a model computes in a tree what it computes in a row: measured, as names of architectures do not tell.

    Args:
        model: causal, with plain keys and values.
        prefix: states of the first tokens, each (h, p, e).
        tokens: the p tokens of the prefix and four more.  # (p + 4,)
    """
    kinds = set(getattr(model.config, "layer_types", None) or ())
    if kinds - {"full_attention"}:
        return False
    p = len(tokens) - 4
    # Behind the prefix 0, below it 1 and 2, below 2 3: 1 and 2 do not see each other.
    order = torch.tensor([p, p + 1, p + 2, p + 3], device=tokens.device)
    slots = torch.tensor([[0, 0], [2, 0], [2, 0], [2, 4]], device=tokens.device)
    seen = torch.tensor([[False, False], [True, False], [True, False], [True, True]], device=tokens.device)
    positions = torch.tensor([p, p + 1, p + 1, p + 2], device=tokens.device)
    try:
        with torch.no_grad():
            embed = model.get_input_embeddings()
            path = Path(model.config.num_hidden_layers, 2)
            path.enter(slots, torch.zeros(2, dtype=torch.long, device=tokens.device))
            got = run(model, TreePass(prefix, path, seen), embed(tokens[order]), positions).float()  # (4, d)
            want = []
            for branch in ([p, p + 1], [p, p + 2, p + 3]):
                ids = torch.cat([tokens[:p], tokens[branch]])
                want.append(model(input_ids=ids[None], use_cache=False).last_hidden_state[0, p:].float())
        expected = torch.cat([want[0], want[1][1:]])  # (4, d)
    except Exception as error:
        # Whatever a foreign architecture does with an attention that it does not know: it has the ordinary way.
        logger.info("the language model computes every text by itself: %s", error)
        return False
    # Rounding only when the model fits; a state that saw other tokens is wrong by a few percent and more.
    rounding = 5e-2 if embed.weight.dtype is torch.bfloat16 else 1e-4
    off = (got - expected).norm(dim=-1) / expected.norm(dim=-1)  # (4,)
    return bool((off <= rounding).all())
