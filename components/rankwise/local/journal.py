"""The run's memory: one sqlite file per run folder.

Every change of state is one committed transaction (WAL, ``synchronous=FULL``) before the next step is taken, so that a
crash at any moment, power cuts included, loses no finished trial. The file is the only truth; ``experiment.yaml`` and
the report are made from it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.local.records import (
    Comparison,
    Condition,
    Kind,
    MetricSummary,
    ProcessId,
    Report,
    StopRule,
    TrialRecord,
    utc_now,
)

JOURNAL_FILE = "journal.sqlite"
SCHEMA_VERSION = 1
CHANGEABLE = ("spec.maxTrialCount", "spec.parallelTrialCount", "spec.maxFailedTrialCount")
"""Fields that may differ when a run goes on: those that Katib lets a user change on a restart."""

_SCHEMA = """
CREATE TABLE run (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    experiment TEXT NOT NULL,           -- JSON: name and spec as they were given first
    fingerprint TEXT NOT NULL,          -- sha256 of that JSON without the changeable fields
    algorithm_settings TEXT NOT NULL,   -- JSON object: settings that the algorithm's replies wrote back
    start_time TEXT NOT NULL
);
CREATE TABLE conditions (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    type TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL, time TEXT NOT NULL
);
CREATE TABLE trials (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    position INTEGER NOT NULL,          -- place among the suggestions: the order in which they were handed out
    assignments TEXT NOT NULL,          -- JSON object
    arguments TEXT NOT NULL,            -- JSON list
    labels TEXT NOT NULL,               -- JSON object
    rule TEXT,                          -- JSON object
    condition TEXT NOT NULL,
    stopping INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    pid INTEGER, pid_started TEXT,
    attempt_started REAL,               -- seconds since 1970
    start_time TEXT, completion_time TEXT, seconds REAL,
    exit_code INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    summaries TEXT NOT NULL DEFAULT '[]',
    UNIQUE (kind, position)
);
CREATE TABLE observations (
    trial TEXT NOT NULL REFERENCES trials (name) ON DELETE CASCADE,
    step INTEGER NOT NULL,              -- 0-based index among the reports of this metric
    metric TEXT NOT NULL, value TEXT NOT NULL, timestamp TEXT NOT NULL,
    PRIMARY KEY (trial, metric, step)
);
"""


@dataclass(frozen=True, slots=True)
class ExperimentCondition:
    """One entry of the Experiment's ``status.conditions``."""

    type: str
    reason: str
    message: str
    time: str


