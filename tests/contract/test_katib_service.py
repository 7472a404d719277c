"""Katib's contract of a suggestion service, over a real socket: requests, and what a reply must hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from rankwise.katib_api import api_pb2
from rankwise.space import TrialState, parse_space
from rankwise.strategies.base import SuggestRequest
from rankwise.suggest.naming import trial_name
from rankwise.suggest.outstanding import SETTING
from rankwise.suggest.service import ServiceOptions
from support.katib import (
    AIM,
    PARAMETERS,
    FakeController,
    Running,
    Status,
    call,
    experiment,
    pairs,
    request_with,
    trial,
    validate,
)

SPACE = parse_space(PARAMETERS)
DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@pytest.fixture
def running() -> Iterator[Running]:
    with Running() as one:
        yield one


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


def test_the_standard_error_of_a_loss_reaches_the_strategy(running: Running) -> None:
    controller = FakeController(running.address, experiment())
    controller.ask(3)
    first, second, third = controller.create()
    controller.finish(first, loss="1.5", loss_standard_error="0.25")
    controller.finish(second, loss="1.25", loss_standard_error="")
    controller.finish(third, loss="1.75", loss_standard_error="-0.25")
    controller.ask(1)
    ingested = {trial.name: (trial.value, trial.standard_error) for trial in running.fake.requests[-1].trials}
    assert ingested == {first: (1.5, 0.25), second: (1.25, None), third: (1.75, None)}


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
