"""Kubeflow Pipelines, standalone in a namespace of its own, as its manifests and Argo's describe it.

Here are: API server, driver, launcher, persistence agent, scheduled workflows, Argo's controller and executor, MariaDB,
an S3 server, and ML Metadata's library behind a few lines of ours; :mod:`harness.pipelines_ui` is the web interface.
Not here: what serves pipelines of the first version only (cache server, visualizations, viewers). Not Postgres: KFP's
manifests offer it, but the API server of this version has no driver for it (`sql: unknown driver "pgx"`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from harness.node import Node
from harness.pipelines_programs import IMAGES, argo_folder, pipelines_folder, pipelines_images, source
from harness.places import HarnessError, Places
from harness.processes import wait_for
from harness.small_images import S3_IMAGE

Document = dict[str, Any]
NAMESPACE = "pipelines"
DEPLOYMENTS = ("ml-pipeline", "ml-pipeline-persistenceagent", "ml-pipeline-scheduledworkflow", "workflow-controller")
OWN = ("metadata-grpc-deployment", "minio", "mysql")
_KEYS = {"accesskey": "pipelines", "secretkey": "of-a-cluster-for-tests"}
_DATABASE = {"username": "kfp", "password": "of-a-cluster-for-tests"}
_FROM_PIPELINES = (
    "base/pipeline/cluster-scoped/scheduled-workflow-crd.yaml",
    *(
        f"base/pipeline/ml-pipeline-{part}-{kind}.yaml"
        for part in ("apiserver", "persistenceagent", "scheduledworkflow")
        for kind in ("deployment", "role", "rolebinding", "sa")
    ),
    "base/pipeline/ml-pipeline-apiserver-service.yaml",
    # The API server does not start without its address.
    "base/pipeline/ml-pipeline-visualization-service.yaml",
    *(f"base/pipeline/pipeline-runner-{kind}.yaml" for kind in ("role", "rolebinding", "sa")),
    "base/metadata/base/metadata-grpc-configmap.yaml",
    "base/metadata/base/metadata-grpc-service.yaml",
    "base/installs/generic/pipeline-install-config.yaml",
)


def install(node: Node, places: Places) -> None:
    """Build what the cache lacks, bring the images in, apply the manifests; wait until everything is available.

    Raises:
        HarnessError: a step failed.
    """
    if shutil.which("gcc") is None:
        raise HarnessError(
            "gcc is needed to build KFP's API server: apt-get install --no-install-recommends gcc libc6-dev"
        )
    folder = source(places)
    node.import_images(pipelines_images(places, folder))
    overlay = places.state / "pipelines"
    shutil.rmtree(overlay, ignore_errors=True)
    overlay.mkdir()
    kustomization = _overlay(
        overlay,
        pipelines_folder() / "manifests" / "kustomize",
        argo_folder() / "manifests",
    )
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    node.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(_object("v1", "Namespace", NAMESPACE)))
    rendered = node.kubectl("kustomize", overlay)
    node.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=rendered)
    wait_for("Kubeflow Pipelines", lambda: ready(node), 300, every=1)


def ready(node: Node) -> bool:
    """Whether every Deployment is available."""
    return node.available(NAMESPACE, len(DEPLOYMENTS) + len(OWN))


def _overlay(folder: Path, pipelines: Path, argo: Path) -> Document:
    """Write the files of the kustomization beside each other; return it.

    Args:
        folder: for the files.
        pipelines: ``manifests/kustomize`` of KFP's module.
        argo: ``manifests`` of Argo's.
    """
    files = [
        *(pipelines / name for name in _FROM_PIPELINES),
        *sorted((argo / "base" / "crds" / "minimal").glob("argoproj.io_*.yaml")),
        *sorted((argo / "namespace-install" / "workflow-controller-rbac").glob("workflow-*.yaml")),
        *sorted((argo / "base" / "workflow-controller").glob("workflow-*.yaml")),
    ]
    names = []
    for file in files:
        text = file.read_text()
        (folder / file.name).write_text(text)
        names.append(file.name)
    (folder / "ours.yaml").write_text(yaml.safe_dump_all(_ours()))
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": [*names, "ours.yaml"],
        "patches": [{"patch": yaml.safe_dump(patch)} for patch in _patches()],
    }


def _patches() -> list[Document]:
    """Images of ours and how they are started: KFP's own start their programs by a shell."""
    return [
        _container(
            "ml-pipeline",
            "ml-pipeline-api-server",
            "api-server",
            ["/usr/bin/apiserver", "--config=/config", "-logtostderr=true"],
            V2_DRIVER_IMAGE=IMAGES["driver"],
            V2_LAUNCHER_IMAGE=IMAGES["launcher"],
        ),
        _container(
            "ml-pipeline-persistenceagent",
            "ml-pipeline-persistenceagent",
            "persistence-agent",
            [
                *("/usr/bin/persistence", "--logtostderr=true", "--namespace=$(NAMESPACE)", "--numWorker=2"),
                *("--ttlSecondsAfterWorkflowFinish=86400", "--executionType=Workflow"),
            ],
        ),
        _container(
            "ml-pipeline-scheduledworkflow",
            "ml-pipeline-scheduledworkflow",
            "scheduled-workflow",
            ["/usr/bin/scheduledworkflow", "--logtostderr=true", "--namespace=$(NAMESPACE)"],
        ),
        _container(
            "workflow-controller",
            "workflow-controller",
            "workflow-controller",
            [
                *("/usr/bin/workflow-controller", "--configmap=workflow-controller-configmap", "--namespaced"),
                f"--executor-image={IMAGES['argoexec']}",
            ],
        ),
        {
            **_object("v1", "ConfigMap", "workflow-controller-configmap"),
            "data": {
                # As KFP's own patch of it: logs of the steps are kept in the store.
                "artifactRepository": yaml.safe_dump(
                    {
                        "archiveLogs": True,
                        "s3": {
                            "endpoint": f"minio-service.{NAMESPACE}:9000",
                            "bucket": "mlpipeline",
                            "keyFormat": "artifacts/{{workflow.name}}/{{pod.name}}",
                            "insecure": True,
                            "accessKeySecret": {"name": "mlpipeline-minio-artifact", "key": "accesskey"},
                            "secretKeySecret": {"name": "mlpipeline-minio-artifact", "key": "secretkey"},
                        },
                    }
                ),
                "executor": yaml.safe_dump({"imagePullPolicy": "IfNotPresent"}),
            },
        },
    ]


