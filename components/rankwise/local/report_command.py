"""The report of a run, made anew from what its folder holds: ``rankwise report RUN``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rankwise.errors import InvalidInput, Problem
from rankwise.local.engine import trial_store
from rankwise.local.experiment import load_experiment
from rankwise.local.journal import JOURNAL_FILE, Journal
from rankwise.local.landscape import with_landscape
from rankwise.local.run_facts import search_facts
from rankwise.local.search import EXPERIMENT_FILE
from rankwise.report.facts import SearchFacts
from rankwise.strategies.goals import Constraint


def report_run(folder: Path, target: Path, landscape: bool = True, budget: Sequence[Constraint] = ()) -> None:
    """Read a run folder, write its report into ``target`` and print the table.

    Args:
        folder: the run's.
        target: folder for the report.
        landscape: whether the embedding space is shown where it can be had.
        budget: bounds of the reader's own, within which the best configuration is named as well.

    Raises:
        InvalidInput: there is no run in the folder.
        SurroundingsError: the journal, the store or the disk failed.
    """
    missing = [name for name in (EXPERIMENT_FILE, JOURNAL_FILE) if not (folder / name).is_file()]
    if missing:
        allowed = (
            f"a run folder, one that holds {' and '.join(missing)}; or an Experiment of a cluster with --namespace"
        )
        raise InvalidInput([Problem("RUN", str(folder), allowed)])
    experiment = load_experiment(folder / EXPERIMENT_FILE)
    with Journal(folder / JOURNAL_FILE) as journal:
        facts = search_facts(experiment, journal, trial_store(experiment, folder))
    show_report(with_landscape(facts, experiment.space) if landscape else facts, target, budget)


def show_report(facts: SearchFacts, target: Path, budget: Sequence[Constraint] = ()) -> None:
    """Write the report and print its tables and where it is.

    Raises:
        SurroundingsError: the folder cannot be written.
    """
    # plotly and Optuna take seconds to load: only where a report is written.
    from rankwise.report.to_markdown import terminal_table
    from rankwise.report.write import write_report

    paths = write_report(facts, target, budget)
    print(terminal_table(facts, budget))
    print(f"report: {paths.html}")
    print(f"study:  optuna-dashboard {shlex.quote(f'sqlite:///{paths.optuna}')}")
