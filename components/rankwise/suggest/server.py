"""One server: the suggestion service and its health, on one port, from start to drained end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from rankwise.errors import SurroundingsError
from rankwise.katib_api import api_pb2_grpc
from rankwise.strategies.base import Strategy
from rankwise.suggest.address import split_address
from rankwise.suggest.earlier import EarlierSearches
from rankwise.suggest.metrics import CacheCounts, MetricsServer, ServiceCollector
from rankwise.suggest.service import ServiceOptions, SuggestionService

log = logging.getLogger(__name__)

MESSAGE_BYTES = 64 * 2**20
"""Largest message either way. gRPC's default of 4 MiB is a history of some 4,000 trials, and then no request gets
through any more. (The controller accepts replies of up to 4 MiB; ours have kilobytes.)"""

HEALTH_NAMES = ("", "manager.v1beta1.Suggestion")
"""Names under which the server tells its health. The second is what Katib's probes ask for; it is not the service's
name on the wire, ``api.v1.beta1.Suggestion``."""

SPARE_THREADS = 4
"""Threads besides those that wait for a strategy: for health checks, and to send away what is too much. Otherwise the
kubelet would kill a service for being busy."""


class SuggestionServer:
    """A running server. Use it as a context manager, or call :meth:`stop`.

    Args:
        service: the calls.
        address: ``host:port``; port 0 takes a free one, see :attr:`port`.
        metrics_address: ``host:port`` of the metrics; None for none.
        cache: what counts the hits of the vectors' cache, for the metrics.
        warm_up: what must be ready before the first call, such as a model in memory; runs in the background. The
            health is NOT_SERVING until it ends. When it fails, the reason is logged and the health becomes SERVING
            all the same: then Katib calls ``ValidateAlgorithmSettings``, and the user reads the reason in the
            Experiment; a Deployment that never becomes available tells nobody why.

    Attributes:
        address: where the service listens.
        metrics_address: where the metrics are; None where they are not.

    Raises:
        InvalidInput: an address is not of that form.
        SurroundingsError: an address cannot be listened on.
    """

    def __init__(
        self,
        service: SuggestionService,
        address: str,
        *,
        metrics_address: str | None = None,
        cache: CacheCounts | None = None,
        warm_up: Callable[[], None] | None = None,
    ) -> None:
        split_address("--address", address)
        if metrics_address is not None:
            split_address("--metrics-address", metrics_address)
        self._service = service
        self._health = health.HealthServicer()
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server = grpc.server(
            # A request and a validation wait for a strategy; at most so many of each.
            ThreadPoolExecutor(max_workers=2 * service.options.calls + SPARE_THREADS, thread_name_prefix="call"),
            options=[
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
                ("grpc.max_send_message_length", MESSAGE_BYTES),
                # Otherwise a second server on the same port starts without a word, and each gets half of the calls.
                ("grpc.so_reuseport", 0),
            ],
        )
        api_pb2_grpc.add_SuggestionServicer_to_server(service, self._server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            self.port: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise SurroundingsError(f"cannot listen on {address}: is the port taken?") from error
        self.address: str = f"{address.rpartition(':')[0]}:{self.port}"
        self._ready = threading.Event()
        self._metrics: MetricsServer | None = None
        if metrics_address is not None:
            try:
                self._metrics = MetricsServer(metrics_address, ServiceCollector(service.tally, cache))
            except SurroundingsError:
                self._server.stop(0)
                raise
        self.metrics_address = None if self._metrics is None else self._metrics.address
        self._server.start()
        threading.Thread(target=self._warm_up, args=(warm_up,), name="warm-up", daemon=True).start()

    def __enter__(self) -> SuggestionServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in HEALTH_NAMES:
            self._health.set(name, status)

    def _warm_up(self, warm_up: Callable[[], None] | None) -> None:
        if warm_up is not None:
            try:
                warm_up()
            except Exception:
                log.exception("the warm-up failed; experiments that need what it loads will be refused with the reason")
        # Without effect once `stop` was called: the health servicer then ignores further changes.
        self._set_health(health_pb2.HealthCheckResponse.SERVING)
        self._ready.set()
        log.info("ready", extra={"address": self.address})

    def wait_ready(self, seconds: float) -> bool:
        """Wait until the warm-up ended; whether it did within ``seconds``."""
        return self._ready.wait(seconds)

    def stop(self, grace: float = 5.0) -> bool:
        """Say NOT_SERVING, let the running calls end, close the port. May be called again.

        While calls are running, health checks and validations are still answered; a new request for suggestions gets
        UNAVAILABLE, which makes the controller ask again.

        Args:
            grace: seconds for the running calls; after them they are cut off.

        Returns:
            Whether every call ended and neither a strategy nor the warm-up is computing any more.
        """
        self._service.refuse()
        self._health.enter_graceful_shutdown()
        ended = self._service.drain(grace)
        # What is still being answered now are health checks and validations, and calls that had their grace.
        self._server.stop(0.5 if ended else 0.0).wait()
        idle = self._service.close()
        if self._metrics is not None:
            # The last to go: how the end went can be read until it has come.
            self._metrics.close()
            self._metrics = None
        return ended and idle and self._ready.is_set()


def serve(
    address: str,
    strategies: Mapping[str, Strategy],
    options: ServiceOptions | None = None,
    *,
    earlier: EarlierSearches | None = None,
    metrics_address: str | None = None,
    cache: CacheCounts | None = None,
    warm_up: Callable[[], None] | None = None,
) -> SuggestionServer:
    """Start a server; it runs in threads of its own.

    Args:
        address: ``host:port``; ``127.0.0.1:0`` takes a free port.
        strategies: by algorithm name.
        options: how the service behaves.
        earlier: where earlier searches are looked up.
        metrics_address, cache, warm_up: see :class:`SuggestionServer`.

    Raises:
        InvalidInput: an argument is not allowed.
        SurroundingsError: the address cannot be listened on.
    """
    service = SuggestionService(strategies, options, earlier)
    return SuggestionServer(service, address, metrics_address=metrics_address, cache=cache, warm_up=warm_up)
