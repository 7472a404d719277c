"""Bounded retries with exponential backoff and full jitter, for calls to surroundings that fail now and then."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how long to wait.

    The wait before retry k (k = 0, 1, …) is drawn uniformly from [w/2, w] with w = min(longest, first * 2**k): the
    jitter keeps trials that lost the same server at the same moment from coming back at the same moment.

    Attributes:
        attempts: calls in all, the first among them; at least 1.
        first: upper bound of the first wait, in seconds.
        longest: upper bound of any wait, in seconds.

    Raises:
        ValueError: when a value is out of its range.
    """

    attempts: int = 5
    first: float = 0.5
    longest: float = 8.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first < 0 or self.longest < 0:
            raise ValueError(f"backoff needs attempts >= 1 and waits >= 0, got {self!r}")

    def waits(self) -> Iterator[float]:
        """The waits between the attempts, in seconds: one fewer than the attempts."""
        for retry in range(self.attempts - 1):
            longest = min(self.longest, self.first * 2.0**retry)
            # Jitter is not a secret and must not disturb the seeded generators of a trial.
            yield longest * random.SystemRandom().uniform(0.5, 1.0)


def call(
    work: Callable[[], T],
    *,
    is_temporary: Callable[[Exception], bool],
    backoff: Backoff,
    sleep: Callable[[float], None] = time.sleep,
    on_wait: Callable[[Exception, float], None] | None = None,
) -> T:
    """Call ``work`` until it succeeds, fails for good or the attempts are used up.

    Args:
        work: what to do; has to be safe to do again.
        is_temporary: whether a failure may go away by itself.
        backoff: number of attempts and waits.
        sleep: waits the given seconds (tests pass their own).
        on_wait: told of a temporary failure and of the seconds until the next attempt, before each wait.

    Raises:
        Exception: the last failure of ``work``, unchanged.
    """
    for wait in backoff.waits():
        try:
            return work()
        except Exception as error:
            if not is_temporary(error):
                raise
            if on_wait is not None:
                on_wait(error, wait)
        sleep(wait)
    return work()
