"""Earlier searches that an Experiment's settings name: looked up once, and the same in every request of the search.

A suggestion is a function of the Experiment and its trials, so what an earlier search found must not change under a
search that has begun, also when that earlier search still runs, and also after a restart of this service. The first
request therefore writes the names of the trials that it read into the reply's algorithm settings, which Katib stores
together with the suggestions (as it does for :mod:`rankwise.suggest.outstanding`) and sends with each later request.
From then on exactly these trials are read. A trial counts only when its result is final, so what is read is the same
until somebody deletes it.

What can differ all the same, and is reported (reason ``earlier``): a store that cannot be read is asked again later,
and until then the search goes on without that earlier search; trials that somebody deletes are gone.

Reading takes place in a thread of its own. Where the caller asks again (Katib), a request is postponed until it has
ended, so that the clock decides when there is an answer and not which; elsewhere the request waits.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from rankwise.artifacts import NotFound
from rankwise.deadline import Deadline
from rankwise.errors import RankwiseError, SurroundingsError
from rankwise.space.trial import Goal, Objective
from rankwise.strategies.base import SETTINGS_PATH, NotReady
from rankwise.strategies.earlier import OPTION, EarlierTrials, SearchName, read_names
from rankwise.suggest.library import EndedTrial, Library

log = logging.getLogger(__name__)

SETTING = "rankwise-earlier"
"""Name of the algorithm setting that carries the trials' names. A user never writes it."""
MOST_TRIALS = 300
"""Trials that are read for one search, of all earlier ones together. Their names take 20 KB at most where Katib keeps
them, and a Gaussian process on them a second."""
READ_SECONDS = 60.0
"""Time to read one earlier search, and to keep a request waiting for it. 300 manifests took 1.1 to 1.4 s from an S3
server on the same two busy cores; each is one round trip, so a distant server takes longer."""
RETRY_SECONDS = 60.0
"""After a failure, the same search is not asked for again so soon: each attempt may take the store's whole patience."""
REMEMBERED = 32
"""Earlier searches whose trials are kept in memory; the others are read again."""
_WAIT_SECONDS = 5.0
_WAIT_SHARE = 0.4
_VERSION = 1

Pins = Mapping[str, tuple[str, ...]]
"""Name of an earlier search -> names of its trials that count."""


class EarlierNotReady(NotReady):
    """Earlier searches are being read."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the settings name.

    Attributes:
        searches: those that can be used.
        pins: which trials count, for the reply.
        problems: one clause for each search that cannot be used, or not wholly.
    """

    searches: tuple[EarlierTrials, ...] = ()
    pins: Pins = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def details(self) -> dict[str, float]:
        """Numbers for logs."""
        return {
            "earlier_searches": float(len(self.searches)),
            "earlier_trials": float(sum(map(len, self.searches))),
        }


