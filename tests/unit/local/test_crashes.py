"""The engine as a process of its own: killed, interrupted, started twice, on a full disk.

What comes after such an end runs in this process (``again``): it is the run folder that it is about.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from rankwise.cli import main
from rankwise.local.engine import run
from support.local_runs import (
    LOSS,
    FakeSuggestions,
    engine_command,
    experiment,
    rows,
    search_rows,
    status,
)

PATIENCE = 60.0
"""Bound of every wait: a machine under load is slow, a hanging test is broken."""
SLOW = f"time.sleep(0.15)\n{LOSS}"


def engine(file: Path, folder: Path, endpoint: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, *engine_command(file, folder, endpoint)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def again(file: Path, folder: Path, endpoint: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The same command in this process, which need not load anything."""
    capsys.readouterr()
    code = main(engine_command(file, folder, endpoint)[3:])  # without python -m rankwise.cli
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def wait_until(condition: object, process: subprocess.Popen[str] | None = None) -> None:
    assert callable(condition)
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "what was waited for does not come"
        assert process is None or process.poll() is None, "the engine has ended"
        time.sleep(0.01)


def holder(folder: Path) -> str:
    """Which process works, or worked last, in a run folder."""
    lock = folder / "engine.lock"
    return lock.read_text() if lock.exists() else ""


def kill_now_and_then(file: Path, folder: Path, endpoint: str, seed: int, times: int) -> int:
    """Kill the engine at random moments of its work, at most ``times``; let it finish; return how often it was."""
    moments = random.Random(seed)
    killed = 0
    while True:
        before = holder(folder)
        process = engine(file, folder, endpoint)
        if killed < times:
            # The start of Python takes longer than a trial: count from the moment at which the engine works.
            wait_until(lambda before=before: holder(folder) not in ("", before))
            try:
                process.wait(moments.uniform(0.0, 0.4))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                killed += 1
                continue
        code, _, err = finish(process)
        assert (code, err) == (0, "")
        return killed


