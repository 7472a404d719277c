"""Reads the parts of an Experiment's ``spec`` that need no other part."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

from rankwise.errors import Problem
from rankwise.local.fields import Fields
from rankwise.space import Goal, Objective, ParameterText, SearchSpace
from rankwise.space.parsing import parse_parameters

DEFAULT_PARALLEL = 3
"""Katib's default of parallelTrialCount."""
DEFAULT_METRICS_PATH = "/var/log/katib/metrics.log"
"""Katib's default of a File collector's path."""

_STRATEGIES = ("min", "max", "latest")
# Go's regular expressions, which Katib uses, have none of these: lookaround, backreferences, atomic groups, conditions.
_NOT_IN_GO = re.compile(r"\(\?(?:[=!>(]|<[=!]|P=)|(?<!\\)(?:\\\\)*\\[1-9]|(?<!\\)[*+?}]\+")
# What Katib's default filter takes for a metric's name.
_DEFAULT_NAME = re.compile(r"[\w|-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """``spec.earlyStopping``."""

    algorithm_name: str
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Collector:
    """How a trial's metrics are read.

    Attributes:
        kind: ``StdOut`` or ``File``.
        path: the File collector's absolute path, as each pod sees it; empty for StdOut.
        format: ``TEXT`` (lines that the filters match) or ``JSON`` (one object a line).
        filters: regular expressions with two groups, name and value; empty: Katib's default filter.
    """

    kind: str = "StdOut"
    path: str = ""
    format: str = "TEXT"
    filters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many trials: at once, in all, and failed ones at most; None stands for no limit."""

    parallel: int = DEFAULT_PARALLEL
    total: int | None = None
    failed: int | None = None


def read_settings(fields: Fields) -> dict[str, str]:
    """``algorithmSettings``: a list of names with values."""
    settings: dict[str, str] = {}
    for item in fields.each("algorithmSettings", ("name", "value")):
        name = item.text("name", required="a setting's name")
        value = item.text("value")
        if name and name in settings:
            item.problem("name", name, "a setting that stands once")
        settings.setdefault(name, value)
    return settings


def read_parameters(spec: Fields) -> tuple[tuple[ParameterText, ...], SearchSpace | None]:
    """``spec.parameters``: the raw texts, and the space where nothing is wrong with it."""
    before = len(spec.problems)
    path = spec.at("parameters")
    texts: list[ParameterText] = []
    readable: list[int] = []
    items = spec.each("parameters", ("name", "parameterType", "feasibleSpace"))
    for i, item in enumerate(items):
        name, kind = item.text("name"), item.text("parameterType")
        if not item.has("feasibleSpace"):
            if item.readable:
                item.problem("feasibleSpace", None, "min and max, or a list")
            texts.append(ParameterText(name, kind))
            continue
        space = item.below("feasibleSpace", ("min", "max", "step", "list", "distribution"))
        bounds = {key: space.text(key) for key in ("min", "max", "step", "distribution")}
        texts.append(ParameterText(name, kind, list=space.texts("list"), **bounds))
        if space.readable:
            readable.append(i)
    if items or not spec.values.get("parameters"):
        # Parameters that are no mappings have been reported already.
        parameters, problems = parse_parameters([texts[i] for i in readable], path, readable)
        spec.problems.extend(problems if readable or not items else [])
        if len(spec.problems) == before:
            return tuple(texts), SearchSpace(parameters)
    return tuple(texts), None


def read_objective(spec: Fields) -> tuple[Objective, dict[str, str]] | None:
    """``spec.objective`` and the strategies of all metrics, the objective's first; None when something is wrong."""
    if not spec.has("objective"):
        spec.problem("objective", None, "what is optimized: type and objectiveMetricName")
        return None
    before = len(spec.problems)
    keys = ("type", "goal", "objectiveMetricName", "additionalMetricNames", "metricStrategies")
    fields = spec.below("objective", keys)
    kind = fields.text("type")
    if kind not in ("minimize", "maximize") and fields.readable:
        fields.problem("type", kind, "minimize or maximize")
    metric = fields.text("objectiveMetricName", required="the name of a metric that trials report")
    additional = fields.texts("additionalMetricNames")
    for i, name in enumerate(additional):
        if not name:
            fields.problem(f"additionalMetricNames[{i}]", name, "the name of a metric")
        elif name == metric:
            fields.problem(f"additionalMetricNames[{i}]", name, "another metric than the objective")
        elif name in additional[:i]:
            fields.problem(f"additionalMetricNames[{i}]", name, "a name that stands once")
    metrics = (metric, *additional)
    # Katib's webhook: the extremum that the objective's type asks for, for the additional metrics too.
    strategies = dict.fromkeys(metrics, "max" if kind == "maximize" else "min")
    seen: set[str] = set()
    for item in fields.each("metricStrategies", ("name", "value")):
        name, value = item.text("name", required="a metric's name"), item.text("value")
        if value not in _STRATEGIES:
            item.problem("value", value, f"one of {', '.join(_STRATEGIES)}")
        if name and name not in metrics:
            item.problem("name", name, f"a metric of the objective: {', '.join(metrics)}")
        elif name in seen:
            item.problem("name", name, "a metric that stands once")
        seen.add(name)
        strategies[name] = value
    goal = fields.number("goal")
    if len(spec.problems) > before:
        return None
    return Objective(metric, Goal(kind), goal, additional), strategies


def read_counts(spec: Fields) -> Counts:
    """The counts of trials."""
    total = spec.count("maxTrialCount", least=1)
    failed = spec.count("maxFailedTrialCount", least=0)
    parallel = spec.count("parallelTrialCount", least=1)
    if total is not None and failed is not None and failed > total:
        spec.problem("maxFailedTrialCount", failed, f"at most maxTrialCount, {total}")
    given = spec.has("parallelTrialCount")
    if total is not None and (parallel is not None or not given) and (parallel or DEFAULT_PARALLEL) > total:
        shown = parallel if given else f"{DEFAULT_PARALLEL} (the default)"
        spec.problem("parallelTrialCount", shown, f"at most maxTrialCount, {total}")
    return Counts(parallel or DEFAULT_PARALLEL, total, failed)


def read_collector(spec: Fields, objective: Objective | None) -> Collector:
    """``spec.metricsCollectorSpec``; Katib's defaults where it is missing."""
    if not spec.has("metricsCollectorSpec"):
        _check_metric_names(spec, objective)
        return Collector()
    fields = spec.below("metricsCollectorSpec", ("collector", "source"))
    kind = "StdOut"
    if fields.has("collector"):
        collector = fields.below("collector", ("kind", "customCollector"))
        kind = collector.text("kind")
        if kind not in ("StdOut", "File"):
            collector.problem("kind", kind, "StdOut or File: no other collector runs on one machine")
        elif collector.has("customCollector"):
            collector.problem("customCollector", "", f"nothing: the collector's kind is {kind}")
    path, form = "", "TEXT"
    filters: tuple[str, ...] = ()
    if fields.has("source"):
        source = fields.below("source", ("fileSystemPath", "filter", "httpGet"))
        if source.has("httpGet"):
            source.problem("httpGet", source.values["httpGet"], "nothing: StdOut and File collectors read a file")
        if source.has("fileSystemPath"):
            path, form = _read_file_system_path(source, kind)
        filters = _read_filters(source, form)
    if kind == "File" and not path:
        path = DEFAULT_METRICS_PATH
    if form == "TEXT" and not filters:
        _check_metric_names(spec, objective)
    return Collector(kind, path, form, filters)


def _read_file_system_path(source: Fields, kind: str) -> tuple[str, str]:
    if kind == "StdOut":
        source.problem("fileSystemPath", "", "nothing: StdOut reads the trial's output; set collector.kind to File")
        return "", "TEXT"
    fields = source.below("fileSystemPath", ("path", "kind", "format"))
    path = fields.text("path") or DEFAULT_METRICS_PATH
    if not path.startswith("/") or path.endswith("/"):
        fields.problem("path", path, "an absolute path of a file")
    if (fields.text("kind") or "File") != "File":
        fields.problem("kind", fields.values["kind"], "File")
    form = fields.text("format") or "TEXT"
    if form not in ("TEXT", "JSON"):
        fields.problem("format", form, "TEXT or JSON")
        form = "TEXT"
    return path, form


def _read_filters(source: Fields, form: str) -> tuple[str, ...]:
    if not source.has("filter"):
        return ()
    fields = source.below("filter", ("metricsFormat",))
    if form == "JSON":
        source.problem("filter", source.values["filter"], "nothing: filters are for the format TEXT")
        return ()
    filters = fields.texts("metricsFormat")
    for i, pattern in enumerate(filters):
        if wrong := _wrong_with_filter(pattern):
            allowed = f"a regular expression with two groups, name and value ({wrong})"
            fields.problem(f"metricsFormat[{i}]", pattern, allowed)
    return filters


def _wrong_with_filter(pattern: str) -> str:
    """What keeps a pattern from being a filter here and in Katib; empty when nothing does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a construct that other regular expressions read otherwise
            groups = re.compile(pattern, re.ASCII).groups
    except (re.error, RecursionError, OverflowError, Warning) as error:
        return str(error)
    if groups < 2:
        return f"it has {groups}"
    if found := _NOT_IN_GO.search(pattern):
        return f"Katib's regular expressions have no {found.group(0)!r}"
    return ""


def _check_metric_names(spec: Fields, objective: Objective | None) -> None:
    """Without a filter of its own, a metric whose name the default filter does not match is never seen."""
    if objective is None:
        return
    places = ["objectiveMetricName", *(f"additionalMetricNames[{i}]" for i in range(len(objective.additional_metrics)))]
    for place, name in zip(places, (objective.metric, *objective.additional_metrics), strict=True):
        if not _DEFAULT_NAME.fullmatch(name):
            allowed = "letters, digits, _, | and -: the default filter sees no other name"
            spec.problems.append(Problem(f"spec.objective.{place}", name, allowed))
