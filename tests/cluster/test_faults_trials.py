"""Faults of trials: killed in the middle, out of memory, without a result, with one that is no number."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import NAMESPACE, start
from faults import (
    PLACE,
    check_books,
    check_own_choices,
    check_service,
    faulty_search,
    figures,
    kept,
    loss,
    place,
    recorded,
    small_training,
    state,
    training_pods,
    trial_pods,
)
from kube import Object, Search, condition, kubectl, wait

from rankwise.artifacts import Manifest, trial_key

MEMORY, NOTHING, NOT_A_NUMBER, CRASH = 1, 2, 4, 5
"""Places in the search."""
TRIALS = 8


@pytest.fixture(scope="module")
def faulty(release: str) -> Iterator[Search]:
    """An ended search some of whose trials went wrong, one in each way."""
    faults = {MEMORY: "memory", NOTHING: "nothing to tell", NOT_A_NUMBER: "loss=nan", CRASH: "crash"}
    started: list[Search] = []
    # One at a time: where several run, Katib starts one trial too many for each that reported nothing (it counts them
    # when it asks whether the search is over, but not when it asks how many to start).
    search = start(started, faulty_search("fault-trials", faults, trials=TRIALS))
    try:
        search.wait(300)
        yield search
    finally:
        search.delete()


@pytest.fixture(scope="module")
def trials(faulty: Search) -> list[Object]:
    """The Trials of that search by their place in it."""
    return sorted(faulty.trials(), key=place)


def test_the_search_ends_with_all_its_trials_and_every_count_is_right(faulty: Search) -> None:
    assert condition(faulty.experiment(), "Succeeded")
    trials = check_books(faulty, {}, trials=TRIALS, trialsFailed=2, trialsRunning=0, trialsPending=0)
    check_own_choices(trials)
    assert len({tuple(sorted(one.items())) for one in faulty.suggestions()}) == TRIALS


def test_a_trial_out_of_memory_fails_after_its_retry(faulty: Search, trials: list[Object]) -> None:
    assert state(trials[MEMORY]) == "Failed"
    pods = trial_pods(faulty, trials[MEMORY]["metadata"]["name"])
    ends = [_end(pod) for pod in pods]
    # One attempt and one retry (backoffLimit 1).
    assert [(end["exitCode"], end["reason"]) for end in ends] == [(137, "OOMKilled")] * 2


def test_a_trial_whose_program_fails_is_failed(faulty: Search, trials: list[Object]) -> None:
    assert state(trials[CRASH]) == "Failed"
    assert [_end(pod)["exitCode"] for pod in trial_pods(faulty, trials[CRASH]["metadata"]["name"])] == [1, 1]


def test_a_trial_that_reports_nothing_is_metrics_unavailable(trials: list[Object]) -> None:
    assert state(trials[NOTHING]) == "MetricsUnavailable"


def test_nan_is_no_loss(faulty: Search, trials: list[Object]) -> None:
    """Katib's filter finds a metric ``loss`` without a number in ``loss=nan`` (its issue 2723)."""
    trial = trials[NOT_A_NUMBER]
    print(f"loss=nan: {state(trial)}, {trial['status']['observation']}")
    assert recorded(trial["metadata"]["name"]) == [("loss", "")]
    assert state(trial) == "Succeeded"
    assert loss(trial) == ""


def test_katib_may_take_the_trial_without_a_number_for_the_best_but_no_other_than_the_best_of_the_rest(
    faulty: Search, trials: list[Object]
) -> None:
    losses = {trial["metadata"]["name"]: float(loss(trial)) for trial in trials if _has_loss(trial)}
    assert len(losses) == TRIALS - 4
    best = min(losses, key=lambda name: losses[name])
    # To Katib a text that is no number is the best there is, unless a number's Trial comes later in its list and is
    # better than those before. Our trainer never prints one: a loss that is none ends it with exit code 4.
    named = faulty.experiment()["status"]["currentOptimalTrial"]["bestTrialName"]
    assert named in {best, trials[NOT_A_NUMBER]["metadata"]["name"]}


def test_the_service_counts_each_trial_for_what_it_was(faulty: Search) -> None:
    told = figures(faulty)
    assert told["rankwise_trials/failed"] == 2
    assert told["rankwise_trials/unavailable"] == 2
    assert told["rankwise_trials/pending"] == 0
    # Its last request was the one for the last trial.
    assert told["rankwise_trials/succeeded"] == TRIALS - 1 - 4
    assert told["rankwise_internal_errors_total"] == 0
    check_service(faulty)


def test_a_pod_that_is_deleted_while_it_trains_is_replaced_and_the_result_is_there_once(
    searches: list[Search],
) -> None:
    # 120 steps of 8 examples and 6 evaluations: long enough to be met in the middle.
    search = start(searches, small_training("fault-deleted", "--epochs=60", "--evaluate-every=20", parallel=1))
    (pod,) = wait("a trial that trains", lambda: training_pods(search, "validation loss"), 180)
    name = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
    kubectl("-n", NAMESPACE, "delete", "pod", pod["metadata"]["name"])
    assert condition(search.wait(240), "Succeeded")
    trials = check_books(search, {}, trialsSucceeded=2)
    check_own_choices(trials)
    (trial,) = [one for one in trials if one["metadata"]["name"] == name]
    assert trial["metadata"]["labels"][PLACE] == "0"
    with kept() as store:
        for one in trials:
            key = trial_key(search.name, one["metadata"]["name"], namespace=NAMESPACE)
            manifest = Manifest.from_json(store.get_bytes(f"{key}/manifest.json"))
            assert manifest.metrics["loss"] == float(loss(one))
            assert store.list(f"{key}/adapter/")
            assert store.list(f"{key}/checkpoint/") == []
            # One report for each evaluation, also of the trial that two pods had begun.
            losses = [entry["loss"] for entry in manifest.history]
            told = [float(value) for metric, value in recorded(one["metadata"]["name"]) if metric == "loss"]
            assert told == losses
            assert len(losses) == 6
    check_service(search)


def _end(pod: Object) -> Object:
    """How the trainer's container ended."""
    (status,) = [one for one in pod["status"]["containerStatuses"] if one["name"] == "trainer"]
    return dict(status["state"]["terminated"])


def _has_loss(trial: Object) -> bool:
    return state(trial) == "Succeeded" and loss(trial) != ""
