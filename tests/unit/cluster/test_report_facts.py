"""The report's facts are what Katib's objects say. No server: objects go in, facts come out."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.cluster.facts import Snapshot, read_cluster, search_facts
from rankwise.cluster.objects import Missing
from rankwise.report.analysis import analyse
from rankwise.report.facts import SearchFacts, facts_from_json, facts_to_json
from rankwise.report.tables import count_sentence
from rankwise.report.to_html import to_html
from rankwise.report.to_markdown import to_markdown
from rankwise.report.to_terminal import trial_table
from rankwise.space.trial import TrialState
from support.cluster_objects import (
    PARAMETERS,
    clock,
    experiment,
    metric,
    objective,
    search,
    suggestion,
    trial,
)


class Objects:
    """Gives out the objects that it holds; as :class:`rankwise.cluster.objects.KatibObjects`, without a server."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects = objects

    def get(self, plural: str, name: str) -> dict[str, Any]:
        for item in self.objects:
            if item["kind"].lower() + "s" == plural and item["metadata"]["name"] == name:
                return item
        raise Missing

    def trials(self, name: str) -> list[dict[str, Any]]:
        return [o for o in self.objects if o["metadata"].get("labels", {}).get("katib.kubeflow.org/experiment") == name]


def snapshot_of(*objects: dict[str, Any]) -> Snapshot:
    return read_cluster(Objects(*objects), "rankwise", "quickstart")  # type: ignore[arg-type]


def facts_of(*objects: dict[str, Any]) -> SearchFacts:
    return search_facts(snapshot_of(*objects), None)


def loss(value: str) -> list[dict[str, Any]]:
    return [metric("loss", value)]


def names(trials: list[dict[str, Any]]) -> list[str]:
    return [item["metadata"]["name"] for item in trials]


def test_every_fact_of_a_whole_search() -> None:
    document, suggested, trials = search(12)
    facts = facts_of(document, suggested, *trials)
    assert (facts.experiment, facts.namespace, facts.max_trials) == ("quickstart", "rankwise", 12)
    assert (facts.objective.metric, facts.objective.goal.value) == ("loss", "minimize")
    assert facts.objective.additional_metrics == ("seconds",)
    assert (facts.algorithm.name, dict(facts.algorithm.settings)) == ("language-bo", {"initial_points": "3"})
    assert [(p.name, p.type, p.distribution) for p in facts.parameters] == [
        ("learning_rate", "double", "logUniform"),
        ("rank", "discrete", "uniform"),
        ("modules", "categorical", "uniform"),
    ]
    assert (facts.parameters[0].low, facts.parameters[0].high) == (1e-5, 1e-2)
    assert facts.parameters[1].values == ("4", "8", "16")
    assert facts.started == datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    assert facts.completed == datetime(2026, 3, 2, 11, 5, tzinfo=UTC)
    assert facts.message == "Experiment has succeeded because max trial count has reached."
    assert [(c.type, c.status, c.reason) for c in facts.conditions] == [
        ("Created", "True", "ExperimentCreated"),
        ("Running", "False", "ExperimentRunning"),
        ("Succeeded", "True", "ExperimentMaxTrialsReached"),
    ]
    assert [t.name for t in facts.trials] == names(trials)
    for index, (fact, source) in enumerate(zip(facts.trials, trials, strict=True)):
        given_assignments = {a["name"]: a["value"] for a in source["spec"]["parameterAssignments"]}
        assert fact.assignments == given_assignments
        assert fact.condition == source["status"]["conditions"][-1]["type"]
        assert fact.started == datetime(2026, 3, 2, 9, 0, tzinfo=UTC) + timedelta(minutes=10 * index)
        assert fact.seconds == 420.0
        if fact.condition in ("Succeeded", "EarlyStopped"):
            observed = source["status"]["observation"]["metrics"]
            # loss under "min", seconds under "latest": what Katib's own optimal trial goes by.
            assert fact.value == float(observed[0]["min"])
            assert fact.metrics == {"loss": float(observed[0]["min"]), "seconds": float(observed[1]["latest"])}
        else:
            assert fact.value is None
    states = {t.condition: t.state for t in facts.trials}
    assert states == {
        "Succeeded": TrialState.SUCCEEDED,
        "Failed": TrialState.FAILED,
        "Killed": TrialState.FAILED,
        "EarlyStopped": TrialState.EARLY_STOPPED,
        "MetricsUnavailable": TrialState.UNAVAILABLE,
    }
    assert facts.trials[1].notes == (
        "Trial has failed. Job message: Job has reached the specified backoff limit (BackoffLimitExceeded)",
    )
    assert facts.trials[2].notes == ("suggested by a fallback: deadline",)
    assert facts.best is not None
    assert facts.best.name == document["status"]["currentOptimalTrial"]["bestTrialName"]
    assert [note for note in facts.notes if "best" in note] == []
    (store_note,) = facts.notes
    assert store_note.startswith("No store was read (the trials' commands name no store")
    assert count_sentence(facts) == (
        "12 trials: 4 succeeded, 2 early stopped, 2 failed, 2 killed, 2 metrics unavailable"
    )
    assert sum(analyse(facts).counts.values()) == 12
    assert facts_from_json(facts_to_json(facts)) == facts


