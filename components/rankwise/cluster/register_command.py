"""``rankwise register``: the algorithm into Katib's configuration; what its opposite shares with it stands here too."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rankwise.cluster.client import add_cluster_arguments, connect
from rankwise.cluster.registration import CONFIG_MAP, Change, Entry, label_namespace, load_entry, register

CODES = "exit codes: 0 done, 2 wrong input, 3 the cluster failed or refused"


def shared_parser(verb: str, description: str, codes: str) -> argparse.ArgumentParser:
    """The arguments that both verbs have."""
    parser = argparse.ArgumentParser(prog=f"rankwise {verb}", description=description, epilog=codes)
    parser.add_argument(
        "entry", type=Path, metavar="ENTRY", help="the algorithm's entry (katib/registration/language-bo.yaml)"
    )
    parser.add_argument(
        "--katib-namespace", default="kubeflow", metavar="NAME", help="where Katib is installed (%(default)s)"
    )
    add_cluster_arguments(parser)
    return parser


def tell(entry: Entry, namespace: str, change: Change, done: str) -> None:
    """Say what happened: one line, and a second one when text of others was written anew."""
    where = f"{entry.algorithm} of {entry.owner} in {namespace}/{CONFIG_MAP}"
    print(f"{where}: {done if change.changed else 'nothing to do'}")
    if not change.kept_text:
        print(
            f"{where}: comments and layout of the other entries could not be kept; their values were", file=sys.stderr
        )


def main(argv: Sequence[str]) -> int:
    """Register; return the exit code."""
    parser = shared_parser(
        "register",
        "Put an algorithm into Katib's configuration, so that Experiments can name it. Every other entry stays as it "
        "is, comments included; doing it again changes nothing. Running Experiments keep the suggestion service that "
        "they started with.",
        f"{CODES}; with --check also 1: it is not registered like this",
    )
    parser.add_argument("--check", action="store_true", help="change nothing; print what would change, as a diff")
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace an entry of the same name that another release or somebody by hand put there",
    )
    parser.add_argument(
        "--label-namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="also let Katib collect metrics in this namespace (sets its label); may be repeated",
    )
    arguments = parser.parse_args(list(argv))
    entry = load_entry(arguments.entry)
    cluster = connect(arguments.kubeconfig, arguments.context)
    namespace = arguments.katib_namespace
    change = register(cluster, namespace, entry, force=arguments.force, dry_run=arguments.check)
    if arguments.check:
        sys.stdout.write(change.diff(namespace))
        tell(entry, namespace, change, "not registered like this")
        return int(change.changed)
    tell(entry, namespace, change, "registered")
    for name in arguments.label_namespace:
        print(f"namespace {name}: {'label set' if label_namespace(cluster, name) else 'label was there'}")
    return 0
