"""An Experiment that is right, for tests that make it wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from rankwise.errors import InvalidInput
from rankwise.local.document import dump
from rankwise.local.experiment import parse_experiment

# Paths in messages, and with slashes in `changed`.
TEMPLATE = "spec.trialTemplate"
CONTAINERS = f"{TEMPLATE}.trialSpec.spec.template.spec.containers"
C = "spec/trialTemplate/trialSpec/spec/template/spec/containers"
DEFAULTS = "metadata.annotations.rankwise.dev/default-configuration"
FINALS = "metadata.annotations.rankwise.dev/final-arguments"
COLLECTOR = "spec.metricsCollectorSpec"
P = "spec/parameters"
T = "spec/trialTemplate"

DOCUMENT: dict[str, Any] = {
    "apiVersion": "kubeflow.org/v1beta1",
    "kind": "Experiment",
    "metadata": {
        "name": "lora",
        "namespace": "kubeflow",
        "labels": {"team": "nlp"},
        "annotations": {
            "rankwise.dev/default-configuration": '{"rank": 8, "learning_rate": "3e-4", "variant": "lora"}',
            "rankwise.dev/final-arguments": '["--subset=1.0", "--evaluate=test"]',
        },
    },
    "spec": {
        "objective": {
            "type": "minimize",
            "goal": 0.5,
            "objectiveMetricName": "loss",
            "additionalMetricNames": ["rouge1", "seconds"],
            "metricStrategies": [{"name": "seconds", "value": "latest"}],
        },
        "algorithm": {
            "algorithmName": "language-bo",
            "algorithmSettings": [{"name": "n_initial", "value": "5"}, {"name": "pooling", "value": "mean"}],
        },
        "earlyStopping": {
            "algorithmName": "medianstop",
            "algorithmSettings": [{"name": "start_step", "value": "4"}],
        },
        "parallelTrialCount": 2,
        "maxTrialCount": 12,
        "maxFailedTrialCount": 3,
        "resumePolicy": "LongRunning",
        "parameters": [
            {"name": "rank", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "16"}},
            {
                "name": "learning_rate",
                "parameterType": "double",
                "feasibleSpace": {"min": "1e-4", "max": "1e-3", "step": "1e-4", "distribution": "logUniform"},
            },
            {
                "name": "variant",
                "parameterType": "categorical",
                "feasibleSpace": {"list": ["lora", "dora"], "distribution": "uniform"},
            },
        ],
        "trialTemplate": {
            "primaryContainerName": "training",
            "trialParameters": [
                {"name": "rank", "reference": "rank", "description": "Rank of the adapters"},
                {"name": "learningRate", "reference": "learning_rate"},
                {"name": "variant", "reference": "variant"},
                {"name": "trialName", "reference": "${trialSpec.Name}"},
            ],
            "trialSpec": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"labels": {"app": "trainer"}, "annotations": {"note": "a note"}},
                "spec": {
                    "backoffLimit": 0,
                    "template": {
                        "spec": {
                            "restartPolicy": "Never",
                            "containers": [
                                {"name": "logger", "image": "logger"},
                                {
                                    "name": "training",
                                    "image": "trainer",
                                    "command": ["rankwise", "train"],
                                    "args": [
                                        "--rank=${trialParameters.rank}",
                                        "--learning-rate=${trialParameters.learningRate}",
                                        "--variant=${trialParameters.variant}",
                                        "--trial=${trialParameters.trialName}",
                                        "--data=$(DATA)/train",
                                    ],
                                    "env": [
                                        {"name": "DATA", "value": "/data"},
                                        {"name": "TRIAL_RANK", "value": "r${trialParameters.rank}"},
                                        {
                                            "name": "AWS_SECRET_ACCESS_KEY",
                                            "valueFrom": {"secretKeyRef": {"name": "store", "key": "secret"}},
                                        },
                                    ],
                                },
                            ],
                        }
                    },
                },
            },
        },
    },
}


def document() -> dict[str, Any]:
    """A copy that a test may change."""
    return copy.deepcopy(DOCUMENT)


def text_of(experiment: dict[str, Any]) -> str:
    return dump(experiment)


MISSING = object()


def changed(*changes: tuple[str, Any]) -> str:
    """The right Experiment as YAML, with values put (for MISSING: removed) at paths like ``spec/parameters/0``."""
    experiment = document()
    for path, value in changes:
        # A "~" stands for a slash within a key.
        *parents, last = (part.replace("~", "/") for part in path.split("/"))
        target: Any = experiment
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        if value is MISSING:
            del target[int(last) if isinstance(target, list) else last]
        elif isinstance(target, list) and int(last) == len(target):
            target.append(value)
        else:
            target[int(last) if isinstance(target, list) else last] = value
    return text_of(experiment)


def problems(text: str) -> list[tuple[str, str]]:
    """(path, value) of every problem."""
    with pytest.raises(InvalidInput, match="allowed: ") as caught:
        parse_experiment(text)
    return [(problem.path, problem.value) for problem in caught.value.problems]


def sentence(text: str) -> str:
    """The only problem."""
    with pytest.raises(InvalidInput, match="allowed: ") as caught:
        parse_experiment(text)
    (problem,) = caught.value.problems
    return str(problem)
