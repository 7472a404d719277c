"""An Experiment in the cluster as the report's facts: Katib's objects joined with the store's manifests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace

import rankwise
from rankwise.artifacts.manifest import Manifest, Outcome
from rankwise.cluster.experiment import ClusterExperiment, items, mapping, parameters_of, read_experiment
from rankwise.cluster.objects import Forbidden, KatibObjects, Missing
from rankwise.cluster.stored import Stored, read_stored
from rankwise.cluster.trials import ClusterTrial, in_order, read_trial
from rankwise.errors import InvalidInput, Problem
from rankwise.local.fields import suggestion
from rankwise.report.facts import SearchFacts, TrialFacts
from rankwise.report.sources import cost_facts, curve, environment_facts, subset_share
from rankwise.report.words import number, plural
from rankwise.space.trial import parse_finite
from rankwise.strategies.choice import aims_of

_NAMED = 20
"""Names that a message lists at most."""
_OUTCOMES = {Outcome.DIVERGED: "its loss became NaN or infinite", Outcome.OUT_OF_MEMORY: "it ran out of memory"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the API server told, read but not joined with anything.

    Attributes:
        experiment: the Experiment.
        trials: its trials in the order of suggestion, none of another Experiment.
        suggested: names in the Suggestion's order; empty where it could not be read.
        foreign: names of trials with our Experiment's label that another object owns.
        notes: what could not be read.
    """

    experiment: ClusterExperiment
    trials: tuple[ClusterTrial, ...]
    suggested: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_cluster(objects: KatibObjects, namespace: str, name: str) -> Snapshot:
    """Read an Experiment with its Suggestion and its trials.

    Raises:
        InvalidInput: there is no such Experiment; the message says which ones there are.
        SurroundingsError: a right is missing, or the API server failed after bounded retries.
    """
    try:
        experiment = read_experiment(objects.get("experiments", name))
    except Missing:
        raise InvalidInput([Problem("EXPERIMENT", name, _others(objects, namespace, name))]) from None
    notes = []
    suggested: tuple[str, ...] = ()
    try:
        status = mapping(objects.get("suggestions", name).get("status"))
        suggested = tuple(str(item.get("name", "")) for item in items(status.get("suggestions")))
    except Missing:
        if experiment.counted:
            notes.append("The Suggestion object is gone: trials stand in the order in which they were made.")
    except Forbidden as error:
        notes.append(f"The Suggestion could not be read ({error}): trials stand in the order in which they were made.")
    # After the Experiment: what its status names must be among these trials, unless it was deleted.
    found = [read_trial(item, experiment) for item in objects.trials(name)]
    own = [trial for trial in found if not trial.owner or not experiment.uid or trial.owner == experiment.uid]
    foreign = tuple(sorted(trial.name for trial in found if trial not in own))
    return Snapshot(experiment, tuple(in_order(own, suggested)), suggested, foreign, tuple(notes))


def _others(objects: KatibObjects, namespace: str, name: str) -> str:
    """What would have been right: the Experiments that there are."""
    try:
        names = objects.experiment_names()
    except Forbidden:
        return f"the name of an Experiment in namespace {namespace} (listing them is not allowed)"
    if not names:
        return f"the name of an Experiment; namespace {namespace} holds none (or there is no such namespace)"
    listed = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    return f"an Experiment in namespace {namespace}, which holds {listed}{suggestion(name, names)}"


def search_facts(snapshot: Snapshot, store: str | None, now: dt.datetime | None = None) -> SearchFacts:
    """Everything that a report says about the Experiment.

    Args:
        snapshot: what the API server told.
        store: URI of the store with the trials' manifests; None takes the one that the trials' commands name.
        now: when the cluster was read, for the note that the Experiment still goes on.

    Raises:
        InvalidInput: the store's URI cannot be used.
    """
    experiment = snapshot.experiment
    parameters, default, parameter_notes = parameters_of(experiment, [trial.assignments for trial in snapshot.trials])
    stored = read_stored(snapshot.trials, store)
    ordered = [stored.manifests[trial.name] for trial in snapshot.trials if trial.name in stored.manifests]
    environment = environment_facts(ordered)
    facts = SearchFacts(
        experiment=experiment.name,
        namespace=experiment.namespace,
        objective=experiment.objective,
        algorithm=experiment.algorithm,
        parameters=parameters,
        trials=tuple(_trial(trial, stored) for trial in snapshot.trials),
        default_configuration=default or aims_of(experiment.algorithm.settings, experiment.objective).goals.default,
        environment=replace(
            environment,
            versions={**environment.versions, "rankwise, this report": rankwise.__version__},
            commands=(f"kubectl get experiment {experiment.name} --namespace {experiment.namespace} --output yaml",),
        ),
        started=experiment.started,
        completed=experiment.completed,
        max_trials=experiment.max_trials,
        message=_sentence(experiment.ended.message or experiment.ended.reason) if experiment.ended else "",
        conditions=experiment.conditions,
        store=stored.uri if stored.manifests else "",
    )
    notes = (
        *_progress(experiment, facts, now),
        *_optimal(snapshot, facts),
        *_counts(snapshot),
        *snapshot.notes,
        *parameter_notes,
        *([stored.note] if stored.note else []),
    )
    return replace(facts, notes=notes)


