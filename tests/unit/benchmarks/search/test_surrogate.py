"""Regressions that stretch a table over its space."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.search import surrogate, tasks
from benchmarks.search.problem import Measured
from benchmarks.search.surrogate import KINDS, Regression, quality, stretched

from .conftest import toy_space, toy_value


@pytest.fixture(autouse=True)
def _smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer trees than the benchmark has: a function of two parameters needs no more."""
    monkeypatch.setattr(surrogate, "TREES", 50)


def smooth(config: dict[str, str]) -> float:
    return math.exp(
        0.3 * (math.log10(float(config["learning_rate"])) + 3) ** 2 + 0.1 * math.log2(float(config["rank"]))
    )


def some(count: int = 24) -> Measured:
    points = list(toy_space().enumerate())
    chosen = np.random.default_rng(0).permutation(len(points))[:count]
    return [(points[i], smooth(points[i])) for i in chosen]


@pytest.mark.parametrize("kind", KINDS)
def test_every_configuration_gets_a_value_near_what_it_would_be(kind: str) -> None:
    space = toy_space()
    pool = stretched("t", space, some(), kind)
    assert len(pool) == space.size
    truth = np.log([smooth(config) for config in pool.configs])
    guess = np.log([value for i in range(len(pool)) if (value := pool.reveal(i)) is not None])
    # Half of the 48 points of a noiseless function of two parameters: an error of a fifth of its spread is far more
    # than either needs, and far less than a model that has learnt nothing has (1).
    assert np.std(guess - truth) < 0.2 * np.std(truth)
    assert stretched("t", space, some(), kind).fingerprint == pool.fingerprint


def test_a_region_that_fails_fails() -> None:
    space = toy_space()
    points = list(space.enumerate())
    fails = {i for i, config in enumerate(points) if config["learning_rate"] == "1e-1"}
    measured: Measured = [(config, None if i in fails else smooth(config)) for i, config in enumerate(points) if i % 3]
    pool = stretched("t", space, measured, "forest")
    assert {i for i in range(len(pool)) if pool.reveal(i) is None} == fails


@pytest.mark.parametrize("kind", KINDS)
def test_quality_is_of_runs_that_were_not_seen(kind: str) -> None:
    good = quality(toy_space(), some(48), kind)
    assert (good.measured, good.failed, good.failures_found) == (48, 0, None)
    assert good.explained > 0.8
    assert good.rank > 0.8
    # Values that have nothing to do with the configuration cannot be predicted. A correlation of 48 independent pairs
    # has a standard deviation of 1/√47 = 0.15: four of them.
    generator = np.random.default_rng(0)
    noise: Measured = [(config, float(generator.lognormal())) for config, _ in some(48)]
    bad = quality(toy_space(), noise, kind)
    assert bad.rank < 0.6
    assert bad.explained < 0.4


def test_failures_are_counted_apart() -> None:
    points = list(toy_space().enumerate())
    found = quality(toy_space(), [(config, toy_value(config)) for config in points], "forest")
    assert (found.measured, found.failed) == (45, 3)
    assert found.failures_found in (0.0, 1 / 3, 2 / 3, 1.0)


def test_what_cannot_be_regressed_is_refused() -> None:
    with pytest.raises(ValueError, match="one of gp, forest, got 'linear'"):
        Regression("linear", np.zeros((2, 1)), [1.0, 2.0])
    with pytest.raises(ValueError, match="greater than 0"):
        Regression("gp", np.zeros((2, 1)), [0.0, 2.0])


def test_a_stretched_task_has_its_tables_role(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "REPORTED_TASKS", ("a",))
    assert tasks.role("a~gp") == "reported-stretched"
    assert tasks.role("b~forest") == "unlisted-stretched"
