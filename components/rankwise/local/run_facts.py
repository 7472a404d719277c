"""What a run folder tells, as the report's facts: the journal's trials joined with the store's manifests.

A trial's command need not be ours; without a manifest its facts are those that the journal has.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import rankwise
from rankwise.artifacts.manifest import Manifest
from rankwise.artifacts.store import NotFound, Store
from rankwise.local.choice import STATES, metrics_of
from rankwise.local.experiment import Experiment
from rankwise.local.finals import BEST, DEFAULT, final_name
from rankwise.local.journal import Journal
from rankwise.local.records import Condition, Kind, TrialRecord
from rankwise.local.status import trial_value
from rankwise.report.facts import (
    AlgorithmFacts,
    EnvironmentFacts,
    Example,
    FinalRun,
    Finals,
    LeadBaseline,
    MetricReport,
    SearchFacts,
    TrialFacts,
)
from rankwise.report.sources import (
    cost_facts,
    curve,
    environment_facts,
    parameter_facts,
    read_manifest,
    subset_share,
)
from rankwise.space.trial import parse_finite
from rankwise.strategies.choice import aims_of
from rankwise.train.replay import LEAD, LEAD_WORDS, TEST

T = TypeVar("T")

RUN_COMMAND = "rankwise run experiment.yaml"
"""Makes a run anew from the Experiment that its folder holds."""


def search_facts(experiment: Experiment, journal: Journal, store: Store) -> SearchFacts:
    """Everything that a report says about this run.

    Args:
        experiment: the Experiment as it is now.
        journal: the run's journal.
        store: where the trials' manifests are.

    Raises:
        SurroundingsError: the journal or the store cannot be read.
    """
    trials, finals = [], {}
    manifests: list[Manifest] = []
    for record in journal.trials():
        manifest, problem = read_manifest(store, experiment.name, record.name)
        manifests += [] if manifest is None else [manifest]
        trials.append(_trial(experiment, journal, record, manifest, problem))
    for record in journal.trials(Kind.FINAL):
        manifest, _ = read_manifest(store, experiment.name, record.name)
        manifests += [] if manifest is None else [manifest]
        if record.condition is Condition.SUCCEEDED:
            finals[record.name] = _final(record, manifest, store)
    default, best = (finals.get(final_name(experiment, role)) for role in (DEFAULT, BEST))
    conditions = journal.conditions()
    ended = conditions[-1] if conditions and conditions[-1].type in ("Succeeded", "Failed") else None
    return SearchFacts(
        experiment=experiment.name,
        objective=experiment.objective,
        algorithm=AlgorithmFacts(experiment.algorithm_name, dict(experiment.algorithm_settings)),
        parameters=tuple(parameter_facts(parameter) for parameter in experiment.space.parameters),
        trials=tuple(trials),
        default_configuration=experiment.default_configuration
        or aims_of(experiment.algorithm_settings, experiment.objective).goals.default,
        finals=Finals(default=default, best=best, lead=lead_baseline(manifests, store)),
        environment=_environment(manifests),
        started=_time(journal.start_time),
        completed=None if ended is None else _time(ended.time),
        max_trials=experiment.max_trial_count,
        message="" if ended is None else ended.message,
    )


def _trial(
    experiment: Experiment, journal: Journal, record: TrialRecord, manifest: Manifest | None, problem: str
) -> TrialFacts:
    notes = [f"suggested by a fallback: {record.labels[key]}" for key in record.labels if key.endswith("/fallback")]
    if record.condition.is_finished and record.condition is not Condition.SUCCEEDED:
        notes.append(record.reason)
    if problem:
        notes.append(problem)
    if record.attempts > 1:
        notes.append(f"started {record.attempts} times")
    return TrialFacts(
        name=record.name,
        assignments=record.assignments,
        state=STATES[record.condition],
        condition=record.condition.value,
        value=trial_value(experiment, record),
        metrics=metrics_of(experiment, record),
        started=_time(record.start_time),
        completed=_time(record.completion_time),
        seconds=record.seconds,
        cost=cost_facts(manifest),
        subset=subset_share(manifest),
        history=_history(experiment, journal, record, manifest),
        adapter="" if manifest is None else manifest.artifacts.get("adapter", ""),
        notes=tuple(notes),
    )


def _history(
    experiment: Experiment, journal: Journal, record: TrialRecord, manifest: Manifest | None
) -> tuple[MetricReport, ...]:
    """What the trial reported on its way: by optimizer step where its manifest has that.

    Otherwise the n-th report of each metric side by side; the trial's output does not tell the step.
    """
    if manifest is not None and manifest.history:
        return curve(manifest)
    rows: list[dict[str, float]] = []
    for metric in (experiment.objective.metric, *experiment.objective.additional_metrics):
        for index, report in enumerate(journal.reports(record.name, metric)):
            number = parse_finite(report.value)
            if index == len(rows):
                rows.append({})
            if number is not None:
                rows[index][metric] = number
    return tuple(MetricReport(row) for row in rows if row)


def _final(record: TrialRecord, manifest: Manifest | None, store: Store) -> FinalRun:
    """A final run; measured on the test split where its manifest has that, else what its output said."""
    if manifest is None or manifest.test_metrics is None:
        metrics = {s.name: v for s in record.summaries if (v := s.value("latest")) is not None}
        return FinalRun(record.assignments, metrics, cost=cost_facts(manifest))
    return final_run(record.assignments, manifest, store)


def final_run(assignments: Mapping[str, str], manifest: Manifest, store: Store) -> FinalRun:
    """A final run from its manifest, which has measured it on the test split.

    Args:
        assignments: its configuration in Katib's text form.
        manifest: of the training.
        store: where its values per example are.

    Raises:
        SurroundingsError: the store failed after bounded retries.
    """
    tested = _tested(manifest)
    values = _per_example(manifest, store)
    return FinalRun(
        assignments=assignments,
        metrics=tested,
        standard_errors=_named(manifest.standard_errors, tested),
        per_example=_named(values, tested),
        cost=cost_facts(manifest),
        subset=subset_share(manifest),
        examples=tuple(Example(e.source, e.target, e.prediction) for e in manifest.examples),
    )


def _tested(manifest: Manifest) -> dict[str, float]:
    """Metrics of the model on the test split, without those of the baseline."""
    return {name: v for name, v in (manifest.test_metrics or {}).items() if not name.startswith(LEAD)}


def _named(values: Mapping[str, T], names: Iterable[str], prefix: str = TEST) -> dict[str, T]:
    """Those of ``values`` that are known as ``prefix`` and a name."""
    return {name: values[prefix + name] for name in names if prefix + name in values}


def _per_example(manifest: Manifest, store: Store) -> dict[str, tuple[float, ...]]:
    """The trial's values per example; empty where it kept none that can be read."""
    key = manifest.artifacts.get("per_example")
    if key is None:
        return {}
    try:
        return {name: tuple(map(float, values)) for name, values in json.loads(store.get_bytes(key)).items()}
    except (NotFound, ValueError, TypeError, AttributeError):
        # Only the pairing of examples is lost; the report compares the means then.
        return {}


def lead_baseline(manifests: Iterable[Manifest], store: Store) -> LeadBaseline | None:
    """The baseline without training; every final run measures it on the same examples. None where none did."""
    for manifest in manifests:
        tested = manifest.test_metrics or {}
        names = [name.removeprefix(LEAD) for name in tested if name.startswith(LEAD)]
        if names:
            return LeadBaseline(
                f"first {LEAD_WORDS} words",
                _named(tested, names, LEAD),
                _named(manifest.standard_errors, names, TEST + LEAD),
                _named(_per_example(manifest, store), names, TEST + LEAD),
            )
    return None


def _environment(manifests: Iterable[Manifest]) -> EnvironmentFacts:
    """What the manifests tell, and this machine, on which the run was made."""
    told = environment_facts(manifests)
    cores = os.cpu_count() or 1
    return replace(
        told,
        versions={**told.versions, "rankwise": rankwise.__version__, "python": platform.python_version()},
        commands=(RUN_COMMAND,),
        device=f"{platform.machine()}, {cores} core{'s' if cores != 1 else ''}",
    )


def _time(text: str | None) -> dt.datetime | None:
    return None if text is None else dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
