"""A belief that is wrong is forgotten: searches over tables of real LoRA runs."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from benchmarks.search.ours import Ours
from benchmarks.search.problem import Pool, play, view_of
from benchmarks.search.tasks import pool

TRIALS, SEEDS = 20, 3
MISPLACED = '{"learning_rate": 1e-5, "rank": 2, "dropout": 0.3}'


def regret(seen: Pool, values: list[float]) -> float:
    return (min(values) - seen.best) / (seen.median - seen.best)


def expected_of_random(seen: Pool, trials: int) -> float:
    """Mean regret of as many different configurations drawn at random: the k-th best is the best one drawn when it is
    among them and none of those before it is."""
    values = sorted(value for i in range(len(seen)) if (value := seen.reveal(i)) is not None)
    n = len(values)
    chances = [comb(n - 1 - k, trials - 1) / comb(n, trials) for k in range(n - trials + 1)]
    assert sum(chances) == pytest.approx(1.0)
    return sum(chance * regret(seen, [value]) for chance, value in zip(chances, values, strict=False))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["minilm-section", "minilm-supersense"])
def test_a_search_that_was_told_the_wrong_rate_is_soon_no_worse_than_chance(task: str) -> None:
    first, last, chance = [], [], []
    for seed in range(SEEDS):
        seen = pool(task).seen_by(seed)
        ours = Ours(view_of(seen, seed, TRIALS, "pool"), {"surrogate": "numeric", "belief": MISPLACED})
        values = [step.value for step in play(seen, ours, TRIALS, seed)]
        assert None not in values
        first.append(regret(seen, values[:3]))  # type: ignore[arg-type]
        last.append(regret(seen, values))  # type: ignore[arg-type]
        chance.append(expected_of_random(seen, TRIALS))
    assert np.mean(first) > 0.2, "the belief has to mislead at first, or this shows nothing"
    assert np.mean(last) <= np.mean(chance)
