from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
import wsgiref.util
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import optuna_dashboard
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState as OptunaState

from rankwise.report.facts import MetricReport, SearchFacts, TrialFacts
from rankwise.report.to_optuna import build_study, write_database
from rankwise.space.trial import Goal, Objective, TrialState
from support.facts import HOSTILE, PARAMETERS, START, edge_cases, hostile_facts, synthetic_facts


def test_every_trial_is_in_the_study_with_its_state_and_parameters() -> None:
    facts = synthetic_facts(30)
    study = build_study(facts)
    states = {
        TrialState.SUCCEEDED: OptunaState.COMPLETE,
        TrialState.EARLY_STOPPED: OptunaState.PRUNED,
        TrialState.FAILED: OptunaState.FAIL,
    }
    assert len(study.trials) == len(facts.trials) == 30
    assert {trial.state for trial in facts.trials} == set(states)
    for ours, theirs in zip(facts.trials, study.trials, strict=True):
        assert theirs.state is states[ours.state]
        assert theirs.value == ours.value
        assert theirs.user_attrs["trial"] == ours.name
        assert theirs.user_attrs["assignments"] == ours.assignments
        assert theirs.user_attrs.get("cost_peak_memory_bytes") == ours.cost.peak_memory_bytes
        assert theirs.user_attrs.get("cost_seconds_per_epoch") == ours.cost.seconds_per_epoch
        assert theirs.params.keys() == ours.assignments.keys()
        for parameter in PARAMETERS:
            assert parameter.same(str(theirs.params[parameter.name]), ours.assignments[parameter.name])
        assert theirs.intermediate_values == {report.step: report.metrics["loss"] for report in ours.history}
        assert theirs.datetime_start is not None
        assert theirs.datetime_start.astimezone(UTC) == ours.started
    assert study.metric_names == ["loss"]
    assert study.direction is optuna.study.StudyDirection.MINIMIZE


def test_pending_unavailable_and_foreign_trials() -> None:
    facts = replace(
        synthetic_facts(1, finals=False),
        objective=Objective("rougeL", Goal.MAXIMIZE),
        trials=(
            TrialFacts("running", {"rank": "8", "epochs": "2.5"}, TrialState.PENDING, started=START),
            TrialFacts("nan", {"rank": "many"}, TrialState.UNAVAILABLE),
            TrialFacts("foreign", {"rank": "7", "target-modules": "none"}, TrialState.SUCCEEDED, 0.5),
        ),
    )
    running, unavailable, foreign = build_study(facts).trials
    assert (running.state, running.params, running.datetime_complete) == (OptunaState.RUNNING, {"rank": 8}, None)
    assert (unavailable.state, unavailable.params) == (OptunaState.FAIL, {})
    assert unavailable.datetime_start is not None
    assert unavailable.datetime_start.astimezone(UTC) == datetime.fromtimestamp(0, UTC)
    # 7 is between the list's bounds and can be drawn; "none" is no category and stays an attribute only
    assert foreign.params == {"rank": 7}
    assert foreign.user_attrs["assignments"] == {"rank": "7", "target-modules": "none"}
    assert build_study(facts).direction is optuna.study.StudyDirection.MAXIMIZE


def test_reports_without_a_step_are_numbered() -> None:
    trial = TrialFacts(
        "t",
        {},
        TrialState.SUCCEEDED,
        1.0,
        history=(MetricReport({"loss": 3.0}), MetricReport({"x": 1.0}), MetricReport({"loss": 2.0})),
    )
    (theirs,) = build_study(replace(synthetic_facts(1, finals=False), trials=(trial,))).trials
    assert theirs.intermediate_values == {0: 3.0, 2: 2.0}


