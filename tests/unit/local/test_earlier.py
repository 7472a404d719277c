"""A run on this machine begins with what other run folders hold."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from rankwise.artifacts import NotFound
from rankwise.deadline import Deadline
from rankwise.local.earlier import RunFolders
from rankwise.local.engine import EngineOptions, run
from rankwise.local.progress import PlainOutput
from rankwise.local.validate_command import main as validate
from rankwise.settings import Settings
from rankwise.space import Goal
from rankwise.strategies.earlier import SearchName
from rankwise.suggest.earlier import SETTING, load_pins
from rankwise.train.__main__ import DIVERGED
from support.earlier import FakeLibrary, ended
from support.local_runs import LOSS, FakeSuggestions, experiment, go, listed, rows, search_rows

SOON = Deadline(600.0)
EXITS = LOSS + '\nprint(f"acc={x / 8}")\nsys.exit({5.0: ' + str(DIVERGED) + ", 6.0: 1}.get(x, 0))"
"""Of x = 5 the loss diverges, of x = 6 the trial fails otherwise."""


@pytest.fixture
def earlier(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> Path:
    """A run folder called ``before`` with four ended trials; the folder that holds it."""
    service.answer = listed((1.0, "a"), (5.0, "a"), (6.0, "b"), (2.0, "b"))
    objective = {"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": ["acc"]}
    file = experiment(tmp_path / "before", EXITS, name="before", objective=objective, maxFailedTrialCount=4)
    go(file, tmp_path / "runs" / "before", endpoint)
    return tmp_path / "runs"


def language_bo(folder: Path, names: str, **spec: Any) -> Path:
    settings = {"surrogate": "numeric", "initial_points": "1", "earlier_searches": names}
    algorithm = {
        "algorithmName": "language-bo",
        "algorithmSettings": [{"name": name, "value": value} for name, value in settings.items()],
    }
    return experiment(folder, name="later", algorithm=algorithm, **spec)


def run_by_ourselves(file: Path, folder: Path) -> str:
    """A run with the service in this process; what its user sees."""
    seen = io.StringIO()
    settings, options = Settings(cache=folder.parent / "cache"), EngineOptions(poll=0.01, grace=5.0)
    run(file, folder, output=PlainOutput(seen), settings=settings, options=options)
    return seen.getvalue()


# --- run folders ------------------------------------------------------------------------------------------------------


def test_trials_are_read_from_a_journal(earlier: Path) -> None:
    found = RunFolders([earlier / "elsewhere", earlier], None).trials(SearchName("before"), None, 10, SOON)
    by_x = {trial.configuration["x"]: trial for trial in found}
    assert sorted(by_x) == ["1.0", "2.0", "5.0"]  # the trial that failed otherwise says nothing
    assert dict(by_x["1.0"].configuration) == {"x": "1.0", "kind": "a"}
    assert dict(by_x["1.0"].metrics) == {"loss": 4.0, "acc": 0.125}
    assert dict(by_x["2.0"].metrics) == {"loss": 1.5, "acc": 0.25}
    assert (by_x["1.0"].objective.metric, by_x["1.0"].objective.goal) == ("loss", Goal.MINIMIZE)
    assert (by_x["5.0"].diverged, by_x["5.0"].metrics, by_x["1.0"].diverged) == (True, {}, False)


def test_by_name_only_those_trials_are_read(earlier: Path) -> None:
    names = sorted(name for name, _, _ in search_rows(earlier / "before"))
    folders = RunFolders([earlier], None)
    everything = [trial.name for trial in folders.trials(SearchName("before"), None, 10, SOON)]
    assert everything == sorted(everything)
    assert set(everything) < set(names)
    assert [t.name for t in folders.trials(SearchName("before"), None, 2, SOON)] == everything[:2]
    assert [t.name for t in folders.trials(SearchName("before"), everything[1:2], 10, SOON)] == everything[1:2]
    with pytest.raises(NotFound, match=r"no trial in .*before has ended"):
        folders.trials(SearchName("before"), ["gone"], 10, SOON)


def test_what_no_folder_has_is_looked_for_in_the_store(earlier: Path) -> None:
    store = FakeLibrary({"stored": [ended("stored-1", 1.0)], "team/before": [ended("before-1", 2.0)]})
    folders = RunFolders([earlier], store)
    assert [t.name for t in folders.trials(SearchName("stored"), None, 10, SOON)] == ["stored-1"]
    assert [t.name for t in folders.trials(SearchName("before", "team"), None, 10, SOON)] == ["before-1"]
    assert len(folders.trials(SearchName("before"), None, 10, SOON)) == 3
    assert [name for name, _, _ in store.asked] == ["stored", "team/before"]


def test_where_nothing_is_found_the_places_are_named(earlier: Path) -> None:
    folders = RunFolders([earlier], None)
    with pytest.raises(NotFound, match=r"no run folder of that name in .*runs, and RANKWISE_STORE is not set"):
        folders.trials(SearchName("after"), None, 10, SOON)
    with pytest.raises(NotFound, match=r"^RANKWISE_STORE is not set$"):
        folders.trials(SearchName("before", "team"), None, 10, SOON)
    assert sorted(path.name for path in earlier.iterdir()) == ["before"]


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_begins_with_another_run_and_keeps_to_it(
    tmp_path: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANKWISE_STORE", raising=False)
    file = language_bo(tmp_path / "later", "before", maxTrialCount=2)
    seen = run_by_ourselves(file, earlier / "later")
    assert "begins with what before found in 3 trials\n" in seen
    assert "fallback" not in seen
    ((text,),) = rows(earlier / "later", "SELECT algorithm_settings FROM run")
    pins = load_pins(json.loads(text)[SETTING])
    found = RunFolders([earlier], None).trials(SearchName("before"), None, 10, SOON)
    assert pins == {"before": tuple(trial.name for trial in found)}


def test_a_name_that_nothing_has_is_said_and_the_run_goes_on(
    tmp_path: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANKWISE_STORE", raising=False)
    seen = run_by_ourselves(language_bo(tmp_path / "later", "befor, before", maxTrialCount=1), earlier / "later")
    assert "begins with what before found in 3 trials\n" in seen
    assert "goes on without all of an earlier search: befor: no run folder of that name in " in seen
    assert "(a fallback's choice: earlier)" in seen
    assert [condition for _, _, condition in search_rows(earlier / "later")] == ["Succeeded"]


def test_without_the_setting_no_thread_looks_for_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: (started.append(self.name), start(self))[1])
    seen = run_by_ourselves(experiment(tmp_path, maxTrialCount=1), tmp_path / "runs" / "tiny")
    assert "earlier" not in seen
    assert started
    assert "earlier" not in started


def test_validate_names_the_setting_the_value_and_what_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate([str(language_bo(tmp_path, "good, Not Good"))]) == 2
    said = capsys.readouterr().err
    assert (
        "spec.algorithm.algorithmSettings.earlier_searches: got 'Not Good'; allowed: up to 10 different names" in said
    )
    # Whether there is such a run is not asked: the file may be for a cluster.
    assert validate([str(language_bo(tmp_path, "good"))]) == 0
