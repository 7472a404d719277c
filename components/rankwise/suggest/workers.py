"""Work that must not take longer than a limit, a few pieces at a time.

A fit uses all cores by itself, so ten gRPC threads that fit at once would each take ten times as long and all miss
their deadline. Here they stand in a line. A thread cannot be stopped from outside: who waits too long goes away and
leaves the work to end by itself (strategies watch their :class:`~rankwise.deadline.Deadline`).
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class TimeLimitReached(Exception):
    """The work was not done in time; it may still be running."""


class Workers:
    """A fixed number of daemon threads that take work in the order it comes.

    Args:
        count: how many pieces of work run at the same time.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._busy = 0
        self._lock = threading.Lock()
        self._count = count
        for number in range(count):
            threading.Thread(target=self._loop, name=f"fit-{number}", daemon=True).start()

    def _loop(self) -> None:
        while (item := self._queue.get()) is not None:
            call, future = item
            if not future.set_running_or_notify_cancel():
                continue  # nobody waits for it any more
            with self._lock:
                self._busy += 1
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            finally:
                with self._lock:
                    self._busy -= 1

    def run(self, call: Callable[[], T], seconds: float) -> T:
        """Do ``call`` in one of the threads and wait for it.

        Args:
            call: the work.
            seconds: how long to wait, the time in the line among it.

        Raises:
            TimeLimitReached: ``seconds`` are over.
            Exception: whatever ``call`` raises.
        """
        future: Future[T] = Future()
        # What the caller's log lines are about, the work's are about, too.
        context = contextvars.copy_context()
        self._queue.put((lambda: context.run(call), future))
        try:
            return future.result(timeout=seconds)
        except TimeoutError:
            if future.done() and not future.cancelled():
                return future.result()  # done in this very moment, or `call` itself raised a TimeoutError
            future.cancel()
            raise TimeLimitReached(f"not done after {seconds:.1f} s") from None

    @property
    def busy(self) -> bool:
        """Whether some work is running."""
        with self._lock:
            return self._busy > 0

    def close(self) -> None:
        """Let the threads end when their present work is done."""
        for _ in range(self._count):
            self._queue.put(None)
