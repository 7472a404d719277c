"""Faults of what a search stands on: kubelet, API server, S3 server, Katib's DB manager."""

from __future__ import annotations

import datetime as dt
import time
from functools import partial

import pytest
from conftest import KATIB, NAMESPACE, Cluster, start
from faults import (
    check_books,
    check_own_choices,
    check_service,
    ended,
    kept,
    loss,
    narrow,
    node,
    output,
    recorded,
    scaled_down,
    small_training,
    state,
    training_pods,
    trial_pods,
)
from kube import Search, condition, formula_search, wait

from rankwise.artifacts import Manifest, trial_key

# Minutes: not part of `make cluster-test-quick`.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _ended(search: Search, number: int) -> bool:
    return len(ended(search)) >= number


def test_a_search_outlasts_a_restart_of_the_kubelet_and_of_the_api_server(
    cluster: Cluster, searches: list[Search]
) -> None:
    if not cluster.own:
        pytest.skip("the node is not ours to disturb")
    number, machine = 6, node()
    search = start(searches, narrow(formula_search("fault-node", trials=number, parallel=2, seconds=4)))
    wait("a finished trial", partial(_ended, search, 1), 180)
    before = ended(search)
    machine.processes.stop("kubelet")
    try:
        time.sleep(20)
    finally:
        machine.start_kubelet()
    wait("two trials more", partial(_ended, search, 3), 120)
    before |= ended(search)
    machine.processes.stop("kube-apiserver")
    try:
        time.sleep(8)
    finally:
        machine.start_api_server()
    assert condition(search.wait(180), "Succeeded")
    check_own_choices(check_books(search, before, trialsSucceeded=number))
    check_service(search)


def test_trials_wait_for_an_s3_server_that_is_away_for_a_minute_and_store_their_results(
    searches: list[Search],
) -> None:
    document = small_training("fault-s3", "--epochs=20", parallel=2)
    document["spec"]["trialTemplate"]["retain"] = True
    search = start(searches, document)
    wait("two trials that train", lambda: len(training_pods(search)) == 2, 180)
    with scaled_down("statefulset", "rankwise-s3", NAMESPACE, seconds=60):
        # The trainings end while nobody takes their results.
        wait("both results to be ready", lambda: len(training_pods(search, "validation loss")) == 2, 60)
        assert ended(search) == {}
    assert condition(search.wait(180), "Succeeded")
    trials = check_books(search, {}, trialsSucceeded=2)
    assert len(trial_pods(search)) == 2
    with kept() as store:
        for trial in trials:
            name = trial["metadata"]["name"]
            key = trial_key(search.name, name, namespace=NAMESPACE)
            manifest = Manifest.from_json(store.get_bytes(f"{key}/manifest.json"))
            assert manifest.metrics["loss"] == float(loss(trial))
            assert store.list(f"{key}/adapter/")
    for pod in trial_pods(search):
        assert "does not answer" in output(pod)
    check_service(search)


def test_trials_that_end_while_the_db_manager_is_away_are_run_again_and_counted(searches: list[Search]) -> None:
    number = 8
    document = narrow(formula_search("fault-db", trials=number, parallel=2, seconds=6))
    document["spec"]["trialTemplate"]["retain"] = True
    search = start(searches, document)
    wait("a finished trial", partial(_ended, search, 1), 180)
    before = ended(search)
    with scaled_down("deployment", "katib-db-manager", KATIB, seconds=20):
        pass
    back = dt.datetime.now(dt.UTC)
    assert condition(search.wait(300), "Succeeded")
    # Katib's collector ends its pod with an error when it cannot report; the Job runs the trial once more. A trial both
    # of whose attempts end within the outage has failed; one that starts after it has not.
    trials = check_books(search, before, trials=number)
    print({trial["metadata"]["name"]: state(trial) for trial in trials})
    assert {state(trial) for trial in trials} <= {"Succeeded", "Failed"}
    later = [trial for trial in trials if dt.datetime.fromisoformat(trial["status"]["startTime"]) > back]
    assert {state(trial) for trial in later} == {"Succeeded"}
    for trial in trials:
        if state(trial) == "Succeeded":
            assert recorded(trial["metadata"]["name"]) == [("loss", loss(trial))]
    failed = [trial["metadata"]["name"] for trial in trials if state(trial) == "Failed"]
    assert {name: len(trial_pods(search, name)) for name in failed} == dict.fromkeys(failed, 2)
    assert len(trial_pods(search)) > number
    check_service(search)
