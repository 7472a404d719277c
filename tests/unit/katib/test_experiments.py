"""The Experiments and trial templates that users apply: for Katib, for Kubernetes, for the trainer, for one machine."""

from __future__ import annotations

import copy
import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from rankwise.errors import InvalidInput
from rankwise.local.document import dump, read_text
from rankwise.local.experiment import Experiment, load_experiment, parse_experiment, render_trial
from rankwise.local.trial_template import JOB_FAILURE, JOB_SUCCESS
from rankwise.local.validate_command import main as validate
from rankwise.strategies import lineage
from rankwise.strategies.pbt import PopulationBasedTraining
from rankwise.train.config import TrainConfig, parse
from rankwise.train.flags import FLAGS, METRICS
from support.paper_space import paper_space

KATIB = Path(__file__).parents[3] / "katib"
FILES = sorted((KATIB / "experiments").glob("*.yaml"))
TEMPLATES = KATIB / "trial-templates" / "trial-templates.yaml"
RUNTIME = KATIB / "trial-templates" / "training-runtime.yaml"
PLACEHOLDER = re.compile(r"\$\{trialParameters\.(.+?)\}")
CPU = ("quickstart", "jobCpu", "pbt")
"""Experiments and templates that ask for no GPU."""
VERSION = "1.34"
"""Kubernetes whose schemas the manifests are checked with."""


def raw(path: Path) -> dict[str, Any]:
    document, problems = read_text(path.read_text(), path.name)
    assert problems == []
    return document


def templates() -> dict[str, dict[str, Any]]:
    return {name: read_text(text, name)[0] for name, text in raw(TEMPLATES)["data"].items()}


def jobs() -> list[tuple[str, dict[str, Any]]]:
    found = [(path.stem, raw(path)["spec"]["trialTemplate"]["trialSpec"]) for path in FILES]
    return found + [(name, template) for name, template in templates().items() if template["kind"] == "Job"]


