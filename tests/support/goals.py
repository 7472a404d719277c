"""A made-up training over the T5 summarization study's own space: its loss and its costs are known formulas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rankwise.local.experiment import load_experiment
from rankwise.space import Goal, Objective, SearchSpace, Trial, TrialState
from rankwise.strategies.base import Strategy, SuggestRequest

STUDY = Path(__file__).parents[2] / "katib" / "experiments" / "t5-summarization.yaml"
BEST = {
    "learning_rate": "3.21e-4",
    "batch_size": "16",
    "epochs": "3",
    "dropout": "0.1",
    "rank": "8",
    "alpha": "32",
}
"""The study's best configuration: the made-up loss has its least value, 1, there."""
LOSS = Objective("loss", Goal.MINIMIZE, additional_metrics=("seconds", "peak_memory_bytes", "energy_joules", "rouge1"))


def study_space() -> SearchSpace:
    return load_experiment(STUDY).space


def measure(space: SearchSpace, point: Mapping[str, str]) -> tuple[float, dict[str, float]]:
    """Loss and metrics: memory grows with batch and rank, time with epochs and small batches."""
    u, best = space.encode([point, BEST])
    loss = 1.0 + float(np.array([4.0, 0.5, 0.5, 0.5, 1.0, 0.5]) @ (u - best) ** 2)
    batch, epochs, rank = (float(point[name]) for name in ("batch_size", "epochs", "rank"))
    seconds = 60.0 * epochs * (1 + 8 / batch)
    memory = 1e9 * (1 + 0.15 * batch + 0.1 * rank)
    return loss, {"seconds": seconds, "peak_memory_bytes": memory, "rouge1": 0.5 - 0.1 * loss}


def made_up_search(
    strategy: Strategy, budget: int, seed: int, objective: Objective = LOSS, **settings: str
) -> list[Trial]:
    """The trials of a whole search, one after the other."""
    space = study_space()
    trials: list[Trial] = []
    for i in range(budget):
        asked = {**settings, "random_state": str(seed)}
        answer = strategy.suggest(SuggestRequest("study", space, objective, asked, tuple(trials), 1, i, budget))
        assert answer.fallback is None
        (point,) = answer.assignments
        loss, metrics = measure(space, point)
        trials.append(Trial(f"t{i}", point, TrialState.SUCCEEDED, loss, metrics))
    return trials