def load_pins(text: str) -> dict[str, tuple[str, ...]]:
    """Read :func:`dump_pins`; whatever is not of our making is left out, never an error."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        return {}
    searches = content.get("searches")
    return {
        search: tuple(names)
        for search, names in (searches.items() if isinstance(searches, dict) else ())
        if isinstance(names, list) and len(names) <= MOST_TRIALS and all(_is_name(name) for name in names)
    }


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 253 and "/" not in name


def dump_pins(pins: Pins) -> str:
    """The pins as compact JSON."""
    return json.dumps({"version": _VERSION, "searches": dict(pins)}, separators=(",", ":"))


_Key = tuple[SearchName, tuple[str, ...] | None, str]


@dataclass(slots=True)
class _Reading:
    """One look into the library, with the times of its beginning and its end."""

    begun: float
    future: Future[tuple[EndedTrial, ...]] = field(default_factory=Future)
    ended: float | None = None


class EarlierSearches:
    """Looks earlier searches up. Safe to be called by many threads; what it keeps may be dropped at any time.

    Args:
        library: where they are read from; not touched before a search names one.
        clock: monotonic clock in seconds (tests pass their own).
    """

    def __init__(self, library: Library, clock: Callable[[], float] = time.monotonic) -> None:
        self._library = library
        self._clock = clock
        self._lock = threading.Lock()
        self._readings: OrderedDict[_Key, _Reading] = OrderedDict()
        self._told: OrderedDict[tuple[str, tuple[str, ...], str, Goal], EarlierTrials] = OrderedDict()

    def resolve(
        self,
        settings: Mapping[str, str],
        pins: Pins,
        experiment: str,
        objective: Objective,
        deadline: Deadline,
        *,
        postpone: bool,
    ) -> Resolved:
        """What the settings of an Experiment name.

        Args:
            settings: raw ``algorithmSettings``.
            pins: what the last reply wrote back; empty at the first request.
            experiment: name of the Experiment.
            objective: what it optimizes. An earlier search that measured the same metric is told by it, another one
                by its own objective.
            deadline: of the request; a part of it may be spent here.
            postpone: whether the caller asks again after :class:`EarlierNotReady`.

        Raises:
            InvalidInput: the setting is wrong.
            EarlierNotReady: only where ``postpone``.
        """
        names = read_names(settings.get(OPTION, ""), f"{SETTINGS_PATH}.{OPTION}")
        if not names:
            return Resolved()
        most = MOST_TRIALS // len(names)
        # A search without a trial is as fixed as one with some: nothing is left to be read.
        fixed = {name: tuple(pins[str(name)][:most]) for name in names if str(name) in pins}
        keys: dict[SearchName, _Key] = {}
        for name in names:
            pinned = fixed.get(name)
            if pinned != ():
                keys[name] = (name, pinned, experiment if pinned is None else "")
                self._begin(keys[name], most)
        waiting = Deadline(min(_WAIT_SECONDS, deadline.remaining())) if postpone else deadline.share(_WAIT_SHARE)
        searches: list[EarlierTrials] = []
        problems: list[str] = []
        kept: dict[str, tuple[str, ...]] = {str(name): trials for name, trials in fixed.items()}
        for name in names:
            if name not in keys:
                problems.append(f"{name} had no ended trial when this search began")
                continue
            try:
                trials = self._result(keys[name], waiting, postpone=postpone)
            except EarlierNotReady:
                raise
            except NotFound as error:
                # Of a pinned search it says that all of its trials are gone.
                kept.setdefault(str(name), ())
                problems.append(f"{name}: {error}")
                continue
            except (RankwiseError, TimeoutError) as error:
                problems.append(f"{name}: {error}")
                continue
            missing = len(fixed.get(name, ())) - len(trials)
            if missing > 0:
                problems.append(f"{name}: {missing} of the trials that this search began with are gone")
            kept.setdefault(str(name), tuple(trial.name for trial in trials))
            found = self._tell(str(name), trials, objective)
            searches.append(found)
            if not found.values:
                problems.append(f"{name}: none of its trials has a value")
        return Resolved(tuple(searches), kept, tuple(problems))

    # -- reading -----------------------------------------------------------------------------------------------------

    def _begin(self, key: _Key, most: int) -> None:
        """Read in the background, unless that is being done or has been."""
        with self._lock:
            known = self._readings.get(key)
            if known is not None and not self._is_stale(known):
                self._readings.move_to_end(key)
                return
            reading = self._readings[key] = _Reading(self._clock())
            self._readings.move_to_end(key)
            self._forget()
        # A daemon: a store that hangs must not keep the process from ending.
        threading.Thread(target=self._read, args=(key, most, reading), name="earlier", daemon=True).start()

    def _is_stale(self, reading: _Reading) -> bool:
        if reading.ended is None or reading.future.exception() is None:
            return False
        return self._clock() - reading.ended >= RETRY_SECONDS

    def _forget(self) -> None:
        done = [key for key, reading in self._readings.items() if reading.ended is not None]
        for key in done[: max(0, len(self._readings) - REMEMBERED)]:
            del self._readings[key]

    def _read(self, key: _Key, most: int, reading: _Reading) -> None:
        search, pinned, _ = key
        try:
            found = self._library.trials(search, pinned, most, Deadline(READ_SECONDS))
        except Exception as error:
            if not isinstance(error, RankwiseError):
                log.exception("the earlier search %s cannot be read", search)
                error = SurroundingsError(f"{type(error).__name__}; the service's log tells more")
            reading.ended = self._clock()
            reading.future.set_exception(error)
        else:
            reading.ended = self._clock()
            reading.future.set_result(found)

    def _result(self, key: _Key, waiting: Deadline, *, postpone: bool) -> tuple[EndedTrial, ...]:
        """The trials.

        Raises:
            EarlierNotReady, TimeoutError: they are still being read.
            RankwiseError: they cannot be read.
        """
        search, pinned, _ = key
        with self._lock:
            reading = self._readings.get(key)
        try:
            if reading is None:  # another request of the same search took it, or it was forgotten
                raise TimeoutError
            trials = reading.future.result(timeout=waiting.remaining())
        except TimeoutError:
            # A store that accepts a call and never answers must not hold the search up for ever.
            if postpone and (reading is None or self._clock() - reading.begun < READ_SECONDS):
                raise EarlierNotReady(f"the earlier search {search} is being read; ask again") from None
            raise TimeoutError("it is still being read") from None
        except NotFound:
            with self._lock:
                self._readings.pop(key, None)
            raise
        if pinned is None:
            # What is read without pins counts for one Experiment; the next one looks anew.
            with self._lock:
                self._readings.pop(key, None)
                self._readings[search, tuple(trial.name for trial in trials), ""] = reading
        return trials

    # -- telling -----------------------------------------------------------------------------------------------------

    def _tell(self, name: str, trials: Sequence[EndedTrial], objective: Objective) -> EarlierTrials:
        """The trials in the terms of an objective: one object for all requests, since models are kept with it."""
        place = (name, tuple(trial.name for trial in trials), objective.metric, objective.goal)
        with self._lock:
            told = self._told.get(place)
            if told is None:
                told = self._told[place] = tell(name, trials, objective)
            self._told.move_to_end(place)
            while len(self._told) > REMEMBERED:
                self._told.popitem(last=False)
            return told


def tell(name: str, trials: Sequence[EndedTrial], objective: Objective) -> EarlierTrials:
    """Trials of one earlier search in the terms of an objective.

    Where some of them measured its metric, that is what counts, in its direction; else their own objective.
    """
    aim = objective
    if not any(objective.metric in trial.metrics for trial in trials):
        aim = next((trial.objective for trial in trials if trial.metrics), objective)
    measured = [trial for trial in trials if aim.metric in trial.metrics]
    return EarlierTrials(
        name=name,
        goal=aim.goal,
        configurations=tuple(trial.configuration for trial in measured),
        values=tuple(trial.metrics[aim.metric] for trial in measured),
        diverged=tuple(trial.configuration for trial in trials if trial.diverged),
    )
