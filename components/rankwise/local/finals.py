"""Final runs: the default configuration and the best one found, trained and measured in the same way.

Two annotations of the Experiment, which Katib ignores, ask for them::

    rankwise.dev/default-configuration: '{"rank": "8", "learning_rate": "2e-4"}'
    rankwise.dev/final-arguments: '["--subset=1.0", "--evaluate=test"]'

They are no trials of the search: not counted, not sent to the algorithm, not in Katib's status.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rankwise.artifacts.store import Store
from rankwise.local.experiment import Experiment
from rankwise.local.journal import Journal
from rankwise.local.records import Condition, Kind, TrialRecord

DEFAULT = "default"
BEST = "best"


def final_name(experiment: Experiment, role: str) -> str:
    """Name of a final run, as a trial name and in the store's keys."""
    return f"{experiment.name}-final-{role}"


def wanted_finals(experiment: Experiment, best: TrialRecord) -> list[TrialRecord]:
    """The final runs that the Experiment asks for; none without the annotations."""
    configurations = {}
    if experiment.default_configuration is not None:
        configurations[DEFAULT] = experiment.default_configuration
    if configurations or experiment.final_arguments:
        configurations[BEST] = best.assignments
    return [
        TrialRecord(
            name=final_name(experiment, role),
            kind=Kind.FINAL,
            position=position,
            assignments=dict(assignments),
            arguments=tuple(experiment.final_arguments),
        )
        for position, (role, assignments) in enumerate(configurations.items())
    ]


def prepare_finals(
    experiment: Experiment, best: TrialRecord, journal: Journal, store: Store, trials_folder: Path
) -> list[TrialRecord]:
    """Bring the journal's final runs in line with what is wanted now.

    A run whose configuration and arguments are still wanted is kept when it succeeded, and goes on when it was not
    finished. One that failed is made again, and so is one for which something else is wanted now (another best trial
    after ``maxTrialCount`` was raised, other arguments): its checkpoint and results are removed first, so that nothing
    of the old configuration is taken for the new one.

    Returns:
        the wanted final runs, all of them in the journal.
    """
    wanted = wanted_finals(experiment, best)
    known = {trial.name: trial for trial in journal.trials(Kind.FINAL)}
    same = {
        trial.name
        for trial in wanted
        if trial.name in known
        and dict(known[trial.name].assignments) == dict(trial.assignments)
        and known[trial.name].arguments == trial.arguments
    }
    for name, trial in known.items():
        if name in same and not (trial.condition.is_finished and trial.condition is not Condition.SUCCEEDED):
            continue
        if name not in same:
            for key in store.list(f"experiments/{experiment.name}/trials/{name}/"):
                store.delete(key)
            shutil.rmtree(trials_folder / name, ignore_errors=True)
        journal.remove(name)
    left = {trial.name for trial in journal.trials(Kind.FINAL)}
    journal.add_trials(trial for trial in wanted if trial.name not in left)
    return wanted
