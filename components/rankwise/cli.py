"""The command line: one verb, one module. A verb's module is imported only when the verb is used.

Exit codes of every verb: 0 success, 2 wrong input (each mistake on a line of its own), 3 the surroundings failed
(store, network, disk) after bounded retries, 130 interrupted. A verb that has more codes names them in its ``--help``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rankwise import __version__
from rankwise.errors import InvalidInput, SurroundingsError


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of the command line: ``module.main(argv) -> exit code`` does it."""

    module: str
    summary: str


VERBS = {
    "run": Verb("rankwise.local.command", "search on this machine; the same command goes on where a run stopped"),
    "report": Verb("rankwise.cluster.report_command", "the report of a run, or of an Experiment in a cluster"),
    "validate": Verb("rankwise.local.validate_command", "check Experiment files: every mistake at once, with its path"),
    "embed": Verb("rankwise.local.embed_command", "embed an Experiment's search space ahead of time"),
    "prepare-model": Verb("rankwise.local.prepare_command", "bring pretrained models into the cache ahead of time"),
    "train": Verb("rankwise.train.__main__", "one trial: train a LoRA adapter and report its metrics"),
    "serve-suggestions": Verb("rankwise.suggest.__main__", "serve Katib's suggestion API over gRPC"),
    "register": Verb("rankwise.cluster.register_command", "put the algorithm into the configuration of Katib"),
    "unregister": Verb("rankwise.cluster.unregister_command", "take it out again"),
    "check-store": Verb("rankwise.cluster.store_command", "write, read and delete an object of the store"),
}


def parser() -> argparse.ArgumentParser:
    """The parser of everything before the verb's own arguments."""
    verbs = "\n".join(f"  {name:<18} {verb.summary}" for name, verb in VERBS.items())
    top = argparse.ArgumentParser(
        prog="rankwise",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Good LoRA fine-tuning hyperparameters in about 30 short trainings.",
        usage="rankwise [--version] VERB ...",
        epilog=f"verbs:\n{verbs}\n\n`rankwise VERB --help` explains a verb.",
    )
    top.add_argument("--version", action="version", version=f"rankwise {__version__}")
    top.add_argument("verb", choices=sorted(VERBS), metavar="VERB", help=argparse.SUPPRESS)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the process's exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Everything after the verb belongs to the verb, its --help too.
    verb = parser().parse_args(arguments[:1] or ["--help"]).verb
    try:
        # A closed pipe (`rankwise report RUN | head`) shows only when the buffer is written.
        code = int(importlib.import_module(VERBS[verb].module).main(arguments[1:]))
        sys.stdout.flush()
    except InvalidInput as error:
        for problem in error.problems:
            print(f"rankwise {verb}: {problem}", file=sys.stderr)
        return 2
    except SurroundingsError as error:
        print(f"rankwise {verb}: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Python would print a traceback when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


if __name__ == "__main__":
    sys.exit(main())
