"""Everything that a report says about one search, as plain frozen data.

::

    SearchFacts
    ├── objective, algorithm, parameters      what was asked
    ├── trials                                what was tried, in the order of suggestion
    ├── default_configuration                 what the best configuration is compared with
    ├── finals: default, best, lead           trained on more data, measured once on the test split
    ├── landscape                             where the trials lie in the embedding space
    └── environment                           versions, model, data, seeds, commands

Nothing here but the landscape is derived: what follows from these facts (the best trial, differences, importances) is
computed by :mod:`rankwise.report.analysis` whenever it is needed, so that a file cannot contradict itself.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime

from rankwise.errors import InvalidInput, Problem
from rankwise.report.codec import decode, encode
from rankwise.report.landscape_facts import LandscapeFacts
from rankwise.space.trial import Objective, Trial, TrialState
from rankwise.strategies.choice import Aims, aims_of, leader
from rankwise.strategies.configurations import without

SCHEMA_VERSION = 1


def _finite(where: str, values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{where}: {name} must be finite, got {value!r}")


def _positive(where: str, values: Mapping[str, float | None]) -> None:
    _finite(where, values)
    for name, value in values.items():
        if value is not None and value < 0:
            raise ValueError(f"{where}: {name} must not be negative, got {value!r}")


def _zoned(where: str, times: Mapping[str, datetime | None]) -> None:
    for name, time in times.items():
        if time is not None and time.tzinfo is None:
            raise ValueError(f"{where}: {name} needs a time zone, got {time.isoformat()}")


@dataclass(frozen=True, slots=True)
class CostFacts:
    """What one training cost; None where it was not measured.

    Attributes:
        seconds: wall clock of training and its evaluations, as the trial measured it.
        peak_memory_bytes: highest memory of the device (or of the process, without one).
        energy_joules: energy drawn while training.
        seconds_per_epoch: wall clock of one pass over the training examples, without evaluations.

    Raises:
        ValueError: when a cost is negative or not finite.
    """

    seconds: float | None = None
    peak_memory_bytes: float | None = None
    energy_joules: float | None = None
    seconds_per_epoch: float | None = None

    def __post_init__(self) -> None:
        _positive("cost", {field.name: getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True, slots=True)
class AlgorithmFacts:
    """The algorithm's name and its raw settings, as the Experiment has them."""

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ParameterFacts:
    """One parameter of the search space.

    Attributes:
        name: the parameter's name.
        type: Katib's word: double, int, discrete or categorical.
        distribution: Katib's word: uniform, logUniform, normal or logNormal.
        low: smallest value; None for categorical.
        high: largest value; None for categorical.
        step: distance between values; None where there is none.
        values: the list of a discrete or categorical parameter, verbatim; None for double and int.

    Raises:
        ValueError: when bounds and list do not fit the type.
    """

    name: str
    type: str
    distribution: str = "uniform"
    low: float | None = None
    high: float | None = None
    step: float | None = None
    values: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        where = f"parameter {self.name!r}"
        _finite(where, {"low": self.low, "high": self.high, "step": self.step})
        if self.type not in ("double", "int", "discrete", "categorical"):
            raise ValueError(f"{where}: type must be double, int, discrete or categorical, got {self.type!r}")
        if self.type in ("double", "int"):
            if self.low is None or self.high is None or self.low > self.high:
                raise ValueError(f"{where}: needs low <= high, got {self.low!r} and {self.high!r}")
            return
        if not self.values:
            raise ValueError(f"{where}: a {self.type} parameter needs a list of values")
        if self.type == "discrete" and None in (self.number(text) for text in self.values):
            raise ValueError(f"{where}: every value of a discrete parameter must be a number, got {self.values!r}")

    def number(self, text: str) -> float | None:
        """The text as a finite number; None for a categorical parameter and for what is no number."""
        if self.type == "categorical":
            return None
        try:
            value = float(text)
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    def same(self, a: str, b: str) -> bool:
        """Whether two texts mean the same value: ``3e-4`` and ``0.0003`` do."""
        first, second = self.number(a), self.number(b)
        return a == b if first is None or second is None else first == second