def _trial(trial: ClusterTrial, stored: Stored) -> TrialFacts:
    manifest = stored.manifests.get(trial.name)
    return TrialFacts(
        name=trial.name,
        assignments=trial.assignments,
        state=trial.state,
        condition=trial.condition,
        value=trial.value,
        metrics=trial.metrics,
        started=trial.started,
        completed=trial.completed,
        seconds=trial.seconds,
        cost=cost_facts(manifest),
        subset=subset_share(manifest),
        history=() if manifest is None else curve(manifest),
        adapter="" if manifest is None else manifest.artifacts.get("adapter", ""),
        notes=tuple(_trial_notes(trial, manifest, stored.problems.get(trial.name, ""))),
    )


def _trial_notes(trial: ClusterTrial, manifest: Manifest | None, problem: str) -> list[str]:
    notes = [f"suggested by a fallback: {trial.fallback}"] if trial.fallback else []
    if trial.condition == "Succeeded" and trial.value is None:
        shown = "no value" if trial.reported is None else repr(trial.reported)
        notes.append(f"Katib calls it Succeeded, but it reported {shown}, which is no finite number")
    elif trial.reason:
        notes.append(trial.reason)
    if manifest is not None and manifest.outcome in _OUTCOMES:
        notes.append(_OUTCOMES[manifest.outcome])
    return [*notes, problem] if problem else notes


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _progress(experiment: ClusterExperiment, facts: SearchFacts, now: dt.datetime | None) -> list[str]:
    if experiment.deleting:
        return ["The Experiment is being deleted: trials may be missing."]
    if experiment.ended:
        return []
    at = f" This is how it stood at {now.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC." if now else ""
    ended = sum(trial.state.is_finished for trial in facts.trials)
    of = f" of {experiment.max_trials:,}" if experiment.max_trials else ""
    last = next((c for c in reversed(experiment.conditions) if c.status == "True"), None)
    word = f" (condition {last.type})" if last else ""
    return [f"The Experiment has not ended{word}: {ended:,}{of} trials have.{at}"]


def _counts(snapshot: Snapshot) -> list[str]:
    """Where suggestions, trials and Katib's own count do not match."""
    notes = []
    names = {trial.name for trial in snapshot.trials}
    if gone := [name for name in snapshot.suggested if name not in names]:
        why = "deleted, or never made" if snapshot.experiment.ended else "not made yet, or deleted"
        notes.append(f"{plural(len(gone), 'suggestion')} without a trial ({why}): {_listed(gone)}.")
    if snapshot.foreign:
        left = _listed(snapshot.foreign)
        notes.append(
            f"Left out: {left}, labelled with this name but owned by another Experiment object (an older one)."
        )
    counted, here = snapshot.experiment.counted, len(names) + len(snapshot.foreign)
    if snapshot.experiment.ended and counted != here:
        notes.append(f"Katib's status counts {plural(counted, 'trial')}, the cluster holds {here:,}.")
    return notes


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")


def _optimal(snapshot: Snapshot, facts: SearchFacts) -> list[str]:
    """Why the best trial is not the one of ``status.currentOptimalTrial``, when it is not."""
    experiment, theirs, best = snapshot.experiment, snapshot.experiment.optimal, facts.best
    if theirs == (best.name if best else ""):
        return []
    metric = experiment.objective.metric
    if not theirs:
        assert best is not None  # noqa: S101 - else both would be empty
        return [f"Katib's status names no best trial yet; here it is {best.name} ({metric} {number(best.value)})."]
    aims = facts.aims
    none = "here no trial has a value" if aims.is_objective_alone else "here no trial is what the search looks for"
    ours = f"here it is {best.name} ({metric} {number(best.value)})" if best else none
    trial = next((trial for trial in snapshot.trials if trial.name == theirs), None)
    return [f"Katib's status calls {theirs} the best trial, {ours}: {_why(snapshot, trial, facts)}."]


def _why(snapshot: Snapshot, theirs: ClusterTrial | None, facts: SearchFacts) -> str:
    experiment, best = snapshot.experiment, facts.best
    if theirs is None:
        if experiment.optimal in snapshot.foreign:
            return "that trial belongs to another Experiment object of this name"
        return "that trial is no longer in the cluster, and Katib keeps its name"
    value = None if theirs.reported is None else parse_finite(theirs.reported)
    if theirs.reported is not None and value is None:
        return f"it reported {theirs.reported!r}, which Katib takes for the best value though it is no finite number"
    if theirs.value is None:
        return f"its condition is {theirs.condition}, so its value does not count here"
    if not facts.aims.is_objective_alone:
        return "Katib looks at one training's objective alone, this search at its bounds, costs or seeds as well"
    assert best is not None  # noqa: S101 - a trial with a value is there
    if best.value == theirs.value:
        return "both have the same value, and the earlier suggestion counts here"
    return "Katib has not yet brought its status up to date with the trials"
