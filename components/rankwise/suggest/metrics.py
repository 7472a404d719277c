"""The service's numbers for Prometheus, on a port of their own.

Numbers are counted elsewhere (:mod:`rankwise.suggest.tally`, the encoders); here they are only read, at each scrape.
The registry is the server's own, so that several servers of one process do not mix.
"""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Iterator
from socketserver import ThreadingMixIn
from typing import Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from rankwise import __version__
from rankwise.errors import SurroundingsError
from rankwise.suggest.address import split_address
from rankwise.suggest.tally import POSTPONED, REASONS, Histogram, Tally

CLIENT_SECONDS = 10.0
"""A client that sends or takes nothing for so long is left."""


class CacheCounts(Protocol):
    """What knows how often vectors were found: :class:`rankwise.suggest.wiring.Encoders`."""

    @property
    def hits(self) -> int:
        """Vectors that were found."""

    @property
    def misses(self) -> int:
        """Vectors that had to be computed."""


class ServiceCollector(Collector):
    """Reads the numbers.

    Args:
        tally: those of the service.
        cache: those of the caches of vectors; None where there are none.
    """

    def __init__(self, tally: Tally, cache: CacheCounts | None = None) -> None:
        self._tally = tally
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        """All metrics; their names are what dashboards and alerts rely on."""
        figures = self._tally.figures()
        counts = figures.counts
        for name, count, text in (
            ("rankwise_suggestion_requests", "requests", "Requests for suggestions that were taken up"),
            ("rankwise_suggestions", "suggestions", "Configurations handed out"),
            ("rankwise_refused", "invalid", "Experiments and requests refused for a mistake of the user"),
            ("rankwise_internal_errors", "internal", "Requests that failed without an answer"),
            ("rankwise_foreign_trials", "foreign", "Trials in requests that are not of the search, left out"),
        ):
            yield CounterMetricFamily(name, text, value=counts.get(count, 0))
        fallbacks = CounterMetricFamily(
            "rankwise_fallbacks", "Requests answered by another method than the chosen one", labels=["reason"]
        )
        for reason in REASONS:
            fallbacks.add_metric([reason], counts.get(reason, 0))
        yield fallbacks
        postponed = CounterMetricFamily(
            "rankwise_postponed", "Requests sent away, for the controller to ask again", labels=["reason"]
        )
        for reason in POSTPONED:
            postponed.add_metric([reason], counts.get(f"postponed-{reason}", 0))
        yield postponed
        yield _histogram("rankwise_suggestion_seconds", "Time of an answered request", figures.suggestion)
        yield _histogram("rankwise_fit_seconds", "Time of the surrogate's fit in a request that fits", figures.fit)
        if self._cache is not None:
            for name, number, text in (
                ("hits", self._cache.hits, "Vectors found in the cache"),
                ("misses", self._cache.misses, "Vectors that had to be computed"),
            ):
                yield CounterMetricFamily(f"rankwise_embedding_cache_{name}", text, value=number)
        trials = GaugeMetricFamily(
            "rankwise_trials",
            "Trials by state in the Experiment's last request, those known from the service's own state among them",
            labels=["experiment", "state"],
        )
        for experiment, states in figures.trials.items():
            for state, number in states.items():
                trials.add_metric([experiment, state], number)
        yield trials
        build = GaugeMetricFamily("rankwise_build_info", "Always 1; the label tells the version", labels=["version"])
        build.add_metric([__version__], 1)
        yield build


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    buckets = [("+Inf" if math.isinf(bound) else repr(bound), count) for bound, count in histogram.cumulative()]
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.total)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # One that took over a taken port would answer in another's name.
    allow_reuse_port = False


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the library calls it by
        """A scrape is no event."""


class MetricsServer:
    """Serves ``/metrics``, in threads of its own.

    Args:
        address: ``host:port``; port 0 takes a free one, see :attr:`address`.
        collector: what is served.

    Attributes:
        address: where it listens.

    Raises:
        InvalidInput: the address is not of that form.
        SurroundingsError: the address cannot be listened on.
    """

    def __init__(self, address: str, collector: ServiceCollector) -> None:
        host, port = split_address("--metrics-address", address)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(collector)
        kind = _Server6 if ":" in host else _Server
        try:
            self._server = make_server(host, port, make_wsgi_app(registry), kind, handler_class=_Handler)
        except OSError as error:
            raise SurroundingsError(
                f"cannot listen on {address}: {error.strerror or error}; is the port taken?"
            ) from error
        self.address = f"[{host}]:{self._server.server_port}" if ":" in host else f"{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and free the port. May be called again."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
