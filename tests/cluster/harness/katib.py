"""Katib as its own manifests install it (`katib-standalone-postgres`), from the images that the harness built."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from harness.build import writable_copy
from harness.node import Node
from harness.places import KATIB
from harness.processes import wait_for

NAMESPACE = "kubeflow"
IMAGES = {
    "controller": f"localhost/katib-controller:{KATIB}",
    "db-manager": f"localhost/katib-db-manager:{KATIB}",
    "collector": f"localhost/katib-file-metrics-collector:{KATIB}",
    "medianstop": f"localhost/katib-earlystopping-medianstop:{KATIB}",
    "postgres": "localhost/postgres:15",
}
_DEPLOYMENTS = 3
_UI = """
$patch: delete
apiVersion: {version}
kind: {kind}
metadata:
  name: katib-ui
  namespace: kubeflow
"""

# Katib's manifests ask for no CPU: beside trainings that take all of it, its webhook would get next to none and time
# out, and for minutes no trial's pod could be made.
_REQUESTS = """
- op: add
  path: /spec/template/spec/containers/0/resources
  value: {requests: {cpu: 100m}}
"""


def install(node: Node, manifests: Path) -> None:
    """Apply Katib's manifests, unless it is there; wait until controller, DB manager and database are available.

    Args:
        node: a running node that has the images.
        manifests: ``manifests/v1beta1`` of Katib's module.
    """
    if ready(node):
        # Applying again would write katib-config anew, and with it what others registered there.
        return
    folder = node.places.state / "katib"
    shutil.rmtree(folder, ignore_errors=True)
    writable_copy(manifests, folder)
    config = folder / "installs" / "katib-standalone-postgres" / "katib-config.yaml"
    config.write_text(_config(config.read_text()))
    overlay = folder / "installs" / "test"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(_overlay()))
    rendered = list(yaml.safe_load_all(node.kubectl("kustomize", overlay)))
    webhooks = [document for document in rendered if document["kind"].endswith("WebhookConfiguration")]
    # Katib's own namespace is among those whose pods its webhook inspects: with the webhook first, its own pods wait
    # for it for ever.
    _apply(node, [document for document in rendered if document not in webhooks])
    if not _has_certificate(node):
        wait_for("Katib's pods", lambda: _pods(node) >= _DEPLOYMENTS, 60)
        _apply(node, webhooks)
    wait_for("Katib", lambda: ready(node), 180, every=1)


def ready(node: Node) -> bool:
    """Whether Katib's Deployments are available and its webhooks have their certificate."""
    return node.available(NAMESPACE, _DEPLOYMENTS) and _has_certificate(node)


def _apply(node: Node, documents: list[dict[str, object]]) -> None:
    node.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump_all(documents))


def _pods(node: Node) -> int:
    return len(node.kubectl("-n", NAMESPACE, "get", "pods", "-o", "name").split())


def _has_certificate(node: Node) -> bool:
    """Whether Katib's controller wrote its certificate into its webhooks."""
    path = "{.webhooks[*].clientConfig.caBundle}"
    kind = "validatingwebhookconfiguration"
    return bool(node.kubectl("get", kind, "katib.kubeflow.org", "-o", f"jsonpath={path}", check=False).strip())


def _config(text: str) -> str:
    """Katib's own configuration, with our images and with what trials in `restricted` namespaces need."""
    config = yaml.safe_load(text)
    controller = config["init"]["controller"]
    controller["injectSecurityContext"] = True
    controller["trialResources"].append("TrainJob.v1alpha1.trainer.kubeflow.org")
    runtime = config["runtime"]
    for collector in runtime["metricsCollectors"]:
        if collector["kind"] in {"StdOut", "File"}:
            collector["image"] = IMAGES["collector"]
    for stopping in runtime["earlyStoppings"]:
        stopping["image"] = IMAGES["medianstop"]
    return str(yaml.safe_dump(config, sort_keys=False))


def _overlay() -> dict[str, object]:
    """A kustomization: Katib's, with the images of this machine and without the web interface."""
    replaced = {
        "ghcr.io/kubeflow/katib/katib-controller": IMAGES["controller"],
        "ghcr.io/kubeflow/katib/katib-db-manager": IMAGES["db-manager"],
        "postgres": IMAGES["postgres"],
    }
    removed = [
        ("apps/v1", "Deployment"),
        ("v1", "Service"),
        ("v1", "ServiceAccount"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole"),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ]
    images = []
    for name, image in replaced.items():
        repository, _, tag = image.rpartition(":")
        images.append({"name": name, "newName": repository, "newTag": tag})
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../katib-standalone-postgres"],
        "images": images,
        "patches": [
            *({"patch": _UI.format(version=version, kind=kind)} for version, kind in removed),
            {"target": {"kind": "Deployment"}, "patch": _REQUESTS},
        ],
    }