def pods() -> list[tuple[str, dict[str, Any]]]:
    """Every pod that a trial may become."""
    runtime = raw(RUNTIME)["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    return [(name, job["spec"]["template"]) for name, job in jobs()] + [("runtime", runtime["template"])]


def extremes(experiment: Experiment) -> Iterator[dict[str, str]]:
    """Every corner of the search space."""
    spec = raw(KATIB / "experiments" / f"{experiment.name}.yaml")["spec"]["parameters"]
    ends = []
    for parameter in spec:
        space = parameter["feasibleSpace"]
        values = [space["list"][0], space["list"][-1]] if "list" in space else [space["min"], space["max"]]
        ends.append([(parameter["name"], value) for value in values])
    return (dict(corner) for corner in itertools.product(*ends))


def config(command: list[str], environment: dict[str, str]) -> TrainConfig:
    assert command[:2] == ["rankwise", "train"]
    return parse(command[2:], {"RANKWISE_STORE": "s3://bucket/prefix", **environment})


def test_these_are_the_experiments() -> None:
    assert [path.stem for path in FILES] == ["lora-7b", "pbt", "quickstart", "t5-summarization"]
    assert list(templates()) == ["jobCpu", "jobGpu", "trainJob"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_is_valid(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate([str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"{path}: valid" in out
    # A machine is told of what it cannot reserve, and the cluster's shell takes no word apart.
    notes = [line for line in out.splitlines() if ": note: " in line]
    assert len(notes) == (0 if path.stem in CPU else 1)
    assert all("nvidia.com/gpu" in note for note in notes)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_katib_is_told(path: Path) -> None:
    """Nothing is left to defaults that depend on Katib's version or on the objective's type."""
    spec = raw(path)["spec"]
    template = spec["trialTemplate"]
    assert raw(path)["metadata"]["namespace"] == "rankwise"
    assert spec["metricsCollectorSpec"] == {"collector": {"kind": "StdOut"}}
    assert (template["successCondition"], template["failureCondition"]) == (JOB_SUCCESS, JOB_FAILURE)
    assert "retain" not in template
    objective = spec["objective"]
    names = [objective["objectiveMetricName"], *objective.get("additionalMetricNames", [])]
    assert objective["metricStrategies"] == [{"name": name, "value": "latest"} for name in names]
    experiment = load_experiment(path)
    command = render_trial(experiment, "t", next(extremes(experiment))).command
    reported = config(command, {}).reported
    assert reported[-1] == names[0]
    assert set(names) <= set(reported) <= set(METRICS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_corner_of_a_space_is_a_trial_that_the_trainer_takes(path: Path) -> None:
    experiment = load_experiment(path)
    corners = list(extremes(experiment))
    assert len(corners) == 2 ** len(experiment.space.parameters)
    # The default configuration is one more trial, run at the end with the final arguments. What population-based
    # training finds is no configuration that could be trained again.
    assert (experiment.default_configuration is None) == (path.stem == "pbt")
    for assignments in [*corners, *filter(None, [experiment.default_configuration])]:
        trial = render_trial(experiment, f"{experiment.name}-1", assignments)
        # Katib's shell gets the words joined by blanks.
        assert shlex.join(trial.command) == " ".join(trial.command)
        json.loads(json.dumps(trial.manifest))
        assert yaml.safe_load(dump(trial.manifest)) == trial.manifest
        found = config(trial.command, trial.env)
        for name, value in assignments.items():
            assert getattr(found, name) == float(value)
        config([*trial.command, *experiment.final_arguments], trial.env)
    kubernetes_validate.validate(trial.manifest, VERSION, strict=True)


@pytest.mark.parametrize(("name", "template"), [*jobs(), ("trainJob", templates()["trainJob"])])
def test_flags_and_placeholders_of_a_template(name: str, template: dict[str, Any]) -> None:
    command = template["spec"].get("trainer", {}).get("command")
    if command is None:
        command = template["spec"]["template"]["spec"]["containers"][0]["command"]
    flags = [word.partition("=")[0].removeprefix("--") for word in command[2:]]
    assert len(flags) == len(set(flags)), "a flag stands twice"
    assert set(flags) <= {flag.name for flag in FLAGS}
    used = PLACEHOLDER.findall(json.dumps(template))
    assert len(used) == len(set(used))
    source = {"jobCpu": "quickstart", "jobGpu": "lora-7b", "trainJob": "lora-7b"}.get(name, name)
    declared = raw(KATIB / "experiments" / f"{source}.yaml")["spec"]["trialTemplate"]["trialParameters"]
    assert sorted(used) == sorted(entry["name"] for entry in declared)
    assert all(set(entry) == {"name", "description", "reference"} for entry in declared)


def test_templates_and_experiments_are_the_same() -> None:
    found = templates()
    for name, experiment in (("jobCpu", "quickstart"), ("jobGpu", "lora-7b")):
        assert found[name] == raw(KATIB / "experiments" / f"{experiment}.yaml")["spec"]["trialTemplate"]["trialSpec"]
    # The TrainJob and its runtime together are the Job.
    job, train = found["jobGpu"]["spec"], found["trainJob"]["spec"]
    runtime = raw(RUNTIME)
    assert train["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": runtime["metadata"]["name"],
    }  # fmt: skip
    replicated = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]
    assert replicated["name"] == "node"
    assert replicated["template"]["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"] == "trainer"
    assembled = copy.deepcopy(replicated["template"]["spec"])
    container = assembled["template"]["spec"]["containers"][0]
    assert container["name"] == "node"
    container["command"], container["resources"] = train["trainer"]["command"], train["trainer"]["resourcesPerNode"]
    container["env"] += train["trainer"]["env"]
    container["name"] = assembled["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] = "trainer"
    assert assembled == job
    kubernetes_validate.validate({"apiVersion": "batch/v1", "kind": "Job", "spec": assembled}, VERSION, strict=True)


def test_a_template_in_an_experiment_by_name() -> None:
    document = raw(TEMPLATES)
    assert document["metadata"]["labels"]["katib.kubeflow.org/component"] == "trial-templates"
    kubernetes_validate.validate(document, VERSION, strict=True)
    head = TEMPLATES.read_text().partition("apiVersion")[0]
    assert f"configMapName: {document['metadata']['name']}" in head
    assert f"configMapNamespace: {document['metadata']['namespace']}" in head
    assert JOB_SUCCESS in head
    assert JOB_FAILURE in head


@pytest.mark.parametrize(("name", "pod"), pods())
def test_a_pod_is_restricted(name: str, pod: dict[str, Any]) -> None:
    """The ``restricted`` Pod Security level, and what the chart makes in a namespace."""
    spec = pod["spec"]
    container = spec["containers"][0]
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("rankwise-trial", False)
    assert spec["restartPolicy"] == "Never"  # podFailurePolicy needs it
    assert spec["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    # Katib's sidecar copies this one: it has to be whole without the pod's.
    assert container["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & set(spec)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": "rankwise-models"}
    assert {key for volume in volumes.values() for key in volume} == {"name", "persistentVolumeClaim", "emptyDir"}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"models": "/var/cache/rankwise", "tmp": "/tmp"}
    assert container["envFrom"] == [{"secretRef": {"name": "rankwise-s3", "optional": True}}]
    assert container["image"] == "rankwise-trainer:0.1.0"
    fields = {entry["name"]: entry.get("valueFrom") for entry in container["env"]}
    assert fields["RANKWISE_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    label = "metadata.labels['katib.kubeflow.org/experiment']"
    assert fields["RANKWISE_EXPERIMENT"] == {"fieldRef": {"fieldPath": label}}
    assert fields["RANKWISE_THREADS"] == {"resourceFieldRef": {"resource": "limits.cpu"}}
    assert not [entry for entry in container["env"] if "RANKWISE_CACHE" in entry["name"]], (
        "it would hold on one machine"
    )
    if name != "runtime":
        resources = container["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}
        assert {"cpu", "memory"} <= set(resources["limits"])
        assert ("nvidia.com/gpu" in resources["limits"]) == (name not in CPU)


@pytest.mark.parametrize(("name", "job"), jobs())
def test_which_failures_are_tried_again(name: str, job: dict[str, Any]) -> None:
    spec = job["spec"]
    assert spec["backoffLimit"] == 1
    assert spec["activeDeadlineSeconds"] > 0
    # Deleted before Katib has seen its end, a Job would be made again.
    assert "ttlSecondsAfterFinished" not in spec
    first, second = spec["podFailurePolicy"]["rules"]
    assert first["action"] == "FailJob"
    codes = first["onExitCodes"]
    assert (codes["containerName"], codes["operator"]) == (spec["template"]["spec"]["containers"][0]["name"], "In")
    from rankwise.train.__main__ import DIVERGED, WRONG_INPUT

    assert codes["values"] == [WRONG_INPUT, DIVERGED]
    assert second == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def test_the_space_of_the_paper() -> None:
    space = load_experiment(KATIB / "experiments" / "lora-7b.yaml").space
    assert space.size == 45_360
    ours = {parameter.name: set(map(float, values_of(parameter))) for parameter in space.parameters}
    theirs = {parameter.name: set(map(float, values_of(parameter))) for parameter in paper_space().parameters}
    assert ours == theirs


def values_of(parameter: Any) -> tuple[str, ...]:
    return tuple(parameter.values)


def test_the_space_of_the_t5_study() -> None:
    spec = raw(KATIB / "experiments" / "t5-summarization.yaml")["spec"]
    found = {parameter["name"]: parameter["feasibleSpace"] for parameter in spec["parameters"]}
    assert found == {
        "learning_rate": {"min": "1e-5", "max": "1e-3", "distribution": "logUniform"},
        "batch_size": {"list": ["8", "16", "32"]},
        "epochs": {"list": ["2", "3", "4"]},
        "dropout": {"list": ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6"]},
        "rank": {"list": ["4", "8", "16"]},
        "alpha": {"list": ["16", "32", "64"]},
    }


def test_a_trial_of_the_t5_study_is_trained_and_measured_as_there() -> None:
    experiment = load_experiment(KATIB / "experiments" / "t5-summarization.yaml")
    assert experiment.default_configuration is not None
    options = config(render_trial(experiment, "t", experiment.default_configuration).command, {})
    assert (options.task, options.schedule, options.warmup_ratio) == ("seq2seq", "linear", 0.1)
    assert options.early_stop_patience == 5
    assert set(options.reported) == set(METRICS)


def test_the_parent_of_a_trial_reaches_the_trainer() -> None:
    experiment = load_experiment(KATIB / "experiments" / "pbt.yaml")
    assert experiment.algorithm_name == lineage.ALGORITHM
    assignments = next(extremes(experiment))
    first = render_trial(experiment, "pbt-1", assignments)
    child = render_trial(experiment, "pbt-2", assignments, {lineage.PARENT_LABEL: "pbt-1", "other": "x"})
    assert config(first.command, first.env).parent is None
    found = config(child.command, child.env)
    assert (found.parent, found.keep_state, found.schedule) == ("pbt-1", "final", "constant")
    # Without a store nothing can be inherited, and the trial says so instead of training from scratch.
    with pytest.raises(InvalidInput, match="--keep-state: got 'final'; allowed: only together with --store"):
        parse(first.command[2:], first.env)
    settings = experiment.algorithm_settings
    assert experiment.max_trial_count == 5 * int(settings["population"])
    assert PopulationBasedTraining().validate(experiment.space, experiment.objective, settings) == []


def test_a_population_whose_trials_do_not_read_their_parent_is_refused() -> None:
    text = (KATIB / "experiments" / "pbt.yaml").read_text()
    head, entry, tail = text.partition("                  - name: RANKWISE_PARENT\n")
    without = head + tail.partition("rankwise.dev/parent']\n")[2]
    another = text.replace("metadata.labels['rankwise.dev/parent']", "metadata.labels['rankwise.dev/member']")
    assert entry
    for wrong in (without, another):
        assert wrong != text
        with pytest.raises(InvalidInput, match=r"a variable of the container trainer that reads the parent"):
            parse_experiment(wrong)
    # Nobody else needs it.
    parse_experiment(without.replace("algorithmName: rankwise-pbt", "algorithmName: sobol"))


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (
            ("podFailurePolicy", "podFailurPolicy"),
            None,  # a Job's own field: the API server refuses it, one machine does not read it
        ),
        (("metricStrategies:", "metricStrategys:"), r"spec\.objective\.metricStrategys: .*metricStrategies"),
        (("${trialParameters.rank}", "${trialParameters.rnk}"), r"'\$\{trialParameters\.rnk\}'; allowed: .*'rank'"),
        (("primaryContainerName: trainer", "primaryContainerName: node"), r"primaryContainerName: got 'node'.*trainer"),
        (("reference: learning_rate", "reference: lr"), r"an entry whose reference is the parameter 'learning_rate'"),
    ],
)
def test_a_mistake_in_a_file_is_told_in_a_sentence(edit: tuple[str, str], sentence: str | None) -> None:
    text = (KATIB / "experiments" / "quickstart.yaml").read_text()
    assert edit[0] in text
    wrong = text.replace(*edit)
    if sentence is None:
        job = read_text(wrong, "x")[0]["spec"]["trialTemplate"]["trialSpec"]
        with pytest.raises(kubernetes_validate.ValidationError, match=edit[1]):
            kubernetes_validate.validate(job, VERSION, strict=True)
        return
    with pytest.raises(InvalidInput, match=sentence):
        parse_experiment(wrong)
