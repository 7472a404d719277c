"""``rankwise validate``: every mistake of an Experiment file at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rankwise.errors import InvalidInput, Problem
from rankwise.local.early_stopping import check_early_stopping
from rankwise.local.experiment import Experiment, load_experiment
from rankwise.local.template_notes import cluster_notes, early_stopping_notes, machine_notes
from rankwise.settings import Settings
from rankwise.strategies.seeds import read_plan


def main(argv: Sequence[str]) -> int:
    """Run the verb; return the exit code: 0 when every file is right, 2 when one is not."""
    parser = argparse.ArgumentParser(
        prog="rankwise validate",
        description="Check Experiment files: form, search space, trial template, collector and, for our own "
        "algorithms, the settings. Each mistake comes with its path in the file, the value and what is allowed. Notes "
        "say what one machine or a cluster makes of the file, where they differ.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a Katib v1beta1 Experiment (YAML)")
    arguments = parser.parse_args(list(argv))
    wrong = False
    for path in arguments.files:
        problems, experiment = check(path)
        for problem in problems:
            # A file that cannot be read is its own place.
            print(problem if problem.path == str(path) else f"{path}: {problem}", file=sys.stderr)
        wrong = wrong or bool(problems)
        if experiment is not None and not problems:
            plan = read_plan(experiment.space, experiment.algorithm_settings)
            space = experiment.space if plan is None else plan.space
            points = "infinitely many" if space.size is None else f"{space.size:,}"
            seeds = "" if plan is None else f", each with up to {plan.seeds} values of {plan.parameter}"
            print(f"{path}: valid; {len(space.parameters)} parameters, {points} configurations{seeds}")
            template = experiment.template
            stopping = early_stopping_notes(template) if experiment.early_stopping else []
            for note in (*machine_notes(template), *cluster_notes(template), *stopping):
                print(f"{path}: note: {note}")
    return 2 if wrong else 0


def check(path: Path) -> tuple[list[Problem], Experiment | None]:
    """Every mistake of a file, and the Experiment where it could be read."""
    try:
        experiment = load_experiment(path)
    except InvalidInput as error:
        return list(error.problems), None
    return check_settings(experiment), experiment


def check_settings(experiment: Experiment) -> list[Problem]:
    """Mistakes that the form does not show: in the settings of the algorithm and of early stopping."""
    problems = check_algorithm(experiment)
    if experiment.early_stopping is not None:
        try:
            check_early_stopping(experiment.early_stopping.algorithm_name, experiment.early_stopping.settings)
        except InvalidInput as error:
            problems += error.problems
    return problems


def check_algorithm(experiment: Experiment) -> list[Problem]:
    """Mistakes in the algorithm's settings, as the suggestion service would find them."""
    # The strategies bring torch along: seconds, and needed only for a file that is right otherwise.
    from rankwise.suggest.wiring import wire

    strategies = wire(Settings.from_environment()).strategies
    strategy = strategies.get(experiment.algorithm_name)
    if strategy is None:
        allowed = f"one of {', '.join(sorted(strategies))} (others only with --suggestion-endpoint)"
        return [Problem("spec.algorithm.algorithmName", experiment.algorithm_name, allowed)]
    return list(strategy.validate(experiment.space, experiment.objective, experiment.algorithm_settings))