class Journal:
    """The journal of one run folder. Use as a context manager, from one thread.

    Args:
        path: the sqlite file; made when it is not there.

    Raises:
        SurroundingsError: the file cannot be opened, read or written (every method).
        InvalidInput: another version of Rankwise wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors():
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
        version = self._one("PRAGMA user_version")[0]
        if version == 0:
            with self._transaction():
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            self._db.close()
            raise InvalidInput([Problem(str(path), f"schema version {version}", f"version {SCHEMA_VERSION}")])

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    # -- the run ------------------------------------------------------------------------------------------------------

    def open_run(self, name: str, spec: Mapping[str, Any]) -> bool:
        """Begin a run, or go on with the one that is there.

        Args:
            name: the Experiment's name.
            spec: the Experiment's ``spec`` as it was read.

        Returns:
            True when the run is new.

        Raises:
            InvalidInput: the run was begun with an Experiment that differs in more than the changeable fields.
        """
        document = {"metadata": {"name": name}, "spec": spec}
        fixed = _without_changeable(document)
        fingerprint = hashlib.sha256(_json(fixed).encode()).hexdigest()
        row = self._maybe("SELECT experiment, fingerprint FROM run")
        if row is None:
            with self._transaction():
                self._db.execute("INSERT INTO run VALUES (1, ?, ?, '{}', ?)", (_json(document), fingerprint, utc_now()))
            return True
        if row["fingerprint"] != fingerprint:
            before = _without_changeable(json.loads(row["experiment"]))
            raise InvalidInput(_differences("", before, fixed, self.path.parent))
        return False

    @property
    def start_time(self) -> str:
        return str(self._one("SELECT start_time FROM run")[0])

    def algorithm_settings(self) -> dict[str, str]:
        """Settings that the algorithm's replies have written back so far."""
        settings: dict[str, str] = json.loads(self._one("SELECT algorithm_settings FROM run")[0])
        return settings

    def conditions(self) -> list[ExperimentCondition]:
        """The Experiment's conditions, oldest first."""
        rows = self._all("SELECT type, reason, message, time FROM conditions ORDER BY position")
        return [ExperimentCondition(*row) for row in rows]

    def add_condition(self, kind: str, reason: str, message: str) -> None:
        """Append a condition, unless it is the last one already."""
        last = self.conditions()[-1:]
        if last and (last[0].type, last[0].reason) == (kind, reason):
            return
        with self._transaction():
            self._db.execute(
                "INSERT INTO conditions (type, reason, message, time) VALUES (?, ?, ?, ?)",
                (kind, reason, message, utc_now()),
            )

    # -- trials -------------------------------------------------------------------------------------------------------

    def trials(self, kind: Kind = Kind.SEARCH) -> list[TrialRecord]:
        """Every trial of a kind, in the order in which they were suggested."""
        return [_record(row) for row in self._all("SELECT * FROM trials WHERE kind=? ORDER BY position", kind.value)]

    def trial(self, name: str) -> TrialRecord | None:
        """One trial; None when there is none of that name."""
        row = self._maybe("SELECT * FROM trials WHERE name=?", name)
        return None if row is None else _record(row)

    def add_trials(self, trials: Iterable[TrialRecord], settings: Mapping[str, str] | None = None) -> None:
        """Write a reply down: its suggestions as created trials and its settings, together or not at all."""
        with self._transaction():
            for trial in trials:
                self._db.execute(
                    "INSERT INTO trials (name, kind, position, assignments, arguments, labels, rule, condition)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        trial.name,
                        trial.kind.value,
                        trial.position,
                        json.dumps(dict(trial.assignments)),
                        json.dumps(list(trial.arguments)),
                        json.dumps(dict(trial.labels)),
                        _rule_text(trial.rule),
                        Condition.CREATED.value,
                    ),
                )
            if settings is not None:
                self._db.execute("UPDATE run SET algorithm_settings=?", (json.dumps(dict(settings)),))

    def remove(self, name: str) -> None:
        """Forget a trial (a final run whose configuration is no longer the one to compare)."""
        with self._transaction():
            self._db.execute("DELETE FROM trials WHERE name=?", (name,))

    def started(self, name: str, process: ProcessId) -> None:
        """A new attempt's process stands ready."""
        with self._transaction():
            self._db.execute(
                "UPDATE trials SET condition=?, attempts=attempts+1, pid=?, pid_started=?, attempt_started=?,"
                " start_time=coalesce(start_time, ?) WHERE name=?",
                (Condition.RUNNING.value, process.pid, process.started, time.time(), utc_now(), name),
            )

    def stopping(self, name: str) -> None:
        """The early stopping rule has struck. Written before the process is told, so that a crash keeps the reason."""
        with self._transaction():
            self._db.execute("UPDATE trials SET stopping=1 WHERE name=?", (name,))

    def interrupted(self, names: Sequence[str]) -> None:
        """These trials are about to be ended with the engine. Written before their processes are told."""
        with self._transaction():
            self._db.executemany(
                "UPDATE trials SET condition=? WHERE name=?", [(Condition.INTERRUPTED.value, name) for name in names]
            )

    def finished(
        self,
        name: str,
        condition: Condition,
        *,
        exit_code: int,
        reason: str,
        seconds: float | None,
        reports: Sequence[Report],
        summaries: Sequence[MetricSummary],
    ) -> None:
        """A trial's end with everything that it reported."""
        texts = [{"name": s.name, "latest": s.latest, "min": s.min, "max": s.max} for s in summaries]
        steps: dict[str, int] = {}
        with self._transaction():
            self._db.execute("DELETE FROM observations WHERE trial=?", (name,))
            for report in reports:
                step = steps.get(report.metric, 0)
                steps[report.metric] = step + 1
                self._db.execute(
                    "INSERT INTO observations (trial, step, metric, value, timestamp) VALUES (?, ?, ?, ?, ?)",
                    (name, step, report.metric, report.value, report.timestamp),
                )
            self._db.execute(
                "UPDATE trials SET condition=?, completion_time=?, seconds=?, exit_code=?, reason=?, summaries=?"
                " WHERE name=?",
                (condition.value, utc_now(), seconds, exit_code, reason, json.dumps(texts), name),
            )

    def reports(self, name: str, metric: str) -> list[Report]:
        """What a finished trial reported of one metric, in order."""
        rows = self._all(
            "SELECT metric, value, timestamp FROM observations WHERE trial=? AND metric=? ORDER BY step", name, metric
        )
        return [Report(*row) for row in rows]

    # -- sqlite -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # a programming mistake, not the disk
        except (sqlite3.Error, OSError) as error:
            raise SurroundingsError(
                f"the journal {self.path} cannot be used: {error}. What was committed before is kept;"
                " make room or give write access, then run the same command again"
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:  # sqlite has rolled back by itself when the disk is full
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _all(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._errors():
            return self._db.execute(query, values).fetchall()

    def _maybe(self, query: str, *values: object) -> sqlite3.Row | None:
        return next(iter(self._all(query, *values)), None)

    def _one(self, query: str) -> sqlite3.Row:
        return self._all(query)[0]


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _rule_text(rule: StopRule | None) -> str | None:
    if rule is None:
        return None
    fields = {"metric": rule.metric, "value": rule.value, "comparison": rule.comparison.value, "step": rule.start_step}
    return json.dumps(fields)


def _record(row: sqlite3.Row) -> TrialRecord:
    rule = None
    if row["rule"] is not None:
        fields = json.loads(row["rule"])
        rule = StopRule(fields["metric"], fields["value"], Comparison(fields["comparison"]), fields["step"])
    return TrialRecord(
        name=row["name"],
        kind=Kind(row["kind"]),
        position=row["position"],
        assignments=json.loads(row["assignments"]),
        arguments=tuple(json.loads(row["arguments"])),
        labels=json.loads(row["labels"]),
        rule=rule,
        condition=Condition(row["condition"]),
        stopping=bool(row["stopping"]),
        attempts=row["attempts"],
        process=None if row["pid"] is None else ProcessId(row["pid"], row["pid_started"]),
        attempt_started=row["attempt_started"],
        start_time=row["start_time"],
        completion_time=row["completion_time"],
        seconds=row["seconds"],
        exit_code=row["exit_code"],
        reason=row["reason"],
        summaries=tuple(MetricSummary(**summary) for summary in json.loads(row["summaries"])),
    )


def _without_changeable(document: Mapping[str, Any]) -> dict[str, Any]:
    changeable = {path.removeprefix("spec.") for path in CHANGEABLE}
    spec = {key: value for key, value in document["spec"].items() if key not in changeable}
    # Through JSON, so that what was stored and what was read compare alike (tuples, dates).
    fixed: dict[str, Any] = _without_nulls(json.loads(_json({"metadata": document["metadata"], "spec": spec})))
    return fixed


def _without_nulls(value: Any) -> Any:
    """A field that is null is a field that is not given, as in Kubernetes."""
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value


def _differences(path: str, before: Any, now: Any, folder: Path) -> list[Problem]:
    """Every leaf in which two JSON documents differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        below = [(f"{path}.{key}".lstrip("."), before.get(key), now.get(key)) for key in keys]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        below = [(f"{path}[{index}]", *pair) for index, pair in enumerate(zip(before, now, strict=True))]
    elif before == now and type(before) is type(now):
        return []
    else:
        allowed = f"{_short(before)}, as the search in {folder} was begun; a changed search needs another --folder"
        return [Problem(path, _short(now), allowed)]
    return [problem for entry in below for problem in _differences(*entry, folder)]


def _short(value: object) -> str:
    text = "nothing" if value is None else value if isinstance(value, str) else _json(value)
    return text if len(text) <= 80 else text[:77] + "..."
