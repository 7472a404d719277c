"""How the steps are put together: the same for every pipeline here, on a cluster and on one machine.

::

    subset ──┬─────────────> tune ──┬──> train best ─────┬──> evaluate ──> report
    embed ───┘ (before tune)        └──> train default ──┘        └─────> register
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kfp import dsl, kubernetes

from rankwise.kfp import components
from rankwise.kfp.image import IMAGE

STORE_KEYS = ("RANKWISE_STORE", "S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
MODELS_FOLDER = "/var/cache/rankwise"
"""The image's cache of models, data and vectors ($RANKWISE_CACHE)."""


EXPERIMENTS = Path(__file__).parents[1] / "katib" / "experiments"


def one_line(file: str) -> str:
    """An Experiment of katib/experiments as the default of a pipeline's argument: JSON (which is YAML), in one line.

    Trials run the image that the steps run. kfp 2.16 repeats defaults in comments at the top of the compiled file, and
    comments only their first line.
    """
    document = yaml.safe_load((EXPERIMENTS / file).read_text(encoding="utf-8"))
    pod = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    for container in pod["containers"]:
        container["image"] = IMAGE
    return json.dumps(document, ensure_ascii=False)


@dataclass(frozen=True)
class Toleration:
    """A taint that a step's pod may be placed on."""

    key: str
    effect: str
    operator: str = "Exists"
    value: str = ""


@dataclass(frozen=True)
class Machine:
    """What a step asks of its node.

    Attributes:
        cpu: requested, e.g. ``4``.
        memory: requested and allowed, e.g. ``16Gi``.
        cpu_limit: allowed; empty: as much as requested.
        gpus: number of GPUs; 0 for none.
        gpu: the resource's name.
        selectors: labels that the node must have.
        tolerations: its taints.
    """

    cpu: str
    memory: str
    cpu_limit: str = ""
    gpus: int = 0
    gpu: str = "nvidia.com/gpu"
    selectors: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()


@dataclass(frozen=True)
class Cluster:
    """What the pipeline's pods find in their namespace; the chart (charts/rankwise) makes the last two.

    Attributes:
        small: the machine of steps without a training.
        trainer: the machine of the trainings after the search.
        store_secret: Secret with the keys of :data:`STORE_KEYS`.
        models_claim: PersistentVolumeClaim with models and data; ReadWriteMany where steps run on several nodes.
        retries: how often a failed step is repeated. Every step goes on where it stopped.
    """

    small: Machine
    trainer: Machine
    store_secret: str = "rankwise-s3"  # noqa: S105 - its name
    models_claim: str = "rankwise-models"
    retries: int = 2


@dataclass(frozen=True)
class Steps:
    """The tasks of a pipeline."""

    subset: Any
    embed: Any
    tune: Any
    train_best: Any
    train_default: Any
    evaluate: Any
    report: Any
    register: Any

    def trainings(self) -> Iterable[Any]:
        return (self.train_best, self.train_default)

    def others(self) -> Iterable[Any]:
        return (self.subset, self.embed, self.tune, self.evaluate, self.report, self.register)


def assemble(
    *,
    experiment: Any,
    run: Any,
    model_name: Any,
    promote: Any,
    engine: str,
    hours: Any = 0.0,
    folder: Any = "runs",
) -> Steps:
    """Put the steps together; called within a pipeline function.

    Args:
        experiment: the Experiment (YAML).
        run: id of the run, the same in every attempt.
        model_name: name that the adapter is registered under.
        promote: ``if-better``, ``always`` or ``never``.
        engine: ``katib`` or ``local``.
        hours: most hours of the search; 0 for no limit.
        folder: for ``local``: where run folders are.
    """
    where = {"engine": engine, "folder": folder}
    subset = components.subset(experiment=experiment)
    embed = components.embed(experiment=experiment, run=run)
    data = subset.outputs["data"]
    tune = components.tune(experiment=experiment, run=run, data=data, hours=hours, **where).after(embed)
    tune.set_display_name("search")
    best = tune.outputs["best"]
    trainings = {}
    for role in ("best", "default"):
        trainings[role] = components.train(experiment=experiment, run=run, role=role, best=best, data=data, **where)
        trainings[role].set_display_name(f"train {role}")
    evaluate = components.evaluate(
        experiment=experiment,
        run=run,
        best=best,
        search=tune.outputs["search"],
        best_model=trainings["best"].outputs["model"],
        default_model=trainings["default"].outputs["model"],
    )
    report = components.report(
        experiment=experiment, run=run, search=tune.outputs["search"], finals=evaluate.outputs["finals"]
    )
    register = components.register(
        run=run,
        name=model_name,
        best=best,
        model=trainings["best"].outputs["model"],
        headline=evaluate.outputs["headline"],
        verdict=evaluate.outputs["verdict"],
        promote=promote,
        **where,
    )
    steps = Steps(subset, embed, tune, trainings["best"], trainings["default"], evaluate, report, register)
    cache(steps)
    return steps


def on_cluster(cluster: Cluster, *, experiment: Any, model_name: Any, promote: Any, hours: Any) -> None:
    """The whole way on a cluster, with its exit handler; called within a pipeline function.

    Args:
        cluster: what the pods find.
        experiment, model_name, promote, hours: see :func:`assemble`.
    """
    run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    end = components.finish(experiment=experiment, run=run)
    settle(end, cluster, cluster.small)
    end.set_caching_options(False)
    with dsl.ExitHandler(end, name="the way"):
        steps = assemble(
            experiment=experiment, run=run, model_name=model_name, promote=promote, engine="katib", hours=hours
        )
        place(steps, cluster)


def cache(steps: Steps) -> None:
    """Caching where the same input gives the same output, and nothing else happens.

    ``subset`` depends on its text alone (a hub's data set without a revision may change: name one). The others write to
    the store or to the cache, are not reproducible to the bit on GPUs, or carry the run's id.
    """
    steps.subset.set_caching_options(True)
    for task in (*steps.trainings(), *steps.others()):
        if task is not steps.subset:
            task.set_caching_options(False)


def place(steps: Steps, cluster: Cluster) -> None:
    """Machines, secrets, volumes and retries of every step."""
    for task in steps.others():
        settle(task, cluster, cluster.small)
    for task in steps.trainings():
        settle(task, cluster, cluster.trainer)
    # Whether the launcher's pod is being moved to another node stands in the pod itself.
    kubernetes.use_field_path_as_env(steps.tune, "RANKWISE_POD", "metadata.name")


def settle(task: Any, cluster: Cluster, machine: Machine) -> None:
    """Machine, secrets, volumes and retries of one step."""
    task.set_cpu_request(machine.cpu).set_cpu_limit(machine.cpu_limit or machine.cpu)
    task.set_memory_request(machine.memory).set_memory_limit(machine.memory)
    if machine.gpus:
        task.set_accelerator_type(machine.gpu).set_accelerator_limit(machine.gpus)
    for key, value in machine.selectors.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in machine.tolerations:
        kubernetes.add_toleration(
            task,
            key=toleration.key,
            operator=toleration.operator,
            value=toleration.value or None,
            effect=toleration.effect,
        )
    kubernetes.use_secret_as_env(task, cluster.store_secret, {key: key for key in STORE_KEYS})
    kubernetes.mount_pvc(task, cluster.models_claim, MODELS_FOLDER)
    if cluster.retries:
        task.set_retry(cluster.retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
