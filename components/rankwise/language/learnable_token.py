"""The learnable token ψ at the very end of a prompt (arXiv 2602.11171), at the cost of one token.

Notation::

    ψ    (e,)  embedding of one extra token behind the last token of every text
    v(ψ) (d,)  final hidden state of that token: the text's vector, a function of ψ

ψ stands last and attention looks back only: the keys and values of everything before it do not depend on ψ. With F
operations for a token and S bytes for its keys and values (layers × 2 × heads × size of a head × 4; 46,080 for
SmolLM2-135M), N nodes in the trie of n texts, and p tokens before all of them (see :mod:`rankwise.language.trie`):

    kept states     :class:`TokenStates`   once  (p + N) F     each ψ  n F          memory  (p + N) S
    with gradient   the same               —                   each ψ  2 n F        and n rows of activations
    streaming       ``encode_with_token``  —                   each ψ  (N + n) F    memory as for a trie

A fit of ψ takes kept states of the observed texts, whose number is small. Candidates are embedded once more with the
fitted ψ: kept states where they fit into memory, streaming where they are many, and where that takes too long a
shortlist that the caller draws by the vectors of an earlier ψ (:func:`shortlist`), scored exactly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, Problem
from rankwise.language.model import FrozenModel, check_finite
from rankwise.language.text_encoder import EmbeddingIncomplete, TextEncoder
from rankwise.language.tree_attention import take
from rankwise.language.trie import Trie, rows_for

MAX_STATE_BYTES = 2**30
"""Most memory for kept states: 23,000 nodes of SmolLM2-135M in float32."""
_ROWS_AT_ONCE = 256
"""Texts whose soft tokens are computed together when no gradient is asked for."""


@runtime_checkable
class TokenEncoder(TextEncoder, Protocol):
    """A text encoder that can put a learnable token behind every text."""

    def initial_token(self) -> NDArray[np.float32]:
        """Where ψ starts, (e,): the embedding of the token that ends a text.

        Raises:
            SurroundingsError: the model cannot be loaded.
        """

    def token_states(
        self, texts: Sequence[str], deadline: Deadline | None = None, most_bytes: int = MAX_STATE_BYTES
    ) -> TokenStates:
        """Compute and keep the states of texts, so that a new ψ costs one token for each.

        Args:
            texts: n texts; repeated ones are computed once.
            deadline: None for no limit.
            most_bytes: most memory for the states.

        Raises:
            EmbeddingIncomplete: the deadline came first; nothing is kept.
            InvalidInput: the model is not a decoder that can have a token behind a text, a text is too long, or the
                states take more memory.
            SurroundingsError: the model cannot be loaded.
        """

    def encode_with_token(
        self, texts: Sequence[str], psi: NDArray[np.floating], deadline: Deadline | None = None
    ) -> NDArray[np.float32]:
        """Vectors v(ψ) of texts for one fixed ψ, without keeping states.

        Bits depend on ψ and the text alone.

        Args:
            texts: n texts; repeated ones are computed once.
            psi: (e,).
            deadline: None for no limit.

        Returns:
            (n, d).

        Raises:
            EmbeddingIncomplete: the deadline came first.
            InvalidInput: as in :meth:`token_states`.
            SurroundingsError: the model cannot be loaded.
        """


def refusal(value: str, needed: str) -> InvalidInput:
    """What is said when a text or a model cannot have a learnable token."""
    return InvalidInput([Problem("learnable token", value, needed)])


@dataclass(frozen=True)
class Branch:
    """Texts with one prefix that form a trie.

    Attributes:
        prefix: p tokens.
        width: slots for ancestors.
        nodes: what follows in the texts.
        places: number of each of the trie's texts among the caller's.
    """

    prefix: tuple[int, ...]
    width: int
    nodes: Trie
    places: list[int]


class _Kept:
    """States of the ancestors, taken from those that were kept."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]], slots: Tensor) -> None:
        self._layers = layers  # each (h, N, e)
        self._slots = slots  # (t, a)

    def gather(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """See :class:`rankwise.language.tree_attention.Ancestors`."""
        keys, values = self._layers[layer]
        return take(keys, self._slots), take(values, self._slots)


class _KeptBranch:
    """A branch's states.

    Args:
        model: it must grow trees.
        branch: its texts.
        most: tokens of a chunk at most.
        check: raises when the time is over.
    """

    def __init__(self, model: FrozenModel, branch: Branch, most: int, check: Callable[[], None]) -> None:
        self._model = model
        self._prefix = branch.prefix
        width = branch.width
        run = model.tree(branch.prefix, width, keep_all=True)
        self._layers: list[tuple[Tensor, Tensor]] = []

        def room(states: Tensor) -> Tensor:
            return states.new_empty((states.shape[0], len(branch.nodes), states.shape[2]))

        start = 0
        for chunk in branch.nodes.chunks(rows_for(width, most), width):
            check()
            run.compute(chunk)
            if not self._layers:
                self._layers = [(room(k), room(v)) for k, v in run.computed]
            stop = start + chunk.count
            for (keys, values), (k, v) in zip(self._layers, run.computed, strict=True):
                keys[:, start:stop] = k[:, : chunk.count]
                values[:, start:stop] = v[:, : chunk.count]
            start = stop
        paths = branch.nodes.paths()
        lengths = [len(paths[i]) for i in range(len(branch.places))]
        slots = torch.zeros((len(lengths), width), dtype=torch.long)  # (b, a)
        for i, row in enumerate(slots):
            row[: lengths[i]] = torch.tensor(paths[i])
        self._slots = slots.to(model.device)
        self._lengths = torch.tensor(lengths, device=model.device)  # (b,)
        self._seen = torch.arange(width, device=model.device) < self._lengths[:, None]  # (b, a)

    def states(self, psi: Tensor, rows: Tensor) -> Tensor:
        """v(ψ) (r, d) of some of the branch's texts."""
        return self._model.tree_states(
            self._prefix,
            _Kept(self._layers, self._slots[rows]),
            self._seen[rows],
            psi.expand(len(rows), -1),
            self._lengths[rows],
        )


class TokenStates:
    """Keys and values of n texts up to their ends; made by :meth:`TokenEncoder.token_states`.

    Safe to call from several threads. Vectors of one text agree to rounding whatever the other rows of a call are; the
    same call gives the same bits.

    Args:
        model: the frozen model; it must grow trees.
        lock: held while the model computes.
        branches: tries that hold all different texts.
        places: number of each of the n texts among the different ones.
        initial: where ψ starts.  # (e,)
        dimension: length d of a vector.
        most_bytes: most memory for the states.
        most: tokens of a chunk at most.
        check: raises when the time is over.

    Attributes:
        bytes: memory that the states take.
        initial: where ψ starts.  # (e,)
        dimension: length d of a vector.
    """

    def __init__(
        self,
        model: FrozenModel,
        lock: threading.Lock,
        branches: Sequence[Branch],
        places: Sequence[int],
        initial: NDArray[np.float32],
        dimension: int,
        most_bytes: int,
        most: int,
        check: Callable[[], None],
    ) -> None:
        self._lock = lock
        self._device = model.device
        self._dtype = model.dtype
        self.initial = initial
        self.dimension = dimension
        self.bytes = sum(len(branch.nodes) * model.state_bytes(branch.prefix) for branch in branches)
        if self.bytes > most_bytes:
            raise refusal(
                f"{len(places)} texts of {self.bytes / 2**20:.1f} MiB",
                f"states of at most {most_bytes / 2**20:.1f} MiB",
            )
        self._branches = [_KeptBranch(model, branch, most, check) for branch in branches]
        at = np.zeros((sum(len(branch.places) for branch in branches), 2), dtype=np.intp)  # branch, place in it
        for b, branch in enumerate(branches):
            at[branch.places, 0] = b
            at[branch.places, 1] = np.arange(len(branch.places))
        self._at = at[np.asarray(places, dtype=np.intp)]  # (n, 2)

    def __len__(self) -> int:
        return len(self._at)

    def last_states(self, psi: Tensor, rows: Sequence[int] | None = None, deadline: Deadline | None = None) -> Tensor:
        """v(ψ) of some texts: the final hidden state of ψ behind each, float32.

        Args:
            psi: (e,), of any floating type; the result is differentiable with respect to it.
            rows: numbers of r texts; None for all.
            deadline: for waiting until the model is free; None for no limit.

        Returns:
            (r, d), on psi's device.

        Raises:
            EmbeddingIncomplete: another call held the model until the deadline.
            SurroundingsError: the model yields values that are not finite.
        """
        at = self._at if rows is None else self._at[np.asarray(rows, dtype=np.intp)]  # (r, 2)
        soft = psi.to(self._device, self._dtype)
        parts, places = [], []
        with held(self._lock, deadline, len(at)):
            for b, branch in enumerate(self._branches):
                mine = np.flatnonzero(at[:, 0] == b)
                for start in range(0, len(mine), _ROWS_AT_ONCE):
                    some = mine[start : start + _ROWS_AT_ONCE]
                    parts.append(branch.states(soft, torch.from_numpy(at[some, 1]).to(self._device)))
                    places.append(some)
        if not parts:
            return psi.new_zeros((0, self.dimension), dtype=torch.float32)
        states = torch.cat(parts)  # (r, d), by branch
        check_finite(states.detach())
        order = torch.from_numpy(np.argsort(np.concatenate(places), kind="stable")).to(self._device)
        return states[order].to(psi.device)

    def vectors(
        self, psi: NDArray[np.floating], rows: Sequence[int] | None = None, deadline: Deadline | None = None
    ) -> NDArray[np.float32]:
        """v(ψ) (r, d) of some texts, without a gradient; see :meth:`last_states`."""
        with torch.no_grad():
            found: NDArray[np.float32] = self.last_states(torch.tensor(np.asarray(psi)), rows, deadline).numpy()
            return found


@contextmanager
def held(lock: threading.Lock, deadline: Deadline | None, total: int) -> Iterator[None]:
    """Hold the model's lock; waiting for it counts against the deadline.

    Raises:
        EmbeddingIncomplete: it did not come free in time.
    """
    seconds = threading.TIMEOUT_MAX if deadline is None else min(deadline.remaining(), threading.TIMEOUT_MAX)
    if not lock.acquire(timeout=seconds):
        raise EmbeddingIncomplete(0, total)
    try:
        yield
    finally:
        lock.release()


def shortlist(scores: NDArray[np.floating], size: int) -> NDArray[np.intp]:
    """Indices of the ``size`` best candidates by a stale score (higher is better), best first, ties by index.

    Args:
        scores: of every candidate, by the vectors of an earlier ψ; NaN counts as worst.  # (m,)
        size: how many to score exactly.
    """
    order: NDArray[np.intp] = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")
    return order[:size]