@dataclass(frozen=True, slots=True)
class MetricReport:
    """Metrics that a training reported on its way.

    Attributes:
        metrics: metric name -> value.
        step: optimizer step; None where the trial's output does not tell.
    """

    metrics: Mapping[str, float]
    step: int | None = None

    def __post_init__(self) -> None:
        _finite("metric report", self.metrics)
        if self.step is not None and not 0 <= self.step < 2**53:
            raise ValueError(f"metric report: step must be in [0, 2^53), got {self.step!r}")


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """One trial.

    Attributes:
        name: unique name within the search.
        assignments: parameter name -> value in Katib's text form.
        state: how it ended.
        condition: the same in the word of what ran it, e.g. Katib's ``Killed``; "" when there is none.
        value: the objective's value on validation.
        metrics: every finite metric by name.
        started: start of the trial's process.
        completed: end of the trial's process.
        seconds: wall clock of the whole process, from start to end.
        cost: what the training itself cost.
        subset: share of the training data that it was trained on, in (0, 1]; None when unknown.
        history: metric reports in the order they came.
        adapter: key of the adapter in the store; "" without one.
        notes: sentences worth reading, e.g. that a fallback made the suggestion, or why the trial failed.

    Raises:
        ValueError: when state and value contradict each other, or a number or a time is not valid.
    """

    name: str
    assignments: Mapping[str, str]
    state: TrialState
    value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    started: datetime | None = None
    completed: datetime | None = None
    seconds: float | None = None
    cost: CostFacts = CostFacts()
    subset: float | None = None
    history: tuple[MetricReport, ...] = ()
    adapter: str = ""
    notes: tuple[str, ...] = ()
    condition: str = ""

    def __post_init__(self) -> None:
        where = f"trial {self.name!r}"
        self.as_trial()  # its own checks of state and value
        _finite(where, self.metrics)
        _positive(where, {"seconds": self.seconds})
        _zoned(where, {"started": self.started, "completed": self.completed})
        if self.subset is not None and not 0 < self.subset <= 1:
            raise ValueError(f"{where}: subset must be in (0, 1], got {self.subset!r}")

    @property
    def state_words(self) -> str:
        """The state as a reader meets it: ``metrics unavailable`` for ``MetricsUnavailable``.

        A trial that its own system calls succeeded, yet has no value, is called by its state.
        """
        if not self.condition or (self.condition == "Succeeded") != (self.state is TrialState.SUCCEEDED):
            return self.state.value.replace("_", " ")
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.condition).lower()

    def as_trial(self) -> Trial:
        """The trial as the rest of the house knows it."""
        return Trial(self.name, self.assignments, self.state, self.value, self.metrics)


@dataclass(frozen=True, slots=True)
class Example:
    """One example of the test split: what went in, what was wanted, what the model wrote."""

    source: str
    target: str
    prediction: str


@dataclass(frozen=True, slots=True)
class FinalRun:
    """A configuration trained anew, on more data than a trial, and measured on the test split.

    Attributes:
        assignments: parameter name -> value in Katib's text form.
        metrics: metric name -> value on the test split.
        standard_errors: metric name -> standard error of that value over the test examples.
        per_example: metric name -> one value per test example, in the order of the test split.
        cost: what this training cost.
        examples: some examples of the test split with the model's predictions.
        subset: share of the training data that it was trained on, in (0, 1]; None when unknown.

    Raises:
        ValueError: when a number is not finite or a standard error is negative.
    """

    assignments: Mapping[str, str]
    metrics: Mapping[str, float]
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    per_example: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    cost: CostFacts = CostFacts()
    examples: tuple[Example, ...] = ()
    subset: float | None = None

    def __post_init__(self) -> None:
        _check_measured("final run", self.metrics, self.standard_errors, self.per_example)
        if self.subset is not None and not 0 < self.subset <= 1:
            raise ValueError(f"final run: subset must be in (0, 1], got {self.subset!r}")


