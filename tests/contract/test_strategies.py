"""Every strategy joins the contract suite here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from contract.strategy_contract import MIXED, StrategyContract, Subject, encode_answer, in_every_state
from rankwise.settings import Settings
from rankwise.strategies.base import Strategy
from rankwise.strategies.registry import Resources, strategies
from support.encoders import FakeEncoder

QUICK = {"samples": "64", "candidates": "500", "fit_steps": "3", "projection_dim": "16"}
NUMERIC = {**QUICK, "surrogate": "numeric"}
METRICS = ("seconds", "peak_memory_bytes")
"""What the trials of searches with further goals report; their costs lie between 1 and 1 + twice the dimension."""
SUBJECTS: dict[str, tuple[str, Mapping[str, str], bool]] = {
    "sobol": ("sobol", {}, False),
    "random": ("random", {}, False),
    "optuna-tpe": ("optuna-tpe", {"startup_trials": "3"}, True),
    "optuna-tpe, each by itself": ("optuna-tpe", {"startup_trials": "3", "multivariate": "off"}, True),
    "language-bo, numeric": ("language-bo", {**QUICK, "surrogate": "numeric"}, True),
    "language-bo, language": ("language-bo", {**QUICK, "surrogate": "language"}, True),
    "language-bo, mixture": ("language-bo", QUICK, True),
    "language-bo, paper": ("language-bo", {**QUICK, "surrogate": "paper", "paper_steps": "3"}, True),
    "language-bo, ucb": ("language-bo", {**QUICK, "surrogate": "numeric", "acquisition": "ucb"}, True),
    "language-bo, cost-aware": ("language-bo", {**NUMERIC, "cost_weight": "0.3", "cost_memory": "2"}, True),
    "language-bo, constraints": (
        "language-bo",
        {**NUMERIC, "constraints": "seconds<=2.5, peak_memory_bytes>=1.2"},
        True,
    ),
    "language-bo, lagrangian": (
        "language-bo",
        {**NUMERIC, "constraints": "seconds<=2.5", "constraint_method": "lagrangian"},
        True,
    ),
    "language-bo, pareto": ("language-bo", {**NUMERIC, "pareto": "seconds", "constraints": "seconds<=3"}, True),
}
GOALS = ("cost-aware", "constraints", "lagrangian", "pareto")


def registered() -> dict[str, Strategy]:
    """All strategies, with a fake encoder."""
    return strategies(Resources(Settings(Path("unused")), FakeEncoder()))


def subject_of(name: str) -> Subject:
    algorithm, settings, learns = SUBJECTS[name]
    metrics = METRICS if name.endswith(GOALS) else ()
    return Subject(lambda: registered()[algorithm], settings, learns, metrics)


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return subject_of(request.param)


class TestStrategies(StrategyContract):
    """The suite for every subject."""


def test_every_registered_strategy_joins_the_suite() -> None:
    assert {algorithm for algorithm, _, _ in SUBJECTS.values()} == set(registered())
    assert all(name == strategy.name for name, strategy in registered().items())


ASK = """
import json, sys
from contract.strategy_contract import MIXED, encode_answer, in_every_state
from contract.test_strategies import SUBJECTS, subject_of
trials = in_every_state(MIXED)[::-1]
print(json.dumps({name: encode_answer(subject_of(name).ask(MIXED, trials, count=3)) for name in SUBJECTS}))
"""


def test_another_process_gives_the_same_answers() -> None:
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(tests)}
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True, timeout=240
    )
    theirs = json.loads(done.stdout)
    trials = in_every_state(MIXED)
    assert theirs == {name: encode_answer(subject_of(name).ask(MIXED, trials, count=3)) for name in SUBJECTS}
