"""The runner writes each search once, goes on where it stopped, and says what could not be run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.search import optimizers, run, tasks
from benchmarks.search.peers import Deaf
from benchmarks.search.problem import Array, Pool, View
from benchmarks.search.results import Results, Search, missing
from rankwise.strategies.language_options import OPTIONS

from .conftest import toy_pool

POOLS = {"a": toy_pool(name="a"), "b": toy_pool(every=2, name="b")}


class Broken(Deaf):
    """Breaks off on one task."""

    def __init__(self, view: View) -> None:
        self._bad = view.task == "b"

    def ask(self) -> Array:
        if self._bad:
            raise RuntimeError("lost its way")
        return POOLS["a"].positions[0]


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> dict[str, Pool]:
    known = dict(POOLS)
    monkeypatch.setattr(tasks, "pool", lambda task: known[task])
    monkeypatch.setattr(tasks, "TASKS", tuple(known))
    # The runner keeps torch to one thread; the process of the tests goes on with its own.
    monkeypatch.setattr(run, "prepare", lambda: None)
    for name in run._THREADS:
        monkeypatch.setenv(name, "1")
    return known


def start(out: Path, *more: str, seeds: int = 2) -> int:
    rest = () if "--optimizers" in more else ("--optimizers", "random", "largest-rank")
    return run.main(["--out", str(out), "--seeds", str(seeds), "--trials", "4", *rest, *more])


def count(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[0]


def search(seed: int = 0, **changes: object) -> Search:
    facts = {"task": "a", "optimizer": "random", "seed": seed, "budget": 2, "pool": "f"}
    lists = {"trials": (3, 4), "values": (1.5, None), "distances": (0.0, 0.1), "seconds": (0.2, 0.3)}
    return Search(**{**facts, **lists, **changes})


def test_every_search_is_made_once_and_a_second_run_makes_none(
    tmp_path: Path, pools: dict[str, Pool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(tmp_path) == 0
    assert count(capsys) == "8 searches, 8 of them to run"
    searches = Results(tmp_path).searches()
    assert len(searches) == 8
    for made in searches:
        pool = POOLS[made.task]
        assert len(made.trials) == (1 if made.optimizer == "largest-rank" else 4)
        assert len(made.seconds) == len(made.distances) == len(made.trials) == len(set(made.trials))
        assert made.values == tuple(pool._values[i] for i in made.trials)
        assert made.pool == pool.fingerprint
    assert start(tmp_path) == 0
    assert count(capsys) == "8 searches, 0 of them to run"
    assert start(tmp_path, seeds=3) == 0
    assert count(capsys) == "12 searches, 4 of them to run"
    assert start(tmp_path, "--tasks", "a", "--optimizers", "sobol") == 0
    assert count(capsys) == "2 searches, 2 of them to run"
    assert Results(tmp_path).searches()[:8] == searches


def test_a_changed_table_is_searched_again(
    tmp_path: Path, pools: dict[str, Pool], capsys: pytest.CaptureFixture[str]
) -> None:
    start(tmp_path)
    pools["b"] = toy_pool(every=3, name="b")
    capsys.readouterr()
    start(tmp_path)
    assert count(capsys) == "8 searches, 4 of them to run"


def test_an_optimizer_that_breaks_off_does_not_stop_the_others(
    tmp_path: Path, pools: dict[str, Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(optimizers.MAKERS, "sobol", lambda view, settings: Broken(view))
    assert start(tmp_path, "--optimizers", "sobol", "random") == 1
    made = {(found.optimizer, found.task) for found in Results(tmp_path).searches()}
    assert made == {("sobol", "a"), ("random", "a"), ("random", "b")}
    assert Results(tmp_path).broken() == {"sobol": 2}
    failed = [line for line in Results(tmp_path).lines() if line["kind"] == "failed"]
    assert {line["reason"] for line in failed} == {"RuntimeError: lost its way"}
    monkeypatch.undo()


def test_what_broke_off_is_tried_again(tmp_path: Path, pools: dict[str, Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    good = optimizers.MAKERS["sobol"]
    monkeypatch.setitem(optimizers.MAKERS, "sobol", lambda view, settings: Broken(view))
    assert start(tmp_path, "--optimizers", "sobol") == 1
    monkeypatch.setitem(optimizers.MAKERS, "sobol", good)
    assert start(tmp_path, "--optimizers", "sobol") == 0
    assert Results(tmp_path).broken() == {}


def test_peers_that_are_not_there_are_written_down(tmp_path: Path, pools: dict[str, Pool]) -> None:
    chosen = ("--optimizers", "random", "smac", "smac:retrain_after=1", "--peers-python", str(tmp_path / "none"))
    assert start(tmp_path, *chosen) == 0
    results = Results(tmp_path)
    assert results.unavailable() == dict.fromkeys(
        ["smac", "smac:retrain_after=1"], "its virtual environment is missing"
    )
    assert {found.optimizer for found in results.searches()} == {"random"}
    results.append("search", search(optimizer="smac"))
    assert list(results.unavailable()) == ["smac:retrain_after=1"]


def test_defaults_can_all_be_read() -> None:
    for texts in (run.DEFAULTS, *run.SETS.values()):
        assert [optimizers.Spec.parse(text).text for text in texts] == list(texts)
        for spec in map(optimizers.Spec.parse, texts):
            if spec.name == optimizers.OURS:
                OPTIONS.parse(dict(spec.settings))
    assert {optimizers.Spec.parse(text).name for text in run.DEFAULTS} == set(optimizers.MAKERS)
    assert (run.SEEDS, run.TRIALS) == (20, 30)


def test_a_search_is_stored_and_read(tmp_path: Path) -> None:
    results = Results(tmp_path / "new")
    assert results.searches() == []
    results.append("environment", {"python": "3"})
    results.append("search", search(notes={"fallbacks": 1.0}))
    results.append("search", search(seed=1))
    assert Results(tmp_path / "new").searches() == [search(notes={"fallbacks": 1.0}), search(seed=1)]
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.append("search", search(values=(float("nan"), 1.0)))


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_line_is_lost_alone(tmp_path: Path, cut: int) -> None:
    results = Results(tmp_path)
    for seed in range(2):
        results.append("search", search(seed=seed))
    results.path.write_bytes(results.path.read_bytes()[:-cut])
    # The last byte is a line's end: without it alone the line is whole.
    kept = [search(), *([search(seed=1)] if cut == 1 else [])]
    assert results.searches() == kept
    results.append("search", search(seed=2))
    assert results.searches() == [*kept, search(seed=2)]
    assert all(json.loads(line) for line in results.path.read_text().splitlines()[:1])


def test_of_equal_searches_the_last_counts(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.append("search", search())
    results.append("search", search(trials=(5, 6)))
    assert results.searches() == [search(trials=(5, 6))]


@pytest.mark.parametrize(
    "change", [{"task": "b"}, {"optimizer": "sobol"}, {"seed": 7}, {"budget": 3}, {"pool": "g"}], ids=str
)
def test_a_search_of_anything_else_is_missing(change: dict[str, object]) -> None:
    assert missing([search().key], [search()]) == []
    assert missing([search().key], [search(**change)]) == [search().key]


def test_two_processes_make_what_one_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [run.Job("a", "random", seed, 4, Path("none")) for seed in range(2)]
    made: list[object] = []

    class Immediately:
        """Stands in for the pool of processes, which would not see the toy tables."""

        def __init__(self, *given: object, **more: object) -> None:
            made.append(given)

        def __enter__(self) -> Immediately:
            return self

        def __exit__(self, *given: object) -> None:
            pass

        def submit(self, call: Callable[[run.Job], object], job: run.Job) -> object:
            from concurrent.futures import Future

            future: Future[object] = Future()
            future.set_result(call(job))
            return future

    monkeypatch.setattr(run, "ProcessPoolExecutor", Immediately)
    monkeypatch.setattr(tasks, "pool", lambda task: POOLS[task])
    found = dict(run.outcomes(jobs, 2))
    assert made == [(2,)]
    assert {job.seed for job in found} == {0, 1}
    assert all(isinstance(outcome, Search) for outcome in found.values())