@pytest.fixture(scope="module")
def real_endpoint() -> Iterator[str]:
    """The real service with the real ``sobol`` and ``random``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # linear_operator uses torch.jit.script when imported
        from rankwise.strategies.random_search import RandomSearch
        from rankwise.strategies.sobol import Sobol
        from rankwise.suggest.server import serve

    with serve("127.0.0.1:0", {"sobol": Sobol(), "random": RandomSearch()}) as server:
        yield server.address


@pytest.mark.parametrize("algorithm", ["sobol", pytest.param("random", marks=pytest.mark.slow)])
def test_kill_9_at_random_moments(tmp_path: Path, real_endpoint: str, algorithm: str) -> None:
    """Every trial is there exactly once, with the suggestions and values of a run that was left alone."""
    spec = {"algorithm": {"algorithmName": algorithm}, "maxTrialCount": 6}
    undisturbed = run(experiment(tmp_path / "calm", **spec), tmp_path / "calm" / "run", endpoint=real_endpoint)
    assert len({str(trial.assignments) for trial in undisturbed.trials}) == 6
    file = experiment(tmp_path, SLOW, **spec)
    folder = tmp_path / "run"
    assert kill_now_and_then(file, folder, real_endpoint, seed=1, times=3) >= 2
    trials = search_rows(folder)
    assert trials == [(trial.name, dict(trial.assignments), "Succeeded") for trial in undisturbed.trials]
    state = status(folder)
    assert (state["trials"], state["trialsSucceeded"]) == (6, 6)
    assert len(list((folder / "trials").iterdir())) == 6
    for name, assignments, _ in trials:
        value = (float(assignments["x"]) - 3) ** 2 + (0.5 if assignments["kind"] == "b" else 0)
        ((stored,),) = rows(folder, f"SELECT DISTINCT value FROM observations WHERE trial='{name}'")
        assert float(stored) == value
        # No trial ran twice at a time or without need: each was started as often as the journal says.
        ((attempts,),) = rows(folder, f"SELECT attempts FROM trials WHERE name='{name}'")
        assert (folder / "trials" / name / "starts").read_text().count("start") <= attempts


def test_kill_9_with_three_side_by_side(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    file = experiment(tmp_path, SLOW, maxTrialCount=6, parallelTrialCount=3)
    folder = tmp_path / "run"
    kill_now_and_then(file, folder, endpoint, seed=2, times=2)
    trials = search_rows(folder)
    assert [condition for _, _, condition in trials] == ["Succeeded"] * 6
    assert len({name for name, _, _ in trials}) == 6
    assert status(folder)["trialsSucceeded"] == 6
    # The history that the service saw never shrank.
    seen = [{trial.name for trial in request.trials} for request in service.requests]
    assert all(earlier <= later for earlier, later in pairwise(seen))


def test_a_trial_that_ended_while_no_engine_ran_is_not_run_again(
    tmp_path: Path, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    body = f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n{LOSS}"
    file = experiment(tmp_path, body, maxTrialCount=1)
    folder = tmp_path / "run"
    first = engine(file, folder, endpoint)
    wait_until(lambda: list(folder.glob("trials/*/starts")), first)
    first.kill()
    first.communicate()
    (trial,) = (folder / "trials").iterdir()
    (tmp_path / "go").touch()
    wait_until(lambda: (trial / "exit-code").exists())
    code, out, _ = again(file, folder, endpoint, capsys)
    assert code == 0
    assert "taken up again" in out
    assert (trial / "starts").read_text() == "start\n"
    assert rows(folder, "SELECT condition, attempts FROM trials") == [("Succeeded", 1)]


def test_a_killed_trial_is_started_again_with_its_assignments(
    tmp_path: Path, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a power cut: engine and trial are both gone."""
    body = f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n{LOSS}"
    file = experiment(tmp_path, body, maxTrialCount=1)
    folder = tmp_path / "run"
    first = engine(file, folder, endpoint)
    wait_until(lambda: list(folder.glob("trials/*/starts")), first)
    before = search_rows(folder)
    first.kill()
    first.communicate()
    ((pid,),) = rows(folder, "SELECT pid FROM trials")
    os.killpg(pid, signal.SIGKILL)
    (tmp_path / "go").touch()
    code, _, _ = again(file, folder, endpoint, capsys)
    assert code == 0
    assert [row[:2] for row in search_rows(folder)] == [row[:2] for row in before]
    assert rows(folder, "SELECT condition, attempts FROM trials") == [("Succeeded", 2)]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c(tmp_path: Path, endpoint: str, number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    body = f"""
def save(*_):
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
open("ready", "w").close()
while not os.path.exists({str(tmp_path / "go")!r}): time.sleep(0.01)
{LOSS}
"""
    file = experiment(tmp_path, body, maxTrialCount=2, parallelTrialCount=2)
    folder = tmp_path / "run"
    process = engine(file, folder, endpoint)
    wait_until(lambda: len(list(folder.glob("trials/*/ready"))) == 2, process)
    process.send_signal(number)
    code, out, err = finish(process)
    assert code == 128 + number
    assert "run the same command again" in err
    assert "ending 2 running trials" in out
    for log in folder.glob("trials/*/output.log"):
        assert log.read_text() == "saved\n"
    for (pid,) in rows(folder, "SELECT pid FROM trials"):
        assert not Path(f"/proc/{pid}").exists()
    assert [condition for _, _, condition in search_rows(folder)] == ["Interrupted"] * 2
    (tmp_path / "go").touch()
    code, out, err = again(file, folder, endpoint, capsys)
    assert (code, err) == (0, "")
    assert "started again" in out
    assert status(folder)["trialsSucceeded"] == 2
    assert "trialsFailed" not in status(folder)


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, endpoint: str) -> None:
    body = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen('ready', 'w').close()\ntime.sleep(600)"
    file = experiment(tmp_path, body, maxTrialCount=1)
    folder = tmp_path / "run"
    process = engine(file, folder, endpoint)
    wait_until(lambda: list(folder.glob("trials/*/ready")), process)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: [condition for _, _, condition in search_rows(folder)] == ["Interrupted"])
    process.send_signal(signal.SIGINT)
    code, _, _ = finish(process)  # the grace alone is half of the patience
    assert code == 130
    ((pid,),) = rows(folder, "SELECT pid FROM trials")
    assert not Path(f"/proc/{pid}").exists()


