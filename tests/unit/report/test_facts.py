from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.errors import InvalidInput
from rankwise.report.facts import (
    SCHEMA_VERSION,
    CostFacts,
    FinalRun,
    MetricReport,
    ParameterFacts,
    SearchFacts,
    TrialFacts,
    facts_from_dict,
    facts_from_json,
    facts_to_dict,
    facts_to_json,
)
from rankwise.space.trial import Goal, Objective, TrialState
from support.facts import DEFAULT, edge_cases, synthetic_facts

finite = st.floats(allow_nan=False, allow_infinity=False)
# Python calls a local time that a change of the clocks skips or repeats unequal to the same moment in UTC (PEP 495).
moments = st.datetimes(timezones=st.timezones()).filter(lambda moment: moment == moment.astimezone(UTC))


@pytest.mark.parametrize("name", sorted(edge_cases()))
def test_json_gives_the_same_facts_back(name: str) -> None:
    facts = edge_cases()[name]
    assert facts_from_json(facts_to_json(facts)) == facts


@settings(deadline=None, max_examples=50)
@given(
    name=st.text(min_size=1),
    value=finite,
    metrics=st.dictionaries(st.text(), finite),
    seconds=st.none() | st.floats(0, 1e12),
    steps=st.lists(st.none() | st.integers(0, 2**53 - 1)),
    time=st.none() | moments,
)
def test_any_trial_survives_json(name, value, metrics, seconds, steps, time) -> None:
    trial = TrialFacts(
        name,
        {name: "1"},
        TrialState.SUCCEEDED,
        value,
        metrics,
        started=time,
        cost=CostFacts(seconds),
        history=tuple(MetricReport(metrics, step) for step in steps),
    )
    facts = replace(synthetic_facts(2), trials=(trial,))
    assert facts_from_json(facts_to_json(facts)) == facts


def test_the_schema_version_is_in_the_file_and_is_checked() -> None:
    data = facts_to_dict(synthetic_facts(2))
    assert data["schema_version"] == SCHEMA_VERSION == 1
    for version in (2, "1", True, None):
        with pytest.raises(InvalidInput, match=r"facts\.schema_version: got .*; allowed: 1"):
            facts_from_dict({**data, "schema_version": version})


def test_every_mistake_of_a_file_is_reported_with_its_path() -> None:
    data = json.loads(facts_to_json(synthetic_facts(3)))
    data["trials"][0]["value"] = "low"
    data["trials"][1]["state"] = "done"
    data["trials"][2]["started"] = "2026-01-01T00:00:00"
    data["objective"]["goal"] = 3
    data["parameters"][1]["values"] = "4,8"
    data["max_trials"] = 2.5
    data["surprise"] = 1
    data["finals"]["best"]["metrics"]["loss"] = 10**400
    data["environment"]["seeds"]["split"] = True
    del data["experiment"]
    with pytest.raises(InvalidInput, match="trials") as caught:
        facts_from_dict(data)
    assert {problem.path for problem in caught.value.problems} == {
        "facts.trials[0].value",
        "facts.trials[1].state",
        "facts.trials[2].started",
        "facts.objective.goal",
        "facts.parameters[1].values",
        "facts.max_trials",
        "facts.surprise",
        "facts.finals.best.metrics.loss",
        "facts.environment.seeds.split",
        "facts.experiment",
    }


@pytest.mark.parametrize("text", ["", "[]", "{", '{"facts": 3}', "null"])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"report|facts"):
        facts_from_json(text)


def test_nan_in_a_file_is_refused() -> None:
    text = facts_to_json(synthetic_facts(2)).replace('"energy_joules": null', '"energy_joules": NaN')
    with pytest.raises(InvalidInput, match=r"energy_joules: got 'nan'; allowed: a finite number"):
        facts_from_json(text)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrialFacts("t", {}, TrialState.SUCCEEDED), "succeeded trial needs a value"),
        (lambda: TrialFacts("t", {}, TrialState.FAILED, 1.0), "failed trial has no value"),
        (lambda: TrialFacts("t", {}, TrialState.SUCCEEDED, 1.0, {"a": float("inf")}), "a must be finite"),
        (lambda: TrialFacts("t", {}, TrialState.PENDING, started=datetime(2026, 1, 1)), "needs a time zone"),
        (lambda: TrialFacts("t", {}, TrialState.PENDING, subset=1.5), r"subset must be in \(0, 1\]"),
        (lambda: TrialFacts("t", {}, TrialState.PENDING, seconds=-1.0), "must not be negative"),
        (lambda: CostFacts(energy_joules=-1.0), "energy_joules must not be negative"),
        (lambda: MetricReport({}, -1), "step must be in"),
        (lambda: FinalRun({}, {}, {"loss": -0.1}), "loss must not be negative"),
        (lambda: FinalRun({}, {}, {}, {"loss": (float("nan"),)}), "every value per example of 'loss' must be finite"),
        (lambda: ParameterFacts("p", "float"), "type must be"),
        (lambda: ParameterFacts("p", "double", low=2, high=1), "low <= high"),
        (lambda: ParameterFacts("p", "categorical"), "needs a list"),
        (lambda: ParameterFacts("p", "discrete", values=("1", "x")), "must be a number"),
        (lambda: replace(synthetic_facts(2), trials=synthetic_facts(1).trials * 2), "two trials are named"),
    ],
)
def test_facts_that_contradict_themselves_cannot_be_made(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def search_with(*values: float | None, goal: Goal = Goal.MINIMIZE) -> SearchFacts:
    states = {True: TrialState.FAILED, False: TrialState.SUCCEEDED}
    trials = tuple(TrialFacts(f"t{i}", {}, states[v is None], v) for i, v in enumerate(values))
    return replace(synthetic_facts(1, finals=False), objective=Objective("loss", goal), trials=trials)


def test_the_best_trial_follows_the_goal_and_is_the_earliest_of_equals() -> None:
    values = (None, 3.0, 1.0, 1.0, 3.0)
    low, high = search_with(*values).best, search_with(*values, goal=Goal.MAXIMIZE).best
    assert low is not None
    assert high is not None
    assert (low.name, high.name) == ("t2", "t1")
    assert search_with(None, None).best is None
    assert search_with().best is None


def test_an_early_stopped_trial_can_be_the_best() -> None:
    stopped = TrialFacts("stopped", {}, TrialState.EARLY_STOPPED, 0.5)
    facts = replace(search_with(1.0), trials=(*search_with(1.0).trials, stopped))
    assert facts.best is stopped


def test_the_default_trial_is_found_by_value_not_by_text() -> None:
    facts = synthetic_facts(5)
    assert facts.default_trial is facts.trials[0]
    other = replace(facts, default_configuration={**DEFAULT, "learning-rate": "2e-4", "rank": "8.0"})
    assert other.default_trial is facts.trials[0]
    assert replace(facts, default_configuration={**DEFAULT, "rank": "16"}).default_trial is None
    assert replace(facts, default_configuration=None).default_trial is None


def test_configurations_with_other_names_differ() -> None:
    facts = synthetic_facts(1)
    assert facts.same_configuration({"other": "1"}, {"other": "1"})
    assert not facts.same_configuration({"other": "1"}, {"another": "1"})
    assert not facts.same_configuration({}, {"rank": "8"})
    assert not facts.same_configuration({"target-modules": "1"}, {"target-modules": "1.0"})
