"""SIGTERM (preemption, Katib's early stopping, ``docker stop``) as a request that is granted at a safe point."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


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
