"""``rankwise run``: search on this machine with an Experiment file that Katib would take."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rankwise.local.engine import RunResult, run
from rankwise.local.interruption import Interrupted
from rankwise.local.landscape import with_landscape
from rankwise.local.progress import choose_output, configuration_text
from rankwise.local.report_command import show_report
from rankwise.local.service import still_computing
from rankwise.local.status import trial_value

EXIT_FAILED = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a Katib v1beta1 Experiment (YAML)")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="run folder (default: runs/<name of the Experiment>)"
    )
    parser.add_argument(
        "--suggestion-endpoint",
        metavar="HOST:PORT",
        help="ask this suggestion service (Katib's gRPC API, plaintext) instead of our own",
    )
    parser.add_argument("--no-report", action="store_true", help="leave the report to `rankwise report`")
    parser.add_argument("--quiet", action="store_true", help="print only the result and errors")


def main(argv: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="rankwise run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Search on this machine. The same command goes on where a run stopped, whether by Ctrl-C, kill -9 or a\n"
            "power cut; no finished trial is lost. maxTrialCount, parallelTrialCount and maxFailedTrialCount may be\n"
            "changed in between, nothing else of the spec."
        ),
        epilog=(
            "exit codes: 0 the Experiment succeeded; 2 wrong input, or another run works in the folder; 3 the\n"
            "surroundings failed (service, disk); 4 the Experiment failed (maxFailedTrialCount reached, no trial with\n"
            "a value, or a final run failed); 130, 143, 129 ended by Ctrl-C, SIGTERM, SIGHUP: the same command goes on"
        ),
    )
    add_arguments(parser)
    arguments = parser.parse_args(list(argv))
    # What our service logs for a cluster's operators is shown here by the events themselves (refusals, fallbacks).
    logging.getLogger("rankwise").addHandler(logging.NullHandler())
    output = choose_output(sys.stdout, quiet=arguments.quiet)
    try:
        result = run(arguments.file, arguments.folder, endpoint=arguments.suggestion_endpoint, output=output)
    except Interrupted as interrupted:
        print("interrupted; every finished trial is saved: run the same command again to go on", file=sys.stderr)
        code = 128 + interrupted.signal_number
        if still_computing():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        return code
    print_result(result)
    if not arguments.no_report:
        show_report(with_landscape(result.facts, result.experiment.space), result.folder)
    return exit_code(result)


def exit_code(result: RunResult) -> int:
    """0 only when the Experiment succeeded with a best trial and every final run."""
    return 0 if result.verdict.succeeded and result.best is not None and not result.failed_finals else EXIT_FAILED


def print_result(result: RunResult) -> None:
    """The end of a run in a few lines."""
    print(result.verdict.message)
    choice = result.choice
    if choice is None:
        valued = any(trial_value(result.experiment, trial) is not None for trial in result.trials)
        # Trials with a value are none to train anew where they break a bound, or fail with most seeds.
        why = "no trial with a value is what the search looks for" if valued else "no trial ended with a value"
        print(f"{why}; the trials' outputs are in {result.folder / 'trials'}")
        return
    metric = result.experiment.objective.metric
    value = f"{choice.value:g}"
    if choice.trainings > 1:
        error = "" if choice.standard_error is None else f" ± {choice.standard_error:.2g}"
        value += f"{error} (mean of {choice.trainings} seeds)"
    print(f"best: {choice.trial.name} with {metric}={value}: {configuration_text(choice.trial.assignments)}")
    for trial in result.failed_finals:
        print(f"{trial.name} failed: {trial.reason}")
    print(f"run folder: {result.folder}")
