"""One JSON manifest for each trial: what was run, on what, at what cost, and what came out.

A reader of this version also reads later ones: a later ``schema_version`` may add fields, which are ignored here, but
never changes or removes one (that would be another ``kind``). In a manifest of this version or an older one an unknown
field is a mistake.
"""

from __future__ import annotations

import enum
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

from rankwise.artifacts.store import check_key
from rankwise.errors import InvalidInput, Problem

SCHEMA_VERSION = 3
"""Version 2 has ``namespace``, version 3 ``lineage`` and ``cost.seconds_per_epoch``."""
KIND = "trial"

Number = int | float
T = TypeVar("T")


class Outcome(enum.StrEnum):
    """How a trial ended."""

    SUCCEEDED = "succeeded"
    EARLY_STOPPED = "early_stopped"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a trial took; None where it could not be measured.

    Attributes:
        seconds: wall-clock time of training and evaluation.
        peak_memory_bytes: highest memory in use, of the device where there is one, else of the process.
        energy_joules: energy of the device.
        seconds_per_epoch: wall-clock time of one pass over the training examples, without evaluations: the mean
            seconds of an optimizer step times the steps of an epoch, whether or not the training did a whole one.
    """

    seconds: float | None
    peak_memory_bytes: float | None
    energy_joules: float | None
    seconds_per_epoch: float | None = None


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The pretrained model: what was asked for, what exactly it was, and how many layers were kept (None: all)."""

    reference: str
    revision: str
    layers: int | None


@dataclass(frozen=True, slots=True)
class DataSource:
    """The data: reference, hash of the examples, numbers of examples.

    Attributes:
        reference: as the user wrote it.
        sha256: :attr:`rankwise.data.LoadedData.sha256`.
        train: examples in the training split.
        validation: examples in the validation split.
        test: examples in the test split.
        subset: examples of the training split that were trained on (the proxy).
        seed: seed of the split.
    """

    reference: str
    sha256: str
    train: int
    validation: int
    test: int
    subset: int
    seed: int


@dataclass(frozen=True, slots=True)
class Code:
    """Versions of what ran; ``git_commit`` and ``dirty`` are None outside of a git working tree."""

    rankwise: str
    git_commit: str | None
    dirty: bool | None
    python: str
    torch: str
    transformers: str
    peft: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One example with what the trained model made of it."""

    source: str
    target: str
    prediction: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a training began with.

    Attributes:
        parent: name of the trial whose adapter and moments it took over.
        steps: optimizer steps that these had been trained for, by the parent and the parent's own parents.
    """

    parent: str
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that is known of one trial. Checked when it is made.

    Attributes:
        experiment: name of the experiment.
        trial: name of the trial.
        created: RFC 3339 in UTC, e.g. ``2026-01-31T12:00:00Z``.
        outcome: how it ended.
        configuration: parameter -> value that was used.
        metrics: on the validation split, finite; empty when nothing was measured.
        test_metrics: on the test split; None when it was not evaluated.
        standard_errors: metric -> standard error over the examples it was measured on.
        cost: see :class:`Cost`.
        model: see :class:`ModelSource`.
        data: see :class:`DataSource`.
        code: see :class:`Code`.
        seeds: purpose -> seed.
        history: one entry for each evaluation: ``step`` and metrics; a value that was not finite is None.
        artifacts: name -> key in the same store, e.g. ``adapter``.
        examples: some predictions.
        namespace: namespace of the experiment in its cluster; None for a run on one machine.
        lineage: see :class:`Lineage`; None for a training that began with a new adapter.

    Raises:
        InvalidInput: with every problem, each with its path.
    """

    experiment: str
    trial: str
    created: str
    outcome: Outcome
    configuration: Mapping[str, str | Number]
    metrics: Mapping[str, float]
    test_metrics: Mapping[str, float] | None
    standard_errors: Mapping[str, float]
    cost: Cost
    model: ModelSource
    data: DataSource
    code: Code
    seeds: Mapping[str, int]
    history: Sequence[Mapping[str, float | None]]
    artifacts: Mapping[str, str]
    examples: Sequence[Sample]
    namespace: str | None = None
    lineage: Lineage | None = None
    kind: str = KIND
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        _validate(asdict(self), strict=True)

    def to_json(self) -> str:
        """The manifest as JSON text, keys sorted, ending with a line feed."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read what :meth:`to_json` wrote, in this version or any other.

        Raises:
            InvalidInput: with every problem, each with its path.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInput([Problem("manifest", str(error), "JSON")]) from error
        if not isinstance(document, dict):
            raise InvalidInput([Problem("manifest", type(document).__name__, "a JSON object")])
        version = document.get("schema_version")
        document = _completed(document, version)
        _validate(document, strict=not (isinstance(version, int) and version > SCHEMA_VERSION))
        nested = {
            "outcome": Outcome(document["outcome"]),
            "cost": _known(Cost, document["cost"]),
            "model": _known(ModelSource, document["model"]),
            "data": _known(DataSource, document["data"]),
            "code": _known(Code, document["code"]),
            "lineage": None if document["lineage"] is None else _known(Lineage, document["lineage"]),
            "examples": tuple(_known(Sample, sample) for sample in document["examples"]),
            "history": tuple(document["history"]),
            # What was read is what this version knows, so that is what it would be written as.
            "schema_version": SCHEMA_VERSION,
        }
        return _known(cls, document | nested)


