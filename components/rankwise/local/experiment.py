"""A Katib Experiment as a checked, frozen value; every mistake of its file at once, each with its place.

An Experiment that is accepted here is one that Katib accepts too; some that Katib accepts are refused, since they
could not run on one machine (other metrics collectors, templates in a ConfigMap, containers without a command) or
are likely mistakes (keys that nobody reads, annotations of ours that do not fit).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.errors import InvalidInput, Problem
from rankwise.local.annotations import NAMES, PREFIX, read_default_configuration, read_final_arguments
from rankwise.local.document import read_file, read_text
from rankwise.local.fields import Fields, shown, suggestion
from rankwise.local.specification import (
    Collector,
    EarlyStopping,
    read_collector,
    read_counts,
    read_objective,
    read_parameters,
    read_settings,
)
from rankwise.local.trial_template import RenderedTrial, TrialTemplate, label_of, read_template, render
from rankwise.space import Objective, ParameterText, SearchSpace
from rankwise.strategies import lineage

API_VERSION, KIND = "kubeflow.org/v1beta1", "Experiment"

_ROOT_KEYS = ("apiVersion", "kind", "metadata", "spec", "status")
_METADATA_KEYS = (
    "name",
    "namespace",
    "labels",
    "annotations",
    # Kubernetes writes these; they stand in what `kubectl get --output yaml` prints.
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)
_SPEC_KEYS = (
    "parameters",
    "objective",
    "algorithm",
    "earlyStopping",
    "trialTemplate",
    "parallelTrialCount",
    "maxTrialCount",
    "maxFailedTrialCount",
    "metricsCollectorSpec",
    "nasConfig",
    "resumePolicy",
)
_RESUME_POLICIES = ("Never", "LongRunning", "FromVolume")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_NAME_LENGTH = 63
_TRIAL_SUFFIX = 9  # "-" and 8 characters, which Katib appends to name a trial


@dataclass(frozen=True)
class Experiment:
    """A checked Experiment.

    Attributes:
        name, namespace, labels, annotations: of its metadata.
        document: the whole file as plain values, ``status`` left out.
        objective: what is optimized.
        metric_strategies: metric -> ``min``, ``max`` or ``latest``, the objective first, then the additional ones.
        algorithm_name, algorithm_settings: of ``spec.algorithm``; settings raw, the algorithm checks them.
        early_stopping: None where there is none.
        parameters: raw texts of the search space.
        space: the search space.
        parallel_trial_count: trials at once (default 3).
        max_trial_count: None where there is no limit.
        max_failed_trial_count: None where there is no limit.
        resume_policy: ``Never``, ``LongRunning`` or ``FromVolume``.
        collector: how metrics are read.
        template: what a trial runs.
        default_configuration: annotation ``rankwise.dev/default-configuration``; None where there is none.
        final_arguments: annotation ``rankwise.dev/final-arguments``; empty where there is none.
    """

    name: str
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    document: Mapping[str, Any]
    objective: Objective
    metric_strategies: Mapping[str, str]
    algorithm_name: str
    algorithm_settings: Mapping[str, str]
    early_stopping: EarlyStopping | None
    parameters: tuple[ParameterText, ...]
    space: SearchSpace
    parallel_trial_count: int
    max_trial_count: int | None
    max_failed_trial_count: int | None
    resume_policy: str
    collector: Collector
    template: TrialTemplate
    default_configuration: Mapping[str, str] | None
    final_arguments: tuple[str, ...]

    @property
    def container_env(self) -> dict[str, str]:
        """Variables of the primary container, placeholders not replaced."""
        return self.template.container_env


def load_experiment(path: Path) -> Experiment:
    """Read an Experiment's file.

    Raises:
        InvalidInput: with every mistake in the file.
    """
    return _made(*read_file(path))


def parse_experiment(text: str, name: str = "experiment") -> Experiment:
    """The Experiment in a YAML text.

    Args:
        text: YAML.
        name: how messages about the text's form call it.

    Raises:
        InvalidInput: with every mistake in it.
    """
    return _made(*read_text(text, name))


def render_trial(
    experiment: Experiment, trial_name: str, assignments: Mapping[str, str], labels: Mapping[str, str] | None = None
) -> RenderedTrial:
    """Make a trial's manifest and command, as Katib does.

    Args:
        experiment: whose trial it is.
        trial_name: its name.
        assignments: parameter -> value text, for exactly the experiment's parameters.
        labels: of the suggestion.

    Raises:
        ValueError: the assignments name other parameters.
        InvalidInput: a value breaks the JSON that Katib pastes it into.
    """
    return render(experiment.template, trial_name, experiment.namespace, assignments, labels)


def _made(document: dict[str, Any], problems: list[Problem]) -> Experiment:
    kind = document.get("kind")
    if not isinstance(kind, str) or kind.lower() != KIND.lower():
        # Another kind of object: its keys would all be reported.
        raise InvalidInput([*problems, Problem("kind", shown(kind), f"{KIND} (of {API_VERSION})")])
    experiment = _read(document, problems)
    if problems or experiment is None:
        raise InvalidInput(problems)
    return experiment


def _read(document: dict[str, Any], problems: list[Problem]) -> Experiment | None:
    root = Fields(document, "", _ROOT_KEYS, problems)
    for key, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(key) != expected:
            root.problem(key, document.get(key), expected)
    metadata = root.below("metadata", _METADATA_KEYS)
    spec = root.below("spec", _SPEC_KEYS)
    name = _read_name(metadata)
    namespace = _read_namespace(metadata)
    annotations = metadata.text_mapping("annotations")
    given = metadata.values.get("annotations")
    # Those that are no texts have been reported already.
    ours = {key: value for key, value in annotations.items() if isinstance(given, dict) and given[key] == value}
    _check_annotation_names(annotations, metadata)
    if spec.has("nasConfig"):
        spec.problem("nasConfig", spec.values["nasConfig"], "nothing: a search over parameters, not architectures")

    texts, space = read_parameters(spec)
    objective = read_objective(spec)
    algorithm = _read_algorithm(spec, name)
    early_stopping = _read_early_stopping(spec)
    counts = read_counts(spec)
    resume_policy = spec.text("resumePolicy") or "Never"
    if resume_policy not in _RESUME_POLICIES:
        spec.problem("resumePolicy", resume_policy, f"one of {', '.join(_RESUME_POLICIES)}")
    collector = read_collector(spec, objective[0] if objective else None)
    template = read_template(spec, texts)
    default = read_default_configuration(ours, space, problems)
    final_arguments = read_final_arguments(ours, problems)
    labels = metadata.text_mapping("labels")
    if template is not None and algorithm[0] == lineage.ALGORITHM:
        _check_parent(template, problems)
    if problems or space is None or objective is None or template is None:
        return None
    return Experiment(
        name=name,
        namespace=namespace,
        labels=labels,
        annotations=annotations,
        document={key: value for key, value in document.items() if key != "status"},
        objective=objective[0],
        metric_strategies=objective[1],
        algorithm_name=algorithm[0],
        algorithm_settings=algorithm[1],
        early_stopping=early_stopping,
        parameters=texts,
        space=space,
        parallel_trial_count=counts.parallel,
        max_trial_count=counts.total,
        max_failed_trial_count=counts.failed,
        resume_policy=resume_policy,
        collector=collector,
        template=template,
        default_configuration=default,
        final_arguments=final_arguments,
    )


def _check_parent(template: TrialTemplate, problems: list[Problem]) -> None:
    """A trial that does not read its parent's name would begin anew in every generation, and nobody would see it."""
    entries = template.container.get("env") or []
    if not any(isinstance(entry, dict) and label_of(entry) == lineage.PARENT_LABEL for entry in entries):
        allowed = (
            f"with {lineage.ALGORITHM}, a variable of the container {template.primary_container} that reads the parent:"
            f" name RANKWISE_PARENT, valueFrom.fieldRef.fieldPath metadata.labels['{lineage.PARENT_LABEL}']"
        )
        problems.append(Problem("spec.trialTemplate.trialSpec", "no such variable", allowed))