@dataclass(frozen=True, slots=True)
class LeadBaseline:
    """A baseline that needs no training, e.g. the first ten words of the source as its summary.

    Attributes:
        description: what it is, e.g. ``first ten words``.
        metrics: metric name -> value on the test split.
        standard_errors: metric name -> standard error.
        per_example: metric name -> one value per test example, in the order of the test split.
    """

    description: str
    metrics: Mapping[str, float]
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    per_example: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_measured("lead baseline", self.metrics, self.standard_errors, self.per_example)


def _check_measured(
    where: str,
    metrics: Mapping[str, float],
    errors: Mapping[str, float],
    per_example: Mapping[str, tuple[float, ...]],
) -> None:
    _finite(where, metrics)
    _positive(f"{where}: standard error", errors)
    for name, values in per_example.items():
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"{where}: every value per example of {name!r} must be finite")


@dataclass(frozen=True, slots=True)
class Finals:
    """The final runs; each is None until it was made.

    Attributes:
        default: the default configuration.
        best: the best configuration found.
        lead: the baseline without training.
    """

    default: FinalRun | None = None
    best: FinalRun | None = None
    lead: LeadBaseline | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The pretrained model: where from, which revision, how many layers were kept (None: all)."""

    reference: str
    revision: str = ""
    layers: int | None = None


@dataclass(frozen=True, slots=True)
class DataFacts:
    """A data set: where from, its content hash, examples per split."""

    reference: str
    sha256: str = ""
    train: int | None = None
    validation: int | None = None
    test: int | None = None


@dataclass(frozen=True, slots=True)
class EnvironmentFacts:
    """How the results can be made again.

    Attributes:
        versions: name -> version, e.g. ``rankwise``, ``python``, ``torch``, ``git commit``.
        model: the pretrained model.
        data: the data sets.
        seeds: name -> seed.
        commands: command lines, with no path that is private to one machine.
        device: in words, e.g. ``CPU, 2 cores``.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    model: ModelFacts | None = None
    data: tuple[DataFacts, ...] = ()
    seeds: Mapping[str, int] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    device: str = ""


