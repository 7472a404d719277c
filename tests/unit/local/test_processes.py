"""Trials as processes: what ends, what survives, what is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.local.lock import LOCK_FILE, locked
from rankwise.local.processes import (
    EXIT_CODE_FILE,
    TrialProcess,
    environment_of,
    is_alive,
    resolve_command,
    started_at,
    stop_all,
)
from rankwise.local.records import ProcessId

PATIENCE = 30.0
"""Bound of every wait: a machine under load is slow, a hanging test is broken."""


def start(folder: Path, *command: str, env: dict[str, str] | None = None) -> TrialProcess:
    folder.mkdir(exist_ok=True)
    environment = environment_of(env or {}, {})
    return TrialProcess.start(command, environment, folder, folder / "log", folder, lambda _process: None)


def wait(process: TrialProcess) -> int:
    end = time.monotonic() + PATIENCE
    while (code := process.poll()) is None:
        assert time.monotonic() < end, "the process does not end"
        time.sleep(0.01)
    return code


def wait_for(path: Path, content: str = "") -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists() or content not in path.read_text():
        assert time.monotonic() < end, f"{path.name} does not come"
        time.sleep(0.01)


def test_output_code_and_folder(tmp_path: Path) -> None:
    process = start(tmp_path / "t", "sh", "-c", "echo out; echo err >&2; pwd; echo $X; exit 7", env={"X": "y z"})
    assert wait(process) == 7
    assert process.poll() == 7  # asked again, it still knows
    assert (tmp_path / "t" / "log").read_text().splitlines() == ["out", "err", str(tmp_path / "t"), "y z"]
    assert (tmp_path / "t" / EXIT_CODE_FILE).read_text() == "7\n"


def test_arguments_arrive_as_they_are(tmp_path: Path) -> None:
    arguments = ["a b", "$HOME", '"', "'", "", "*", "x\ny"]
    process = start(tmp_path / "t", "python", "-c", "import sys; print(sys.argv[1:])", *arguments)
    assert wait(process) == 0
    assert (tmp_path / "t" / "log").read_text() == f"{arguments}\n"


def test_a_second_attempt_appends_to_the_log_and_forgets_the_old_code(tmp_path: Path) -> None:
    assert wait(start(tmp_path / "t", "sh", "-c", "echo one; exit 3")) == 3
    second = start(tmp_path / "t", "sh", "-c", "echo two; kill -9 $PPID")
    assert wait(second) == 128 + signal.SIGKILL
    assert (tmp_path / "t" / "log").read_text() == "one\ntwo\n"
    assert not (tmp_path / "t" / EXIT_CODE_FILE).exists()


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    assert wait(start(tmp_path / "t", "no-such-program")) == 127
    assert "no-such-program" in (tmp_path / "t" / "log").read_text()


def test_python_is_this_python(tmp_path: Path) -> None:
    assert resolve_command(["python", "-V"]) == [sys.executable, "-V"]
    assert resolve_command(["python3"]) == [sys.executable]
    assert resolve_command(["sh", "python"]) == ["sh", "python"]
    assert resolve_command(["rankwise", "train"])[-1] == "train"
    process = start(tmp_path / "t", "sh", "-c", "command -v python")
    assert wait(process) == 0
    assert (tmp_path / "t" / "log").read_text().strip() == str(Path(sys.executable).parent / "python")


def test_the_container_wins_over_our_defaults_and_these_over_the_shell() -> None:
    environment = environment_of({"A": "container"}, {"A": "default", "B": "default"}, {"A": "s", "B": "s", "C": "s"})
    assert [environment[name] for name in "ABC"] == ["container", "default", "s"]
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_the_command_starts_only_after_its_process_was_written_down(tmp_path: Path) -> None:
    seen = []

    def on_ready(process: ProcessId) -> None:
        time.sleep(0.2)  # long enough for a command that does not wait to have started
        seen.append((tmp_path / "started").exists())
        assert is_alive(process)

    command = ["sh", "-c", f"touch {tmp_path / 'started'}"]
    process = TrialProcess.start(command, environment_of({}, {}), tmp_path, tmp_path / "log", tmp_path, on_ready)
    assert wait(process) == 0
    assert seen == [False]
    assert (tmp_path / "started").exists()


def test_a_command_that_could_not_be_written_down_never_starts(tmp_path: Path) -> None:
    processes = []

    def on_ready(process: ProcessId) -> None:
        processes.append(process)
        raise SurroundingsError("the disk is full")

    command = ["sh", "-c", f"touch {tmp_path / 'started'}"]
    with pytest.raises(SurroundingsError, match="the disk is full"):
        TrialProcess.start(command, environment_of({}, {}), tmp_path, tmp_path / "log", tmp_path, on_ready)
    assert not is_alive(processes[0])
    assert not (tmp_path / "started").exists()


def test_sigterm_reaches_the_command_and_its_own_code_is_kept(tmp_path: Path) -> None:
    script = "import signal,sys,time; signal.signal(15, lambda *_: sys.exit(143)); print('ready'); time.sleep(60)"
    process = start(tmp_path / "t", "python", "-c", script)
    wait_for(tmp_path / "t" / "log", "ready")
    process.terminate()
    assert wait(process) == 143
    assert (tmp_path / "t" / EXIT_CODE_FILE).read_text() == "143\n"


def test_a_command_that_does_not_heed_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = start(tmp_path / "a", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    obedient = start(tmp_path / "b", "sh", "-c", "echo ready; sleep 60")
    for name in "ab":
        wait_for(tmp_path / name / "log", "ready")
    stop_all([stubborn, obedient], 0.3)
    assert stubborn.poll() == 128 + signal.SIGKILL
    assert obedient.poll() == 128 + signal.SIGTERM


def test_hurry_ends_the_grace(tmp_path: Path) -> None:
    process = start(tmp_path / "t", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    wait_for(tmp_path / "t" / "log", "ready")
    stop_all([process], 10_000.0, lambda: True)
    assert process.poll() == 128 + signal.SIGKILL


def test_what_a_command_leaves_running_ends_with_it(tmp_path: Path) -> None:
    process = start(tmp_path / "t", "sh", "-c", "sleep 600 & echo $!; exit 0")
    assert wait(process) == 0
    left = int((tmp_path / "t" / "log").read_text())
    end = time.monotonic() + PATIENCE
    while started_at(left):
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.01)


def child_of_a_killed_engine(folder: Path, command: str) -> ProcessId:
    """Start a trial in another process, kill that process, return the trial's process."""
    program = f"""
import sys, time
from pathlib import Path
from rankwise.local.processes import TrialProcess, environment_of
folder = Path({str(folder)!r})
def on_ready(process):
    (folder / "id").write_text(f"{{process.pid}} {{process.started}}")
folder.mkdir()
TrialProcess.start(["sh", "-c", {command!r}], environment_of({{}}, {{}}), folder, folder / "log", folder, on_ready)
print("started", flush=True)
time.sleep(600)
"""
    engine = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert engine.stdout is not None
    assert engine.stdout.readline() == "started\n"
    engine.kill()
    engine.wait()
    engine.stdout.close()
    pid, started = (folder / "id").read_text().split(" ")
    return ProcessId(int(pid), started)


