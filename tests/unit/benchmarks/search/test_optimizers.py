"""Every optimizer obeys ask and tell, and learns of nothing but its own trials."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search import outside, peer_worker
from benchmarks.search.optimizers import MAKERS, POOLED, RULES, Spec, make
from benchmarks.search.ours import Ours
from benchmarks.search.outside import NotInstalled, Worker
from benchmarks.search.peers import BotorchGP
from benchmarks.search.problem import Optimizer, Pool, Step, Told, View, play, view_of
from rankwise.errors import InvalidInput
from support.encoders import FakeEncoder

from .conftest import toy_pool, toy_value

BUDGET = 7
QUICK = {"fit_steps": "5", "projection_dim": "8"}
INSIDE = {
    "random": 7,
    "sobol": 7,
    "optuna-tpe": 13,
    "optuna-tpe:failure=worst,multivariate=true": 13,
    "optuna-gp": 12,
    "optuna-gp:failure=worst": 12,
    "botorch-gp": 7,
    "botorch-gp:outcome=log": 7,
    "botorch-gp@pool": 7,
}
"""Trials that each is tested with: Optuna's samplers model from the eleventh on, BoTorch's loop and ours from the
sixth."""
Made = Callable[[View], Optimizer]


def inside(text: str) -> Made:
    return lambda view: make(Spec.parse(text), view)


def of_ours(settings: dict[str, str]) -> Made:
    return lambda view: Ours(view, {**QUICK, **settings}, FakeEncoder())


def searched(made: Made, pool: Pool, budget: int = BUDGET, seed: int = 1, mode: str = "nearest") -> list[Step]:
    return play(pool, made(view_of(pool, seed, budget, mode)), budget, seed)


@functools.cache
def undisturbed(made: Made, budget: int, mode: str) -> tuple[Pool, list[Step]]:
    """A search on the toy table: made once for the tests that compare others with it."""
    pool = toy_pool()
    return pool, searched(made, pool, budget, mode=mode)


def indices(steps: list[Step]) -> list[int]:
    return [step.index for step in steps]


CASES = [
    *(pytest.param(inside(text), Spec.parse(text).mode, budget, id=text) for text, budget in INSIDE.items()),
    pytest.param(of_ours({}), "nearest", BUDGET, id="ours"),
    pytest.param(of_ours({"surrogate": "numeric"}), "nearest", BUDGET, id="ours-numeric"),
    pytest.param(of_ours({}), "pool", BUDGET, id="ours-pool"),
]


@pytest.mark.parametrize(("made", "mode", "budget"), CASES)
def test_a_search_depends_on_the_values_of_its_own_trials_alone(made: Made, mode: str, budget: int) -> None:
    pool, steps = undisturbed(made, budget, mode)
    assert len(set(indices(steps))) == budget
    assert dict(pool.revealed) == dict.fromkeys(indices(steps), 1)
    # The same search on a table whose other values are all better: nobody could resist, who saw them.
    tried = {tuple(pool.configs[i].items()) for i in indices(steps)}
    other = toy_pool(lambda config: toy_value(config) if tuple(config.items()) in tried else 0.001)
    assert indices(searched(made, other, budget, mode=mode)) == indices(steps)


@pytest.mark.parametrize(("made", "mode", "budget"), [case for case in CASES if case.id not in ("random", "sobol")])
def test_what_learns_changes_its_mind_with_the_values(made: Made, mode: str, budget: int) -> None:
    def upside_down(config: dict[str, str]) -> float | None:
        value = toy_value(config)
        return None if value is None else 10 - value

    _, steps = undisturbed(made, budget, mode)
    assert indices(steps) != indices(searched(made, toy_pool(upside_down), budget, mode=mode))


@pytest.mark.parametrize(("made", "mode", "budget"), CASES)
def test_failures_alone_stop_nobody(made: Made, mode: str, budget: int) -> None:
    pool = toy_pool(lambda config: toy_value(config) if float(config["dropout"]) == 0.2 else None)
    optimizer = made(view_of(pool, 0, 9, mode))
    failing = [i for i, config in enumerate(pool.configs) if config["dropout"] != "0.2"][:8]
    for i in failing:
        assert optimizer.ask().shape == (3,)
        optimizer.tell(Told(pool.configs[i], pool.positions[i], None))
    assert optimizer.ask().shape == (3,)


@pytest.mark.parametrize("name", ["random", "sobol", "optuna-tpe", "optuna-gp", "botorch-gp"])
def test_the_seed_decides_where_a_search_starts(name: str) -> None:
    starts = {tuple(indices(searched(inside(name), toy_pool(), 3, seed))) for seed in range(4)}
    # Four times the same three of 48: for independent draws below 48^-9.
    assert len(starts) > 1
    assert indices(searched(inside(name), toy_pool(), 3, 0)) == indices(searched(inside(name), toy_pool(), 3, 0))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_one_trial_at_the_nearest_configuration(name: str) -> None:
    from benchmarks.lora_runs.table import search_space

    space = search_space()
    spec = Spec.parse(name)
    assert spec.trials == 1
    points = space.enumerate()
    rows = np.random.default_rng(0).choice(len(points), 400, replace=False)
    pool = Pool("t", space, [(points.assignments(int(i)), float(i)) for i in rows])
    (step,) = play(pool, make(spec, view_of(pool, 0, 30)), spec.trials or 30, 0)
    wanted = np.array([dim.position(float(RULES[name][dim.name])) for dim in pool.dimensions])
    assert step.distance == pytest.approx(np.linalg.norm(pool.positions - wanted, axis=1).min(), abs=1e-12)


def test_peft_defaults_are_those_of_the_libraries() -> None:
    from peft import LoraConfig
    from transformers import TrainingArguments

    lora = LoraConfig()
    defaults = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    rule = {name: float(value) for name, value in RULES["peft-default"].items()}
    assert rule == {
        "rank": lora.r,
        "alpha_ratio": lora.lora_alpha / lora.r,
        "dropout": lora.lora_dropout,
        "batch_size": defaults["per_device_train_batch_size"],
        "learning_rate": defaults["learning_rate"],
    }


def test_the_gaussian_process_starts_with_sobol_points_that_count(pool: Pool) -> None:
    sobol = make(Spec.parse("sobol"), view_of(pool, 3, BUDGET))
    optimizer = BotorchGP(view_of(pool, 3, BUDGET))
    for i in range(5):
        point = optimizer.ask()
        np.testing.assert_array_equal(point, sobol.ask())
        optimizer.tell(Told(pool.configs[i], pool.positions[i], pool.reveal(i)))
    proposal = optimizer.ask()
    assert np.isclose(pool.positions, proposal).all(axis=1).any()  # a configuration of the space
    assert not np.isclose(pool.positions[:5], proposal).all(axis=1).any()


def test_our_settings_are_checked_and_fallbacks_counted(pool: Pool) -> None:
    with pytest.raises(InvalidInput, match="surrogate"):
        Ours(view_of(pool, 0, 9), {"surrogate": "oracle"}, FakeEncoder())
    settings = {**QUICK, "initial_points": "5", "random_state": "1"}
    optimizer = Ours(view_of(pool, 0, 9), settings, FakeEncoder(error=RuntimeError("broken")))
    play(pool, optimizer, 7, 0)
    assert optimizer.notes["fallbacks"] == 2  # after five initial points, which need no model
    assert optimizer.notes["fallback_model"] == 2


def test_a_spelling_is_read_and_written() -> None:
    spec = Spec.parse("language-bo:surrogate=numeric,embedder=package:x")
    assert spec == Spec("language-bo", "nearest", (("embedder", "package:x"), ("surrogate", "numeric")))
    assert spec.text == "language-bo:embedder=package:x,surrogate=numeric"
    assert Spec.parse(spec.text) == spec
    assert Spec.parse("botorch-gp@pool").text == "botorch-gp@pool"
    assert Spec.parse("sobol@nearest").text == "sobol"
    assert {Spec.parse(name).text for name in MAKERS} == set(MAKERS)
    assert all(Spec.parse(f"{name}@pool").mode == "pool" for name in POOLED)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bohb", "'bohb' is none of language-bo, random"),
        ("random@both", "mode 'both' is none of nearest, pool"),
        ("sobol@pool", "sobol cannot choose from a list"),
        ("smac:fast", "a setting is NAME=VALUE, got 'fast'"),
        ("smac:=1", "a setting is NAME=VALUE, got '=1'"),
    ],
)
def test_a_wrong_spelling_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Spec.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("random:seed=3", "it has no settings, got seed"),
        ("optuna-tpe:depth=3", "unexpected keyword argument 'depth'"),
        ("optuna-tpe:failure=ignored", "failure must be state or worst, got 'ignored'"),
        ("botorch-gp:outcome=rank", "outcome must be raw or log, got 'rank'"),
    ],
)
def test_a_wrong_setting_of_a_peer_is_refused(pool: Pool, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(Spec.parse(text), view_of(pool, 0, 9))


def test_without_an_environment_a_peer_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="its virtual environment is missing"):
        Worker(tmp_path / "python")


def test_an_environment_without_a_peer_says_what_is_missing() -> None:
    with Worker(Path(sys.executable)) as worker, pytest.raises(NotInstalled, match="No module named 'ConfigSpace'"):
        worker.probe("smac")


def test_a_process_that_has_ended_is_reported() -> None:
    with Worker(Path("/bin/false")) as worker:
        with pytest.raises(RuntimeError, match="the peers' process ended with code 1"):
            worker.call(do="ask")
        assert not worker.alive


def test_failures_wait_for_a_value_and_are_told_with_the_worst_so_far() -> None:
    imputed = peer_worker.Imputed()
    assert imputed.due({"x": 1}, None) == []
    assert imputed.due({"x": 2}, 5.0) == [({"x": 2}, 5.0, False), ({"x": 1}, 5.0, True)]
    assert imputed.due({"x": 3}, 7.0) == [({"x": 3}, 7.0, False)]
    assert imputed.due({"x": 4}, 6.0) == [({"x": 4}, 6.0, False)]
    assert imputed.due({"x": 5}, None) == [({"x": 5}, 7.0, True)]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["smac", "smac:retrain_after=1", "hebo", "optuna-auto"])
def test_a_peer_of_another_environment_searches(text: str) -> None:
    spec = Spec.parse(text)
    try:
        with Worker() as worker:
            assert worker.probe(spec.name)
    except NotInstalled as error:
        pytest.skip(f"{spec.name} is not installed here: {error}")
    pool = toy_pool()
    steps = searched(inside(text), pool)
    assert len(set(indices(steps))) == BUDGET
    assert dict(pool.revealed) == dict.fromkeys(indices(steps), 1)
    assert indices(searched(inside(text), toy_pool())) == indices(steps)
    failing = toy_pool(lambda config: toy_value(config) if float(config["dropout"]) == 0.2 else None)
    assert len(searched(inside(text), failing)) == BUDGET


def test_the_names_of_outside_peers_are_the_workers() -> None:
    assert set(outside.NAMES) == set(peer_worker.PEERS) == {name for name, maker in MAKERS.items() if maker is None}
