"""A time budget that is handed down a call chain, so that every part knows how long it may still take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Deadline:
    """A point in time after which work must not go on.

    Args:
        seconds: budget from now; ``math.inf`` for none.
        clock: monotonic clock in seconds (tests pass their own).
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @classmethod
    def never(cls) -> Deadline:
        """A deadline that never comes."""
        return cls(math.inf)

    def remaining(self) -> float:
        """Seconds left, 0 when over."""
        return max(0.0, self._end - self._clock())

    @property
    def expired(self) -> bool:
        return self.remaining() <= 0.0

    def share(self, fraction: float) -> Deadline:
        """A deadline that comes after ``fraction`` of the time left."""
        return Deadline(self.remaining() * fraction, self._clock)
