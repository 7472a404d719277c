"""``rankwise serve-suggestions`` as far as it needs no strategy."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from rankwise.katib_api import api_pb2
from rankwise.settings import Settings
from rankwise.suggest import command
from rankwise.suggest.wiring import wire
from support.katib import call, experiment


@pytest.mark.parametrize(
    ("given", "environment", "file", "found"),
    [
        ("a", {"RANKWISE_NAMESPACE": "b"}, "c", "a"),
        (None, {"RANKWISE_NAMESPACE": "b"}, "c", "b"),
        (None, {}, "c\n", "c"),
        (None, {"RANKWISE_NAMESPACE": ""}, "c", "c"),
        ("", {}, None, None),
        (None, {}, "", None),
    ],
)
def test_the_namespace_is_the_first_that_is_known(
    tmp_path: Path, given: str | None, environment: dict[str, str], file: str | None, found: str | None
) -> None:
    path = tmp_path / "namespace"
    if file is not None:
        path.write_text(file)
    assert command.find_namespace(given, environment, path) == found


def test_help_tells_every_argument_without_loading_torch() -> None:
    script = (
        "import sys\n"
        "from rankwise.suggest.command import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'grpc' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    for argument in ("--address", "--threads", "--fits", "--deadline", "--grace", "--namespace", "--describe"):
        assert argument in done.stdout


@pytest.mark.parametrize("arguments", [["--log-format", "xml"], ["--threads", "many"], ["--nothing"]])
def test_wrong_arguments_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.usefixtures("quiet")
def test_describe_prints_the_options_of_every_algorithm(capsys: pytest.CaptureFixture[str]) -> None:
    known = wire(Settings(cache=Path("unused"))).strategies
    for argument in ("--describe", "--help-options"):
        assert command.main([argument]) == 0
        text = capsys.readouterr().out
        for name, strategy in known.items():
            assert f"## {name}\n" in text
            for option in strategy.options:
                assert f"| `{option.name}` | {option.allowed} |" in text


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--deadline", "60"], {}, "--deadline: got '60.0'; allowed: seconds greater than 0 and less than 60"),
        (["--deadline", "nan"], {}, "--deadline: got 'nan'"),
        (["--fits", "0"], {}, "--fits: got '0'; allowed: a whole number of at least 1"),
        (["--grace", "-1"], {}, "--grace: got '-1.0'; allowed: seconds of at least 0"),
        (["--grace", "inf"], {}, "--grace: got 'inf'"),
        (["--threads", "0"], {}, "--threads: got '0'"),
        ([], {"RANKWISE_THREADS": "two"}, "RANKWISE_THREADS: got 'two'"),
        ([], {"RANKWISE_LOG_FORMAT": "xml"}, "RANKWISE_LOG_FORMAT: got 'xml'; allowed: text, json"),
        ([], {"RANKWISE_LOG_LEVEL": "loud"}, "RANKWISE_LOG_LEVEL: got 'loud'; allowed: debug, info, warning, error"),
    ],
)
def test_wrong_values_end_with_2_and_a_sentence(
    arguments: list[str],
    environment: dict[str, str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(command, "stop_on_signals", threading.Event)
    assert command.main(arguments) == 2
    assert f"rankwise serve-suggestions: {message}" in capsys.readouterr().err


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave this process's log and signals alone."""
    monkeypatch.setattr(command, "configure_logging", lambda *_: None)
    monkeypatch.setattr(command, "take_over_the_rest", lambda: None)
    monkeypatch.setattr(command, "stop_on_signals", threading.Event)


@pytest.mark.usefixtures("quiet")
def test_an_address_of_another_form_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--address", "6789"]) == 2
    assert "--address: got '6789'; allowed: host:port" in capsys.readouterr().err


@pytest.mark.usefixtures("quiet")
def test_a_metrics_address_of_another_form_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--address", "127.0.0.1:0", "--metrics-address", "9464"]) == 2
    assert "--metrics-address: got '9464'; allowed: host:port" in capsys.readouterr().err


def test_the_log_is_chosen_by_argument_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    name = command.LOG_LEVEL_VARIABLE
    monkeypatch.setenv(name, "")
    assert command.chosen_word(None, name, ("info", "debug", "error"), "info") == "info"
    monkeypatch.setenv(name, "debug")
    assert command.chosen_word(None, name, ("info", "debug", "error"), "info") == "debug"
    assert command.chosen_word("error", name, ("info", "debug", "error"), "info") == "error"


