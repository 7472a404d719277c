"""Ctrl-C and its relatives as a flag that the engine looks at between its steps.

A handler that raises could strike in the middle of a transaction or between a process's start and its journal entry;
a flag cannot.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The run was asked to end. ``signal_number`` says by what."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(f"interrupted by signal {signal_number}")


class Interruption:
    """Whether the run was asked to end, and how often."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.count = 0

    def request(self, signal_number: int = signal.SIGINT) -> None:
        """Ask the run to end; a second time: without waiting for the trials to end by themselves."""
        self.signal_number = self.signal_number or signal_number
        self.count += 1

    @property
    def requested(self) -> bool:
        return self.count > 0

    def check(self) -> None:
        """Raise when the run was asked to end.

        Raises:
            Interrupted: it was.
        """
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)

    def sleep(self, seconds: float) -> None:
        """Sleep, but wake up when the run is asked to end.

        Raises:
            Interrupted: it was.
        """
        end = time.monotonic() + seconds
        self.check()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
            self.check()


@contextmanager
def handling(signals: Iterable[int], handle: Callable[[int], None]) -> Iterator[None]:
    """Call ``handle`` with each of these signals that comes while the block runs (main thread only)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda number, _frame: handle(number)) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def listening(interruption: Interruption) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into requests while the block runs (main thread only)."""
    with handling(SIGNALS, interruption.request):
        yield
