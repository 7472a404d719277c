"""Seeded splits and nested random subsets.

The same numbers come out on every machine: PCG64 through ``numpy.random.Generator.permutation`` with a seed sequence
of its own for each purpose, so that the split of one seed and the subset of the same seed are independent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from rankwise.errors import InvalidInput, Problem

Size: TypeAlias = int | float
"""How many examples: an int is a number of examples, a float the fraction of those there are (0 to 1)."""

_SPLIT, _SUBSET = 1, 2  # purposes of a seed


@dataclass(frozen=True, slots=True)
class Split:
    """Three disjoint sets of positions that together hold every example; each in ascending order."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def parse_size(text: str, path: str = "size") -> Size:
    """Read a size: ``500`` is a number of examples, ``0.1`` (with a point or an exponent) a fraction, ``1.0`` all.

    Raises:
        InvalidInput: anything else; the problem's path is ``path``.
    """
    clean = text.strip()
    if re.fullmatch(r"\d+", clean, re.ASCII):
        return int(clean)
    try:
        fraction = float(clean)
    except ValueError:
        fraction = math.nan
    if not 0.0 <= fraction <= 1.0:
        raise InvalidInput([Problem(path, text, "a whole number of examples, or a fraction from 0.0 to 1.0")])
    return fraction


def count(size: Size, total: int) -> int:
    """Number of examples that ``size`` means among ``total``; a fraction above 0 means at least one."""
    if isinstance(size, int):
        return size
    return min(total, max(1, round(size * total))) if size > 0.0 and total > 0 else 0


def split(n: int, validation: Size, test: Size, seed: int) -> Split:
    """Split ``n`` examples at random.

    The test set depends on ``n``, ``test`` and ``seed`` only: another validation size leaves it as it is, so that
    results on it stay comparable.

    Raises:
        InvalidInput: the seed or a size is out of range, or nothing is left to train on.
    """
    problems = [
        Problem(name, repr(size), f"a number from 0 to {n}, or a fraction from 0.0 to 1.0")
        for name, size in (("validation", validation), ("test", test))
        if not 0 <= size <= (n if isinstance(size, int) else 1.0)
    ]
    problems += _seed_problems("split-seed", seed)
    if problems:
        raise InvalidInput(problems)
    n_test, n_validation = count(test, n), count(validation, n)
    if n_test + n_validation >= n:
        raise InvalidInput(
            [
                Problem(
                    "validation",
                    f"{validation!r} with test {test!r} of {n} examples",
                    "sizes that leave at least one example to train on",
                )
            ]
        )
    order = _permutation(n, seed, _SPLIT)
    held_out = n_test + n_validation
    return Split(
        train=tuple(sorted(order[held_out:])),
        validation=tuple(sorted(order[n_test:held_out])),
        test=tuple(sorted(order[:n_test])),
    )


def subset(indices: Sequence[int], size: Size, seed: int) -> tuple[int, ...]:
    """Draw a random subset without replacement, in the order of ``indices``.

    Subsets of one seed are nested: a larger one holds every smaller one. A search over the subset's size then
    compares the same examples plus more, not other examples.

    Raises:
        InvalidInput: the subset would be empty or larger than what there is, or the seed is negative.
    """
    total = len(indices)
    problems = _seed_problems("subset-seed", seed)
    if not 0 < size <= (total if isinstance(size, int) else 1.0) or total == 0:
        problems.append(Problem("subset", repr(size), f"a number from 1 to {total}, or a fraction above 0.0 up to 1.0"))
    if problems:
        raise InvalidInput(problems)
    chosen = sorted(_permutation(total, seed, _SUBSET)[: count(size, total)])
    return tuple(indices[position] for position in chosen)


def _seed_problems(path: str, seed: int) -> list[Problem]:
    return [] if seed >= 0 else [Problem(path, repr(seed), "a whole number from 0")]


def _permutation(n: int, seed: int, purpose: int) -> list[int]:
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, purpose])))
    order: list[int] = generator.permutation(n).tolist()
    return order
