"""Interleaved rounds over processes, one for each method, with a limit on each suggestion."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from benchmarks.machine import end

START_SECONDS = 600.0
"""Time until a process has made its method: it may convert a model for the first time."""


class TooLong(Exception):
    """The limit came before the answer."""


class Broken(Exception):
    """There is no answer; says why."""


@dataclass(frozen=True)
class Sample:
    """One measured suggestion.

    Attributes:
        wall: seconds.
        cpu: seconds of processor time, of all threads.
        peak: most memory of the process so far, in bytes.
        given: how many observations the method's model had.
        assignment: what was suggested.
        details: numbers of the method's own.
    """

    wall: float
    cpu: float
    peak: int
    given: int = 0
    assignment: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, float] = field(default_factory=dict)


class Asked(Protocol):
    """What answers: a :class:`Worker`, or a test's stand-in."""

    def ask(self, observations: int, limit: float) -> Sample:
        """One suggestion.

        Raises:
            TooLong: it took more than ``limit`` seconds; nobody answers here any more.
            Broken: it failed.
        """
        ...

    def close(self) -> None: ...


class Worker:
    """A process that speaks :mod:`benchmarks.bench_suggest.worker`'s lines.

    Args:
        command: starts it.
        log: where its standard error goes.
        environment: of the process; None for this one's.
        folder: where it runs; None for here.
        start_seconds: time to become ready.
        grace: seconds that a process may take beside the suggestion itself, to be told the observations.

    Raises:
        Broken: it did not become ready.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        start_seconds: float = START_SECONDS,
        grace: float = 15.0,
    ) -> None:
        self._log = log
        self._grace = grace
        with log.open("a", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=None if environment is None else dict(environment),
                cwd=folder,
            )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._line(start_seconds)
        except TooLong:
            raise Broken(f"not ready after {start_seconds:g} s") from None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _line(self, seconds: float) -> dict[str, Any]:
        """The next line; the process is ended when it is late or gone.

        Raises:
            TooLong, Broken: it did not come.
        """
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            self.close()
            raise TooLong from None
        if line is None:
            self.close()
            said = [one for one in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if one.strip()]
            raise Broken(said[-1] if said else "the process ended")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise Broken(str(found["error"]))
        return found

    def ask(self, observations: int, limit: float) -> Sample:
        """See :class:`Asked`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"observations": observations}) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise Broken("the process has ended") from None
        sample = Sample(**self._line(limit + self._grace))
        # The suggestion is timed by the process itself; what it does beside does not count.
        if sample.wall > limit:
            raise TooLong
        return sample

    def close(self) -> None:
        """End the process."""
        end(self._process)


@dataclass
class Cell:
    """What was measured of one method with one number of observations.

    Attributes:
        method: name.
        observations: how many.
        samples: by round; empty where nothing counts.
        reason: why it is not measured; None where it is.
    """

    method: str
    observations: int
    samples: dict[int, Sample] = field(default_factory=dict)
    reason: str | None = None


def measure(
    start: Mapping[str, Callable[[], Asked]],
    counts: Iterable[int],
    rounds: int,
    limit: float,
    once: Iterable[str] = (),
    leave_out: Callable[[str, int], bool] = lambda name, count: False,
    say: Callable[[str], None] = lambda text: None,
) -> list[Cell]:
    """Ask every method with every number of observations, ``rounds`` times.

    A round asks all methods with the fewest observations, one after the other, then with the next number: what disturbs
    the machine for a while disturbs all of them. The first round goes up, so that a process's peak memory is that of no
    more observations than were given so far.

    A method over the limit is not asked again with as many or more observations.

    Args:
        start: name -> its process.
        counts: numbers of observations.
        rounds: how often.
        limit: seconds of one suggestion.
        once: names of methods that are so slow that one round has to do.
        leave_out: (name, observations) -> whether there is no such cell.
        say: told about each sample.
    """
    ascending = sorted(set(counts))
    cells = {(name, count): Cell(name, count) for count in ascending for name in start if not leave_out(name, count)}
    running: dict[str, Asked] = {}
    try:
        for round_ in range(rounds):
            for count in ascending:
                for name, make in start.items():
                    cell = cells.get((name, count))
                    if cell is None or cell.reason is not None or (round_ > 0 and name in once):
                        continue
                    try:
                        if name not in running:
                            running[name] = make()
                        sample = running[name].ask(count, limit)
                        if sample.given != count:
                            raise Broken(f"its model had {sample.given} observations")
                    except TooLong:
                        _late(cells, name, count, limit)
                        running.pop(name).close()
                    except Broken as error:
                        cell.samples.clear()
                        cell.reason = f"not measured ({error})"
                        if name in running:
                            running.pop(name).close()
                    else:
                        cell.samples[round_] = sample
                    said = cell.reason or f"{sample.wall:.2f} s, {sample.cpu:.2f} s of processor time"
                    say(f"round {round_ + 1}, {count} observations, {name}: {said}")
    finally:
        for asked in running.values():
            asked.close()
    return list(cells.values())


def _late(cells: Mapping[tuple[str, int], Cell], name: str, count: int, limit: float) -> None:
    """The limit was reached: neither this number of observations nor a larger one counts as measured."""
    for (method, observations), cell in cells.items():
        if method == name and observations >= count:
            cell.samples.clear()
            cell.reason = f"not measured (over {limit:g} s"
            cell.reason += ")" if observations == count else f" with {count} observations)"
