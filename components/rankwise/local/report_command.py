"""``rankwise report``: the report of a run, made anew from what its folder holds."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from rankwise.errors import InvalidInput, Problem
from rankwise.local.engine import JOURNAL_FILE, trial_store
from rankwise.local.experiment import load_experiment
from rankwise.local.journal import Journal
from rankwise.local.run_facts import search_facts
from rankwise.local.search import EXPERIMENT_FILE
from rankwise.report.facts import SearchFacts


def main(argv: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="rankwise report",
        description="Write a run's report anew (HTML, JSON, Markdown, an Optuna study) and print its table. "
        "A run that still goes on may be reported too.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, e.g. runs/quickstart")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the report (default: RUN)")
    arguments = parser.parse_args(list(argv))
    report_run(arguments.run, arguments.output or arguments.run)
    return 0


def report_run(folder: Path, target: Path) -> None:
    """Read a run folder, write its report into ``target`` and print the table.

    Raises:
        InvalidInput: there is no run in the folder.
        SurroundingsError: the journal, the store or the disk failed.
    """
    missing = [name for name in (EXPERIMENT_FILE, JOURNAL_FILE) if not (folder / name).is_file()]
    if missing:
        allowed = f"a run folder, one that holds {' and '.join(missing)}"
        raise InvalidInput([Problem("RUN", str(folder), allowed)])
    experiment = load_experiment(folder / EXPERIMENT_FILE)
    with Journal(folder / JOURNAL_FILE) as journal:
        facts = search_facts(experiment, journal, trial_store(experiment, folder))
    show_report(facts, target)


def show_report(facts: SearchFacts, target: Path) -> None:
    """Write the report and print its table and where it is.

    Raises:
        SurroundingsError: the folder cannot be written.
    """
    # plotly and Optuna take seconds to load: only where a report is written.
    from rankwise.report.to_markdown import terminal_table
    from rankwise.report.write import write_report

    paths = write_report(facts, target)
    print(terminal_table(facts))
    print(f"report: {paths.html}")
    print(f"study:  optuna-dashboard {shlex.quote(f'sqlite:///{paths.optuna}')}")
