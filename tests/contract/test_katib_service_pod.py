"""The service as a pod has it: probed while it is busy, scraped, its log collected, its secrets around it."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rankwise import __version__
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.logs import configure_logging
from rankwise.strategies.base import Suggestions, SuggestRequest
from rankwise.suggest.server import SuggestionServer
from rankwise.suggest.service import ServiceOptions, SuggestionService
from rankwise.suggest.tally import POSTPONED, REASONS
from support.katib import (
    FakeController,
    FakeStrategy,
    Running,
    Status,
    call,
    experiment,
    health,
    points,
    refused,
    request_with,
    validate,
)

SECONDS = 30.0


# --- busy -------------------------------------------------------------------------------------------------------------


class Blocked(FakeStrategy):
    """Answers and validates only when it is let go."""

    def __init__(self) -> None:
        super().__init__(behaviour=self._later)
        self.go_on = threading.Event()

    def _later(self, request: SuggestRequest) -> Suggestions:
        assert self.go_on.wait(SECONDS)
        return points(request)

    def validate(self, *given: object) -> list:  # type: ignore[type-arg,override]
        assert self.go_on.wait(SECONDS)
        return []


def test_health_answers_in_time_while_as_many_calls_wait_as_are_allowed() -> None:
    blocked = Blocked()
    with Running(blocked) as running, ThreadPoolExecutor(40) as pool:
        assert running.service.options.calls == 10
        asked = [pool.submit(call, running.address, request_with([])) for _ in range(10)]
        validated = [pool.submit(validate, running.address, experiment()) for _ in range(10)]
        while running.service._running < 10 or running.service._validating < 10:
            pass
        for _ in range(3):
            assert health(running.address, "manager.v1beta1.Suggestion", timeout=2.0) == "SERVING"
        # What comes on top is answered at once: a request comes again; of a validation what can be checked is checked.
        with pytest.raises(grpc.RpcError, match="too many requests at once") as caught:
            call(running.address, request_with([]), timeout=2.0)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        validate(running.address, experiment(), timeout=2.0)
        assert "nothing" in refused(running.address, experiment(settings={"nothing": "1"}))
        assert running.service.counts["postponed-busy"] == 1
        blocked.go_on.set()
        _, late = wait([*asked, *validated], SECONDS)
        assert not late
        assert all(len(one.result().parameter_assignments) == 1 for one in asked)
        assert [one.result() for one in validated] == [None] * 10


def test_a_limit_below_one_call_is_refused() -> None:
    with pytest.raises(InvalidInput, match="--threads: got '0'; allowed: a whole number of at least 1"):
        ServiceOptions(calls=0)


# --- metrics ----------------------------------------------------------------------------------------------------------

NAMES = {
    "rankwise_suggestion_requests_total",
    "rankwise_suggestions_total",
    "rankwise_suggestion_seconds_count",
    "rankwise_suggestion_seconds_sum",
    "rankwise_suggestion_seconds_bucket",
    "rankwise_fit_seconds_count",
    "rankwise_fit_seconds_sum",
    "rankwise_fit_seconds_bucket",
    "rankwise_fallbacks_total",
    "rankwise_postponed_total",
    "rankwise_refused_total",
    "rankwise_internal_errors_total",
    "rankwise_foreign_trials_total",
    "rankwise_embedding_cache_hits_total",
    "rankwise_embedding_cache_misses_total",
    "rankwise_trials",
    "rankwise_build_info",
}
"""What dashboards and alerts rely on."""


class Cache:
    hits, misses = 17, 4


def scrape(address: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, label values) -> value."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=SECONDS) as reply:
        text = reply.read().decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def behave(request: SuggestRequest) -> Suggestions:
    """A fit of three seconds; a fallback of its own at the third suggestion, a failure at the fourth."""
    if request.issued == 3:
        raise RuntimeError("no")
    fallback = "no vectors" if request.issued == 2 else None
    details = {"seconds_language": 2.0, "seconds_numeric": 1.0} if request.issued else {}
    return Suggestions(points(request).assignments, fallback, 0, details, "vectors")


def test_metrics_tell_what_happened() -> None:
    with Running(FakeStrategy(behaviour=behave), metrics_address="127.0.0.1:0", cache=Cache()) as running:
        address = running.server.metrics_address
        assert address is not None
        controller = FakeController(running.address, experiment())
        labels = []
        for number in range(4):
            (one,) = controller.ask(1).parameter_assignments
            labels.append(one.labels.get("rankwise.dev/fallback"))
            (name,) = controller.create()
            if number:
                controller.finish(name, Status.FAILED if number == 1 else Status.SUCCEEDED, loss="1")
        refused(running.address, experiment(settings={"nothing": "1"}))
        found = scrape(address)
    assert labels == [None, None, "vectors", "error"]
    assert {name for name, _ in found} == NAMES
    plain = {name: value for (name, labels_), value in found.items() if not labels_}
    assert plain["rankwise_suggestion_requests_total"] == 4
    assert plain["rankwise_suggestions_total"] == 4
    assert plain["rankwise_refused_total"] == 1
    assert plain["rankwise_internal_errors_total"] == 0
    assert plain["rankwise_suggestion_seconds_count"] == 4
    assert plain["rankwise_fit_seconds_count"] == 2
    assert plain["rankwise_fit_seconds_sum"] == 6.0
    assert found["rankwise_fit_seconds_bucket", ("2.5",)] == 0
    assert found["rankwise_fit_seconds_bucket", ("5.0",)] == found["rankwise_fit_seconds_bucket", ("+Inf",)] == 2
    assert plain["rankwise_embedding_cache_hits_total"] == 17
    assert plain["rankwise_embedding_cache_misses_total"] == 4
    fallbacks = {labels_[0]: value for (name, labels_), value in found.items() if name == "rankwise_fallbacks_total"}
    assert fallbacks == dict.fromkeys(REASONS, 0) | {"vectors": 1, "error": 1}
    assert {labels_[0] for name, labels_ in found if name == "rankwise_postponed_total"} == set(POSTPONED)
    trials = {labels_: value for (name, labels_), value in found.items() if name == "rankwise_trials"}
    # As they were in the last request, whose own trial was not there yet.
    assert {state: value for (of, state), value in trials.items() if of == "quickstart" and value} == {
        "pending": 1,
        "failed": 1,
        "succeeded": 1,
    }
    assert found["rankwise_build_info", (__version__,)] == 1
    with pytest.raises(urllib.error.URLError):
        scrape(address)  # it stops with the server


def test_reasons_that_a_strategy_makes_up_do_not_become_labels() -> None:
    def odd(request: SuggestRequest) -> Suggestions:
        return Suggestions(points(request).assignments, "x", 0, {}, "because of 0x7f3a")

    with Running(FakeStrategy(behaviour=odd)) as running:
        (one,) = FakeController(running.address, experiment()).ask(1).parameter_assignments
        assert one.labels["rankwise.dev/fallback"] == "strategy"
        assert running.service.counts["strategy"] == 1


def test_two_servers_of_a_process_do_not_mix() -> None:
    with (
        Running(metrics_address="127.0.0.1:0") as one,
        Running(metrics_address="127.0.0.1:0") as two,
        Running() as three,
    ):
        FakeController(one.address, experiment("only-here")).ask(2)
        assert one.server.metrics_address is not None
        assert two.server.metrics_address is not None
        assert three.server.metrics_address is None
        assert scrape(one.server.metrics_address)["rankwise_suggestions_total", ()] == 2
        there = scrape(two.server.metrics_address)
        assert there["rankwise_suggestions_total", ()] == 0
        assert not any("only-here" in labels for _, labels in there)


@pytest.mark.parametrize("address", ["", "9464", ":9464", "127.0.0.1:x", "127.0.0.1:70000"])
def test_a_metrics_address_of_another_form_is_told(address: str) -> None:
    service = SuggestionService({"sobol": FakeStrategy("sobol")})
    with pytest.raises(InvalidInput, match="--metrics-address"):
        SuggestionServer(service, "127.0.0.1:0", metrics_address=address)


def test_a_metrics_port_that_is_taken_is_told() -> None:
    service = SuggestionService({"sobol": FakeStrategy("sobol")})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SurroundingsError, match=f"cannot listen on {re.escape(address)}"):
            SuggestionServer(service, "127.0.0.1:0", metrics_address=address)


def test_a_client_that_says_nothing_does_not_keep_others_waiting() -> None:
    with Running(metrics_address="127.0.0.1:0") as running:
        assert running.server.metrics_address is not None
        host, _, port = running.server.metrics_address.partition(":")
        with socket.create_connection((host, int(port))):
            assert scrape(running.server.metrics_address)["rankwise_suggestions_total", ()] == 0


# --- the log ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The service's log as a program writes it, with secrets in the environment."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    logger = logging.getLogger("rankwise")
    before = (list(logger.handlers), logger.level, logger.propagate)
    written = io.StringIO()
    configure_logging("json", "debug", written)
    yield written
    logger.handlers[:], logger.level, logger.propagate = before


SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "HF_TOKEN": "hf_abcdefghijklmn",
    "HTTPS_PROXY": "http://proxyuser:proxypass@proxy:3128",
}


def lines_of(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_about_a_call_has_experiment_and_namespace_and_names_of_issued_trials(stream: io.StringIO) -> None:
    deep = logging.getLogger("rankwise.language.deep")

    def talks(request: SuggestRequest) -> Suggestions:
        deep.warning("from a lower floor, in another thread")
        return behave(request)

    with Running(FakeStrategy(behaviour=talks), options=ServiceOptions(scope="team-a")) as running:
        controller = FakeController(running.address, experiment("mine"))
        validate(running.address, experiment("mine"))
        refused(running.address, experiment("mine", settings={"nothing": "1"}))
        for count in (2, 1, 1, 1):  # the third is the fourth suggestion, which fails
            controller.ask(count)
            controller.create()
    lines = [line for line in lines_of(stream) if line["message"] not in ("ready",)]
    assert len(lines) > 10
    assert {(line.get("experiment"), line.get("namespace")) for line in lines} == {("mine", "team-a")}
    assert sum(line["logger"] == "rankwise.language.deep" for line in lines) == 4
    answers = [line for line in lines if line["message"] == "answered"]
    assert [line["trials"] for line in answers] == [
        [one.trial_name for one in controller.suggested[start:stop]] for start, stop in ((0, 2), (2, 3), (3, 4), (4, 5))
    ]
    assert [line.get("fallback") for line in answers] == [None, "vectors", "error", None]
    (failed,) = [line for line in lines if "exception" in line]
    assert "RuntimeError: no" in str(failed["exception"])


def test_no_secret_is_in_a_line_a_metric_or_an_answer(stream: io.StringIO) -> None:
    def leaks(request: SuggestRequest) -> Suggestions:
        password = "s3cr3t-in-the-code"  # noqa: F841
        try:
            raise OSError(f"GET https://me:url-pass@hub/x failed for {SECRETS['AWS_SECRET_ACCESS_KEY']}")
        except OSError as error:
            logging.getLogger("rankwise.x").warning("proxy is %s", SECRETS["HTTPS_PROXY"], extra={"token": "fact-pass"})
            raise RuntimeError("password='quoted pass' token: bare-pass, Authorization: Bearer bearer-pass") from error

    settings = {
        "aws_secret_access_key": "setting-pass",
        "api-key": "key-pass",
        "s3Password": "it's-a-pass",
        "store": "s3://user:store-pass@host/bucket",
    }
    with Running(FakeStrategy(behaviour=leaks), metrics_address="127.0.0.1:0") as running:
        message = refused(running.address, experiment(settings=settings))
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT") as caught:
            call(running.address, request_with([], message=experiment(settings=settings)))
        FakeController(running.address, experiment()).ask(1)
        assert running.server.metrics_address is not None
        metrics = repr(scrape(running.server.metrics_address))
    text = stream.getvalue()
    assert "RuntimeError" in text  # the traces are there
    assert "OSError: GET https://***@hub/x failed for ***" in text
    assert "aws_secret_access_key: got '***'; allowed: " in message
    hidden = [*SECRETS.values(), "proxypass", "setting-pass", "key-pass", "a-pass", "store-pass", "url-pass"]
    hidden += ["quoted pass", "bare-pass", "bearer-pass", "fact-pass", "s3cr3t-in-the-code"]
    for said in (text, metrics, message, str(caught.value.details())):  # type: ignore[attr-defined]
        assert [secret for secret in hidden if secret in said] == []