@settings(max_examples=40, deadline=None)
@given(order=st.randoms(use_true_random=False), with_suggestion=st.booleans(), with_labels=st.booleans())
def test_the_order_of_the_list_changes_nothing(order: random.Random, with_suggestion: bool, with_labels: bool) -> None:
    document, suggested, trials = search(9)
    for item in trials:
        if not with_labels:
            del item["metadata"]["labels"]["rankwise.dev/suggestion"]
    others = [suggested] if with_suggestion else []
    before = facts_of(document, *others, *trials)
    shuffled = list(trials)
    order.shuffle(shuffled)
    assert facts_of(document, *others, *shuffled) == before
    assert [t.name for t in before.trials] == names(trials)


def test_the_suggestion_decides_the_order_before_labels_and_times() -> None:
    trials = [trial(0, metrics=loss("1")), trial(1, metrics=loss("2")), trial(2, metrics=loss("3"))]
    first, second, third = names(trials)
    facts = facts_of(experiment(optimal=first, trials=3), suggestion("quickstart", [third, first, second]), *trials)
    assert [t.name for t in facts.trials] == [third, first, second]


@pytest.mark.parametrize(
    ("kind", "metrics", "state", "value", "words"),
    [
        ("Created", [], TrialState.PENDING, None, "created"),
        ("Running", [], TrialState.PENDING, None, "running"),
        ("Succeeded", loss("0.5"), TrialState.SUCCEEDED, 0.5, "succeeded"),
        ("Succeeded", [metric("loss", "", "0.25", "0.75")], TrialState.SUCCEEDED, 0.25, "succeeded"),
        ("Succeeded", [metric("loss", "", "unavailable", "unavailable")], TrialState.UNAVAILABLE, None, "unavailable"),
        ("Succeeded", [metric("loss", "0.7", "unavailable", "unavailable")], TrialState.SUCCEEDED, 0.7, "succeeded"),
        ("Succeeded", loss("nan"), TrialState.UNAVAILABLE, None, "unavailable"),
        ("Succeeded", [metric("seconds", "3")], TrialState.UNAVAILABLE, None, "unavailable"),
        ("EarlyStopped", [], TrialState.EARLY_STOPPED, None, "early stopped"),
        ("EarlyStopped", loss("0.5"), TrialState.EARLY_STOPPED, 0.5, "early stopped"),
        ("Failed", loss("0.5"), TrialState.FAILED, None, "failed"),
        ("Killed", [], TrialState.FAILED, None, "killed"),
        ("MetricsUnavailable", loss("unavailable"), TrialState.UNAVAILABLE, None, "metrics unavailable"),
    ],
)
def test_a_trial_by_condition_and_observation(
    kind: str, metrics: list[dict[str, Any]], state: TrialState, value: float | None, words: str
) -> None:
    (fact,) = facts_of(experiment(trials=1), trial(0, kind, metrics)).trials
    assert (fact.condition, fact.state, fact.value, fact.state_words) == (kind, state, value, words)
    assert (fact.completed is None) == (kind in ("Created", "Running"))
    assert bool(fact.notes) == (kind not in ("Created", "Running") and state is not TrialState.SUCCEEDED)


def test_strategies_of_the_experiment_are_used() -> None:
    document = experiment(trials=1)
    for kind, strategy, expected in (("maximize", "max", 0.9), ("maximize", "latest", 0.5), ("minimize", "max", 0.9)):
        document["spec"]["objective"] = {
            **objective(),
            "type": kind,
            "metricStrategies": [{"name": "loss", "value": strategy}],
        }
        facts = facts_of(document, trial(0, metrics=[metric("loss", "0.5", "0.1", "0.9")]))
        assert facts.trials[0].value == expected
    del document["spec"]["objective"]["metricStrategies"]
    assert facts_of(document, trial(0, metrics=[metric("loss", "0.5", "0.1", "0.9")])).trials[0].value == 0.1


