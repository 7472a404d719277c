"""A trial's command as a process that survives the engine.

Each command runs under a small shell in a process group and session of its own (the terminal's Ctrl-C reaches the
engine only). The shell

1. waits for a line on its standard input before it starts the command: the engine writes the pid to its journal first,
   and an engine that dies in between closes the pipe, so that no command ever runs that the journal does not know;
2. writes the command's exit code to the file ``exit-code`` in the trial's folder: an engine that was killed and started
   again takes up its running trials (:meth:`TrialProcess.adopt`) and reads the codes of those that ended meanwhile.

Whether a pid is still the process of that time is told from the kernel's boot id and the process's start time in
``/proc`` (Linux; elsewhere no process is adopted, and an unfinished trial is started again).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rankwise.errors import SurroundingsError
from rankwise.local.records import ProcessId

EXIT_CODE_FILE = "exit-code"
# No trap before the command runs: a signal that comes earlier ends the shell, and is not lost between a trap and the
# command's start. Afterwards the trap keeps the shell alive when its group is told to end, so that it can write the
# exit code. A trapped signal interrupts `wait`, whose status is then not the command's: it is asked again.
_SHELL = """
IFS= read -r ready || exit 125
"$@" </dev/null &
command=$!
trap : TERM INT HUP
wait "$command"
code=$?
while kill -0 "$command" 2>/dev/null; do wait "$command"; code=$?; done
if [ "$code" -gt 128 ]; then
  wait "$command" 2>/dev/null
  again=$?
  [ "$again" -eq 127 ] || code=$again
fi
echo "$code" > "$RANKWISE_EXIT_CODE_FILE.part" && mv "$RANKWISE_EXIT_CODE_FILE.part" "$RANKWISE_EXIT_CODE_FILE"
exit "$code"
"""


def resolve_command(command: Sequence[str]) -> list[str]:
    """The command with ``python`` and ``rankwise`` replaced by those of this interpreter's environment."""
    program, *arguments = command
    if program in ("python", "python3"):
        return [sys.executable, *arguments]
    if program == "rankwise":
        script = Path(sys.executable).parent / "rankwise"
        return [str(script), *arguments] if script.exists() else [sys.executable, "-m", "rankwise.cli", *arguments]
    return [program, *arguments]


def environment_of(
    container: Mapping[str, str], defaults: Mapping[str, str], inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Environment of a trial: the engine's own, our defaults over it, the container's own over both.

    The folder of this interpreter is put first on PATH, so that ``sh -c "python …"`` finds it too.
    """
    environment = dict(os.environ if inherited is None else inherited) | dict(defaults) | dict(container)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "") or os.defpath])
    # Metric lines must reach the file when they are printed, for early stopping and for whoever watches.
    environment.setdefault("PYTHONUNBUFFERED", "1")
    return environment


def started_at(pid: int) -> str:
    """Boot id and start time of a running process; "" when it does not run or cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The name in parentheses may hold anything, blanks and parentheses too; what follows is split by blanks.
    fields = stat.rpartition(")")[2].split()
    state, start_ticks = fields[0], fields[19]
    return "" if state in ("Z", "X") else f"{boot}:{start_ticks}"


def is_alive(process: ProcessId) -> bool:
    """Whether exactly this process still runs."""
    return process.started != "" and started_at(process.pid) == process.started


class TrialProcess:
    """A trial's running command: started by this engine, or adopted from one that was killed."""

    def __init__(self, process: ProcessId, folder: Path, child: subprocess.Popen[bytes] | None) -> None:
        self.id = process
        self._folder = folder
        self._child = child

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        workdir: Path,
        on_ready: Callable[[ProcessId], None],
    ) -> TrialProcess:
        """Start a command.

        Args:
            command: program and arguments.
            environment: its whole environment.
            folder: the trial's folder; the exit code is written there.
            log: file that standard output and error are appended to.
            workdir: the command's working folder.
            on_ready: writes the process down; the command starts after it has returned.

        Raises:
            SurroundingsError: no process or file can be made.
        """
        marker = folder / EXIT_CODE_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            marker.unlink(missing_ok=True)
            with log.open("ab") as output:
                child = subprocess.Popen(
                    ["/bin/sh", "-c", _SHELL, "trial", *resolve_command(command)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=workdir,
                    env={**environment, "RANKWISE_EXIT_CODE_FILE": str(marker)},
                    start_new_session=True,
                )
        except OSError as error:
            raise SurroundingsError(f"cannot start the trial in {folder}: {error}") from error
        assert child.stdin is not None  # noqa: S101 — follows from stdin=PIPE
        process = cls(ProcessId(child.pid, started_at(child.pid)), folder, child)
        try:
            on_ready(process.id)
        except BaseException:
            child.stdin.close()  # the shell ends without starting the command
            child.wait()
            raise
        with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
            pipe.write(b"go\n")  # a shell that was killed already has closed the pipe: poll() tells
        return process

    @classmethod
    def adopt(cls, process: ProcessId, folder: Path) -> TrialProcess | None:
        """Take up the process of an earlier engine; None when it is gone without having left an exit code."""
        adopted = cls(process, folder, None)
        return adopted if adopted._written_code() is not None or is_alive(process) else None

    def poll(self) -> int | None:
        """The command's exit code, 128 + n after signal n; None while it runs.

        What the command left running in its process group is killed, as a container's end would.
        """
        if self._child is None:
            return self._poll_adopted()
        if self._child.returncode is not None:
            return _as_shell_code(self._child.returncode)
        # The zombie keeps the pid, and with it the group's id, from being given to another process.
        if os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        self._signal_group(signal.SIGKILL)
        return _as_shell_code(self._child.wait())

    def terminate(self) -> None:
        """Ask the command to end (SIGTERM to its process group)."""
        if self._is_running():
            self._signal_group(signal.SIGTERM)

    def kill(self) -> None:
        """End the command and everything in its process group at once."""
        if self._is_running():
            self._signal_group(signal.SIGKILL)

    def _poll_adopted(self) -> int | None:
        code = self._written_code()
        if code is None and not is_alive(self.id):
            # It may have written its code and ended between the two looks.
            code = self._written_code()
            return 128 + signal.SIGKILL if code is None else code
        return code

    def _written_code(self) -> int | None:
        try:
            return int((self._folder / EXIT_CODE_FILE).read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def _is_running(self) -> bool:
        return self._child.returncode is None if self._child is not None else is_alive(self.id)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.id.pid, number)


def _as_shell_code(code: int) -> int:
    """Python's ``-n`` after signal n as the shell's ``128 + n``."""
    return 128 - code if code < 0 else code


def stop_all(processes: Sequence[TrialProcess], grace: float, hurry: Callable[[], bool] = lambda: False) -> None:
    """End several commands together: SIGTERM to all, SIGKILL to those that still run after the grace.

    Args:
        processes: the commands; those that have ended already are left alone.
        grace: seconds between the two; without grace there is no SIGTERM.
        hurry: whether to wait no longer.
    """
    end = time.monotonic() + grace
    running = [process for process in processes if process.poll() is None]
    for process in running:
        if grace > 0:
            process.terminate()
    while running and time.monotonic() < end and not hurry():
        time.sleep(0.05)
        running = [process for process in running if process.poll() is None]
    for process in running:
        process.kill()
    while running:
        time.sleep(0.01)
        running = [process for process in running if process.poll() is None]
