"""Katib's contract of a suggestion service, over a real socket: mistakes in an Experiment."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import grpc
import pytest

from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.katib_api import api_pb2
from rankwise.space import ParameterText, parse_space
from support.katib import (
    PARAMETERS,
    FakeStrategy,
    Running,
    call,
    experiment,
    refused,
    request_with,
    trial,
    validate,
)

SPACE = parse_space(PARAMETERS)


@pytest.fixture
def running() -> Iterator[Running]:
    with Running() as one:
        yield one


# --- validation -------------------------------------------------------------------------------------------------------


def test_a_good_experiment_is_accepted(running: Running) -> None:
    validate(running.address, experiment(settings={"patience": "3"}))
    assert running.fake.validated == [{"patience": "3"}]


def test_every_mistake_is_told_in_one_message(running: Running) -> None:
    message = experiment(
        settings={"patiense": "3", "patience": "1000"},
        parameters=[
            ParameterText("lora_rank", "int", min="8", max="4"),
            ParameterText("variant", "categorical", list=("lora",)),
        ],
    )
    message.spec.parameter_specs.parameters[1].parameter_type = 0
    message.spec.objective.Clear()
    message.spec.nas_config.graph_config.num_layers = 3
    text = refused(running.address, message)
    for part in (
        "patiense",
        "patience",
        "1000",
        "100",
        "spec.parameters[0].feasibleSpace.max",
        "spec.parameters[1]",
        "unknown (0)",
    ):
        assert part in text
    assert "spec.objective.type: got ''; allowed: minimize or maximize" in text
    assert "spec.objective.objectiveMetricName" in text
    assert "spec.nasConfig" in text
    assert running.fake.validated == []


def test_an_unknown_setting_is_told_with_a_guess(running: Running) -> None:
    assert "did you mean patience?" in refused(running.address, experiment(settings={"patiense": "3"}))


@pytest.mark.parametrize(("name", "guess"), [("fakee", "fake"), ("Sobol", "sobol"), ("sobel", "sobol")])
def test_an_unknown_algorithm_is_told_with_a_guess(running: Running, name: str, guess: str) -> None:
    text = refused(running.address, experiment(algorithm=name))
    assert text == (f"spec.algorithm.algorithmName: got {name!r}; allowed: fake, sobol (did you mean {guess}?)")


def test_an_experiment_without_parameters_is_refused(running: Running) -> None:
    assert "spec.parameters" in refused(running.address, experiment(parameters=[]))
    assert "metadata.name" in refused(running.address, api_pb2.Experiment())


def test_the_strategys_own_findings_are_told() -> None:
    fake = FakeStrategy(problems=[Problem("a", "1", "2"), Problem("b", "3", "4")])
    with Running(fake) as running:
        assert refused(running.address, experiment()) == "a: got '1'; allowed: 2\nb: got '3'; allowed: 4"


class FakeBroken(FakeStrategy):
    """A strategy whose check itself fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def validate(self, *_: object) -> list[Problem]:
        raise self._error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (SurroundingsError("the model is not installed: pip install it"), "pip install it"),
        (InvalidInput([Problem("encoder", "x", "a folder")]), "encoder: got 'x'; allowed: a folder"),
        (KeyError("a programming mistake"), "could not be checked: KeyError"),
    ],
)
def test_validation_never_fails_with_another_code(error: Exception, sentence: str) -> None:
    with Running(FakeBroken(error)) as running:
        assert sentence in refused(running.address, experiment())


def test_a_validation_without_end_accepts_in_time() -> None:
    release = threading.Event()

    class FakeEndless(FakeStrategy):
        def validate(self, *_: object) -> list[Problem]:
            release.wait(60)
            return [Problem("late", "", "")]

    with Running(FakeEndless()) as running:
        validate(running.address, experiment(), timeout=0.5)
        release.set()


def test_a_message_with_very_many_mistakes_still_arrives_as_invalid_argument(running: Running) -> None:
    # gRPC allows 8 KiB of headers, in which the message travels percent-encoded: a longer one would reach the
    # controller as RESOURCE_EXHAUSTED, which it takes for "valid".
    bad = [ParameterText(f"größe-{i}", "double", min="ü" * 1000, max="1") for i in range(500)]
    text = refused(running.address, experiment(parameters=bad))
    assert "spec.parameters[0]" in text
    assert re.search(r"… and \d+ more mistakes$", text)


@pytest.mark.parametrize("change", ["algorithm", "setting", "space", "objective"])
def test_a_request_with_a_bad_experiment_is_refused_too(running: Running, change: str) -> None:
    message = experiment()
    if change == "algorithm":
        message.spec.algorithm.algorithm_name = "none"
    elif change == "setting":
        message.spec.algorithm.algorithm_settings.add(name="patience", value="0")
    elif change == "space":
        message.spec.parameter_specs.parameters[0].feasible_space.max = "1"
    else:
        message.spec.objective.type = api_pb2.UNKNOWN
    with pytest.raises(grpc.RpcError, match="allowed: ") as caught:
        call(running.address, request_with([], message=message))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert running.service.counts["invalid"] == 1


def test_a_condition_that_nobody_knows_is_refused(running: Running) -> None:
    point = SPACE.sobol(1, seed=1).assignments(0)
    with pytest.raises(grpc.RpcError, match=r"trials\[t\]\.status\.condition"):
        call(running.address, request_with([trial("t", point, 77)]))
