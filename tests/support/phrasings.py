"""How well vectors of texts keep what a search needs: that like configurations are near each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from rankwise.language.prompt import PromptForm, describe, load_prompt
from rankwise.space import SearchSpace
from support.paper_space import paper_space

Values = Mapping[str, str]


def compact(values: Values) -> str:
    """What we use."""
    space = paper_space()
    return describe(load_prompt(None, space, PromptForm.COMPACT), space, values)


def bare(values: Values) -> str:
    """``name=value`` a line, as the paper has it."""
    return "\n".join(f"{name}={value}" for name, value in values.items())


def prose(values: Values) -> str:
    """Numbers in a sentence, learning rates as 3e-4, no word for a magnitude."""
    return (
        f"learning rate {values['learning_rate']}, rank {values['rank']}, scaling {values['alpha_ratio']}, "
        f"batch size {values['batch_size']}, dropout {values['dropout']}"
    )


def scientific(values: Values) -> str:
    """Ours, but the learning rate as 3e-4."""
    first, _, rest = compact(values).partition(",")
    return f"{first.partition(' of ')[0]} of {values['learning_rate']},{rest}"


def words(values: Values) -> str:
    """Ours without its numbers."""
    kept = [word for word in compact(values).replace("of ", "").split() if not any(c.isdigit() for c in word)]
    return " ".join(word for word in kept if word != "millionths,")


PHRASINGS: dict[str, Callable[[Values], str]] = {
    "compact (ours)": compact,
    "ours with 3e-4": scientific,
    "ours without numbers": words,
    "numbers in prose": prose,
    "name=value": bare,
}


@dataclass(frozen=True)
class Quality:
    """What vectors are worth.

    Attributes:
        rank_correlation: Spearman's, between distances of vectors and distances of the configurations in log scale.
        prediction: Spearman's, between truth and the prediction of a Gaussian process's mean with a Matérn-1/2 kernel
            on 40 vectors, averaged over 40 smooth random functions of the log-scaled values; the best of four
            length scales.
        error: standard error of ``prediction``.
    """

    rank_correlation: float
    prediction: float
    error: float


def sample(count: int, seed: int = 0) -> tuple[list[dict[str, str]], NDArray[np.float64]]:
    """Different random configurations of the paper's space, and their places in log scale (count, 5) in [0, 1]."""
    space: SearchSpace = paper_space()
    points = space.enumerate()
    chosen = points.take(np.random.default_rng(seed).choice(len(points), count, replace=False))
    values = list(chosen)
    columns = []
    for name, log in zip(space.names, (True, True, True, True, False), strict=True):
        column = np.array([float(v[name]) for v in values])
        column = np.array([math.log(x) for x in column]) if log else column
        columns.append((column - column.min()) / (column.max() - column.min()))
    return values, np.stack(columns, axis=1)


def quality(vectors: NDArray[np.float32], units: NDArray[np.float64]) -> Quality:
    """Measure vectors (n, d) of configurations at places (n, 5)."""
    count = len(vectors)
    generator = np.random.default_rng(0)
    i, j = generator.integers(0, count, (2, 20_000))
    i, j = i[i != j], j[i != j]
    near = spearmanr(np.linalg.norm(vectors[i] - vectors[j], axis=1), np.linalg.norm(units[i] - units[j], axis=1))[0]
    centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
    squares = (centred**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * centred @ centred.T, 0.0))
    distances /= np.median(distances)
    scores = [_predict(distances, units, seed) for seed in range(40)]
    return Quality(float(near), float(np.mean(scores)), float(np.std(scores, ddof=1) / math.sqrt(len(scores))))


def _predict(distances: NDArray[np.float64], units: NDArray[np.float64], seed: int) -> float:
    generator = np.random.default_rng(seed)
    optimum, weight = generator.random(units.shape[1]), 2 * generator.random(units.shape[1])
    truth = -(((units - optimum) ** 2) * weight).sum(axis=1)
    order = generator.permutation(len(units))
    seen, unseen = order[:40], order[40:]
    best = -1.0
    for length in (0.5, 1.0, 2.0, 4.0):
        kernel = np.exp(-distances / length)
        solved = np.linalg.solve(kernel[np.ix_(seen, seen)] + 1e-4 * np.eye(40), truth[seen] - truth[seen].mean())
        best = max(best, float(spearmanr(kernel[np.ix_(unseen, seen)] @ solved, truth[unseen])[0]))
    return best
