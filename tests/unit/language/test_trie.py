from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.language.trie import MAX_WIDTH, WIDTH, Chunk, Trie, rows_for, width_for

Tokens = tuple[int, ...]
TEXTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=7).map(tuple), min_size=1, max_size=25)
SOFT = -1


def beginnings(texts: Sequence[Tokens]) -> set[Tokens]:
    return {text[:k] for text in texts for k in range(1, len(text) + 1)}


def replay(chunks: Sequence[Chunk], width: int) -> list[tuple[Tokens, tuple[int, ...]]]:
    """What each row stands for when only slots are followed, as a model does, and which texts end with it."""
    before: list[Tokens] = [()] * width
    rows = []
    for chunk in chunks:
        own: list[Tokens] = []
        soft = set(chunk.soft.tolist())
        for row in range(chunk.count):
            seen = chunk.ancestors[row][chunk.seen[row]].tolist()
            assert all(slot < width + row for slot in seen), "a row sees only what was computed before it"
            last = (SOFT,) if row in soft else (int(chunk.tokens[row]),)
            parent = (before + own)[seen[-1]] if seen else ()
            # Every ancestor stands in the slot of its depth.
            assert [(before + own)[slot] for slot in seen] == [parent[:k] for k in range(1, len(parent) + 1)]
            assert int(chunk.depths[row]) == len(parent)
            own.append(parent + last)
            rows.append((parent + last, chunk.ends.get(row, ())))
        own += [()] * (len(chunk.tokens) - chunk.count)
        before = [(before + own)[slot] for slot in chunk.path]
    return rows


@given(texts=TEXTS, rows=st.integers(1, 9), extra=st.integers(0, 3))
def test_chunks_compute_every_distinct_beginning_once(texts: list[Tokens], rows: int, extra: int) -> None:
    width = max(map(len, texts)) + extra
    trie = Trie(texts)
    chunks = list(trie.chunks(rows, width))
    computed = replay(chunks, width)
    assert len(trie) == len(computed) == len({tokens for tokens, _ in computed})
    assert {tokens for tokens, _ in computed} == beginnings(texts)
    ends = {text: tokens for tokens, owners in computed for text in owners}
    assert ends == dict(enumerate(texts))
    # One shape, and all chunks but the last are full.
    assert {(chunk.ancestors.shape, chunk.seen.shape, chunk.tokens.shape) for chunk in chunks} == {
        ((rows, width), (rows, width), (rows,))
    }
    assert [chunk.count for chunk in chunks[:-1]] == [rows] * (len(chunks) - 1)


@given(texts=TEXTS, rows=st.integers(1, 9))
def test_soft_tokens_stand_behind_every_text_and_nobody_sees_them(texts: list[Tokens], rows: int) -> None:
    width = max(map(len, texts)) + 1
    computed = replay(list(Trie(texts).chunks(rows, width, soft=True)), width)
    assert len(computed) == len(beginnings(texts)) + len(set(texts))
    ends = {text: tokens for tokens, owners in computed for text in owners}
    assert ends == {i: (*text, SOFT) for i, text in enumerate(texts)}
    assert all(SOFT not in tokens[:-1] for tokens, _ in computed)


@given(texts=TEXTS)
def test_paths_follow_the_texts(texts: list[Tokens]) -> None:
    trie = Trie(texts)
    paths = trie.paths()
    assert sorted(paths) == list(range(len(texts)))
    for i, text in enumerate(texts):
        assert tuple(trie.tokens[node] for node in paths[i]) == text
        assert [trie.depths[node] for node in paths[i]] == list(range(len(text)))


def test_a_product_of_lists_costs_its_last_lines_and_not_its_texts() -> None:
    # Four lines of five tokens, the last of which tells the values apart: 4 × 5 × 6 × 12 = 1,440 texts.
    lines = [[(9, 9, 9, line, value) for value in range(size)] for line, size in enumerate((4, 5, 6, 12))]
    texts = [sum(choice, ()) for choice in itertools.product(*lines)]
    trie = Trie(texts)
    # Of every line four tokens once for each choice of the lines before it, and one for each value.
    expected = (4 + 4) + 4 * (4 + 5) + 20 * (4 + 6) + 120 * (4 + 12)
    assert len(trie) == expected == 2164
    assert sum(map(len, texts)) == 28_800


@pytest.mark.parametrize(("length", "width"), [(1, WIDTH), (32, 32), (33, 64), (64, 64), (512, 512)])
def test_width_is_the_length_rounded_up(length: int, width: int) -> None:
    assert width_for(length) == width


def test_rows_and_width_bound_the_gathered_states() -> None:
    for width in range(WIDTH, MAX_WIDTH + 1, WIDTH):
        rows = rows_for(width, 4096)
        assert rows & (rows - 1) == 0
        assert rows * width <= 65_536
        assert rows_for(width, 256) == min(rows, 256)
    assert rows_for(MAX_WIDTH, 256) == 128


def test_fillers_see_nothing_of_their_own() -> None:
    (chunk,) = Trie([(5, 6)]).chunks(4, 32)
    assert chunk.count == 2
    assert chunk.tokens.tolist() == [5, 6, 0, 0]
    assert not chunk.seen[2:].any()
    assert np.array_equal(chunk.seen.sum(axis=1), [0, 1, 0, 0])
