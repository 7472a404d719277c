"""One small search of every method, and the table that is made of the results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.seeds.__main__ import METHODS, SETTINGS, mean_and_error, no_encoder, search, summary
from benchmarks.seeds.problem import World, load_table
from rankwise.strategies.language_bo import LanguageBO
from rankwise.strategies.seeds import OverSeeds

RESULTS = Path(__file__).parents[3] / "benchmarks" / "seeds" / "results"


@pytest.mark.parametrize("method", METHODS)
def test_a_search_spends_its_budget_of_trainings(method: str) -> None:
    world = World(load_table(), 0, 1.0, 3)
    settings = {**SETTINGS, **METHODS[method], "fit_steps": "3"}
    row = search(world, OverSeeds(LanguageBO(no_encoder)), settings, 9, 0)
    assert row["fallbacks"] == 0
    assert row["regret"] >= 0
    assert row["configurations"] == {"one seed": 9, "three seeds": 3}.get(method, row["configurations"])
    assert 3 <= row["configurations"] <= 9
    assert 1 <= row["trainings"] <= 3


def test_mean_and_standard_error() -> None:
    assert mean_and_error([1.0, 2.0, 3.0]) == (2.0, pytest.approx(3**-0.5))


def test_the_shipped_table_is_that_of_the_shipped_results() -> None:
    results = json.loads((RESULTS / "seeds.json").read_text(encoding="utf-8"))
    assert (RESULTS / "summary.md").read_text(encoding="utf-8") == summary(results)
    assert results["searches"] >= 10
    assert all(
        row["fallbacks"] == 0 for methods in results["regret"].values() for rows in methods.values() for row in rows
    )
