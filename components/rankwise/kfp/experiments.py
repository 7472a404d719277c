"""What a pipeline makes of an Experiment's file: the search, the trainings after it, and the data of both.

The file says everything once: the trial's command names the data, its split and the proxy; the annotations
``rankwise.dev/default-configuration`` and ``rankwise.dev/final-arguments`` say what the best configuration is compared
with, and how both are trained in the end.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from rankwise.cluster.experiment import mapping
from rankwise.errors import InvalidInput, Problem
from rankwise.local.annotations import DEFAULT_CONFIGURATION, FINAL_ARGUMENTS
from rankwise.local.experiment import Experiment, parse_experiment, render_trial
from rankwise.local.validate_command import check_settings
from rankwise.train.config import TrainConfig, parse

BEST, DEFAULT = "best", "default"
ROLES = (BEST, DEFAULT)

_PREFIXES = (("rankwise", "train"), ("python", "-m", "rankwise.train"), ("python3", "-m", "rankwise.train"))
_ALGORITHM = "spec.algorithm.algorithmName"
_COMMAND = "spec.trialTemplate.trialSpec: command"


def read(text: str, *, ours_alone: bool) -> Experiment:
    """A checked Experiment: form, space, template, and the settings of our algorithms.

    Args:
        text: YAML.
        ours_alone: whether the algorithm must be one of ours, as on one machine; Katib knows others.

    Raises:
        InvalidInput: with every mistake.
    """
    experiment = parse_experiment(text)
    problems = [p for p in check_settings(experiment) if ours_alone or p.path != _ALGORITHM]
    if problems:
        raise InvalidInput(problems)
    return experiment


def default_configuration(experiment: Experiment) -> Mapping[str, str]:
    """What the best configuration is compared with.

    Raises:
        InvalidInput: the Experiment does not say.
    """
    if experiment.default_configuration is None:
        path = f"metadata.annotations.{DEFAULT_CONFIGURATION}"
        raise InvalidInput([Problem(path, "", "a JSON object, parameter -> value: the pipeline compares with it")])
    return experiment.default_configuration


def trial_arguments(experiment: Experiment, assignments: Mapping[str, str]) -> list[str]:
    """The arguments of ``rankwise train`` in a trial with these assignments.

    Raises:
        InvalidInput: the trial's command is another program.
        ValueError: the assignments name other parameters.
    """
    command = render_trial(experiment, "trial", assignments).command
    for prefix in _PREFIXES:
        if tuple(command[: len(prefix)]) == prefix:
            return command[len(prefix) :]
    shown = " ".join(command[:3])
    raise InvalidInput([Problem(_COMMAND, shown, "rankwise train with its options, without a shell around it")])


def trial_config(experiment: Experiment) -> TrainConfig:
    """The options of a trial with the default configuration.

    Raises:
        InvalidInput: the Experiment has none, the command is another program, or its options are wrong.
    """
    arguments = trial_arguments(experiment, default_configuration(experiment))
    return parse(arguments, experiment.container_env)


def data_arguments(reference: str) -> list[str]:
    """Options that make a trial read prepared data; they stand after its own, and the last one counts."""
    return [f"--data={reference}", "--source-field=source", "--target-field=target"]


def final_arguments(experiment: Experiment, assignments: Mapping[str, str], reference: str) -> list[str]:
    """The arguments of a training after the search: the trial's own, the annotation's, and the test split.

    Raises:
        InvalidInput: the trial's command is another program.
    """
    own = trial_arguments(experiment, assignments)
    return [*own, *data_arguments(reference), *experiment.final_arguments, "--evaluate=test"]


def search_document(experiment: Experiment, reference: str | None, *, finals: bool) -> dict[str, Any]:
    """The Experiment as it is launched.

    Args:
        experiment: as the user wrote it.
        reference: prepared data that trials read; None leaves the command as it is.
        finals: whether the annotations stay that ask a search on one machine for final runs.
    """
    document = copy.deepcopy(dict(experiment.document))
    if not finals:
        annotations = mapping(mapping(document.get("metadata")).get("annotations"))
        kept = {k: v for k, v in annotations.items() if k not in (DEFAULT_CONFIGURATION, FINAL_ARGUMENTS)}
        document["metadata"] = {**document["metadata"], "annotations": kept}
    if reference is not None:
        trial_arguments(experiment, _any_point(experiment))  # refuses commands that take no options of ours
        container = _container(document, experiment.template.primary_container)
        words = "args" if container.get("args") else "command"
        container[words] = [*container[words], *data_arguments(reference)]
    return document


def _any_point(experiment: Experiment) -> dict[str, str]:
    return {parameter.name: parameter.to_text(0.5) for parameter in experiment.space.parameters}


def _container(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The primary container of a document that was checked."""
    pod = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    containers: Sequence[dict[str, Any]] = pod["containers"]
    return next(container for container in containers if container.get("name") == name)