def test_a_trial_outlives_its_engine_and_is_adopted(tmp_path: Path) -> None:
    process = child_of_a_killed_engine(tmp_path / "t", f"while [ ! -e {tmp_path / 'go'} ]; do sleep 0.02; done; exit 5")
    adopted = TrialProcess.adopt(process, tmp_path / "t")
    assert adopted is not None
    assert adopted.poll() is None
    (tmp_path / "go").touch()
    assert wait(adopted) == 5


def test_a_trial_that_ended_without_its_engine_has_left_its_code(tmp_path: Path) -> None:
    process = child_of_a_killed_engine(tmp_path / "t", "exit 6")
    wait_for(tmp_path / "t" / EXIT_CODE_FILE)
    adopted = TrialProcess.adopt(process, tmp_path / "t")
    assert adopted is not None
    assert wait(adopted) == 6


def test_an_adopted_trial_can_be_ended(tmp_path: Path) -> None:
    process = child_of_a_killed_engine(tmp_path / "t", f"touch {tmp_path / 'begun'}; sleep 600")
    adopted = TrialProcess.adopt(process, tmp_path / "t")
    assert adopted is not None
    end = time.monotonic() + PATIENCE
    while not (tmp_path / "begun").exists() and time.monotonic() < end:
        time.sleep(0.01)
    stop_all([adopted], PATIENCE)
    assert adopted.poll() == 128 + signal.SIGTERM
    assert not is_alive(process)


def test_a_pid_of_another_process_is_not_adopted(tmp_path: Path) -> None:
    me = ProcessId(os.getpid(), started_at(os.getpid()))
    assert is_alive(me)
    for process in (ProcessId(me.pid, "boot:1"), ProcessId(me.pid, ""), ProcessId(2**22 + 1, me.started)):
        assert not is_alive(process)
        assert TrialProcess.adopt(process, tmp_path) is None


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SurroundingsError, match="cannot start the trial"):
        TrialProcess.start(["true"], {}, tmp_path / "file" / "t", tmp_path / "log", tmp_path, lambda _process: None)


def test_only_one_engine_per_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK_FILE).read_text() == f"{os.getpid()}\n"
        with pytest.raises(InvalidInput, match=f"process {os.getpid()} works in this one"), locked(tmp_path / "run"):
            pass
    with locked(tmp_path / "run"):  # let go
        pass


def test_the_lock_of_a_killed_engine_is_taken_over(tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from rankwise.local.lock import locked
with locked(Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    engine = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert engine.stdout is not None
    assert engine.stdout.readline() == "held\n"
    with pytest.raises(InvalidInput, match=f"process {engine.pid} works"), locked(tmp_path):
        pass
    engine.kill()
    engine.wait()
    engine.stdout.close()
    with locked(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text() == f"{os.getpid()}\n"


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SurroundingsError, match="nothing was started"), locked(tmp_path / "file" / "run"):
        pass