def trial_key(experiment: str, trial: str, *path: str, namespace: str | None = None) -> str:
    """Key of something of a trial, e.g. ``trial_key(e, t, "manifest.json")``.

    ``experiments/E/trials/T/…``, on a cluster ``namespaces/N/experiments/E/trials/T/…``: Experiments of two namespaces
    may have the same name. So the best adapter of an Experiment lies at
    ``namespaces/<metadata.namespace>/experiments/<metadata.name>/trials/<status.currentOptimalTrial.bestTrialName>/``,
    in the folder ``adapter`` beside ``manifest.json``.

    Raises:
        InvalidInput: a name cannot be part of a key.
    """
    problems = [
        Problem(name, value, "a name without slashes")
        for name, value in (("namespace", namespace or ""), ("experiment", experiment), ("trial", trial))
        if "/" in value
    ]
    if problems:
        raise InvalidInput(problems)
    above = () if namespace is None else ("namespaces", namespace)
    return check_key("/".join((*above, "experiments", experiment, "trials", trial, *path)))


# ------------------------------------------------------------------------------------------------------- checks


class _Checks:
    """Collects the problems of a document.

    Args:
        strict: whether an unknown field is a problem.
    """

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.problems: list[Problem] = []

    def expect(self, good: bool, path: str, value: object, allowed: str) -> None:
        if not good:
            text = value if isinstance(value, str) else repr(value)
            self.problems.append(Problem(path, text if len(text) <= 80 else text[:77] + "...", allowed))


Check = Callable[[_Checks, str, Any], None]
"""Notes what is wrong with a value at a path."""


def _value(allowed: str, good: Callable[[Any], bool]) -> Check:
    return lambda checks, path, value: checks.expect(good(value), path, value, allowed)


def _pattern(allowed: str, pattern: str) -> Check:
    return _value(allowed, lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value, re.ASCII)))


def _or_null(check: Check) -> Check:
    def run(checks: _Checks, path: str, value: Any) -> None:
        if value is not None:
            check(checks, path, value)

    return run


def _map(check: Check) -> Check:
    """An object with any names."""

    def run(checks: _Checks, path: str, value: Any) -> None:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value):
            checks.expect(False, path, value, "an object whose names are texts")
            return
        for name, item in value.items():
            check(checks, f"{path}.{name}", item)

    return run


def _list(check: Check) -> Check:
    def run(checks: _Checks, path: str, value: Any) -> None:
        if not isinstance(value, list | tuple):
            checks.expect(False, path, value, "a list")
            return
        for i, item in enumerate(value):
            check(checks, f"{path}[{i}]", item)

    return run


