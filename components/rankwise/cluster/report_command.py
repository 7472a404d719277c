"""``rankwise report``: the report of a run folder, or of an Experiment in a cluster.

``--namespace`` decides: with it the argument is an Experiment's name in that namespace, without it a run folder.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import re
from collections.abc import Sequence
from pathlib import Path

from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.strategies.goals import Constraint, parse_constraints

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def main(argv: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="rankwise report",
        description="Write a report (HTML, JSON, Markdown, an Optuna study) and print its table. What still goes on "
        "may be reported too.",
        epilog="With --namespace the argument is an Experiment of a cluster. Needed are the rights get on experiments "
        "and suggestions and list on trials (API group kubeflow.org) in that namespace. Costs, versions, training "
        "curves and adapters come from the trials' store, if it can be read from here.",
    )
    parser.add_argument("subject", metavar="RUN|EXPERIMENT", help="a run folder, e.g. runs/quickstart; or a name")
    parser.add_argument(
        "--output", "--out", metavar="DIR", type=Path, help="folder (default: RUN, or reports/NAMESPACE/EXPERIMENT)"
    )
    parser.add_argument(
        "--no-landscape",
        dest="landscape",
        action="store_false",
        help="leave out the picture of the embedding space, for which the language model is read (some seconds)",
    )
    parser.add_argument(
        "--budget",
        metavar="BOUNDS",
        default="",
        help="name the best configuration within these bounds as well, e.g. 'peak_memory_bytes<=8GB, seconds<=10min'",
    )
    parser.add_argument("-n", "--namespace", metavar="NAME", help="namespace of the Experiment; asks a cluster")
    cluster = parser.add_argument_group("with --namespace")
    cluster.add_argument("--kubeconfig", metavar="FILE", type=Path, help="default: KUBECONFIG, or ~/.kube/config")
    cluster.add_argument("--context", metavar="NAME", help="context of the kubeconfig (default: its current one)")
    cluster.add_argument(
        "--store",
        metavar="URI",
        help="store of the trials, e.g. s3://bucket/prefix, with S3_ENDPOINT and keys in the environment (default: "
        "RANKWISE_STORE, else what the trials' commands name)",
    )
    arguments = parser.parse_args(list(argv))
    budget = _check(arguments)
    if arguments.namespace is None:
        from rankwise.local.report_command import report_run

        folder = Path(arguments.subject)
        report_run(folder, arguments.output or folder, arguments.landscape, budget)
        return 0
    report_experiment(
        arguments.subject,
        arguments.namespace,
        arguments.output or Path("reports", arguments.namespace, arguments.subject),
        kubeconfig=arguments.kubeconfig,
        context=arguments.context,
        store=arguments.store or os.environ.get("RANKWISE_STORE") or None,
        landscape=arguments.landscape,
        budget=budget,
    )
    return 0


def _check(arguments: argparse.Namespace) -> Sequence[Constraint]:
    """The budget; what is wrong or does not fit together is refused, all of it at once."""
    problems: list[Problem] = []
    budget: Sequence[Constraint] = ()
    try:
        budget = parse_constraints(arguments.budget, path="--budget")
    except InvalidInput as error:
        problems += error.problems
    if arguments.namespace is None:
        for name in ("kubeconfig", "context", "store"):
            if (value := getattr(arguments, name)) is not None:
                allowed = "nothing without --namespace, which asks a cluster"
                problems.append(Problem(f"--{name}", str(value), allowed))
    else:
        for path, value in (("EXPERIMENT", arguments.subject), ("--namespace", arguments.namespace)):
            if not _NAME.fullmatch(value):
                problems.append(Problem(path, value, "a name in the cluster: lower case letters, digits, - and ."))
    if problems:
        raise InvalidInput(problems)
    return budget


def report_experiment(
    name: str,
    namespace: str,
    target: Path,
    *,
    kubeconfig: Path | None = None,
    context: str | None = None,
    store: str | None = None,
    landscape: bool = True,
    budget: Sequence[Constraint] = (),
) -> None:
    """Read an Experiment from the cluster, write its report into ``target`` and print its tables.

    Args:
        name: the Experiment.
        namespace: its namespace.
        target: folder for the report.
        kubeconfig: a kubeconfig; None for the usual places.
        context: one of its contexts; None for the current one.
        store: URI of the trials' store; None takes the one that the trials' commands name.
        landscape: whether the embedding space is shown where it can be had.
        budget: bounds of the reader's own, within which the best configuration is named as well.

    Raises:
        InvalidInput: there is no such Experiment, no kubeconfig, or the store's URI is wrong.
        SurroundingsError: a right is missing, the API server failed, or the folder cannot be written.
    """
    try:
        from rankwise.cluster.client import api_client
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "kubernetes":
            raise
        raise SurroundingsError("the Kubernetes client is missing: pip install 'rankwise[cluster]'") from None
    from rankwise.cluster.facts import read_cluster, search_facts
    from rankwise.cluster.objects import KatibObjects
    from rankwise.local.landscape import with_landscape
    from rankwise.local.report_command import show_report
    from rankwise.report.to_terminal import trial_table

    with api_client(kubeconfig, context) as api:
        snapshot = read_cluster(KatibObjects(api, namespace), namespace, name)
    facts = search_facts(snapshot, store, dt.datetime.now(dt.UTC))
    print(trial_table(facts))
    if landscape:
        facts = with_landscape(facts, snapshot.experiment.parameters)
    show_report(facts, target, budget)