def _read_name(metadata: Fields) -> str:
    allowed = "lower case letters, digits and -, first a letter, last no -"
    name = metadata.text("name", required=f"a name of {allowed}")
    longest = _NAME_LENGTH - _TRIAL_SUFFIX
    if metadata.values.get("name") != name:
        return name  # no text, which has been reported
    if name and not _NAME.fullmatch(name):
        metadata.problem("name", name, allowed)
    elif len(name) > longest:
        metadata.problem("name", name, f"at most {longest} characters, since trials are called NAME-12345678")
    return name


def _read_namespace(metadata: Fields) -> str:
    namespace = metadata.text("namespace") or "default"
    if len(namespace) > _NAME_LENGTH or not _LABEL.fullmatch(namespace):
        metadata.problem("namespace", namespace, "at most 63 lower case letters, digits and -, first and last no -")
    return namespace


def _check_annotation_names(annotations: Mapping[str, str], metadata: Fields) -> None:
    for key in annotations:
        if key.startswith(PREFIX) and key not in NAMES:
            metadata.problem(f"annotations.{key}", key, f"one of {', '.join(NAMES)}{suggestion(key, NAMES)}")


def _read_algorithm(spec: Fields, experiment_name: str) -> tuple[str, dict[str, str]]:
    if not spec.has("algorithm"):
        spec.problem("algorithm", None, "an algorithm with its algorithmName, for example language-bo")
        return "", {}
    fields = spec.below("algorithm", ("algorithmName", "algorithmSettings"))
    name = fields.text("algorithmName", required="the name of an algorithm, for example language-bo")
    if name and not _LABEL.fullmatch(name):
        near = name.lower().replace("_", "-")
        fields.problem("algorithmName", name, f"lower case letters, digits and -, for example {near!r}")
    elif name and len(f"{experiment_name}-{name}") > _NAME_LENGTH:
        full = f"{experiment_name}-{name}"
        allowed = f"a name with which {full!r}, the service's name, has at most 63 characters, not {len(full)}"
        fields.problem("algorithmName", name, allowed)
    return name, read_settings(fields)


def _read_early_stopping(spec: Fields) -> EarlyStopping | None:
    if not spec.has("earlyStopping"):
        return None
    fields = spec.below("earlyStopping", ("algorithmName", "algorithmSettings"))
    name = fields.text("algorithmName", required="the name of a rule, for example medianstop")
    return EarlyStopping(name, read_settings(fields))
