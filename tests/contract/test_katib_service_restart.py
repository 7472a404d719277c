"""A search whose service is killed and comes back with nothing in its cache is the search of an undisturbed service."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from rankwise.deadline import Deadline
from rankwise.language.text_encoder import EmbeddingIncomplete
from rankwise.settings import Settings
from rankwise.space import ParameterText, parse_space
from rankwise.suggest.server import SuggestionServer, serve
from rankwise.suggest.service import ServiceOptions
from rankwise.suggest.wiring import EncoderChecked, wire
from support.encoders import FakeEncoder
from support.katib import FakeController, Status, experiment, health, pairs, validate

PARAMETERS = (
    ParameterText("rank", "discrete", list=("2", "4", "8", "16", "32", "64")),
    ParameterText("alpha_ratio", "discrete", list=("0.5", "1", "2", "4", "8")),
    ParameterText("learning_rate", "discrete", list=("2e-5", "5e-5", "1e-4", "3e-4", "1e-3", "3e-3", "1e-2", "3e-2")),
    ParameterText("batch_size", "discrete", list=("4", "8", "16")),
    ParameterText("dropout", "discrete", list=("0", "0.1")),
)
"""1,440 points: the space of the quickstart."""
CONTINUOUS = (
    ParameterText("rank", "int", min="2", max="64"),
    ParameterText("learning_rate", "double", min="2e-5", max="3e-2", distribution="logUniform"),
)
SETTINGS = {"initial_points": "3", "fit_steps": "5", "samples": "256"}
TRIALS = 7
"""Three of the design, then four of the models, among them one after a failed trial."""


class OneCallAtATime(FakeEncoder):
    """An encoder on a slow machine: in one call it makes at most so many vectors before the deadline.

    Args:
        most: different texts.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def encode(self, texts: Sequence[str], deadline: Deadline | None = None) -> NDArray[np.float32]:
        done = list(dict.fromkeys(texts))[: self.most]
        vectors = super().encode(done)
        if len(done) < len(set(texts)):
            raise EmbeddingIncomplete(len(done), len(set(texts)), done, vectors)
        place = {text: i for i, text in enumerate(done)}
        return vectors[[place[text] for text in texts]]


def start(cache: Path, most: int = 100, *, postpone: bool = True, ahead: bool = True) -> SuggestionServer:
    strategies = wire(Settings(cache=cache), OneCallAtATime(most)).strategies
    if not ahead:  # only what the requests themselves make
        checked = strategies["language-bo"]
        assert isinstance(checked, EncoderChecked)
        checked.ahead.close()
    return serve("127.0.0.1:0", strategies, ServiceOptions(postpone=postpone))


def value(point: dict[str, str]) -> str:
    rate, rank = float(point["learning_rate"]), int(point["rank"])
    return repr(abs(math.log10(rate) + 3.2) + abs(rank - 16) / 40 + 0.01 * int(point.get("batch_size", "4")))


def search(controller: FakeController, between: Callable[[], None] = lambda: None, trials: int = TRIALS) -> int:
    """A whole search, one trial at a time, asking again as Katib does; how often it was sent away."""
    again = 0
    while len(controller.suggested) < trials:
        between()
        while True:
            try:
                controller.ask(1)
                break
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error  # noqa: PT017 - the others go on
                again += 1
                assert again < 1000
                between()
        for name in controller.create():
            failed = len(controller.trials) % 5 == 4
            assigned = {one.name: one.value for one in controller.trials[name].spec.parameter_assignments.assignments}
            controller.finish(name, Status.FAILED) if failed else controller.finish(name, loss=value(assigned))
    return again


def suggestions(controller: FakeController) -> list[tuple[str, dict[str, str], dict[str, str]]]:
    return [(one.trial_name, pairs(one), dict(one.labels)) for one in controller.suggested]


@pytest.mark.parametrize("parameters", [PARAMETERS, CONTINUOUS], ids=["1440 points", "continuous"])
def test_a_new_service_with_an_empty_cache_before_every_suggestion_changes_nothing(
    tmp_path: Path, parameters: Sequence[ParameterText]
) -> None:
    message = experiment(algorithm="language-bo", settings=SETTINGS, parameters=parameters)
    with start(tmp_path / "warm", most=10_000) as server:
        undisturbed = FakeController(server.address, message)
        assert search(undisturbed) == 0
    names = [name for name, _, _ in suggestions(undisturbed)]
    assert len(set(names)) == TRIALS
    space = parse_space(parameters)
    assert len({space.key(point) for _, point, _ in suggestions(undisturbed)}) == TRIALS
    assert all(set(labels) == {"rankwise.dev/suggestion"} for _, _, labels in suggestions(undisturbed))

    servers: list[SuggestionServer] = []
    killed = FakeController("", message)
    asked = [0]

    def anew() -> None:
        """Another service, but only before a new suggestion: one that is being waited for may go on."""
        if asked[0] == len(killed.suggested) and servers:
            return
        asked[0] = len(killed.suggested)
        if servers:
            servers.pop().stop(grace=0)
        servers.append(start(tmp_path / f"cold-{asked[0]}", most=100))
        killed.address = servers[0].address

    # How often each of them is sent away depends on how fast the service embeds between the calls.
    assert search(killed, anew) > 0, "no request had to wait for its vectors"
    servers.pop().stop(grace=0)
    assert suggestions(killed) == suggestions(undisturbed)