@pytest.mark.usefixtures("quiet")
def test_a_port_that_is_taken_ends_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert command.main(["--address", f"127.0.0.1:{taken.getsockname()[1]}", "--embedder", ""]) == 3
    assert "is the port taken?" in capsys.readouterr().err


FAKE_PROGRAM = """
import sys, threading, time
from rankwise.logs import configure_logging
from rankwise.suggest.command import run_until_stopped, stop_on_signals
from rankwise.suggest.server import serve
from support.katib import FakeStrategy, points

def slow(request):
    print("computing", flush=True)
    time.sleep(1.0)
    return points(request)

configure_logging("json")
stop = stop_on_signals()
server = serve("127.0.0.1:0", {"sobol": FakeStrategy("sobol"), "fake": FakeStrategy(behaviour=slow)})
print(server.address, flush=True)
sys.exit(0 if run_until_stopped(server, stop, grace=30) else 1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_running_call_end_and_the_process_exits_with_0(number: signal.Signals) -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-c", FAKE_PROGRAM],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        ) as process,
        ThreadPoolExecutor(1) as pool,
    ):
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        request = api_pb2.GetSuggestionsRequest(
            experiment=experiment(), current_request_number=3, total_request_number=3
        )
        answer = pool.submit(call, address, request)
        assert process.stdout.readline() == "computing\n"
        process.send_signal(number)
        assert len(answer.result(60).parameter_assignments) == 3
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
    messages = [json.loads(line)["message"] for line in errors.splitlines()]
    assert messages == ["ready", "stopping", "answered", "stopped"]


# The wiring's place is taken before it is imported: its libraries load for seconds.
ENDLESS_PROGRAM = """
import sys, time
from types import SimpleNamespace
from rankwise.suggest import command
from support.katib import FakeStrategy

def fit(request):
    print("computing", flush=True)
    time.sleep(600)

strategies = {"sobol": FakeStrategy("sobol"), "fake": FakeStrategy(behaviour=fit)}
wired = SimpleNamespace(strategies=strategies, encoders=None)
sys.modules["rankwise.suggest.wiring"] = SimpleNamespace(wire=lambda settings: wired)
arguments = ["--address", "127.0.0.1:0", "--embedder", "", "--grace", "0.5", "--log-format", "json"]
sys.exit(command.main(arguments))
"""


def test_a_signal_in_the_middle_of_an_endless_fit_ends_the_process_with_0(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", ENDLESS_PROGRAM],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        ) as process,
        ThreadPoolExecutor(1) as pool,
    ):
        while '"ready"' not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        address = next(line["address"] for line in lines if "address" in line)
        request = api_pb2.GetSuggestionsRequest(
            experiment=experiment(), current_request_number=1, total_request_number=1
        )
        answer = pool.submit(call, address, request)
        assert process.stdout is not None
        assert process.stdout.readline() == "computing\n"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(25) == 0
        assert time.monotonic() - began < 25  # a pod has 30
        with pytest.raises(grpc.RpcError, match=r"CANCELLED|UNAVAILABLE"):
            answer.result(30)
    last = json.loads(log.read_text().splitlines()[-1])
    assert (last["message"], last["every_call_ended"]) == ("stopped", False)


LOADING_PROGRAM = """
import sys, time
from types import SimpleNamespace
from rankwise.suggest import command

def wire(settings):
    print("loading", flush=True)
    time.sleep(0.5)  # a signal does not end it
    return SimpleNamespace(strategies={}, encoders=None)

sys.modules["rankwise.suggest.wiring"] = SimpleNamespace(wire=wire)
sys.exit(command.main(["--address", "127.0.0.1:0", "--embedder", ""]))
"""


def test_a_signal_while_the_program_still_loads_ends_it_with_0(tmp_path: Path) -> None:
    """As a container's first process it would not even notice a signal that it does not handle."""
    with subprocess.Popen(
        [sys.executable, "-c", LOADING_PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RANKWISE_CACHE": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_signal_while_the_real_program_loads_ends_it_with_0(tmp_path: Path) -> None:
    """Slow: it loads torch."""
    log = tmp_path / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "rankwise.suggest", "--address", "127.0.0.1:0", "--embedder", ""],
            stderr=errors,
            env=os.environ | {"RANKWISE_CACHE": str(tmp_path)},
        )
    handled = 1 << (signal.SIGTERM - 1)
    while True:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if int(status.partition("SigCgt:")[2].split()[0], 16) & handled:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert "Traceback" not in log.read_text()