@pytest.mark.parametrize(
    ("optimal", "trials", "said"),
    [
        ("", [trial(0, metrics=loss("1"))], "Katib's status names no best trial yet; here it is quickstart-3c1a"),
        ("gone", [trial(0, metrics=loss("1"))], "that trial is no longer in the cluster, and Katib keeps its name"),
        (
            "twin",
            [trial(0, metrics=loss("1")), trial(1, metrics=loss("1.0"), name="twin")],
            "both have the same value, and the earlier suggestion counts here",
        ),
        (
            "empty",
            [trial(0, metrics=loss("1")), trial(1, metrics=[metric("loss", "", "", "")], name="empty")],
            "it reported '', which Katib takes for the best value though it is no finite number",
        ),
        (
            "broken",
            [trial(0, metrics=loss("1")), trial(1, "Failed", loss("0.5"), name="broken")],
            "its condition is Failed, so its value does not count here",
        ),
        (
            "worse",
            [trial(0, metrics=loss("1")), trial(1, metrics=loss("2"), name="worse")],
            "Katib has not yet brought its status up to date with the trials",
        ),
        ("gone", [trial(0, "Failed")], "calls gone the best trial, here no trial has a value"),
        (
            "older",
            [trial(0, metrics=loss("1")), trial(1, metrics=loss("0.5"), name="older", uid="another")],
            "that trial belongs to another Experiment object of this name",
        ),
    ],
)
def test_another_best_trial_than_katibs_is_explained(optimal: str, trials: list[dict[str, Any]], said: str) -> None:
    notes = facts_of(experiment(optimal=optimal, trials=len(trials)), *trials).notes
    assert len([note for note in notes if said in note]) == 1, notes


def settled(document: dict[str, Any], **settings: str) -> dict[str, Any]:
    document["spec"]["algorithm"]["algorithmSettings"] = [{"name": n, "value": v} for n, v in settings.items()]
    return document


def test_the_best_trial_keeps_the_bounds_of_the_search() -> None:
    def measured(value: str, seconds: str) -> list[dict[str, Any]]:
        return [metric("loss", value), metric("seconds", seconds)]

    trials = [trial(0, metrics=measured("0.5", "9")), trial(1, metrics=measured("1", "4"))]
    dear, cheap = names(trials)
    facts = facts_of(settled(experiment(optimal=dear, trials=2), constraints="seconds<=5"), *trials)
    assert facts.best is not None
    assert facts.best.name == cheap
    said = "Katib looks at one training's objective alone, this search at its bounds, costs or seeds as well"
    assert [note for note in facts.notes if f"calls {dear} the best trial, here it is {cheap}" in note and said in note]
    facts = facts_of(settled(experiment(optimal=dear, trials=2), constraints="seconds<=1"), *trials)
    assert facts.best is None
    assert [note for note in facts.notes if "here no trial is what the search looks for" in note]


def test_the_default_may_stand_in_the_settings() -> None:
    default = '{"learning_rate": 1e-4, "rank": 8, "modules": "attention"}'
    facts = facts_of(settled(experiment(), default_configuration=default))
    assert facts.default_configuration == {"learning_rate": "1e-4", "rank": "8", "modules": "attention"}


def test_a_running_experiment_says_so() -> None:
    document = experiment(ended="", trials=3)
    trials = [trial(0, metrics=loss("1")), trial(1, "Running"), trial(2, "Created")]
    suggested = suggestion("quickstart", [*names(trials), "quickstart-next"])
    facts = search_facts(snapshot_of(document, suggested, *trials), None, datetime(2026, 3, 2, 9, 30, tzinfo=UTC))
    assert facts.notes[0] == (
        "The Experiment has not ended (condition Running): 1 of 12 trials have."
        " This is how it stood at 2026-03-02 09:30:00 UTC."
    )
    assert "1 suggestion without a trial (not made yet, or deleted): quickstart-next." in facts.notes
    assert (facts.message, facts.completed) == ("", None)
    assert count_sentence(facts) == "3 trials of 12 asked for: 1 created, 1 running, 1 succeeded"


def test_an_experiment_of_no_trial_and_no_status() -> None:
    document = experiment(ended="")
    del document["status"]
    facts = facts_of(document)
    assert (facts.trials, facts.started, facts.conditions) == ((), None, ())
    assert [p.name for p in facts.parameters] == ["learning_rate", "rank", "modules"]


def test_missing_and_foreign_trials_are_counted() -> None:
    document, suggested, trials = search(12)
    old = trial(3, metrics=loss("0.001"), name="quickstart-old", uid="of-a-deleted-experiment")
    facts = facts_of(document, suggested, *trials[:5], *trials[6:], old)
    assert len(facts.trials) == 11
    assert "quickstart-old" not in [t.name for t in facts.trials]
    notes = "\n".join(facts.notes)
    assert f"1 suggestion without a trial (deleted, or never made): {names(trials)[5]}." in notes
    assert "Left out: quickstart-old, labelled with this name but owned by another Experiment object" in notes
    facts = facts_of(document, *trials[:5])
    assert "Katib's status counts 12 trials, the cluster holds 5." in facts.notes
    assert "The Suggestion object is gone: trials stand in the order in which they were made." in facts.notes