def _ours() -> list[Document]:
    """What stands beside KFP: its stores."""
    data = {"name": "data", "emptyDir": {}}
    mounts = [{"name": "data", "mountPath": "/data"}]
    s3 = [
        *("-logtostderr=true", "server", "-dir=/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=0"),
        *("-s3", "-s3.ip.bind=0.0.0.0", "-s3.port=9000", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-master.telemetry=false", "-master.volumeSizeLimitMB=1024"),
    ]
    return [
        {**_object("v1", "Secret", "mlpipeline-minio-artifact"), "stringData": _KEYS},
        {**_object("v1", "Secret", "mysql-secret"), "stringData": _DATABASE},
        _service("minio-service", "minio", 9000),
        _service("mysql", "mysql", 3306),
        # In KFP Envoy's, which translates for browsers.
        {
            **_object("v1", "Service", "metadata-envoy-service"),
            "spec": {"selector": {"component": "metadata-grpc-server"}, "ports": [{"port": 9090}]},
        },
        _deployment(
            "minio",
            {
                "image": S3_IMAGE,
                "command": ["weed"],
                "args": s3,
                "env": [
                    {"name": "HOME", "value": "/tmp"},
                    _from_secret("AWS_ACCESS_KEY_ID", "mlpipeline-minio-artifact", "accesskey"),
                    _from_secret("AWS_SECRET_ACCESS_KEY", "mlpipeline-minio-artifact", "secretkey"),
                ],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 9000}, "periodSeconds": 2},
                "volumeMounts": mounts,
            },
            data,
        ),
        _deployment(
            "mysql",
            {
                "image": IMAGES["mariadb"],
                "env": [
                    _from_secret("MARIADB_USER", "mysql-secret", "username"),
                    _from_secret("MARIADB_PASSWORD", "mysql-secret", "password"),
                ],
                "readinessProbe": {"tcpSocket": {"port": 3306}, "periodSeconds": 2},
                "volumeMounts": mounts,
            },
            data,
        ),
        _deployment(
            "metadata-grpc-deployment",
            {
                "image": IMAGES["metadata"],
                "ports": [{"name": "grpc-api", "containerPort": 8080}],
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 2},
                "volumeMounts": mounts,
            },
            data,
            label=("component", "metadata-grpc-server"),
        ),
    ]


def _object(api: str, kind: str, name: str) -> Document:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}}


def _container(deployment: str, container: str, image: str, command: list[str], **variables: str) -> Document:
    """A patch: image, command and variables of a Deployment's container; little CPU, for trainings take all of it."""
    patched: Document = {
        "name": container,
        "image": IMAGES[image],
        "command": [command[0]],
        "args": command[1:],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
    }
    spec = {"template": {"spec": {"containers": [patched]}}}
    return {**_object("apps/v1", "Deployment", deployment), "spec": spec}


def _deployment(name: str, container: Document, volume: Document, label: tuple[str, str] = ("app", "")) -> Document:
    labels = {label[0]: label[1] or name}
    pod = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532},
        "containers": [{"name": name, "resources": {"requests": {"cpu": "50m"}}, **container}],
        "volumes": [volume],
    }
    spec = {
        "selector": {"matchLabels": labels},
        "strategy": {"type": "Recreate"},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return {**_object("apps/v1", "Deployment", name), "spec": spec}


def _service(name: str, app: str, port: int) -> Document:
    return {**_object("v1", "Service", name), "spec": {"selector": {"app": app}, "ports": [{"port": port}]}}


def _from_secret(variable: str, secret: str, key: str) -> Document:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