def test_ctrl_c_while_the_service_thinks(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    service.change_reply = lambda _reply: time.sleep(5.0)
    process = engine(experiment(tmp_path), tmp_path / "run", endpoint)
    wait_until(lambda: service.requests, process)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert "Traceback" not in err


def test_two_engines_at_once(tmp_path: Path, endpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    body = f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n{LOSS}"
    file = experiment(tmp_path, body, maxTrialCount=1)
    folder = tmp_path / "run"
    first = engine(file, folder, endpoint)
    wait_until(lambda: list(folder.glob("trials/*/starts")), first)
    code, out, err = again(file, folder, endpoint, capsys)
    assert code == 2
    assert f"process {first.pid} works in this one" in err
    assert out == ""
    (tmp_path / "go").touch()
    assert finish(first)[0] == 0
    assert rows(folder, "SELECT condition, attempts FROM trials") == [("Succeeded", 1)]


def test_a_disk_that_becomes_full(tmp_path: Path, endpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No file may grow beyond 250 kB: the journal's log meets that first. Room again, and the run goes on."""
    body = "for _ in range(700): print('loss=1')\nprint('loss=2')"
    file = experiment(tmp_path, body, maxTrialCount=7)
    folder = tmp_path / "run"
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, 250_000)); "
    prefix = (sys.executable, "-c", limit + "os.execv(sys.argv[1], sys.argv[1:])")
    code, _, err = finish(engine(file, folder, endpoint, prefix))
    assert code == 3
    assert "rankwise run: " in err
    assert "run the same command again" in err
    assert "Traceback" not in err
    before = [row for row in search_rows(folder) if row[2] == "Succeeded"]
    assert before
    code, _, err = again(file, folder, endpoint, capsys)
    assert (code, err) == (0, "")
    assert search_rows(folder)[: len(before)] == before
    assert status(folder)["trialsSucceeded"] == 7


def test_exit_codes_and_plain_lines(
    tmp_path: Path, service: FakeSuggestions, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = experiment(tmp_path, "sys.exit(1)", maxFailedTrialCount=2)
    code, out, err = again(file, tmp_path / "run", endpoint, capsys)
    assert (code, err) == (4, "")
    assert "max failed count" in out
    assert out.isascii()
    assert all(character.isprintable() or character == "\n" for character in out)
    file = experiment(tmp_path / "b", maxTrialCount=3)
    code, out, err = finish(engine(file, tmp_path / "b" / "run", endpoint))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"tiny: a new search in {tmp_path / 'b' / 'run'}"
    assert [line.split(":")[0] for line in lines[1:7:2]] == [f"trial {n}/3 started" for n in (1, 2, 3)]
    assert [line.split(" ")[:3] for line in lines[2:7:2]] == [["trial", f"{n}/3", "succeeded"] for n in (1, 2, 3)]
    assert "left" in lines[2]
    assert lines[-2].startswith("best: ")


def test_ctrl_c_in_the_final_runs(tmp_path: Path, endpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    body = f'{LOSS}\nwhile "evaluate" in flags and not os.path.exists({str(tmp_path / "go")!r}): time.sleep(0.01)'
    annotations = {"rankwise.dev/final-arguments": '["--evaluate=test"]'}
    file = experiment(tmp_path, body, maxTrialCount=1, annotations=annotations)
    folder = tmp_path / "run"
    process = engine(file, folder, endpoint)
    wait_until(lambda: list(folder.glob("trials/tiny-final-best/starts")), process)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    query = "SELECT kind, condition, attempts FROM trials ORDER BY kind DESC"
    assert rows(folder, query) == [("search", "Succeeded", 1), ("final", "Interrupted", 1)]
    (tmp_path / "go").touch()
    assert again(file, folder, endpoint, capsys)[0] == 0
    assert rows(folder, query) == [("search", "Succeeded", 1), ("final", "Succeeded", 2)]


@pytest.mark.slow
def test_a_run_ends_with_its_report(tmp_path: Path, endpoint: str) -> None:
    """Slow: plotly and Optuna are loaded."""
    annotations = {
        "rankwise.dev/default-configuration": '{"x": "8", "kind": "b"}',
        "rankwise.dev/final-arguments": '["--evaluate=test"]',
    }
    file = experiment(tmp_path, annotations=annotations)
    command = [part for part in engine_command(file, tmp_path / "run", endpoint) if part != "--no-report"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "best found" in done.stdout
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "run" / "report.json").exists()


@pytest.mark.slow
def test_a_run_with_its_own_service(tmp_path: Path) -> None:
    """Slow: torch is loaded in the engine. A wrong algorithm is refused before anything is made."""
    file = experiment(tmp_path, maxTrialCount=2)
    done = subprocess.run(
        engine_command(file, tmp_path / "run"), capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert status(tmp_path / "run")["trialsSucceeded"] == 2
    file = experiment(tmp_path / "b", algorithm={"algorithmName": "nope"})
    command = engine_command(file, tmp_path / "b" / "run")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("rankwise run: spec.algorithm.algorithmName: got 'nope'; allowed: ")
    assert not (tmp_path / "b" / "run").exists()
