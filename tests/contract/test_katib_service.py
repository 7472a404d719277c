"""Katib's contract of a suggestion service, over a real socket: what its controller does, and what it must get back."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.katib_api import api_pb2
from rankwise.space import ParameterText, TrialState, parse_space
from rankwise.strategies.base import Suggestions, SuggestRequest
from rankwise.suggest.naming import trial_name
from rankwise.suggest.outstanding import SETTING
from rankwise.suggest.server import HEALTH_NAMES, SuggestionServer
from rankwise.suggest.service import ServiceOptions, SuggestionService
from support.katib import (
    AIM,
    PARAMETERS,
    SMALL,
    FakeController,
    FakeStrategy,
    Status,
    call,
    experiment,
    health,
    pairs,
    points,
    trial,
    validate,
)

SPACE = parse_space(PARAMETERS)
DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class Running:
    """A server with fakes."""

    def __init__(self, *strategies: FakeStrategy, options: ServiceOptions | None = None, **more: object) -> None:
        self.fake = strategies[0] if strategies else FakeStrategy()
        self.fallback = FakeStrategy("sobol")
        known = {one.name: one for one in (self.fallback, *(strategies or (self.fake,)))}
        self.service = SuggestionService(known, options)
        self.server = SuggestionServer(self.service, "127.0.0.1:0", **more)  # type: ignore[arg-type]
        assert self.server.wait_ready(30)
        self.address = self.server.address

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(grace=10)


@pytest.fixture
def running() -> Iterator[Running]:
    with Running() as one:
        yield one


def refused(address: str, message: api_pb2.Experiment) -> str:
    """The sentence with which an Experiment is refused."""
    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT") as caught:
        validate(address, message)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    return str(caught.value.details())  # type: ignore[attr-defined]


# --- the reply --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 20])
def test_exactly_as_many_suggestions_as_asked_for_each_with_every_parameter_once(running: Running, count: int) -> None:
    reply = FakeController(running.address, experiment()).ask(count)
    assert len(reply.parameter_assignments) == count
    for suggestion in reply.parameter_assignments:
        assert [one.name for one in suggestion.assignments] == [parameter.name for parameter in PARAMETERS]
        assert SPACE.contains(pairs(suggestion))
    assert [request.count for request in running.fake.requests] == [count]


@pytest.mark.parametrize("count", [0, -1])
def test_none_asked_for_none_given(running: Running, count: int) -> None:
    request = api_pb2.GetSuggestionsRequest(experiment=experiment(), current_request_number=count)
    assert call(running.address, request) == api_pb2.GetSuggestionsReply()
    assert running.fake.requests == []


def test_a_total_that_is_too_small_counts_as_the_first_request(running: Running) -> None:
    request = api_pb2.GetSuggestionsRequest(experiment=experiment(), current_request_number=2, total_request_number=0)
    assert len(call(running.address, request).parameter_assignments) == 2
    assert running.fake.requests[0].issued == 0


def test_whole_numbers_have_no_point_and_list_items_come_verbatim(running: Running) -> None:
    reply = FakeController(running.address, experiment()).ask(64)
    seen = [pairs(suggestion) for suggestion in reply.parameter_assignments]
    assert {point["lora_rank"] for point in seen} == {str(rank) for rank in range(4, 65, 4)}
    assert {point["dropout"] for point in seen} == set(PARAMETERS[2].list)
    assert {point["variant"] for point in seen} == set(PARAMETERS[3].list)
    assert all(1e-5 <= float(point["learning_rate"]) <= 1e-2 for point in seen)


def test_names_of_trials_are_valid_and_unique_and_early_stopping_is_left_to_its_own_service(running: Running) -> None:
    controller = FakeController(running.address, experiment("e" * 60))
    replies = [controller.ask(5), controller.ask(5)]
    names = [suggestion.trial_name for reply in replies for suggestion in reply.parameter_assignments]
    assert len(set(names)) == 10
    assert all(DNS_1123.fullmatch(name) and len(name) <= 63 for name in names)
    assert all(not reply.early_stopping_rules for reply in replies)


def test_names_stay_unique_when_the_controller_counts_suggestions_back(running: Running) -> None:
    # A lower parallelTrialCount makes the controller delete trials and their suggestions.
    controller = FakeController(running.address, experiment())
    controller.ask(3)
    kept = controller.create()[2]
    del controller.suggested[:2]
    for name in [name for name in controller.trials if name != kept]:
        del controller.trials[name]
    controller.ask(2)
    assert kept not in controller.create()
    assert len(controller.trials) == 3


def test_without_a_namespace_the_controller_names_the_trials() -> None:
    with Running(options=ServiceOptions(scope=None)) as running:
        reply = FakeController(running.address, experiment()).ask(2)
        assert [suggestion.trial_name for suggestion in reply.parameter_assignments] == ["", ""]


def test_the_strategy_gets_what_the_experiment_says(running: Running) -> None:
    controller = FakeController(running.address, experiment(settings={"patience": "7"}))
    controller.ask(2)
    controller.ask(3)
    first, second = running.fake.requests
    assert (first.experiment, first.objective, first.max_trials) == ("quickstart", AIM, 30)
    assert first.space == SPACE
    assert (first.issued, first.count, second.issued, second.count) == (0, 2, 2, 3)
    # What the last reply wrote back is the service's own; the strategy sees the user's settings alone.
    assert first.settings == second.settings == {"patience": "7"}
    assert 0 < second.deadline.remaining() < 60


# --- at least once, restarts ------------------------------------------------------------------------------------------


def test_a_repeated_call_gets_the_same_answer_byte_for_byte(running: Running) -> None:
    controller = FakeController(running.address, experiment())
    controller.ask(3)
    for name in controller.create():
        controller.finish(name, loss="1.5")
    lost = controller.ask(4, conflict=True)
    again = controller.ask(4)
    assert lost.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)


def search(addresses: Iterator[str]) -> list[dict[str, str]]:
    """A search of 3 rounds; each round's server is the iterator's next."""
    controller = FakeController(next(addresses), experiment())
    for round_ in range(3):
        controller.ask(3)
        for number, name in enumerate(controller.create()):
            if number < 2:
                controller.finish(name, loss=str(2.0 - 0.1 * round_))
        controller.address = next(addresses)
    return [pairs(suggestion) for suggestion in controller.suggested]


def test_a_restart_changes_nothing() -> None:
    with Running() as one:
        whole = search(iter([one.address] * 4))
        requests = one.fake.requests

    restarted: list[SuggestRequest] = []

    def addresses() -> Iterator[str]:
        for _ in range(4):
            with Running() as running:
                yield running.address
                restarted.extend(running.fake.requests)

    assert search(addresses()) == whole
    assert [request.trials for request in restarted] == [request.trials for request in requests]
    assert [len(request.trials) for request in requests] == [0, 3, 6]


def test_the_order_of_trials_does_not_matter(running: Running) -> None:
    known = [trial(f"t-{i}", SPACE.sobol(8, seed=1).assignments(i), loss=str(i)) for i in range(8)]
    for order in (known, known[::-1], known[4:] + known[:4]):
        call(running.address, request_with(order, count=2, total=10))
    first, *others = [request.trials for request in running.fake.requests]
    assert len(first) == 8
    assert all(trials == first for trials in others)


def request_with(
    trials: list[api_pb2.Trial], count: int = 1, total: int | None = None, message: api_pb2.Experiment | None = None
) -> api_pb2.GetSuggestionsRequest:
    return api_pb2.GetSuggestionsRequest(
        experiment=message or experiment(),
        trials=trials,
        current_request_number=count,
        total_request_number=len(trials) + count if total is None else total,
    )


# --- trials -----------------------------------------------------------------------------------------------------------


def test_running_trials_with_empty_observations_are_pending(running: Running) -> None:
    controller = FakeController(running.address, experiment())
    controller.ask(3)
    names = controller.create()
    controller.finish(names[0], loss="0.5")
    controller.ask(1)
    states = {one.name: one.state for one in running.fake.requests[-1].trials}
    assert states == {
        names[0]: TrialState.SUCCEEDED,
        names[1]: TrialState.PENDING,
        names[2]: TrialState.PENDING,
    }


@pytest.mark.parametrize("text", ["", "unavailable", "nan"])
def test_a_loss_that_is_no_number_is_no_value(running: Running, text: str) -> None:
    point = SPACE.sobol(1, seed=1).assignments(0)
    call(running.address, request_with([trial("t", point, loss=text)]))
    (read,) = running.fake.requests[-1].trials
    assert (read.state, read.value) == (TrialState.UNAVAILABLE, None)


def test_killed_failed_and_early_stopped_trials_reach_the_strategy(running: Running) -> None:
    several = SPACE.sobol(3, seed=1)
    sent = [
        trial("failed", several.assignments(0), Status.FAILED),
        trial("killed", several.assignments(1), Status.KILLED),
        trial("stopped", several.assignments(2), Status.EARLYSTOPPED, loss="3.5"),
    ]
    call(running.address, request_with(sent))
    read = {one.name: (one.state, one.value) for one in running.fake.requests[-1].trials}
    assert read == {
        "failed": (TrialState.FAILED, None),
        "killed": (TrialState.FAILED, None),
        "stopped": (TrialState.EARLY_STOPPED, 3.5),
    }


def test_trials_of_an_experiment_of_the_same_name_elsewhere_are_left_out_and_counted() -> None:
    with Running(options=ServiceOptions(scope="team-a")) as running:
        point = SPACE.sobol(1, seed=1).assignments(0)
        ours = trial(trial_name("quickstart", "team-a", 0, point), point, loss="1")
        same_space = trial(trial_name("quickstart", "team-b", 0, point), point, loss="2")
        other_space = trial("quickstart-x7k2m9qa", {"momentum": "0.9"}, loss="3")
        call(running.address, request_with([other_space, same_space, ours]))
        assert [one.name for one in running.fake.requests[-1].trials] == [ours.name]
        assert running.service.counts["foreign"] == 2


def test_a_goal_that_is_not_set_arrives_as_0_and_is_no_target(running: Running) -> None:
    message = experiment()
    assert message.spec.objective.goal == 0.0
    call(running.address, request_with([], message=message))
    assert running.fake.requests[-1].objective.target is None


def test_a_request_of_more_than_5_mib_is_read(running: Running) -> None:
    several = SPACE.sobol(1000, seed=1)
    sent = [trial(f"{i:04d}-" + "n" * 5300, several.assignments(i), loss="1") for i in range(1000)]
    request = request_with(sent)
    assert request.ByteSize() > 5 * 2**20
    assert len(call(running.address, request).parameter_assignments) == 1
    assert len(running.fake.requests[-1].trials) == 1000


# --- what a request does not show -------------------------------------------------------------------------------------


def test_suggestions_whose_trials_do_not_exist_yet_are_pending(running: Running) -> None:
    controller = FakeController(running.address, experiment())
    given = [pairs(one) for one in controller.ask(2).parameter_assignments]
    controller.ask(1)  # before the trials are created
    pending = running.fake.requests[-1].trials
    assert [one.state for one in pending] == [TrialState.PENDING] * 2
    assert [one.assignments for one in pending] == given


def test_trials_that_ended_without_a_metric_are_known_though_katib_does_not_send_them(running: Running) -> None:
    controller = FakeController(running.address, experiment())
    controller.ask(2)
    lost, stopped = controller.create()
    controller.ask(1)
    controller.finish(lost, Status.METRICSUNAVAILABLE)
    controller.finish(stopped, Status.EARLYSTOPPED)
    controller.create()
    request = controller.request(1)
    assert [one.name for one in request.trials] == [list(controller.trials)[2]]
    for _ in range(2):  # it stays known
        controller.ask(1)
        controller.create()
        states = [one.state for one in running.fake.requests[-1].trials]
        assert states.count(TrialState.UNAVAILABLE) == 2


def test_a_trial_that_ended_without_a_metric_between_two_requests_is_first_pending_then_unavailable(
    running: Running,
) -> None:
    controller = FakeController(running.address, experiment())
    states = []
    for _ in range(3):
        controller.ask(1)
        (name,) = controller.create()
        controller.finish(name, Status.METRICSUNAVAILABLE)
        states.append([one.state for one in running.fake.requests[-1].trials])
    assert states == [[], [TrialState.PENDING], [TrialState.UNAVAILABLE, TrialState.PENDING]]


def test_finished_trials_leave_the_written_state(running: Running) -> None:
    controller = FakeController(running.address, experiment())
    for _ in range(50):
        controller.ask(1)
        for name in controller.create():
            controller.finish(name, loss="1")
    assert len(json.loads(controller.settings[SETTING])["items"]) == 1
    assert len(running.fake.requests[-1].trials) == 49


@pytest.mark.parametrize("garbage", ["", "x", "{}", '{"version":1,"items":[[0,0,"?"]]}', "[" * 50_000])
def test_a_written_state_that_is_garbage_is_ignored(running: Running, garbage: str) -> None:
    message = experiment(settings={SETTING: garbage})
    validate(running.address, message)
    assert len(call(running.address, request_with([], count=2, message=message)).parameter_assignments) == 2
    assert running.fake.requests[-1].trials == ()


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
