"""``rankwise register``: algorithms into Katib's configuration; what its opposite shares with it stands here too."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rankwise.cluster.client import add_cluster_arguments, connect
from rankwise.cluster.registration import CONFIG_MAP, Change, Entry, label_namespace, load_entry, register
from rankwise.errors import InvalidInput, Problem

CODES = "exit codes: 0 done, 2 wrong input, 3 the cluster failed or refused"


def shared_parser(verb: str, description: str, codes: str) -> argparse.ArgumentParser:
    """The arguments that both verbs have."""
    parser = argparse.ArgumentParser(prog=f"rankwise {verb}", description=description, epilog=codes)
    parser.add_argument(
        "entries",
        type=Path,
        nargs="+",
        metavar="ENTRY",
        help="an algorithm's entry (katib/registration/language-bo.yaml); several may be given",
    )
    parser.add_argument(
        "--katib-namespace", default="kubeflow", metavar="NAME", help="where Katib is installed (%(default)s)"
    )
    add_cluster_arguments(parser)
    return parser


def load_entries(paths: Sequence[Path]) -> list[Entry]:
    """Read the entries; nothing is done with one while another is wrong.

    Raises:
        InvalidInput: with every mistake of all of them, two entries of one algorithm among these.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            entry = load_entry(path)
        except InvalidInput as error:
            problems.extend(error.problems)
            continue
        if entry.algorithm in (other.algorithm for other in entries):
            problems.append(Problem(f"{path}: algorithmName", entry.algorithm, "an algorithm that no other file names"))
        entries.append(entry)
    if problems:
        raise InvalidInput(problems)
    return entries


def look_at_all(entries: Sequence[Entry], attempt: Callable[[Entry], Change]) -> None:
    """Try what is to be done with several entries, so that none is changed where another cannot be.

    Args:
        entries: one alone needs no look.
        attempt: what is to be done, without doing it.

    Raises:
        InvalidInput: with what is wrong with any of them.
    """
    problems: list[Problem] = []
    for entry in entries if len(entries) > 1 else ():
        try:
            attempt(entry)
        except InvalidInput as error:
            problems.extend(error.problems)
    if problems:
        raise InvalidInput(list(dict.fromkeys(problems)))


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
        "Put algorithms into Katib's configuration, so that Experiments can name them. Every other entry stays as it "
        "is, comments included; doing it again changes nothing. Running Experiments keep the suggestion service that "
        "they started with.",
        f"{CODES}; with --check also 1: one is not registered like this",
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
    entries = load_entries(arguments.entries)
    cluster = connect(arguments.kubeconfig, arguments.context)
    namespace = arguments.katib_namespace
    changed = False
    look_at_all(entries, lambda entry: register(cluster, namespace, entry, force=arguments.force, dry_run=True))
    for entry in entries:
        change = register(cluster, namespace, entry, force=arguments.force, dry_run=arguments.check)
        changed = changed or change.changed
        if arguments.check:
            sys.stdout.write(change.diff(namespace))
        tell(entry, namespace, change, "not registered like this" if arguments.check else "registered")
    if arguments.check:
        return int(changed)
    for name in arguments.label_namespace:
        print(f"namespace {name}: {'label set' if label_namespace(cluster, name) else 'label was there'}")
    return 0