def test_it_is_the_waiting_that_does_it(tmp_path: Path) -> None:
    """Without it the numbers answer, and go elsewhere: the test above can fail."""
    message = experiment(algorithm="language-bo", settings=SETTINGS, parameters=PARAMETERS)
    found = []
    for name, most in (("warm", 10_000), ("cold", 100)):
        with start(tmp_path / name, most, postpone=False, ahead=False) as server:
            controller = FakeController(server.address, message)
            assert search(controller) == 0
            found.append([point for _, point, _ in suggestions(controller)])
            reasons = [labels.get("rankwise.dev/fallback") for _, _, labels in suggestions(controller)]
            assert server._service.counts.get("vectors", 0) == reasons.count("vectors")
            assert ("vectors" in reasons) is (name == "cold")
    assert found[0][:3] == found[1][:3]
    assert found[0] != found[1]


def test_a_waiting_request_is_sent_away_until_its_vectors_are_there(tmp_path: Path) -> None:
    message = experiment(algorithm="language-bo", settings=SETTINGS, parameters=PARAMETERS)
    with start(tmp_path, most=500, ahead=False) as server:
        controller = FakeController(server.address, message)
        search(controller, trials=3)
        for done in ("500 of 144", "1000 of 144"):
            with pytest.raises(grpc.RpcError, match=f"{done}[0-9] configurations are embedded; ask again") as caught:
                controller.ask(1)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        controller.ask(1)
        assert server._service.counts["postponed-vectors"] == 2
        assert not any(server._service.counts.get(reason) for reason in ("deadline", "error", "vectors", "strategy"))


def test_a_larger_space_is_answered_by_the_numbers_until_then_and_says_so(tmp_path: Path) -> None:
    settings = SETTINGS | {"wait_for_vectors": "1439"}
    message = experiment(algorithm="language-bo", settings=settings, parameters=PARAMETERS)
    with start(tmp_path, most=500, ahead=False) as server:
        controller = FakeController(server.address, message)
        assert search(controller, trials=7) == 0
        reasons = [labels.get("rankwise.dev/fallback") for _, _, labels in suggestions(controller)]
        assert reasons == [None, None, None, "vectors", "vectors", None, None]
        assert server._service.counts["vectors"] == 2


PROGRAM = """
import sys, time
import rankwise.suggest.wiring as wiring
from rankwise.suggest import command
from support.encoders import FakeEncoder

class Slow(FakeEncoder):
    def encode(self, texts, deadline=None):
        time.sleep(0.001 * len(texts))
        return super().encode(texts, deadline)

wire = wiring.wire
wiring.wire = lambda settings: wire(settings, Slow())
sys.exit(command.main(sys.argv[1:]))
"""


class Program:
    """The service as a process of its own, with an encoder that takes a second and a half for the space."""

    def __init__(self, cache: Path) -> None:
        arguments = ["--address", "127.0.0.1:0", "--embedder", "", "--log-format", "json", "--grace", "1"]
        log = cache.with_suffix(".log")
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *arguments],
                stderr=stream,
                env=os.environ
                | {
                    "PYTHONPATH": str(Path(__file__).parents[1]),
                    "RANKWISE_CACHE": str(cache),
                    "RANKWISE_NAMESPACE": "local",
                    "RANKWISE_THREADS": "1",
                },
            )
        self.address = ""
        while not self.address:
            assert self.process.poll() is None, log.read_text()
            time.sleep(0.05)
            lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
            self.address = next((line["address"] for line in lines if "address" in line), "")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


@pytest.mark.slow
def test_a_service_that_is_killed_at_random_moments_searches_as_an_undisturbed_one(tmp_path: Path) -> None:
    message = experiment(algorithm="language-bo", settings=SETTINGS, parameters=PARAMETERS)
    with start(tmp_path / "undisturbed", most=10_000) as server:
        undisturbed = FakeController(server.address, message)
        search(undisturbed, trials=7)

    generator = random.Random(3)
    program = Program(tmp_path / "0")
    controller = FakeController(program.address, message)
    validate(program.address, message)
    kills = 0
    while len(controller.suggested) < 7:
        if generator.random() < 0.6:
            timer = threading.Timer(generator.uniform(0.0, 1.5), program.kill)
            timer.start()
        try:
            controller.ask(1)
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), error  # noqa: PT017
            time.sleep(0.1)
        else:
            for name in controller.create():
                assigned = {
                    one.name: one.value for one in controller.trials[name].spec.parameter_assignments.assignments
                }
                failed = len(controller.trials) % 5 == 4
                controller.finish(name, Status.FAILED) if failed else controller.finish(name, loss=value(assigned))
        if program.process.poll() is not None:
            kills += 1
            program = Program(tmp_path / str(kills))
            controller.address = program.address
            while health(program.address, "") != "SERVING":
                time.sleep(0.05)
    program.kill()
    assert kills >= 2
    assert suggestions(controller) == suggestions(undisturbed)
