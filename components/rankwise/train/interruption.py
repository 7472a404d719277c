"""SIGTERM (preemption, Katib's early stopping, ``docker stop``) as a request that is granted at a safe point."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

KATIB_MARKS = Path("/var/log/katib")
"""Folder that a trial's container shares with Katib's metrics collector (StdOut, and File's default path)."""


class Interrupted(Exception):
    """Somebody asked this process to stop."""


class Interruption:
    """Context in which SIGTERM only sets a flag. A second one ends the process at once, as without us.

    Outside of the main thread signals cannot be caught; then this never fires.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def _request(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signal module's form
        self.requested = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def check(self) -> None:
        """Raise at a point where nothing is half-done.

        Raises:
            Interrupted: SIGTERM has come.
        """
        if self.requested:
            raise Interrupted


def stopped_for_good(marks: Path = KATIB_MARKS) -> bool:
    """Whether the SIGTERM that came is Katib's early stopping: this trial will not be started again.

    Before Katib's collector sends it, it writes "early-stopped" into ``PID.pid``, PID being that of the shell which
    Katib wraps around the command. Everybody else who ends a pod (a drained node, a preemption) leaves no such mark,
    and means to start the trial again elsewhere.

    Args:
        marks: the folder.
    """
    try:
        return (marks / f"{os.getppid()}.pid").read_text(encoding="utf-8").strip() == "early-stopped"
    except (OSError, UnicodeDecodeError):
        return False