def test_parameters_that_rankwise_does_not_search_are_shown_all_the_same() -> None:
    odd = [
        PARAMETERS[0],
        {"name": "momentum", "parameterType": "unknown", "feasibleSpace": {"min": "a", "max": "b"}},
        {"name": "kind", "parameterType": "unknown", "feasibleSpace": {"list": ["x", "y"]}},
        {"name": "never", "parameterType": "unknown", "feasibleSpace": {}},
    ]
    trials = [
        trial(i, metrics=loss(str(i)), assignments={"learning_rate": "1e-4", "momentum": value, "architecture": "[1]"})
        for i, value in enumerate(["0.9", "0.10", "0.5"])
    ]
    annotation = {"rankwise.dev/default-configuration": '{"learning_rate": "1e-4"}'}
    facts = facts_of(experiment(parameters=odd, trials=3, annotations=annotation), *trials)
    assert [(p.name, p.type, p.values) for p in facts.parameters] == [
        ("learning_rate", "double", None),
        ("momentum", "categorical", ("0.10", "0.5", "0.9")),
        ("kind", "categorical", ("x", "y")),
        ("architecture", "categorical", ("[1]",)),
    ]
    notes = "\n".join(facts.notes)
    assert "Parameter momentum is shown as a category: parameterType 'unknown' is not one of" in notes
    assert "Parameter architecture stands in the trials but not in the Experiment." in notes
    assert facts.default_configuration is None
    assert analyse(facts).best == names(trials)[0]


@pytest.mark.parametrize(
    ("text", "configuration", "note"),
    [
        ('{"learning_rate": "1e-4", "rank": "8", "modules": "attention"}', True, ""),
        ('{"learning_rate": "1e-4", "rank": "9", "modules": "attention"}', False, "got '9'"),
        ("{", False, "a JSON object"),
    ],
)
def test_the_default_configuration(text: str, configuration: bool, note: str) -> None:
    document = experiment(trials=1, annotations={"rankwise.dev/default-configuration": text})
    facts = facts_of(document, trial(0, metrics=loss("1")))
    assert (facts.default_configuration is not None) == configuration
    assert any("The default configuration is left out" in n and note in n for n in facts.notes) == bool(note)


def test_an_ended_experiment_that_failed_says_why() -> None:
    facts = facts_of(experiment(ended="Failed", trials=1), trial(0, "Failed"))
    assert facts.message == "Experiment has failed because max failed count has reached."
    assert facts.completed is not None


def test_a_deleted_experiment_whose_trials_go() -> None:
    document = experiment(trials=1)
    document["metadata"]["deletionTimestamp"] = clock(130)
    facts = facts_of(document, trial(0, metrics=loss("1")))
    assert facts.notes[0] == "The Experiment is being deleted: trials may be missing."


def test_a_restarted_experiment_is_not_over() -> None:
    document = experiment(ended="", trials=1)
    document["status"]["completionTime"] = clock(50)
    facts = facts_of(document, trial(0, metrics=loss("1")))
    assert facts.completed is None
    assert "has not ended" in facts.notes[0]


def test_clocks_that_disagree_give_no_duration() -> None:
    item = trial(0, metrics=loss("1"))
    item["status"]["completionTime"] = "2026-03-02T08:00:00Z"
    (fact,) = facts_of(experiment(trials=1), item).trials
    assert fact.seconds is None


def test_texts_of_the_cluster_stay_texts_in_every_page() -> None:
    document, suggested, trials = search(12)
    hostile = "<script>alert(1)</script>|`x`\x1b[2J"
    for item in document["status"]["conditions"]:
        item |= {"reason": hostile, "message": hostile}
    trials[1]["status"]["conditions"][-1]["message"] = hostile
    facts = facts_of(document, suggested, *trials)
    facts = replace(facts, notes=(hostile,), namespace=hostile, store=hostile)
    analysis = analyse(facts)
    page, summary = to_html(facts, analysis), to_markdown(facts, analysis)
    assert "<script>alert" not in page
    # notes, namespace (twice), store, message, three conditions with reason and message, and the trial's own
    assert page.count("&lt;script&gt;alert(1)") == 12
    assert "<script>" not in summary
    assert summary.count("&lt;script&gt;alert(1)") == 10
    assert "\x1b" not in summary + trial_table(facts)


def test_facts_are_compared_as_a_whole() -> None:
    """The property test above compares facts: two that differ must not be equal."""
    document, suggested, trials = search(3)
    facts = facts_of(document, suggested, *trials)
    assert replace(facts, trials=facts.trials[::-1]) != facts