@dataclass(frozen=True, slots=True)
class ConditionFacts:
    """One of an Experiment's conditions in the cluster: type and status in Katib's words, and since when."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: datetime | None = None

    def __post_init__(self) -> None:
        _zoned("condition", {"since": self.since})


@dataclass(frozen=True, slots=True)
class SearchFacts:
    """One search, finished or not.

    Attributes:
        experiment: the Experiment's name.
        objective: metric, goal, target and additional metrics.
        algorithm: name and settings.
        parameters: the search space.
        trials: in the order of suggestion.
        default_configuration: parameter name -> value; None when the Experiment has none.
        finals: the final runs.
        environment: what is needed to do it again.
        started: start of the search.
        completed: end of the search; None while it goes on.
        max_trials: how many trials were asked for.
        message: why the search ended, in a sentence; "" when there is nothing to say.
        namespace: the Experiment's namespace; "" for a run on one machine.
        conditions: the Experiment's own conditions in the cluster, in Katib's order.
        notes: sentences about the search as a whole, e.g. that it still goes on, or what could not be read.
        store: URI of the store that holds the keys of adapters; "" when it is the run's own folder or unknown.
        landscape: the search in its embedding space; None without it.
        landscape_note: why it is missing, in a sentence; "" when it is there, or no language model searches.

    Raises:
        ValueError: when two trials or two parameters have one name, or a time has no zone.
    """

    experiment: str
    objective: Objective
    algorithm: AlgorithmFacts
    parameters: tuple[ParameterFacts, ...]
    trials: tuple[TrialFacts, ...] = ()
    default_configuration: Mapping[str, str] | None = None
    finals: Finals = Finals()
    environment: EnvironmentFacts = EnvironmentFacts()
    started: datetime | None = None
    completed: datetime | None = None
    max_trials: int | None = None
    message: str = ""
    namespace: str = ""
    conditions: tuple[ConditionFacts, ...] = ()
    notes: tuple[str, ...] = ()
    store: str = ""
    landscape: LandscapeFacts | None = None
    landscape_note: str = ""

    def __post_init__(self) -> None:
        _unique("trial", (trial.name for trial in self.trials))
        _unique("parameter", (parameter.name for parameter in self.parameters))
        _zoned("search", {"started": self.started, "completed": self.completed})
        _finite("objective", {"target": self.objective.target})
        if self.landscape and not {trial.name for trial in self.trials}.issuperset(self.landscape.trials):
            raise ValueError("the landscape names a trial that is not there")

    @property
    def best(self) -> TrialFacts | None:
        """The trial that the search has found (:mod:`rankwise.strategies.choice`); None when it has found none.

        An early-stopped trial counts with the value that it reported, as it does in Katib's optimal trial.
        """
        found = leader([trial.as_trial() for trial in self.trials], self.aims)
        return None if found is None else self.trials[found.row]

    @property
    def aims(self) -> Aims:
        """What the search is for beside the objective."""
        return aims_of(self.algorithm.settings, self.objective)

    def same_configuration(self, a: Mapping[str, str], b: Mapping[str, str]) -> bool:
        """Whether two configurations have the same names with the same values (``3e-4`` is ``0.0003``)."""
        known = {parameter.name: parameter for parameter in self.parameters}
        return a.keys() == b.keys() and all(
            known[name].same(a[name], b[name]) if name in known else a[name] == b[name] for name in a
        )

    @property
    def default_trial(self) -> TrialFacts | None:
        """The first trial with a value whose configuration is the default one, whatever its seed; None without one."""
        if self.default_configuration is None:
            return None
        seed = self.aims.seed_parameter
        default = without(self.default_configuration, seed)
        valued = (trial for trial in self.trials if trial.value is not None)
        return next((t for t in valued if self.same_configuration(without(t.assignments, seed), default)), None)


def _unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"two {what}s are named {name!r}")
        seen.add(name)


def facts_to_dict(facts: SearchFacts) -> dict[str, object]:
    """The facts as plain JSON values, with the schema's version."""
    return {"schema_version": SCHEMA_VERSION, **encode(facts)}


def facts_from_dict(data: object, path: str = "facts") -> SearchFacts:
    """Facts from plain JSON values.

    Raises:
        InvalidInput: with every mistake, or when the schema's version is another one.
    """
    if not isinstance(data, dict):
        raise InvalidInput([Problem(path, repr(data)[:80], "an object")])
    version = data.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise InvalidInput([Problem(f"{path}.schema_version", repr(version)[:80], str(SCHEMA_VERSION))])
    return decode(SearchFacts, {key: value for key, value in data.items() if key != "schema_version"}, path)


def facts_to_json(facts: SearchFacts) -> str:
    """The facts alone as JSON text (``report.json`` holds them under ``facts``, beside what follows from them)."""
    return json.dumps(facts_to_dict(facts), ensure_ascii=False, indent=1, allow_nan=False)


def facts_from_json(text: str) -> SearchFacts:
    """Facts from the text of :func:`facts_to_json`, or from a whole ``report.json``.

    Raises:
        InvalidInput: the text is no JSON, or with every mistake in it.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InvalidInput([Problem("report", text[:40], f"JSON text ({error})")]) from None
    if isinstance(data, dict) and "facts" in data:
        return facts_from_dict(data["facts"])
    return facts_from_dict(data)
