"""The journal: what was committed is there again, and nothing else."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.local.journal import CHANGEABLE, SCHEMA_VERSION, Journal
from rankwise.local.records import (
    Comparison,
    Condition,
    Kind,
    MetricSummary,
    ProcessId,
    Report,
    StopRule,
    TrialRecord,
)

SPEC = {
    "maxTrialCount": 5,
    "parallelTrialCount": 2,
    "objective": {"type": "minimize", "objectiveMetricName": "loss"},
    "parameters": [{"name": "lr", "feasibleSpace": {"min": "1", "max": "2"}}, {"name": "rank"}],
}


def trial(name: str, position: int = 0, kind: Kind = Kind.SEARCH) -> TrialRecord:
    return TrialRecord(
        name,
        kind,
        position,
        {"rank": "8", "lr": "1e-3"},
        arguments=("--x",),
        labels={"a/b": "1"},
        rule=StopRule("loss", 0.5, Comparison.GREATER, 4),
    )


def test_everything_is_there_again_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        assert journal.open_run("e", SPEC) is True
        journal.add_trials([trial("t1", 1), trial("t0", 0), trial("f", 0, Kind.FINAL)], {"state": "x"})
        journal.started("t0", ProcessId(12, "boot:7"))
        reports = [Report("loss", "0.5", "2024-01-01T00:00:00Z"), Report("acc", "1"), Report("loss", "0.25")]
        summaries = (MetricSummary("loss", "0.25", "0.25", "0.5"), MetricSummary("acc"))
        journal.finished(
            "t0", Condition.SUCCEEDED, exit_code=0, reason="fine", seconds=1.5, reports=reports, summaries=summaries
        )
        journal.started("t1", ProcessId(13, ""))
        journal.stopping("t1")
        journal.add_condition("Created", "ExperimentCreated", "made")
        before = journal.trials(), journal.trials(Kind.FINAL), journal.conditions(), journal.start_time
    with Journal(path) as journal:
        assert journal.open_run("e", SPEC) is False
        assert (journal.trials(), journal.trials(Kind.FINAL), journal.conditions(), journal.start_time) == before
        first, second = journal.trials()
        assert (first.name, second.name) == ("t0", "t1")  # by position, not by insertion
        assert first.condition is Condition.SUCCEEDED
        assert (first.attempts, first.exit_code, first.reason, first.seconds) == (1, 0, "fine", 1.5)
        assert first.summaries == summaries
        assert list(first.assignments) == ["rank", "lr"]  # in the order in which they were suggested
        assert (second.condition, second.stopping) == (Condition.RUNNING, True)
        assert second.process == ProcessId(13, "")
        assert second.rule == trial("x").rule
        assert [report.value for report in journal.reports("t0", "loss")] == ["0.5", "0.25"]
        assert journal.algorithm_settings() == {"state": "x"}


def test_a_reply_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.open_run("e", SPEC)
        journal.add_trials([trial("t0")], {"n": "1"})
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            journal.add_trials([trial("t1", 1), trial("t0", 2)], {"n": "2"})
        assert [t.name for t in journal.trials()] == ["t0"]
        assert journal.algorithm_settings() == {"n": "1"}


def test_a_second_attempt_keeps_the_first_start(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.open_run("e", SPEC)
        journal.add_trials([trial("t0")])
        journal.started("t0", ProcessId(1, "a"))
        first = journal.trial("t0")
        journal.interrupted(["t0"])
        interrupted = journal.trial("t0")
        assert interrupted is not None
        assert interrupted.condition is Condition.INTERRUPTED
        journal.started("t0", ProcessId(2, "b"))
        again = journal.trial("t0")
        assert first is not None
        assert again is not None
        assert (again.attempts, again.process, again.start_time) == (2, ProcessId(2, "b"), first.start_time)
        assert again.condition is Condition.RUNNING


def test_changeable_fields_may_change(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.open_run("e", SPEC)
        assert journal.open_run("e", {**SPEC, "maxTrialCount": 50, "maxFailedTrialCount": 3}) is False
        without = {key: value for key, value in SPEC.items() if key != "parallelTrialCount"}
        assert journal.open_run("e", without) is False
    assert set(CHANGEABLE) == {"spec.maxTrialCount", "spec.parallelTrialCount", "spec.maxFailedTrialCount"}


@pytest.mark.parametrize(
    ("name", "spec", "paths"),
    [
        ("other", SPEC, ["metadata.name"]),
        ("e", {**SPEC, "algorithm": {"algorithmName": "sobol"}}, ["spec.algorithm"]),
        (
            "e",
            {
                **SPEC,
                "objective": {"type": "maximize", "objectiveMetricName": "loss", "goal": 1},
                "parameters": [{"name": "lr", "feasibleSpace": {"min": "1", "max": "3"}}, {"name": "alpha"}],
            },
            [
                "spec.objective.goal",
                "spec.objective.type",
                "spec.parameters[0].feasibleSpace.max",
                "spec.parameters[1].name",
            ],
        ),
        ("e", {**SPEC, "parameters": []}, ["spec.parameters"]),
    ],
)
def test_every_other_difference_is_refused_by_its_path(
    tmp_path: Path, name: str, spec: dict[str, object], paths: list[str]
) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.open_run("e", SPEC)
        with pytest.raises(InvalidInput, match="another --folder") as error:
            journal.open_run(name, spec)
    assert [problem.path for problem in error.value.problems] == paths


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


def without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [without_nulls(entry) for entry in value] if isinstance(value, list) else value


@given(JSON, JSON)
@example({}, {"a": None})
def test_a_run_opens_again_exactly_with_the_same_spec(first: object, second: object) -> None:
    import json

    with Journal(Path(":memory:")) as journal:
        assert journal.open_run("e", {"x": {"y": first}}) is True
        if json.dumps(without_nulls({"y": first}), sort_keys=True) == json.dumps(
            without_nulls({"y": second}), sort_keys=True
        ):
            assert journal.open_run("e", {"x": {"y": second}}) is False
        else:
            with pytest.raises(InvalidInput, match="spec"):
                journal.open_run("e", {"x": {"y": second}})


def test_a_condition_is_not_repeated(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        for _ in range(2):
            journal.add_condition("Running", "ExperimentRunning", "m")
        journal.add_condition("Succeeded", "A", "m")
        journal.add_condition("Running", "ExperimentRunning", "m")
        assert [condition.type for condition in journal.conditions()] == ["Running", "Succeeded", "Running"]


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(InvalidInput, match="schema version"):
        Journal(path)


def test_a_file_that_is_no_journal_is_a_failure_of_the_surroundings(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(SurroundingsError, match="cannot be used"):
        Journal(path)


def test_a_journal_that_cannot_be_made_is_a_failure_of_the_surroundings(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SurroundingsError, match="cannot be used"):
        Journal(tmp_path / "file" / "j")


def test_a_full_disk_is_a_failure_of_the_surroundings_and_loses_nothing_committed(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.open_run("e", SPEC)
        journal.add_trials([trial("t0")])
        pages = journal._all("PRAGMA page_count")[0][0]
        journal._all(f"PRAGMA max_page_count={pages}")  # sqlite itself now says that the disk is full
        with pytest.raises(SurroundingsError, match="full"):
            journal.add_trials([trial("x" * 50_000, 1)])
        assert [t.name for t in journal.trials()] == ["t0"]
        journal.started("t0", ProcessId(1, "a"))


def test_commits_are_durable(tmp_path: Path) -> None:
    """A power cut loses no committed trial: WAL with synchronous=FULL (2)."""
    with Journal(tmp_path / "j") as journal:
        assert journal._all("PRAGMA journal_mode")[0][0] == "wal"
        assert journal._all("PRAGMA synchronous")[0][0] == 2
