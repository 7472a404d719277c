"""Earlier searches as a run on this machine finds them: other run folders, and the store where one is set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rankwise.artifacts import NotFound
from rankwise.deadline import Deadline
from rankwise.local.experiment import Experiment, load_experiment
from rankwise.local.journal import JOURNAL_FILE, Journal
from rankwise.local.records import Condition, TrialRecord
from rankwise.local.search import EXPERIMENT_FILE
from rankwise.report.words import plural
from rankwise.strategies.earlier import SearchName
from rankwise.suggest.earlier import READ_SECONDS, EarlierSearches
from rankwise.suggest.library import STORE_VARIABLE, EndedTrial, Library, StoreLibrary
from rankwise.train.__main__ import DIVERGED


class RunFolders:
    """Journals of run folders; a store for names that no folder has.

    Args:
        places: folders that hold run folders, the first ones first.
        store: None where none is set.
    """

    def __init__(self, places: Sequence[Path], store: Library | None) -> None:
        self._places = tuple(places)
        self._store = store

    def trials(
        self, search: SearchName, names: Sequence[str] | None, most: int, deadline: Deadline
    ) -> tuple[EndedTrial, ...]:
        """See :class:`rankwise.suggest.library.Library`. A name with a namespace is looked for in the store alone."""
        if search.namespace is None:
            for place in self._places:
                folder = place / search.experiment
                if all((folder / name).is_file() for name in (JOURNAL_FILE, EXPERIMENT_FILE)):
                    return _read_run(folder, names, most)
        if self._store is not None:
            return self._store.trials(search, names, most, deadline)
        looked = (
            "" if search.namespace else f"no run folder of that name in {' or '.join(map(str, self._places))}, and "
        )
        raise NotFound(f"{looked}{STORE_VARIABLE} is not set")


def _read_run(folder: Path, names: Sequence[str] | None, most: int) -> tuple[EndedTrial, ...]:
    experiment = load_experiment(folder / EXPERIMENT_FILE)
    with Journal(folder / JOURNAL_FILE) as journal:
        records = sorted(journal.trials(), key=lambda record: record.name)
    wanted = None if names is None else set(names)
    ended = (_ended(experiment, record) for record in records if wanted is None or record.name in wanted)
    found = tuple(trial for trial in ended if trial is not None)[:most]
    if not found:
        raise NotFound(f"no trial in {folder} has ended")
    return found


def _ended(experiment: Experiment, record: TrialRecord) -> EndedTrial | None:
    values = {name: record.value(name, strategy) for name, strategy in experiment.metric_strategies.items()}
    metrics = {name: value for name, value in values.items() if value is not None}
    # Only our own trainer ends so, or one that has the same reason to.
    diverged = record.condition is Condition.FAILED and record.exit_code == DIVERGED
    if not (metrics or diverged):
        return None
    return EndedTrial(record.name, dict(record.assignments), metrics, experiment.objective, diverged)


def earlier_searches(experiment: Experiment, places: Sequence[Path]) -> EarlierSearches:
    """Where a run looks for earlier searches.

    Args:
        experiment: of the run; its container may name the store, as the environment may.
        places: folders that hold run folders, the first ones first.
    """
    environment = {**os.environ, **experiment.container_env}
    store = StoreLibrary(environment, None) if environment.get(STORE_VARIABLE) else None
    return EarlierSearches(RunFolders(places, store))


def notes(earlier: EarlierSearches, experiment: Experiment) -> list[str]:
    """What a new run finds of the searches that its settings name, a line for each."""
    found = earlier.resolve(
        experiment.algorithm_settings, {}, experiment.name, experiment.objective, Deadline(READ_SECONDS), postpone=False
    )
    begins = [f"begins with what {search.name} found in {plural(len(search), 'trial')}" for search in found.searches]
    return begins + [f"goes on without all of an earlier search: {problem}" for problem in found.problems]
