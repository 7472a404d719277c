"""Katib's contract of a suggestion service, over a real socket: late and failing strategies, health, the end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.space import ParameterText, parse_space
from rankwise.strategies.base import Suggestions, SuggestRequest
from rankwise.strategies.seeds import OverSeeds
from rankwise.suggest.server import HEALTH_NAMES, SuggestionServer, serve
from rankwise.suggest.service import ServiceOptions, SuggestionService
from support.katib import (
    PARAMETERS,
    SMALL,
    FakeController,
    FakeStrategy,
    Running,
    call,
    experiment,
    health,
    pairs,
    points,
    refused,
    request_with,
)

SPACE = parse_space(PARAMETERS)


@pytest.fixture
def running() -> Iterator[Running]:
    with Running() as one:
        yield one


# --- there always is an answer ----------------------------------------------------------------------------------------


def broken_contract(request: SuggestRequest) -> Suggestions:
    good = points(request)
    return Suggestions(good.assignments[:-1], None, 0, {})


def outside(request: SuggestRequest) -> Suggestions:
    good = points(request)
    return Suggestions(tuple(point | {"lora_rank": "5"} for point in good.assignments), None, 0, {})


def incomplete(request: SuggestRequest) -> Suggestions:
    good = points(request)
    return Suggestions(tuple({"lora_rank": point["lora_rank"]} for point in good.assignments), None, 0, {})


def fails(_: SuggestRequest) -> Suggestions:
    raise RuntimeError("the fit found a NaN")


def store_down(_: SuggestRequest) -> Suggestions:
    raise SurroundingsError("the store is down")


@pytest.mark.parametrize("behaviour", [fails, store_down, broken_contract, outside, incomplete])
def test_a_strategy_that_fails_is_replaced_and_the_log_has_the_trace(
    behaviour: object, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeStrategy(behaviour=behaviour)  # type: ignore[arg-type]
    with Running(fake) as running, caplog.at_level(logging.INFO, "rankwise"):
        reply = FakeController(running.address, experiment(settings={"patience": "7"})).ask(3)
        assert len(running.fallback.requests) == 1
        assert running.fallback.requests[0].settings == {}
        assert [pairs(one) for one in reply.parameter_assignments] == list(
            points(running.fallback.requests[0]).assignments
        )
        assert {one.labels["rankwise.dev/fallback"] for one in reply.parameter_assignments} == {"error"}
        assert running.service.counts["error"] == 1
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.getMessage() == "fake failed; sobol answers in its place"
    assert record.experiment == "quickstart"  # type: ignore[attr-defined]


def test_the_strategy_that_answers_in_place_of_one_that_failed_knows_of_seeds() -> None:
    """Else it would begin configurations with any seed, and the search would be one over seeds for a while."""
    parameters = (*SMALL, ParameterText("chance", "int", "0", "9"))
    known = {one.name: OverSeeds(one) for one in (FakeStrategy(behaviour=fails), FakeStrategy("sobol"))}
    settings = {"patience": "7", "seed_parameter": "chance", "seeds": "2"}
    with serve("127.0.0.1:0", known) as server:
        message = experiment(settings=settings, parameters=parameters)
        reply = FakeController(server.address, message).ask(3)
    assert {one.labels["rankwise.dev/fallback"] for one in reply.parameter_assignments} == {"error"}
    assert [pairs(one)["chance"] for one in reply.parameter_assignments] == ["0", "0", "0"]


def test_when_the_fallback_fails_too_its_bare_points_answer() -> None:
    fake = FakeStrategy("sobol", behaviour=fails)
    with Running(fake) as running:
        running.service._strategies["sobol"] = fake
        controller = FakeController(running.address, experiment(algorithm="sobol"))
        given = [pairs(one) for _ in range(2) for one in controller.ask(4).parameter_assignments]
        assert all(SPACE.contains(point) for point in given)
        assert len({SPACE.key(point) for point in given}) == 8


def test_a_strategys_own_fallback_is_told() -> None:
    def modest(request: SuggestRequest) -> Suggestions:
        return Suggestions(points(request).assignments, "no time to fit", 0, {})

    with Running(FakeStrategy(behaviour=modest)) as running:
        (one,) = FakeController(running.address, experiment()).ask(1).parameter_assignments
        assert one.labels["rankwise.dev/fallback"] == "strategy"
        assert running.service.counts["strategy"] == 1
        assert running.fallback.requests == []


@pytest.mark.parametrize("by_client", [True, False])
def test_a_strategy_that_is_late_is_replaced_in_time(by_client: bool) -> None:
    release = threading.Event()

    def endless(request: SuggestRequest) -> Suggestions:
        release.wait(60)
        return points(request)

    options = ServiceOptions(deadline=45.0 if by_client else 0.5)
    with Running(FakeStrategy(behaviour=endless), options=options) as running:
        request = request_with([], count=2)
        reply = call(running.address, request, timeout=1.0 if by_client else None)
        assert {one.labels["rankwise.dev/fallback"] for one in reply.parameter_assignments} == {"deadline"}
        assert len(reply.parameter_assignments) == 2
        assert running.service.counts["deadline"] == 1
        assert running.service.busy
        release.set()


def test_the_strategy_is_told_less_time_than_the_client_has(running: Running) -> None:
    left: list[float] = []

    def look(request: SuggestRequest) -> Suggestions:
        left.append(request.deadline.remaining())
        return points(request)

    running.fake._behaviour = look
    for timeout in (10.0, None):
        call(running.address, request_with([]), timeout=timeout)
    # 85 % of the client's 10 s and of the service's own 45 s; some of it has passed.
    assert 0 < left[0] < 8.6
    assert 8.6 < left[1] < 38.3


# --- many at once, health, life ---------------------------------------------------------------------------------------


def test_ten_experiments_at_once_all_get_their_own_answer_and_fits_do_not_overlap() -> None:
    now, most, lock = 0, 0, threading.Lock()

    def counted(request: SuggestRequest) -> Suggestions:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        answer = points(request)
        with lock:
            now -= 1
        return answer

    fake = FakeStrategy(behaviour=counted)
    with Running(fake) as running, ThreadPoolExecutor(10) as pool:
        together = threading.Barrier(10)

        def one(number: int) -> list[dict[str, str]]:
            controller = FakeController(running.address, experiment(f"e-{number}"))
            together.wait(30)
            return [pairs(point) for _ in range(3) for point in controller.ask(number + 1).parameter_assignments]

        answers = list(pool.map(one, range(10)))
    assert [len(answer) for answer in answers] == [3 * (number + 1) for number in range(10)]
    assert {request.experiment for request in fake.requests} == {f"e-{number}" for number in range(10)}
    assert len(fake.requests) == 30
    assert most == 1


def test_health_is_told_under_katibs_name_and_the_empty_one(running: Running) -> None:
    assert HEALTH_NAMES == ("", "manager.v1beta1.Suggestion")
    for name in HEALTH_NAMES:
        assert health(running.address, name) == "SERVING"
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        health(running.address, "api.v1.beta1.Suggestion")


def test_health_is_not_serving_until_the_warm_up_ends() -> None:
    release = threading.Event()
    service = SuggestionService({"sobol": FakeStrategy("sobol")})
    with SuggestionServer(service, "127.0.0.1:0", warm_up=lambda: release.wait(60) and None) as server:
        assert health(server.address, "manager.v1beta1.Suggestion") == "NOT_SERVING"
        release.set()
        assert server.wait_ready(30)
        assert health(server.address, "manager.v1beta1.Suggestion") == "SERVING"


def test_a_failed_warm_up_is_logged_and_leaves_the_word_to_validation(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise SurroundingsError("the model is not there")

    service = SuggestionService({"sobol": FakeStrategy("sobol")})
    with SuggestionServer(service, "127.0.0.1:0", warm_up=fail) as server:
        assert server.wait_ready(30)
        assert health(server.address, "") == "SERVING"
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "the warm-up failed" in record.getMessage()
    assert "the model is not there" in (record.exc_text or str(record.exc_info))


def test_a_stop_waits_for_running_calls_and_says_not_serving_meanwhile() -> None:
    entered, release = threading.Event(), threading.Event()

    def slow(request: SuggestRequest) -> Suggestions:
        entered.set()
        release.wait(60)
        return points(request)

    with Running(FakeStrategy(behaviour=slow)) as running, ThreadPoolExecutor(2) as pool:
        answer = pool.submit(call, running.address, request_with([], count=2))
        assert entered.wait(30)
        stopped = pool.submit(running.server.stop, 30)
        while health(running.address, "manager.v1beta1.Suggestion") != "NOT_SERVING":
            pass
        with pytest.raises(grpc.RpcError, match="shutting down") as caught:
            call(running.address, request_with([]), timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        # A validation that got UNAVAILABLE would end the Experiment; a request for suggestions is repeated.
        assert "nothing" in refused(running.address, experiment(settings={"nothing": ""}))
        release.set()
        assert len(answer.result(30).parameter_assignments) == 2
        assert stopped.result(30) is True


def test_a_stop_does_not_wait_longer_than_its_grace() -> None:
    entered, release = threading.Event(), threading.Event()

    def slow(request: SuggestRequest) -> Suggestions:
        entered.set()
        release.wait(60)
        return points(request)

    with Running(FakeStrategy(behaviour=slow)) as running, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, running.address, request_with([]))
        assert entered.wait(30)
        assert running.server.stop(grace=0.1) is False
        with pytest.raises(grpc.RpcError, match=r"CANCELLED|UNAVAILABLE"):
            answer.result(30)
        release.set()


def test_a_port_that_is_taken_is_told(running: Running) -> None:
    service = SuggestionService({"sobol": FakeStrategy("sobol")})
    with pytest.raises(SurroundingsError, match=r"cannot listen on 127\.0\.0\.1"):
        SuggestionServer(service, running.address)


@pytest.mark.parametrize("address", ["", "6789", ":6789", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000"])
def test_an_address_of_another_form_is_told(address: str) -> None:
    service = SuggestionService({"sobol": FakeStrategy("sobol")})
    with pytest.raises(InvalidInput, match="--address"):
        SuggestionServer(service, address)


@pytest.mark.parametrize("deadline", [0.0, -1.0, 60.0, float("nan")])
def test_a_deadline_beyond_the_controllers_is_refused(deadline: float) -> None:
    with pytest.raises(InvalidInput, match="--deadline"):
        ServiceOptions(deadline=deadline)


def test_a_service_without_the_fallback_is_refused() -> None:
    with pytest.raises(ValueError, match="strategies must hold 'sobol'"):
        SuggestionService({"fake": FakeStrategy()})


# --- the log ----------------------------------------------------------------------------------------------------------


def test_an_answer_leaves_one_line_with_its_facts(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    controller = FakeController(running.address, experiment(settings={"patience": "9"}, parameters=SMALL))
    controller.ask(2)
    controller.finish(controller.create()[0], loss="1")
    caplog.clear()
    with caplog.at_level(logging.INFO, "rankwise"):
        controller.ask(1)
    (record,) = [record for record in caplog.records if record.getMessage() == "answered"]
    facts = vars(record)
    wanted = {"experiment": "quickstart", "algorithm": "fake", "count": 1, "issued": 2, "succeeded": 1, "pending": 1}
    assert {name: facts[name] for name in wanted} == wanted
    assert facts["seconds"] >= 0
    assert facts["fallback"] is None
