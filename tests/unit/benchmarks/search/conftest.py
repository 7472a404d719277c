"""A small table of made-up runs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from benchmarks.search.problem import Pool
from rankwise.space import ParameterText, SearchSpace, parse_space

Value = Callable[[dict[str, str]], float | None]


def toy_space() -> SearchSpace:
    return parse_space(
        [
            ParameterText("rank", "discrete", list=("2", "4", "8", "16"), distribution="logUniform"),
            ParameterText("dropout", "discrete", list=("0", "0.1", "0.2")),
            ParameterText(
                "learning_rate", "discrete", list=("1e-4", "1e-3", "1e-2", "1e-1"), distribution="logUniform"
            ),
        ]
    )


def toy_value(config: dict[str, str]) -> float | None:
    """A bowl with its bottom at learning rate 1e-3 and rank 16; 1e-1 diverges at rank 16."""
    rate, rank = float(config["learning_rate"]), float(config["rank"])
    if rate == 0.1 and rank == 16:
        return None
    return 1 + (math.log10(rate) + 3) ** 2 + 0.1 * (4 - math.log2(rank)) + float(config["dropout"])


def toy_pool(value: Value = toy_value, every: int = 1, name: str = "toy") -> Pool:
    """Every so many-th configuration of the space, with its value."""
    space = toy_space()
    points = list(space.enumerate())[::every]
    return Pool(name, space, [(point, value(point)) for point in points])


@pytest.fixture
def pool() -> Pool:
    return toy_pool()
