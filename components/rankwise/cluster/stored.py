"""What the trials of a cluster left in their store: manifests, read side by side, and a plain word where none was."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from rankwise.artifacts.manifest import Manifest
from rankwise.artifacts.store import Store, open_store
from rankwise.cluster.trials import ClusterTrial
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.report.sources import read_manifest
from rankwise.report.words import plural

_AT_ONCE = 8  # requests: a thousand manifests through a port-forward take half a minute one by one

MISSED = "so costs, versions, training curves and adapters are missing; states, parameters and metrics are Katib's own."


@dataclass(frozen=True, slots=True)
class Stored:
    """Manifests by trial name.

    Attributes:
        manifests: of the trials that have one.
        problems: trial name -> why its manifest could not be read.
        uri: the store that they are from; "" when none was read.
        note: what is missing and why, in a sentence; "" when nothing is.
    """

    manifests: dict[str, Manifest] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    uri: str = ""
    note: str = ""


def read_stored(trials: Sequence[ClusterTrial], uri: str | None) -> Stored:
    """Read the manifests of all trials.

    Args:
        trials: the trials.
        uri: the store; None takes the one that the trials' commands name.

    Raises:
        InvalidInput: the URI that was given, or a variable beside it, cannot be used.
    """
    if not trials:
        return Stored()
    if uri is None:
        named = sorted({trial.place.store for trial in trials if trial.place.store})
        if len(named) != 1:
            why = "the trials' commands name several stores" if named else "the trials' commands name no store"
            return Stored(note=f"No store was read ({why}, and neither --store nor RANKWISE_STORE is set), {MISSED}")
        if "://" not in named[0] or named[0].startswith("file:"):
            return Stored(note=f"The trials' store {named[0]} is a folder of their pods and was not read, {MISSED}")
        try:
            store = open_store(named[0])
        except InvalidInput as error:
            return Stored(note=f"The trials' store cannot be opened ({error}), {MISSED}")
    else:
        store = open_store(uri)
    return _read_all(trials, store)


def _read_all(trials: Sequence[ClusterTrial], store: Store) -> Stored:
    manifests: dict[str, Manifest] = {}
    problems: dict[str, str] = {}
    failed = threading.Event()
    failures: list[str] = []

    def read(trial: ClusterTrial) -> None:
        if failed.is_set():
            return
        try:
            manifest, problem = _read_one(store, trial)
        except SurroundingsError as error:
            # The store's own retries are used up: what is down for one trial is down for all.
            failed.set()
            failures.append(str(error))
            return
        if manifest is not None:
            manifests[trial.name] = manifest
        elif problem:
            problems[trial.name] = problem

    # The first one alone: a store that is down is asked once, not eight times side by side.
    read(trials[0])
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(read, trials[1:]))
    if failures:
        return Stored(manifests, problems, store.uri, f"The store {store.uri} failed ({min(failures)}), {MISSED}")
    finished = [trial for trial in trials if trial.value is not None]
    without = sum(trial.name not in manifests and trial.name not in problems for trial in finished)
    note = ""
    if without:
        note = f"The store {store.uri} holds no manifest of {without} of {plural(len(finished), 'trial')} with a value."
    return Stored(manifests, problems, store.uri, note)


def _read_one(store: Store, trial: ClusterTrial) -> tuple[Manifest | None, str]:
    problem = ""
    for namespace in trial.place.namespaces:
        try:
            manifest, problem = read_manifest(store, trial.place.experiment, trial.place.trial, namespace)
        except InvalidInput as error:  # a name that no store can hold
            return None, f"its manifest cannot be looked up: {error}"
        if manifest is not None or problem:
            return manifest, problem
    return None, problem
