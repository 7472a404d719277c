"""``rankwise serve-suggestions``: the service as a program."""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.logs import FORMATS, LEVELS, configure_logging
from rankwise.settings import Settings

if TYPE_CHECKING:
    from rankwise.strategies.base import Strategy
    from rankwise.suggest.server import SuggestionServer

log = logging.getLogger(__name__)

NAMESPACE_VARIABLE = "RANKWISE_NAMESPACE"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where Kubernetes tells a pod its namespace."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add = parser.add_argument
    add("--address", default="[::]:6789", help="host:port to listen on; port 0 takes a free one (%(default)s)")
    add("--threads", type=int, default=10, help="calls handled at the same time (%(default)s)")
    add(
        "--fits",
        type=int,
        default=1,
        help="models fitted at the same time; more only where cores are to spare (%(default)s)",
    )
    add(
        "--deadline",
        type=float,
        default=45.0,
        metavar="SECONDS",
        help="time for one call, less than the controller's 60; Sobol points answer when it is over (%(default)s)",
    )
    add(
        "--grace",
        type=float,
        default=25.0,
        metavar="SECONDS",
        help="time for the running calls after SIGTERM; a pod has 30 (%(default)s)",
    )
    add(
        "--namespace",
        help="namespace of the Experiments; it goes into the names of their trials, since Katib's metrics database "
        f"knows no namespaces (default: {NAMESPACE_VARIABLE}, else the pod's own; where there is none, the "
        "controller names the trials)",
    )
    add(
        "--embedder",
        metavar="REFERENCE",
        help="language model to load before the service calls itself ready, so that the first call need not wait for "
        "it; an Experiment may name another; empty for none (default: that of language-bo)",
    )
    add("--log-format", choices=FORMATS, default="text", help="lines for a person or for a log store (%(default)s)")
    add("--log-level", choices=LEVELS, default="info", help="least level of a line (%(default)s)")
    add(
        "--describe",
        "--help-options",
        action="store_true",
        help="print the options of every algorithm (spec.algorithm.algorithmSettings) as Markdown, and end",
    )


def find_namespace(given: str | None, environment: Mapping[str, str], file: Path = NAMESPACE_FILE) -> str | None:
    """The namespace: the argument, else the environment's, else the pod's own; None where none is known."""
    if name := given or environment.get(NAMESPACE_VARIABLE):
        return name
    try:
        return file.read_text().strip() or None
    except OSError:
        return None


def describe(strategies: Mapping[str, Strategy]) -> str:
    """The options of every algorithm as Markdown."""
    sections = [f"## {name}\n\n{strategies[name].options.document().strip()}\n" for name in sorted(strategies)]
    return "\n".join(sections)


def run_until_stopped(server: SuggestionServer, stop: threading.Event, grace: float) -> bool:
    """Wait for ``stop``, then drain the server; see :meth:`~rankwise.suggest.server.SuggestionServer.stop`."""
    stop.wait()
    log.info("stopping", extra={"grace": grace})
    idle = server.stop(grace)
    log.info("stopped", extra={"every_call_ended": idle})
    return idle


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the form that signal wants
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop


def _serve(arguments: argparse.Namespace) -> int:
    # Here, not above: `--help` need not wait for torch.
    import torch

    from rankwise.strategies.language_bo import DEFAULT_EMBEDDER
    from rankwise.suggest.server import serve
    from rankwise.suggest.service import ServiceOptions
    from rankwise.suggest.wiring import wire

    settings = Settings.from_environment()
    wiring = wire(settings)
    if arguments.describe:
        print(describe(wiring.strategies))
        return 0
    if not 0 <= arguments.grace < math.inf:
        raise InvalidInput([Problem("--grace", str(arguments.grace), "seconds of at least 0")])
    namespace = find_namespace(arguments.namespace, os.environ)
    options = ServiceOptions(deadline=arguments.deadline, fits=arguments.fits, scope=namespace)
    configure_logging(arguments.log_format, arguments.log_level)
    if namespace is None:
        log.info("no namespace is known: the controller names the trials")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    embedder = DEFAULT_EMBEDDER if arguments.embedder is None else arguments.embedder

    def warm_up() -> None:
        if embedder:
            wiring.encoders.probe(embedder, "auto")

    stop = stop_on_signals()
    server = serve(arguments.address, wiring.strategies, options, threads=arguments.threads, warm_up=warm_up)
    log.info("listening", extra={"address": server.address, "algorithms": ", ".join(sorted(wiring.strategies))})
    idle = run_until_stopped(server, stop, arguments.grace)
    logging.shutdown()
    if not idle:
        # A fit that nobody waits for any more is still in torch; the interpreter's own end would abort in it.
        os._exit(0)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        The exit code: 0 after a drained stop, 2 wrong arguments, 3 the address cannot be listened on.
    """
    parser = argparse.ArgumentParser(
        prog="rankwise serve-suggestions",
        description="Serve Katib's suggestion API (api.v1.beta1) over gRPC, with health checks on the same port.",
        epilog="exit codes: 0 stopped by SIGTERM or SIGINT, 2 wrong arguments, 3 the address cannot be listened on",
    )
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        return _serve(arguments)
    except InvalidInput as error:
        for problem in error.problems:
            print(f"{parser.prog}: {problem}", file=sys.stderr)
        return 2
    except SurroundingsError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 3
