"""Texts that begin alike share their tokens: the trie of a space's configurations, cut into pieces of one shape.

The prompts of a space differ in a few lines at their end (``rank = 16`` …), and configurations that agree in their
first lines agree in their first tokens. A causal model gives a token the same states in all of these texts, so that
each node of the trie has to be computed once only. Tokens may merge across the end of a line: the trie stands on the
tokens of each whole text, not on its lines.

The nodes are put in depth-first order and this sequence is cut into chunks of ``rows`` tokens. When a chunk begins,
only the path from the root to its first node is needed from the chunks before: at most ``width`` tokens. So for a
model that spends F operations on a token and keeps S bytes of keys and values of one

    tokens computed = prefix + distinct nodes, rounded up to whole chunks     (and not texts × length)
    work            = tokens computed × F
    memory          = S × (prefix + width + rows) + the gathered copy of one layer, rows × width × S / layers

whatever the number of texts. SmolLM2 on the paper's 45,360 configurations: 654 tokens of prefix, 38.6 tokens a text
after it, 3.2 nodes a text. A random sample of a space shares less (1,440 of these: 13 nodes a text).

A product of lists costs the less, the more values the last lines have and the shorter they are: a node of the last
line belongs to one text, one of the line before it to as many as the last list is long. The prompts keep their order of
lines all the same: of the 120 orders of the paper's five lines the best has 3.1 nodes a text, the worst 4.4.

Bits. Every chunk has one shape, every token sees its ancestors in slots by depth, and both depend on ``width`` alone,
which is the text's own length rounded up. Nothing that is computed for a token depends on its place in the chunk or on
the other tokens, so that a vector keeps its bits in any company: a cache that is half full, a restart or another order
of the texts changes nothing. Texts of different width form tries of their own for that reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH = 32
"""Lengths are rounded up to a multiple of this: a space has then one trie, or two."""
MAX_WIDTH = 512
"""Longest text after the prefix that goes into a trie."""

Tokens = tuple[int, ...]


def width_for(length: int) -> int:
    """Slots for the ancestors of the tokens of a text of ``length`` tokens after the prefix."""
    return -(-length // WIDTH) * WIDTH


def rows_for(width: int, most: int) -> int:
    """Tokens of a chunk: a power of two, at most ``most``, and fewer where every token has many ancestors."""
    return max(1, min(most, 1 << ((1024 * WIDTH * 2 // width).bit_length() - 1)))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some nodes of a trie in depth-first order, filled up to t rows with nodes that nobody looks at.

    Slots count the states of ``width`` nodes from before (the node at depth k of the open path in slot k) and then
    those of the chunk itself.

    Attributes:
        count: nodes, 1 … t; the other rows are fillers.
        tokens: (t,); 0 in soft rows and fillers.
        depths: (t,), 0 for the first token after the prefix.
        soft: rows of soft tokens.
        ancestors: slots by depth.  # (t, w)
        seen: which slots are ancestors.  # (t, w)
        path: slots of the open path by depth after this chunk: what the next one has from before.  # (w,)
        ends: row -> texts that end with this row's node (or whose soft token it is).
    """

    count: int
    tokens: NDArray[np.int64]
    depths: NDArray[np.int64]
    soft: NDArray[np.int64]
    ancestors: NDArray[np.int64]
    seen: NDArray[np.bool_]
    path: NDArray[np.int64]
    ends: dict[int, tuple[int, ...]]


class Trie:
    """The distinct beginnings of some token sequences.

    Args:
        texts: at least one sequence of at least one token; sequences may be equal, and one may begin another.

    Attributes:
        tokens: of the nodes in depth-first order, children by token.  # (N,)
        depths: of the nodes, 0 at the root's children.  # (N,)
        ends: node -> indices of the texts that end there.
    """

    def __init__(self, texts: Sequence[Tokens]) -> None:
        places: dict[Tokens, list[int]] = {}
        for i, text in enumerate(texts):
            places.setdefault(text, []).append(i)
        self.tokens: list[int] = []
        self.depths: list[int] = []
        self.ends: dict[int, tuple[int, ...]] = {}
        before: Tokens = ()
        # Sorted sequences come in depth-first order: what two neighbours share was made for the first of them.
        for text in sorted(places):
            shared = _common(before, text)
            self.tokens.extend(text[shared:])
            self.depths.extend(range(shared, len(text)))
            self.ends[len(self.tokens) - 1] = tuple(places[text])
            before = text

    def __len__(self) -> int:
        return len(self.tokens)

    def paths(self) -> dict[int, list[int]]:
        """Text -> its nodes, the last one included."""
        found: dict[int, list[int]] = {}
        path: list[int] = []
        for node, depth in enumerate(self.depths):
            path[depth:] = [node]
            for text in self.ends.get(node, ()):
                found[text] = path.copy()
        return found

    def chunks(self, rows: int, width: int, soft: bool = False) -> Iterator[Chunk]:
        """The nodes in depth-first order.

        Args:
            rows: of each chunk, t.
            width: slots for ancestors, w: no text is longer.
            soft: put a soft token behind every text, which then ends there.
        """
        draft = _Draft(rows, width)
        for node, (token, depth) in enumerate(zip(self.tokens, self.depths, strict=True)):
            texts = self.ends.get(node, ())
            draft.add(token, depth, () if soft else texts)
            if draft.count == rows:
                yield draft.finish()
            if soft and texts:
                draft.add_soft(depth + 1, texts)
                if draft.count == rows:
                    yield draft.finish()
        if draft.count:
            yield draft.finish()


class _Draft:
    """A chunk in the making, and the open path."""

    def __init__(self, rows: int, width: int) -> None:
        self._rows, self._width = rows, width
        self._begin()

    def _begin(self) -> None:
        self.count = 0
        self._tokens = np.zeros(self._rows, dtype=np.int64)
        self._depths = np.zeros(self._rows, dtype=np.int64)
        self._soft: list[int] = []
        self._ancestors = np.zeros((self._rows, self._width), dtype=np.int64)
        self._path = np.arange(self._width)  # (w,), by depth
        self._ends: dict[int, tuple[int, ...]] = {}

    def add(self, token: int, depth: int, texts: tuple[int, ...]) -> None:
        self._put(token, depth, texts)
        self._path[depth] = self._width + self.count - 1

    def add_soft(self, depth: int, texts: tuple[int, ...]) -> None:
        self._soft.append(self.count)
        self._put(0, depth, texts)

    def _put(self, token: int, depth: int, texts: tuple[int, ...]) -> None:
        row, self.count = self.count, self.count + 1
        self._tokens[row] = token
        self._depths[row] = depth
        self._ancestors[row, :depth] = self._path[:depth]
        if texts:
            self._ends[row] = texts

    def finish(self) -> Chunk:
        chunk = Chunk(
            self.count,
            self._tokens,
            self._depths,
            np.array(self._soft, dtype=np.int64),
            self._ancestors,
            np.arange(self._width) < self._depths[:, None],
            self._path,
            self._ends,
        )
        self._begin()
        return chunk


def _common(a: Tokens, b: Tokens) -> int:
    """Tokens that both begin with."""
    for k, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return k
    return min(len(a), len(b))
