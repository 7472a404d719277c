"""``rankwise unregister``: the algorithm out of Katib's configuration."""

from __future__ import annotations

from collections.abc import Sequence

from rankwise.cluster.client import connect
from rankwise.cluster.register_command import CODES, shared_parser, tell
from rankwise.cluster.registration import load_entry, unregister


def main(argv: Sequence[str]) -> int:
    """Unregister; return the exit code."""
    parser = shared_parser(
        "unregister",
        "Take an algorithm out of Katib's configuration: the entry with the name and the owner of ENTRY, and no other. "
        "Where there is none, nothing is done. Experiments that run go on; new ones cannot name it.",
        CODES,
    )
    arguments = parser.parse_args(list(argv))
    entry = load_entry(arguments.entry)
    namespace = arguments.katib_namespace
    change = unregister(connect(arguments.kubeconfig, arguments.context), namespace, entry)
    tell(entry, namespace, change, "taken out")
    for other in change.others:
        print(f"{entry.algorithm} in {namespace}: left alone, since it is not ours ({other})")
    return 0