def test_building_a_study_leaves_optunas_logging_alone() -> None:
    before = optuna.logging.get_verbosity()
    build_study(synthetic_facts(2))
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize(
    "name", ["whole", "nothing", "all pending", "maximize", "foreign assignments", "no cost", "hostile texts"]
)
def test_the_database_reads_back_as_the_study_in_memory(name: str, tmp_path: Path) -> None:
    facts = synthetic_facts(40) if name == "whole" else edge_cases()[name]
    path = tmp_path / "optuna.db"
    write_database(facts, path)
    stored = optuna.load_study(study_name=facts.experiment, storage=f"sqlite:///{path}")
    memory = build_study(facts)
    assert len(stored.trials) == len(facts.trials)
    for ours, theirs in zip(memory.trials, stored.trials, strict=True):
        ours._trial_id = theirs._trial_id  # the one thing that a storage chooses itself
        assert theirs == ours
    assert stored.metric_names == memory.metric_names
    assert stored.user_attrs == memory.user_attrs
    stored._storage._backend.engine.dispose()


@pytest.mark.parametrize("folder", ["with space and %20", "question?mark=1#", "schrägstrich-漢"])
def test_any_folder_name_will_do(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    path = tmp_path / folder / "optuna.db"
    write_database(synthetic_facts(2), path)
    assert path.read_bytes().startswith(b"SQLite format 3\0")


def test_a_stored_study_can_be_gone_on_with(tmp_path: Path) -> None:
    """The ids that were inserted must not collide with those that Optuna hands out."""
    facts = synthetic_facts(5, finals=False)
    write_database(facts, tmp_path / "optuna.db")
    study = optuna.load_study(study_name="quickstart", storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    asked = study.ask()
    study.tell(asked, 1.0)
    assert asked.number == 5
    assert len(study.trials) == 6
    study._storage._backend.engine.dispose()


def shown_by(get: Callable[[str], Any], facts: SearchFacts) -> None:
    """The dashboard's API tells the study as it is."""
    (study,) = get("/api/studies")["study_summaries"]
    assert study["study_name"] == facts.experiment
    trials = get(f"/api/studies/{study['study_id']}?after=0")["trials"]
    assert len(trials) == len(facts.trials)
    assert [t["number"] for t in trials if t["state"] == "Fail"] == [
        i for i, t in enumerate(facts.trials) if t.state is TrialState.FAILED
    ]


@pytest.mark.parametrize("hostile", [False, True])
def test_the_dashboard_shows_the_study(hostile: bool, tmp_path: Path) -> None:
    facts = hostile_facts() if hostile else synthetic_facts(12)
    assert facts.experiment == (HOSTILE if hostile else "quickstart")
    write_database(facts, tmp_path / "optuna.db")
    storage = RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
    dashboard = optuna_dashboard.wsgi(storage)

    def get(path: str) -> Any:
        environment: dict[str, Any] = {}
        wsgiref.util.setup_testing_defaults(environment)
        environment["PATH_INFO"], _, environment["QUERY_STRING"] = path.partition("?")
        statuses: list[str] = []
        body = b"".join(dashboard(environment, lambda status, headers, *_: statuses.append(status)))
        assert statuses == ["200 OK"]
        return json.loads(body)

    try:
        shown_by(get, facts)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _get(url: str, process: subprocess.Popen[bytes]) -> Any:
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)
        except OSError:
            assert process.poll() is None, "optuna-dashboard ended"
            assert time.monotonic() < end, "optuna-dashboard does not answer"
            time.sleep(0.2)


@pytest.mark.slow
def test_the_dashboards_command_shows_the_study(tmp_path: Path) -> None:
    """Slow: a process that loads Optuna anew."""
    facts = hostile_facts()
    write_database(facts, tmp_path / "optuna.db")
    port = _free_port()
    command = [
        str(Path(sys.executable).parent / "optuna-dashboard"), f"sqlite:///{tmp_path / 'optuna.db'}",
        "--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref", "--quiet",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        shown_by(lambda path: _get(f"http://127.0.0.1:{port}{path}", process), facts)
    finally:
        process.terminate()
        process.wait(30)
