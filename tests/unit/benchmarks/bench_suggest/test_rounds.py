"""Interleaved rounds, the limit, and the processes."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.bench_suggest import worker
from benchmarks.bench_suggest.methods import Answer
from benchmarks.bench_suggest.rounds import Broken, Sample, TooLong, Worker, measure
from benchmarks.bench_suggest.task import Observed


class Fake:
    """Takes ``seconds`` for each observation, on its own clock."""

    def __init__(self, name: str, seconds: float, asked: list[tuple[str, int]]) -> None:
        self.name, self.seconds, self.asked = name, seconds, asked
        self.closed = False

    def ask(self, observations: int, limit: float) -> Sample:
        assert not self.closed
        self.asked.append((self.name, observations))
        if self.seconds < 0:
            raise Broken("it is broken")
        if self.seconds * observations > limit:
            raise TooLong
        return Sample(self.seconds * observations, 0.5, 1, observations)

    def close(self) -> None:
        self.closed = True


class Fakes:
    """Starts fakes and keeps them."""

    def __init__(self, **seconds: float) -> None:
        self.asked: list[tuple[str, int]] = []
        self.made: list[Fake] = []
        self.start = {name: self._starter(name, each) for name, each in seconds.items()}

    def _starter(self, name: str, seconds: float) -> Callable[[], Fake]:
        def start() -> Fake:
            self.made.append(Fake(name, seconds, self.asked))
            return self.made[-1]

        return start


def test_a_round_asks_everybody_with_the_fewest_observations_first() -> None:
    fakes = Fakes(a=0.1, b=0.2)
    cells = measure(fakes.start, [10, 1], rounds=2, limit=60)
    one_round = [("a", 1), ("b", 1), ("a", 10), ("b", 10)]
    assert fakes.asked == one_round * 2
    assert [fake.name for fake in fakes.made] == ["a", "b"]
    assert all(fake.closed for fake in fakes.made)
    assert [(cell.method, cell.observations, sorted(cell.samples)) for cell in cells] == [
        (name, count, [0, 1]) for name, count in one_round
    ]
    assert all(sample.given == cell.observations for cell in cells for sample in cell.samples.values())


def test_slow_ones_are_asked_in_one_round_and_some_cells_do_not_exist() -> None:
    fakes = Fakes(a=0.1, slow=0.1)
    cells = measure(
        fakes.start, [1, 10], rounds=3, limit=60, once=["slow"], leave_out=lambda name, count: (name, count) == ("a", 1)
    )
    assert fakes.asked == [("slow", 1), ("a", 10), ("slow", 10), ("a", 10), ("a", 10)]
    assert ("a", 1) not in {(cell.method, cell.observations) for cell in cells}


def test_what_takes_longer_than_the_limit_is_not_measured() -> None:
    fakes = Fakes(quick=0.1, late=1.0)
    cells = {(c.method, c.observations): c for c in measure(fakes.start, [1, 10, 30, 100], rounds=2, limit=5)}
    assert cells["late", 1].reason is None
    assert sorted(cells["late", 1].samples) == [0, 1]
    assert cells["late", 10].reason == "not measured (over 5 s)"
    for count in (30, 100):
        assert cells["late", count].reason == "not measured (over 5 s with 10 observations)"
        assert not cells["late", count].samples
    assert [asked for asked in fakes.asked if asked[0] == "late"] == [("late", 1), ("late", 10), ("late", 1)]
    # A late process is gone, and the second round has another one; 100 · 0.1 s is over the limit, too.
    assert sorted(fake.name for fake in fakes.made) == ["late", "late", "quick", "quick"]
    assert all(fake.closed for fake in fakes.made)
    assert cells["quick", 30].reason is None
    assert cells["quick", 100].reason == "not measured (over 5 s)"


def test_what_fails_says_why_and_leaves_the_others_alone() -> None:
    fakes = Fakes(broken=-1.0, good=0.1)
    broken, good = measure(fakes.start, [1], rounds=2, limit=5)
    assert broken.reason == "not measured (it is broken)"
    assert sorted(good.samples) == [0, 1]


def test_a_method_whose_model_had_other_observations_is_not_measured() -> None:
    class Forgetful(Fake):
        def ask(self, observations: int, limit: float) -> Sample:
            return Sample(0.1, 0.1, 1, given=min(observations, 5))

    few, many = measure({"a": lambda: Forgetful("a", 0.1, [])}, [5, 10], rounds=1, limit=5)
    assert few.reason is None
    assert many.reason == "not measured (its model had 5 observations)"
    assert not many.samples


def test_a_method_that_cannot_be_started_says_why() -> None:
    def start() -> Fake:
        raise Broken("no such package")

    (cell,) = measure({"a": start}, [1], rounds=1, limit=5)
    assert cell.reason == "not measured (no such package)"


# -- processes -------------------------------------------------------------------------------------------------------


def program(body: str) -> list[str]:
    return [sys.executable, "-c", "import json, sys, time\nprint('{\"ready\": 0}', flush=True)\n" + body]


def test_a_process_that_is_late_is_ended(tmp_path: Path) -> None:
    with Worker(program("sys.stdin.readline()\ntime.sleep(600)"), tmp_path / "log", grace=0.1) as late:
        began = time.monotonic()
        with pytest.raises(TooLong):
            late.ask(1, limit=0.2)
        # It was not waited for: 600 s would be over the limit of this test.
        assert time.monotonic() - began < 60
        assert late._process.poll() is not None


def test_the_process_own_clock_decides_on_the_limit(tmp_path: Path) -> None:
    reply = json.dumps({"wall": 9.0, "cpu": 1.0, "peak": 1})
    with Worker(program(f"for line in sys.stdin: print('''{reply}''', flush=True)"), tmp_path / "log") as told:
        assert told.ask(1, limit=10).wall == 9.0
        with pytest.raises(TooLong):
            told.ask(1, limit=8.9)


def test_a_process_that_ends_says_its_last_line(tmp_path: Path) -> None:
    with Worker(program("sys.stdin.readline()\nsys.exit('no memory')"), tmp_path / "log") as ended:
        with pytest.raises(Broken, match="no memory"):
            ended.ask(1, limit=60)
        with pytest.raises(Broken, match="the process has ended"):
            ended.ask(1, limit=60)


def test_a_process_that_never_gets_ready_is_broken(tmp_path: Path) -> None:
    with pytest.raises(Broken, match=r"not ready after 0\.2 s"):
        Worker([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log", start_seconds=0.2)


class Echo:
    """Fails with two observations."""

    def __init__(self) -> None:
        self.told: list[list[Observed]] = []

    def ready(self, observed: Sequence[Observed]) -> Callable[[], Answer]:
        self.told.append(list(observed))

        def answer() -> Answer:
            if len(observed) == 2:
                raise RuntimeError("two are too many")
            return Answer(observed[0].config, len(observed), {"a": 1.0})

        return answer


def test_a_worker_answers_each_line_and_survives_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [Observed({"rank": str(i)}, float(i)) for i in range(5)]
    monkeypatch.setattr(worker, "paper_observations", lambda: known)
    method, replies = Echo(), io.StringIO()
    requests = io.StringIO("".join(json.dumps({"observations": n}) + "\n" for n in (1, 2, 3)))
    worker.serve(method, requests, replies)
    one, two, three = [json.loads(line) for line in replies.getvalue().splitlines()]
    assert two == {"error": "RuntimeError: two are too many"}
    assert Sample(**one).given == 1
    assert Sample(**three).assignment == {"rank": "0"}
    assert Sample(**three).peak > 2**20  # bytes, not KiB: no Python is smaller than a MiB
    assert method.told == [known[:1], known[:2], known[:3]]
