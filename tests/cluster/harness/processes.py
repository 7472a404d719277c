"""Daemons of the node: started in its namespaces, stopped by pid and no other way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.places import HarnessError, Places

_OUTLIVE_US: list[subprocess.Popen[bytes]] = []
"""Daemons that this process started. They go on when it ends; forgotten before, Python would warn of each."""


def wait_for(what: str, ready: Callable[[], bool], seconds: float, every: float = 0.2) -> None:
    """Wait until ``ready()``.

    Raises:
        HarnessError: it did not become true in time.
    """
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise HarnessError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(every)


def has_own_namespaces(pid: int) -> bool:
    """Whether a process has left the network and mount namespaces of this one; False for one that has ended."""

    def namespaces(of: int | str) -> list[Path]:
        return [Path(f"/proc/{of}/ns/{kind}").readlink() for kind in ("net", "mnt")]

    try:
        return all(its != ours for its, ours in zip(namespaces(pid), namespaces("self"), strict=True))
    except OSError:
        return False


class Processes:
    """The daemons of one cluster, by name; their pids are in files, so that another process can stop them."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._folder = places.run / "pids"
        self._commands = places.run / "commands"

    def pid(self, name: str) -> int | None:
        """Its process id while it runs."""
        try:
            text = (self._folder / name).read_text()
            pid, started = text.split()
        except (FileNotFoundError, ValueError):
            return None
        # A pid may have been given to another process since: the start time tells.
        return int(pid) if _started(int(pid)) == started else None

    def start(self, name: str, command: Sequence[str | Path], *, inside: bool = True, **environment: str) -> int:
        """Start a daemon.

        Args:
            name: file name of its log and of its pid.
            command: program with absolute path, and arguments.
            inside: whether it runs in the node's network and mount namespaces.
            **environment: variables in addition to a minimal set.
        """
        if running := self.pid(name):
            return running
        self._folder.mkdir(parents=True, exist_ok=True)
        self._places.logs.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in command]
        if inside:
            words = [*self.enter(), *words]
        plain = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        with (self._places.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": path, "TZ": "UTC", **plain, **environment},
                cwd="/",
                start_new_session=True,
            )
        _OUTLIVE_US.append(process)
        (self._folder / name).write_text(f"{process.pid} {_started(process.pid)}")
        return process.pid

    def enter(self) -> list[str]:
        """What to put before a command so that it runs in the node's namespaces."""
        holder = self.pid("namespaces")
        if holder is None:
            raise HarnessError("the cluster is not running")
        return ["/usr/bin/nsenter", f"--target={holder}", "--mount", "--net", "--"]

    def stop(self, name: str, seconds: float = 10, *, kill: bool = False) -> None:
        """End a daemon (SIGKILL after ``seconds``, or at once with ``kill``); without effect when it does not run."""
        pid = self.pid(name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
            end = time.monotonic() + seconds
            while self.pid(name) is not None:
                if time.monotonic() > end:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
        (self._folder / name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Every daemon that was started and not stopped."""
        return sorted(path.name for path in self._folder.iterdir()) if self._folder.is_dir() else []


def _started(pid: int) -> str | None:
    """Start time of a process in clock ticks; None when it does not exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] == "Z":
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return None
    return fields[19]
