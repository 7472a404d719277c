"""Katib's medianstop ends hopeless trainings: real ones, whose adapters are kept, and whose values our service uses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kube import Object, Search, apply, condition, counts, small_search, trainer, wait
from results import (
    assignments,
    fetch_adapter,
    manifest_of,
    metric,
    service_answers,
    service_counts,
    state_of,
    store_of,
    written_back,
)

from rankwise.artifacts import Manifest, Outcome

# Minutes: not part of `make cluster-test-quick`.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
NAME = "early-stopping"
STEPS, EVERY, START = 240, 20, 2
HOPELESS, GOOD = "1e-7", "1e-2"
VALUES = {
    "rank": ["2", "4", "8"],
    "alpha_ratio": ["2"],
    "dropout": ["0"],
    "learning_rate": [HOPELESS, GOOD],
    "batch_size": ["4"],
}


def experiment() -> Object:
    """A search in which half of the points learn nothing, so that a trial is stopped whichever way it goes.

    With this ``random_state`` the first trial learns and the second does not: the second is compared with the first.
    """
    document = small_search(
        NAME,
        trials=4,
        parallel=1,
        settings=[("random_state", "0"), ("initial_points", "2")],
        # The service's pod stays, so that it can be asked afterwards.
        resumePolicy="LongRunning",
        earlyStopping={
            "algorithmName": "medianstop",
            "algorithmSettings": [
                {"name": "min_trials_required", "value": "1"},
                {"name": "start_step", "value": str(START)},
            ],
        },
    )
    # Without it Katib 0.19 deletes a stopped trial's Job before it has read its metrics, and asks for no further trial.
    document["spec"]["trialTemplate"]["retain"] = True
    # No strategy for the second one: Katib's webhook writes the objective's direction.
    document["spec"]["objective"]["additionalMetricNames"] = ["seconds"]
    for parameter in document["spec"]["parameters"]:
        parameter["feasibleSpace"] = {"list": VALUES[parameter["name"]]}
    container = trainer(document)
    given = ("--steps", "--epochs", "--evaluate-every", "--schedule", "--warmup-ratio", "--metrics")
    words = [word for word in container["command"] if word.partition("=")[0] not in given]
    more = [f"--steps={STEPS}", f"--evaluate-every={EVERY}", "--schedule=constant", "--metrics=loss,seconds"]
    container["command"] = words + more
    return document


@dataclass(frozen=True, slots=True)
class Stopped:
    """The search after its end."""

    search: Search
    experiment: Object
    trials: list[Object]
    manifests: dict[str, Manifest]
    pod: Object

    def of_state(self, state: str) -> list[Object]:
        return [trial for trial in self.trials if state_of(trial) == state]

    def manifest(self, trial: Object) -> Manifest:
        return self.manifests[trial["metadata"]["name"]]


def _with_values(trials: list[Object]) -> list[Object]:
    return trials if all("observation" in trial["status"] for trial in trials) else []


@pytest.fixture(scope="module")
def stopped(release: str) -> Iterator[Stopped]:
    search = Search(NAME, release)
    apply(experiment(), namespace=release)
    try:
        ended = search.wait(720)
        # Katib calls a trial stopped, and with it the search ended, before it has read the trial's metrics.
        trials = wait("every trial's values", lambda: _with_values(search.trials()), 60)
        with store_of(release) as store:
            manifests = {
                name: manifest_of(store, search, name) for name in (trial["metadata"]["name"] for trial in trials)
            }
        [pod] = search.suggestion_pods()
        yield Stopped(search, ended, trials, manifests, pod)
    finally:
        search.delete()


def test_the_search_ends_with_trainings_that_katib_stopped_and_some_that_it_did_not(stopped: Stopped) -> None:
    assert condition(stopped.experiment, "Succeeded") is not None, stopped.search.describe()
    early, whole = stopped.of_state("EarlyStopped"), stopped.of_state("Succeeded")
    assert early
    assert whole
    number = counts(stopped.experiment)
    assert (number["trialsEarlyStopped"], number["trialsSucceeded"]) == (len(early), len(whole))
    assert number["trials"] == len(early) + len(whole) == 4
    # The hopeless one that followed on one that learned.
    assert assignments(stopped.trials[0]["spec"])["learning_rate"] == GOOD
    assert assignments(stopped.trials[1]["spec"])["learning_rate"] == HOPELESS
    assert stopped.trials[1] in early
    best = stopped.experiment["status"]["currentOptimalTrial"]["bestTrialName"]
    assert best in {trial["metadata"]["name"] for trial in whole}


def test_the_rule_that_stopped_a_training_is_the_mean_of_the_first_ones(stopped: Stopped) -> None:
    first, second = stopped.trials[:2]
    assert "earlyStoppingRules" not in first["spec"]
    [rule] = second["spec"]["earlyStoppingRules"]
    assert (rule["name"], rule["comparison"], rule["startStep"]) == ("loss", "greater", START)
    history = [report["loss"] for report in stopped.manifest(first).history][:START]
    assert None not in history
    assert float(rule["value"]) == pytest.approx(sum(filter(None, history)) / START, rel=1e-9)
    for trial in stopped.trials[1:]:
        [rule] = trial["spec"]["earlyStoppingRules"]
        best = min(report["loss"] or 0.0 for report in stopped.manifest(trial).history[:START])
        # Checked from the second report on: whoever is worse there is stopped, nobody else by then.
        if best > float(rule["value"]):
            assert state_of(trial) == "EarlyStopped"
        else:
            assert len(stopped.manifest(trial).history) > START


def test_a_stopped_training_keeps_its_adapter_and_its_last_value(stopped: Stopped, tmp_path: Path) -> None:
    for trial in stopped.of_state("EarlyStopped"):
        manifest, name = stopped.manifest(trial), trial["metadata"]["name"]
        assert manifest.outcome is Outcome.EARLY_STOPPED
        assert START <= len(manifest.history) < STEPS // EVERY
        assert manifest.metrics["loss"] == manifest.history[-1]["loss"]
        with store_of(stopped.search.namespace) as store:
            folder = fetch_adapter(store, stopped.search, name, tmp_path / name)
        assert json.loads((folder / "adapter_config.json").read_text())["r"] == manifest.configuration["rank"]
        assert (folder / "adapter_model.safetensors").stat().st_size > 1000


def test_min_max_and_latest_are_those_of_the_trainings_curve(stopped: Stopped) -> None:
    strategies = stopped.experiment["spec"]["objective"]["metricStrategies"]
    assert {one["name"]: one["value"] for one in strategies} == {"loss": "latest", "seconds": "min"}
    for trial in stopped.of_state("Succeeded"):
        values = [float(report["loss"] or "nan") for report in stopped.manifest(trial).history]
        assert len(values) == STEPS // EVERY
        found = {key: float(text) for key, text in metric(trial, "loss").items()}
        assert found == {"min": min(values), "max": max(values), "latest": values[-1]}
    for trial in stopped.of_state("EarlyStopped"):
        # Katib's collector reports when it sends SIGTERM: what is written after that it has not seen.
        values = [float(report["loss"] or "nan") for report in stopped.manifest(trial).history]
        assert float(metric(trial, "loss")["latest"]) in values
        assert float(metric(trial, "loss")["max"]) == max(values[:START])


def test_our_service_counts_a_stopped_training_as_an_observation(stopped: Stopped) -> None:
    answers = service_answers(stopped.pod)
    assert [answer["issued"] for answer in answers] == [0, 1, 2, 3]
    # Before the third suggestion: one trial that ended by itself, one that was stopped.
    assert (answers[2]["succeeded"], answers[2]["early_stopped"]) == (1, 1)
    assert answers[2]["details"]["observations"] == 2
    assert answers[2].get("failed", 0) == answers[2]["details"]["failed"] == 0
    assert all(answer.get("fallback") is None for answer in answers)
    state = service_counts(stopped.pod)
    assert state[f"rankwise_trials{{experiment={NAME},state=early_stopped}}"] >= 1
    # What has a result needs no place in the state that Katib keeps for us.
    assert [item[0] for item in written_back(stopped.search)] == [3]


def test_medianstop_has_the_rights_that_it_needs_under_our_account(stopped: Stopped) -> None:
    assert stopped.pod["spec"]["serviceAccountName"] == "rankwise-suggestion"
    assert {container["name"] for container in stopped.pod["spec"]["containers"]} == {"suggestion", "early-stopping"}
    for trial in stopped.of_state("EarlyStopped"):
        found = condition(trial, "EarlyStopped")
        assert found is not None
        assert found["reason"] == "TrialEarlyStopped"
    # Nothing was restarted on the way.
    wait("the pod's states", lambda: stopped.pod["status"].get("containerStatuses"), 1)
    assert [one["restartCount"] for one in stopped.pod["status"]["containerStatuses"]] == [0, 0]