def _object(members: Mapping[str, Check]) -> Check:
    """An object with exactly these fields; with at least these when the checks are not strict."""

    def run(checks: _Checks, path: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            checks.expect(False, path, value, "an object")
            return
        dot = path + "." if path else ""
        for name, check in members.items():
            if name in value:
                check(checks, dot + name, value[name])
            else:
                checks.expect(False, dot + name, "nothing", "this field must be given")
        for name in value:
            known = name in members or not checks.strict
            checks.expect(known, f"{dot}{name}", "an unknown field", "one of " + ", ".join(members))

    return run


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # A whole number that no float can hold would only fail later.
    return abs(value) <= sys.float_info.max


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_time(value: Any) -> bool:
    try:
        # Only the form with "T" and a zone of UTC; fromisoformat also takes others.
        return (
            bool(re.fullmatch(r"[-\dT:.]+(Z|\+00:00)", value, re.ASCII)) and datetime.fromisoformat(value) is not None
        )
    except (TypeError, ValueError):
        return False


def _check_artifact(checks: _Checks, path: str, value: Any) -> None:
    _text(checks, path, value)
    if isinstance(value, str):
        try:
            check_key(value, path)
        except InvalidInput as error:
            checks.problems += error.problems


def _check_history_entry(checks: _Checks, path: str, value: Any) -> None:
    _map(_or_null(_number))(checks, path, value)
    if isinstance(value, Mapping):
        _integer(checks, f"{path}.step", value.get("step"))


_text = _value("a text that is not empty", lambda value: isinstance(value, str) and bool(value))
_any_text = _value("a text", lambda value: isinstance(value, str))
_number = _value("a finite number", _is_number)
_amount = _value("a finite number from 0, or null", lambda value: value is None or (_is_number(value) and value >= 0))
_integer = _value("a whole number from 0", _is_integer)
_metrics = _map(_number)
_sha256 = _pattern("a sha256 of 64 hexadecimal digits", "[0-9a-f]{64}")

_COST = dict.fromkeys(("seconds", "peak_memory_bytes", "energy_joules", "seconds_per_epoch"), _amount)
_MODEL = {
    "reference": _text,
    "revision": _text,
    "layers": _or_null(_value("a whole number from 1, or null", lambda value: _is_integer(value) and value > 0)),
}
_DATA = {
    "reference": _text,
    "sha256": _sha256,
    **dict.fromkeys(("train", "validation", "test", "subset", "seed"), _integer),
}
_CODE = {
    "rankwise": _text,
    "git_commit": _or_null(_pattern("a commit of 40 or 64 hexadecimal digits, or null", "[0-9a-f]{40}([0-9a-f]{24})?")),
    "dirty": _or_null(_value("true, false or null", lambda value: isinstance(value, bool))),
    **dict.fromkeys(("python", "torch", "transformers", "peft"), _text),
}
_LINEAGE = {"parent": _text, "steps": _integer}
_SAMPLE = {"source": _any_text, "target": _any_text, "prediction": _any_text}

_check_manifest = _object(
    {
        "kind": _value(repr(KIND), lambda value: value == KIND),
        "schema_version": _value("a whole number from 1", lambda value: _is_integer(value) and value > 0),
        "experiment": _text,
        "trial": _text,
        "namespace": _or_null(_text),
        "lineage": _or_null(_object(_LINEAGE)),
        "created": _value("a time in UTC as RFC 3339, e.g. 2026-01-31T12:00:00Z", _is_time),
        "outcome": _value("one of " + ", ".join(Outcome), lambda value: value in list(Outcome)),
        "configuration": _map(_value("a text or a finite number", lambda v: isinstance(v, str) or _is_number(v))),
        "metrics": _metrics,
        "test_metrics": _or_null(_metrics),
        "standard_errors": _map(_value("a finite number from 0", lambda value: _is_number(value) and value >= 0)),
        "cost": _object(_COST),
        "model": _object(_MODEL),
        "data": _object(_DATA),
        "code": _object(_CODE),
        "seeds": _map(_integer),
        "history": _list(_check_history_entry),
        "artifacts": _map(_check_artifact),
        "examples": _list(_object(_SAMPLE)),
    }
)


def _validate(document: object, *, strict: bool) -> None:
    checks = _Checks(strict=strict)
    _check_manifest(checks, "", document)
    if checks.problems:
        raise InvalidInput(checks.problems)


def _completed(document: dict[str, Any], version: object) -> dict[str, Any]:
    """A document of an earlier version with the fields that came later."""
    if version == 1:
        document = {"namespace": None} | document
    if version in (1, 2):
        document = {"lineage": None} | document
    if version in (1, 2) and isinstance(document.get("cost"), dict):
        document = document | {"cost": {"seconds_per_epoch": None} | document["cost"]}
    return document


def _known(into: type[T], document: Mapping[str, Any]) -> T:
    """A dataclass from the fields of the document that it has."""
    names = [field.name for field in fields(into)]  # type: ignore[arg-type]
    return into(**{name: document[name] for name in names})
