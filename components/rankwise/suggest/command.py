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

from rankwise import __version__
from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.logs import FORMATS, LEVELS, configure_logging, take_over_the_rest
from rankwise.settings import Settings

if TYPE_CHECKING:
    from rankwise.strategies.base import Strategy
    from rankwise.suggest.server import SuggestionServer

log = logging.getLogger(__name__)

NAMESPACE_VARIABLE = "RANKWISE_NAMESPACE"
LOG_FORMAT_VARIABLE = "RANKWISE_LOG_FORMAT"
LOG_LEVEL_VARIABLE = "RANKWISE_LOG_LEVEL"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where Kubernetes tells a pod its namespace."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add = parser.add_argument
    add("--address", default="[::]:6789", help="host:port to listen on; port 0 takes a free one (%(default)s)")
    add(
        "--metrics-address",
        metavar="HOST:PORT",
        help="serve Prometheus metrics there; port 0 takes a free one (default: not at all)",
    )
    add(
        "--threads",
        type=int,
        default=10,
        help="requests handled at the same time; further ones are sent away to come again (%(default)s)",
    )
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
    add(
        "--log-format",
        choices=FORMATS,
        help=f"lines for a person or for a log store (default: {LOG_FORMAT_VARIABLE}, else text)",
    )
    add("--log-level", choices=LEVELS, help=f"least level of a line (default: {LOG_LEVEL_VARIABLE}, else info)")
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


def chosen_word(given: str | None, variable: str, allowed: Sequence[str], default: str) -> str:
    """An argument, else the environment's word, else the default.

    Raises:
        InvalidInput: the environment's word is not allowed.
    """
    word = given or os.environ.get(variable) or default
    if word not in allowed:
        raise InvalidInput([Problem(variable, word, ", ".join(allowed))])
    return word


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
    log_format = chosen_word(arguments.log_format, LOG_FORMAT_VARIABLE, FORMATS, "text")
    log_level = chosen_word(arguments.log_level, LOG_LEVEL_VARIABLE, LEVELS, "info")
    # Before torch is loaded, which takes seconds: without a handler, a container's first process ignores SIGTERM and is
    # killed after the whole grace period.
    stop = stop_on_signals()
    # Here, not above: `--help` need not wait for torch.
    import torch

    from rankwise.strategies.language_options import DEFAULT_EMBEDDER
    from rankwise.suggest.earlier import EarlierSearches
    from rankwise.suggest.library import StoreLibrary
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
    options = ServiceOptions(
        deadline=arguments.deadline, fits=arguments.fits, scope=namespace, calls=arguments.threads, postpone=True
    )
    configure_logging(log_format, log_level)
    take_over_the_rest()
    if namespace is None:
        log.info("no namespace is known: the controller names the trials")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    embedder = DEFAULT_EMBEDDER if arguments.embedder is None else arguments.embedder

    def warm_up() -> None:
        if embedder:
            wiring.encoders.probe(embedder, "auto")

    if stop.is_set():
        return 0
    server = serve(
        arguments.address,
        wiring.strategies,
        options,
        earlier=EarlierSearches(StoreLibrary(os.environ, namespace)),
        metrics_address=arguments.metrics_address,
        cache=wiring.encoders,
        warm_up=warm_up,
    )
    log.info(
        "listening",
        extra={
            "address": server.address,
            "metrics_address": server.metrics_address,
            "algorithms": ", ".join(sorted(wiring.strategies)),
            "version": __version__,
        },
    )
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
