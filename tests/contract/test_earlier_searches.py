"""``earlier_searches`` over a real socket: what trials left on a real S3 server, by the trainer's own code for it."""
# ruff: noqa: F811 - a fixture is imported by name and taken by that name

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from rankwise.retry import Backoff
from rankwise.settings import Settings
from rankwise.strategies.earlier import EarlierTrials
from rankwise.strategies.options import Option, OptionTable
from rankwise.suggest.earlier import SETTING, EarlierSearches
from rankwise.suggest.library import Library, StoreLibrary
from rankwise.suggest.server import SuggestionServer
from rankwise.suggest.service import ServiceOptions, SuggestionService
from rankwise.suggest.wiring import wire
from support.earlier import FakeLibrary, ended, write_manifest
from support.encoders import FakeEncoder
from support.katib import FakeController, FakeStrategy, experiment, refused
from support.s3_server import S3Server, s3_server  # noqa: F401 - a fixture

QUICK = Backoff(attempts=2, first=0.01, longest=0.02)
NAMESPACE = "team-a"


class Taught(FakeStrategy):
    """A strategy that has the option."""

    def __init__(self) -> None:
        super().__init__("taught")
        self.options = OptionTable([Option("earlier_searches", str, "", "names")])

    @property
    def told(self) -> tuple[EarlierTrials, ...]:
        """What the last request brought."""
        return self.requests[-1].earlier


@contextmanager
def serving(library: Library, *, postpone: bool = True) -> Iterator[tuple[SuggestionServer, Taught]]:
    """A fresh service, as after a restart."""
    strategy = Taught()
    options = ServiceOptions(scope=NAMESPACE, postpone=postpone)
    service = SuggestionService({"taught": strategy, "sobol": FakeStrategy("sobol")}, options, EarlierSearches(library))
    with SuggestionServer(service, "127.0.0.1:0") as server:
        assert server.wait_ready(30)
        yield server, strategy


def later(address: str, text: str) -> FakeController:
    return FakeController(address, experiment("later", "taught", {"earlier_searches": text}))


def labels(controller: FakeController) -> list[str | None]:
    """Reasons of fallbacks."""
    return [suggestion.labels.get("rankwise.dev/fallback") for suggestion in controller.suggested]


@pytest.fixture
def store(s3_server: S3Server) -> dict[str, str]:
    """Environment of trials with a store of their own."""
    return s3_server.environment | {"RANKWISE_STORE": f"s3://shared/{secrets.token_hex(8)}"}


@pytest.fixture
def reader(store: Mapping[str, str], s3_server: S3Server) -> dict[str, str]:
    """Environment of the service: it may read and list, no more."""
    return {**store, **s3_server.reader_environment}


def earlier_trials(store: Mapping[str, str], *numbers: int, namespace: str = NAMESPACE) -> None:
    for number in numbers:
        flags = (f"--learning-rate={10.0**-number:g}", "--rank=8", "--alpha-ratio=2")
        write_manifest(store, "before", f"before-{number}", *flags, namespace=namespace, loss=2.0 + number)


def test_a_search_begins_with_what_trials_left_in_the_store_and_keeps_to_it(
    store: dict[str, str], reader: dict[str, str]
) -> None:
    earlier_trials(store, 2, 3)
    earlier_trials(store, 4, namespace="team-b")
    with serving(StoreLibrary(reader, NAMESPACE)) as (server, strategy):
        controller = later(server.address, "before, team-b/before")
        controller.ask(2)
        own, other = strategy.told
        assert (own.name, own.values, other.name, other.values) == ("before", (4.0, 5.0), "team-b/before", (6.0,))
        assert [one["learning_rate"] for one in own.configurations] == ["0.01", "0.001"]
        assert "before-2" in controller.settings[SETTING]
        # The strategy sees the user's settings alone.
        assert strategy.requests[-1].settings == {"earlier_searches": "before, team-b/before"}
    earlier_trials(store, 5)  # the earlier search still runs
    with serving(StoreLibrary(reader, NAMESPACE)) as (server, strategy):
        controller.address = server.address
        controller.ask(2)
        assert [(one.name, one.values) for one in strategy.told] == [("before", (4.0, 5.0)), ("team-b/before", (6.0,))]
        # Another search begins with what there is now.
        later(server.address, "before").ask(1)
        assert strategy.told[0].values == (4.0, 5.0, 7.0)
    assert labels(controller) == [None] * 4


def test_a_reply_that_was_lost_changes_nothing(store: dict[str, str], reader: dict[str, str]) -> None:
    earlier_trials(store, 2)
    with serving(StoreLibrary(reader, NAMESPACE)) as (server, strategy):
        controller = later(server.address, "before")
        lost = controller.ask(2, conflict=True)
        assert controller.ask(2) == lost
        assert [request.earlier[0].values for request in strategy.requests] == [(4.0,), (4.0,)]


