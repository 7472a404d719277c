"""A cancelled run: Argo sends SIGTERM to the step's processes.

How long they have after that is not ours to say: by its source, Kubeflow's own launcher, their parent, ends at once,
and its container with it. What is done after the signal is best effort.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from rankwise.local.interruption import handling

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Cancelled(BaseException):
    """The run was cancelled. No ``Exception``: nobody's retry may take it for a failure that goes away."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(f"cancelled by signal {signal_number}")


@contextmanager
def cancellation() -> Iterator[None]:
    """Let SIGTERM and SIGINT raise :class:`Cancelled` within the block, once (main thread only).

    Once: what cleans up must not be interrupted by a second signal. A read of a socket that blocks is interrupted.
    """
    seen: list[int] = []

    def handle(number: int) -> None:
        if not seen:
            seen.append(number)
            raise Cancelled(number)

    with handling(SIGNALS, handle):
        yield
