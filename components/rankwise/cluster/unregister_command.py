"""``rankwise unregister``: algorithms out of Katib's configuration."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rankwise.cluster.client import connect
from rankwise.cluster.register_command import CODES, load_entries, look_at_all, shared_parser, tell
from rankwise.cluster.registration import EXPERIMENTS, Change, Entry, listed, unregister


def main(argv: Sequence[str]) -> int:
    """Unregister; return the exit code."""
    parser = shared_parser(
        "unregister",
        "Take algorithms out of Katib's configuration: the entry with the name and the owner of each ENTRY, and no "
        "other. Where there is none, nothing is done. Refused while Experiments name one of the algorithms, ended ones "
        "included: Katib lets none of them be changed or deleted once it is gone.",
        CODES,
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="take it out all the same; such Experiments stand still and cannot be deleted until it is there again",
    )
    arguments = parser.parse_args(list(argv))
    entries = load_entries(arguments.entries)
    namespace = arguments.katib_namespace
    cluster = connect(arguments.kubeconfig, arguments.context)
    look_at_all(entries, lambda entry: unregister(cluster, namespace, entry, force=arguments.force, dry_run=True))
    for entry in entries:
        change = unregister(cluster, namespace, entry, force=arguments.force)
        tell(entry, namespace, change, "taken out")
        _warn(entry, change, namespace)
    return 0


def _warn(entry: Entry, change: Change, namespace: str) -> None:
    """Say what may go wrong now."""
    if change.experiments is None:
        print(
            f"warning: not allowed to list {EXPERIMENTS}, so it could not be checked whether Experiments still name "
            f"{entry.algorithm}: Katib lets none of those be deleted until it is registered again",
            file=sys.stderr,
        )
    elif change.experiments:
        print(
            f"warning: {entry.algorithm} is still named by {listed(change.experiments)}: Katib lets none of them be "
            "changed or deleted until it is registered again",
            file=sys.stderr,
        )
    for other in change.others:
        print(f"{entry.algorithm} in {namespace}: left alone, since it is not ours ({other})")