def test_what_is_not_there_is_said_and_the_search_goes_on(
    store: dict[str, str], reader: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    earlier_trials(store, 2)
    with serving(StoreLibrary(reader, NAMESPACE)) as (server, strategy):
        controller = later(server.address, "before, misspelt")
        with caplog.at_level(logging.INFO, "rankwise.suggest.service"):
            controller.ask(2)
        assert [one.name for one in strategy.told] == ["before"]
        assert labels(controller) == ["earlier", "earlier"]
        assert server._service.counts["earlier"] == 1
        (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert "misspelt: s3://shared/" in warning.getMessage()
        assert "no ended trial under 'namespaces/team-a/experiments/misspelt/trials/'" in warning.getMessage()
        (answered,) = [record for record in caplog.records if record.getMessage() == "answered"]
        assert answered.__dict__["fallback"] == "earlier"
        assert answered.__dict__["details"] == {"earlier_searches": 1.0, "earlier_trials": 1.0}
        # It turns up too late.
        write_manifest(store, "misspelt", "misspelt-1", namespace=NAMESPACE, loss=1.0)
        controller.ask(1)
        assert [one.name for one in strategy.told] == ["before"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"S3_ENDPOINT": "http://127.0.0.1:9"}, "failed 2 times"),  # port 9 (discard): nobody listens
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "refused the credentials"),
        ({"S3_ENDPOINT": "nonsense"}, "S3_ENDPOINT: got 'nonsense'"),
        ({"RANKWISE_STORE": ""}, "RANKWISE_STORE is not set"),
    ],
)
def test_a_store_that_cannot_be_read_is_said_and_asked_again(
    store: dict[str, str],
    reader: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    change: dict[str, str],
    said: str,
) -> None:
    earlier_trials(store, 2)
    with serving(StoreLibrary({**reader, **change}, NAMESPACE, QUICK)) as (server, strategy):
        controller = later(server.address, "before")
        controller.ask(1)
        assert strategy.told == ()
        assert any(said in record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
        assert reader["AWS_SECRET_ACCESS_KEY"] not in caplog.text
        assert SETTING not in controller.settings  # nothing is fixed
    with serving(StoreLibrary(reader, NAMESPACE)) as (server, strategy):
        controller.address = server.address
        controller.ask(1)
        assert strategy.told[0].values == (4.0,)
    assert labels(controller) == ["earlier", None]


def test_a_wrong_name_is_refused_with_field_value_and_what_is_allowed() -> None:
    strategies = wire(Settings(cache=Path("unused")), FakeEncoder()).strategies
    library = FakeLibrary({})
    with SuggestionServer(SuggestionService(strategies, None, EarlierSearches(library)), "127.0.0.1:0") as server:
        message = experiment("later", "language-bo", {"earlier_searches": "good, Wrong/name", "belief": "[]"})
        said = refused(server.address, message)
        assert "spec.algorithm.algorithmSettings.earlier_searches: got 'Wrong/name'; allowed: up to 10" in said
        assert "spec.algorithm.algorithmSettings.belief: got '[]'" in said
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
            FakeController(server.address, experiment("later", "language-bo", {"earlier_searches": "Wrong"})).ask(1)
        assert "only the options" in refused(server.address, experiment("x", "sobol", {"earlier_searches": "a"}))
    assert library.asked == []


def test_while_they_are_read_katib_is_asked_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankwise.suggest.earlier._WAIT_SECONDS", 0.05)
    library = FakeLibrary({"before": [ended("before-1", 1.0)]})
    gate = threading.Event()
    library.before = lambda: None if gate.wait(30) else pytest.fail("nobody opened the gate")
    with serving(library) as (server, strategy):
        controller = later(server.address, "before")
        with pytest.raises(grpc.RpcError, match="the earlier search before is being read") as caught:
            controller.ask(1)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        assert server._service.counts["postponed-earlier"] == 1
        monkeypatch.setattr("rankwise.suggest.earlier._WAIT_SECONDS", 30.0)
        gate.set()
        controller.ask(1)
        assert strategy.told[0].values == (1.0,)
    assert len(library.asked) == 1


def test_without_the_setting_no_store_is_touched() -> None:
    library = FakeLibrary({})
    with serving(library) as (server, strategy):
        controller = FakeController(server.address, experiment("later", "taught"))
        controller.ask(2)
        assert (strategy.told, labels(controller)) == ((), [None, None])
    assert library.asked == []
    assert SETTING not in controller.settings
