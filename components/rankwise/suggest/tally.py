"""What the service did, in plain numbers: the one place where anything is counted."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rankwise.space.trial import TrialState
from rankwise.strategies.base import FALLBACK_REASONS

REASONS = ("deadline", "error", *FALLBACK_REASONS)
"""Why suggestions were not the strategy's own choice: it was late, it failed, or what it says itself."""
POSTPONED = ("busy", "stopping", "vectors", "earlier")
"""Why a request was sent away to come back: too many at once; the service is stopping; vectors are being made; earlier
searches are being read."""

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0)
"""Upper bounds of the histograms' buckets; the controller gives up at 60."""
EXPERIMENTS = 32
"""Experiments whose trials are told. On a cluster a service has one; elsewhere the longest unheard-of gives way."""
FORGOTTEN_AFTER = 24 * 3600.0
"""Seconds after an Experiment's last request. Nobody tells the service that one has ended."""


@dataclass
class Histogram:
    """Observed seconds in buckets.

    Attributes:
        counts: observations of each bucket of :data:`SECONDS`, then those beyond the last.
        total: sum of the observations.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[float, int]]:
        """(upper bound, observations up to it), the last one without a bound."""
        sums, so_far = [], 0
        for bound, count in zip((*SECONDS, float("inf")), self.counts, strict=True):
            so_far += count
            sums.append((bound, so_far))
        return sums


@dataclass(frozen=True)
class Figures:
    """All numbers at one moment.

    Attributes:
        counts: by name; see :class:`Tally`.
        suggestion: seconds of the answered requests.
        fit: seconds of the surrogates' fits.
        trials: experiment -> state -> trials in its last request.
    """

    counts: Mapping[str, int]
    suggestion: Histogram
    fit: Histogram
    trials: Mapping[str, Mapping[str, int]]


class Tally:
    """Counts; safe under threads. Names of counts: ``requests``, ``suggestions``, ``foreign`` (trials of others),
    ``invalid`` (refused requests and Experiments), ``internal`` (requests that failed), those of :data:`REASONS`, and
    those of :data:`POSTPONED` with ``postponed-`` before them.

    Args:
        clock: monotonic clock in seconds (tests pass their own).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._suggestion = Histogram()
        self._fit = Histogram()
        self._trials: OrderedDict[str, tuple[float, dict[str, int]]] = OrderedDict()

    def count(self, name: str, number: int = 1) -> None:
        """Add to a count."""
        with self._lock:
            self._counts[name] += number

    def answered(self, seconds: float, fit: float | None) -> None:
        """A request was answered; ``fit`` is None where nothing was fitted."""
        with self._lock:
            self._suggestion.observe(seconds)
            if fit is not None:
                self._fit.observe(fit)

    def saw_trials(self, experiment: str, states: Sequence[TrialState]) -> None:
        """The trials of an Experiment's request take the place of those before."""
        found = Counter(state.value for state in states)
        now = self._clock()
        with self._lock:
            self._trials[experiment] = (now, {state.value: found[state.value] for state in TrialState})
            self._trials.move_to_end(experiment)
            self._forget(now)

    def _forget(self, now: float) -> None:
        while self._trials:
            heard, _ = next(iter(self._trials.values()))
            if len(self._trials) <= EXPERIMENTS and now - heard < FORGOTTEN_AFTER:
                return
            self._trials.popitem(last=False)

    def figures(self) -> Figures:
        """A copy of everything."""
        with self._lock:
            self._forget(self._clock())
            return Figures(
                dict(self._counts),
                Histogram(list(self._suggestion.counts), self._suggestion.total),
                Histogram(list(self._fit.counts), self._fit.total),
                {name: dict(states) for name, (_, states) in self._trials.items()},
            )
