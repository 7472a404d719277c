"""``rankwise prepare-model``: pretrained weights brought into the cache before a trial or a service needs them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.logs import FORMATS, configure_logging
from rankwise.pretrained import resolve
from rankwise.settings import Settings

logger = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="rankwise prepare-model",
        description="Find pretrained models and bring them into the cache ($RANKWISE_CACHE for converted ones, "
        "$HF_HOME for those of a hub): downloaded, converted, hashed. Trials and services that share the cache start "
        "at once then. What is there already is not made again, and several processes may prepare the same model.",
    )
    parser.add_argument(
        "references", nargs="+", metavar="REFERENCE", help="folder, hub id (owner/name[@revision]), or package:NAME"
    )
    parser.add_argument("--log-format", choices=FORMATS, default="text", help="form of the log lines (default: text)")
    arguments = parser.parse_args(list(argv))
    configure_logging(arguments.log_format)
    cache = Settings.from_environment().cache
    problems: list[Problem] = []
    failures: list[str] = []
    # One that cannot be had does not keep the others from being prepared.
    for reference in dict.fromkeys(arguments.references):
        try:
            found = resolve(reference, cache)
        except InvalidInput as error:
            problems += error.problems
        except SurroundingsError as error:
            failures.append(str(error))
        else:
            print(f"{reference}: {found.path_or_id} ({found.revision})", flush=True)
    for failure in failures:
        logger.error("%s", failure)
    if problems:
        raise InvalidInput(problems)
    return 3 if failures else 0
