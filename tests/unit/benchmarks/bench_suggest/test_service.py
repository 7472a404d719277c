"""Experiments as the service is sent them, and what is made of its answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bench_suggest import service
from benchmarks.bench_suggest.task import observations
from benchmarks.search.problem import dimensions
from rankwise.space import ParameterText, parse_space
from rankwise.strategies.base import NotReady, Suggestions, SuggestRequest
from rankwise.suggest.service import ServiceOptions
from support.katib import FakeStrategy, Running, points

PARAMETERS = (
    ParameterText("rank", "discrete", list=("2", "4", "8", "16"), distribution="logUniform"),
    ParameterText("dropout", "discrete", list=("0", "0.1", "0.2")),
)


def observed(count: int, seed: int = 0) -> list[service.Observed]:
    space = parse_space(PARAMETERS)
    return observations(space, dimensions(space), count, seed)


def test_the_service_is_told_just_these_configurations_and_values() -> None:
    fake = FakeStrategy("language-bo")
    given = observed(5)
    with Running(fake) as running:
        (reply,) = service.ask(running.address, [service.request("a", PARAMETERS, given, {})], 1)
    assert (reply.problem, reply.configurations) == (None, 1)
    (request,) = fake.requests
    assert [(dict(trial.assignments), trial.value) for trial in request.trials] == [
        (one.config, one.value) for one in given
    ]
    assert (request.experiment, request.count, request.issued) == ("a", 1, 5)


def test_quickstart_experiments_differ_in_name_and_observations() -> None:
    requests = service.quickstart_requests(3, 10)
    assert len({one.experiment.name for one in requests}) == 3
    assert all(len(one.trials) == 10 and one.current_request_number == 1 for one in requests)
    spaces = {one.experiment.spec.parameter_specs.SerializeToString() for one in requests}
    assert len(spaces) == 1
    assert len({one.trials[0].SerializeToString() for one in requests}) == 3
    assert all(one.experiment.spec.algorithm.algorithm_name == "language-bo" for one in requests)


@pytest.mark.parametrize("clients", [1, 3])
def test_every_experiment_gets_its_answer_in_its_place(clients: int) -> None:
    fake = FakeStrategy("language-bo")
    requests = [service.request(f"exp-{i}", PARAMETERS, observed(2, i), {}) for i in range(6)]
    with Running(fake) as running:
        replies = service.ask(running.address, requests, clients)
    assert [reply.configurations for reply in replies] == [1] * 6
    assert {request.experiment for request in fake.requests} == {f"exp-{i}" for i in range(6)}


def test_a_fallback_and_a_refusal_are_problems() -> None:
    def behave(request: SuggestRequest) -> Suggestions:
        if request.experiment == "vectors":
            return Suggestions(points(request).assignments, "no vectors", 0, {}, "vectors")
        raise NotReady("come again")

    with Running(FakeStrategy("language-bo", behave), options=ServiceOptions(postpone=True)) as running:
        requests = [service.request(name, PARAMETERS, observed(1), {}) for name in ("vectors", "postponed")]
        fallback, postponed = service.ask(running.address, requests, 1)
    assert (fallback.problem, fallback.configurations) == ("fallback: vectors", 1)
    assert (postponed.problem, postponed.configurations) == ("UNAVAILABLE: come again", 0)


def test_a_postponed_request_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.time, "sleep", lambda seconds: None)
    calls = []

    def behave(request: SuggestRequest) -> Suggestions:
        calls.append(request)
        if len(calls) < 3:
            raise NotReady("come again")
        return points(request)

    message = service.request("a", PARAMETERS, observed(1), {})
    with Running(FakeStrategy("language-bo", behave), options=ServiceOptions(postpone=True)) as running:
        assert service.wait_for_vectors(running.address, message).problem is None
    assert len(calls) == 3


def test_a_service_that_answers_otherwise_is_not_waited_for() -> None:
    fake = FakeStrategy("language-bo", lambda request: Suggestions(points(request).assignments, "no", 0, {}, "model"))
    message = service.request("a", PARAMETERS, observed(1), {})
    with Running(fake) as running, pytest.raises(RuntimeError, match="the service does not answer: fallback: model"):
        service.wait_for_vectors(running.address, message)


def test_a_service_that_does_not_start_says_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_LOG_FORMAT", "json")
    log = tmp_path / "log"
    with pytest.raises(RuntimeError, match="did not become ready"), service.running(tmp_path, log, 1, seconds=0.0):
        pass
