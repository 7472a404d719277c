"""The race on a tiny model: equal work, equal beginnings, and tables that say what the outcomes say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from benchmarks.lora_runs.batched import Item, Length, Plan, train
from benchmarks.lora_runs.models import PackedBert, pack_model
from benchmarks.pbt.race import METHODS, Outcome, Setting, Task, run, space
from benchmarks.pbt.summary import differences, markdown, mean_and_error, verdict

SETTING = Setting(members=3, generations=3, steps=2, batch=4)


def task(dtype: torch.dtype = torch.float32) -> Task:
    torch.manual_seed(0)
    base: Any = BertModel(
        BertConfig(
            vocab_size=50, hidden_size=16, intermediate_size=40, num_hidden_layers=1, num_attention_heads=4,
            max_position_embeddings=32, attn_implementation="eager",
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    packed = pack_model(base.to(dtype), dtype)
    assert isinstance(packed, PackedBert)
    generator = np.random.default_rng(0)
    items = [
        Item(tuple(generator.integers(0, 50, size=generator.integers(3, 9)).tolist()), int(generator.integers(3)))
        for _ in range(60)
    ]
    return Task(packed, items[:30], items[30:45], items[45:], 3)


def test_a_run_that_goes_on_from_another_is_one_run_of_both_lengths() -> None:
    """In float64, over the border of an epoch (30 examples in batches of 4: eight steps)."""
    made = task(torch.float64)
    plan = Plan(rank=2, scale=2.0, dropout=0.0, batch_size=4, learning_rate=1e-2, seed=3)

    def go(steps: int, starts: Any = ()) -> Any:
        held = {"validation": made.validation}
        length = Length(steps=steps, schedule="constant")
        (result,) = train(made.model, [plan], made.items, held, classes=3, length=length, starts=starts)
        return result

    first = go(5)
    second, whole = go(5, [first.state]), go(10)
    assert second.losses == whole.losses[5:]
    assert second.state.steps == whole.state.steps == 10
    assert torch.equal(second.state.flat, whole.state.flat)
    assert second.measured == whole.measured
    assert first.state.steps == 5
    assert not torch.equal(first.state.flat, second.state.flat)
    again = go(0, [first.state])
    assert again.measured == first.measured


def test_all_methods_make_the_same_number_of_steps_from_the_same_beginnings() -> None:
    made = task()
    found = {method: run(method, made, SETTING, seed=1) for method in METHODS}
    assert {outcome.steps for outcome in found.values()} == {3 * 3 * 2}
    population = found["pbt"]
    assert len(population.best) == 3
    assert 1 <= len(population.rates) <= 3  # the best adapter may be one of an earlier generation
    assert population.best == sorted(population.best, reverse=True)
    # The adapter that is measured again is the best one that was seen; alone or beside others, float32 sums of some
    # hundred terms of size 1 differ by less than 1e-5.
    assert population.loss == pytest.approx(population.best[-1], abs=1e-5)
    assert space().contains(population.configuration)
    assert run("pbt", made, SETTING, seed=1) == population
    assert run("pbt", made, SETTING, seed=2).configuration != population.configuration
    with pytest.raises(ValueError, match="method is 'grid'"):
        run("grid", made, SETTING, seed=1)


def outcome(method: str, seed: int, loss: float) -> Outcome:
    return Outcome(method, seed, loss, loss + 0.1, 18, [loss], {})


def test_differences_are_of_the_same_seed() -> None:
    outcomes = [outcome("pbt", 0, 1.0), outcome("random", 1, 5.0), outcome("random", 0, 1.5), outcome("pbt", 1, 4.0)]
    assert differences([*outcomes, outcome("pbt", 2, 0.0)], "pbt", "random", "loss") == [-0.5, -1.0]
    assert mean_and_error([-0.5, -1.0]) == (-0.75, pytest.approx(0.25))
    assert math.isnan(mean_and_error([1.0])[1])


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        ([-1.0, -1.1, -0.9], "better"),
        ([1.0, 1.1, 0.9], "worse"),
        ([1.0, -1.0, 0.5], "no difference that the seeds can tell"),
        # 3.2 standard errors of three values: chance alone does so in one of twelve cases.
        ([-1.0, -0.3, -1.1], "no difference that the seeds can tell"),
        ([-1.0], "no difference that the seeds can tell"),
    ],
)
def test_a_verdict_needs_more_than_chance(difference: list[float], said: str) -> None:
    assert verdict(difference) == said


def test_the_tables() -> None:
    outcomes = [outcome(method, seed, 1.0 + seed + 0.1 * i) for i, method in enumerate(METHODS) for seed in range(3)]
    about = {
        "task": "t", "train": 2048, "validation": 256, "processor": "p", "torch": "2", "processor_seconds": 9,
        "setting": {"members": 3, "generations": 3, "steps": 2, "batch": 4},
    }  # fmt: skip
    text = markdown(outcomes, about)
    assert "18 optimizer steps for every method and seed" in text
    assert "| pbt | 3 | 2.000 ± 1.000 | 2.100 ± 1.000 | 3.100 |" in text
    assert "| random | validation | -0.100 ± 0.000 | 3 of 3 | better |" in text
    assert "| random, linear | test | -0.200 ± 0.000 | 3 of 3 | better |" in text
