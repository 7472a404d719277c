"""What an upgrade finds in the cluster: Helm asks a server over HTTP, as in a real upgrade (``lookup``)."""

from __future__ import annotations

import base64
from pathlib import Path

import helm_python

from chart.rendering import CHART, NAMESPACE, Values, documents
from support.fake_kubernetes import FakeKubernetes, fake_kubernetes

SERVER = {"s3": {"server": {"enabled": True}}, "experimentNamespaces": ["team-a"]}


def upgraded(fake: FakeKubernetes, folder: Path, values: Values) -> list[dict[str, str]]:
    """The data of the Secrets that an upgrade of the release would apply."""
    with (
        helm_python.Config(kubeconfig_path=fake.kubeconfig(folder), namespace=NAMESPACE) as config,
        helm_python.Chart.load(CHART) as chart,
    ):
        rendered = config.render(chart, dict(values), name="rankwise", namespace=NAMESPACE, is_upgrade=True)
    manifests = documents(rendered["rankwise/templates/s3.yaml"])
    secrets = [manifest["data"] for manifest in manifests if manifest and manifest["kind"] == "Secret"]
    return [{name: base64.b64decode(text).decode() for name, text in data.items()} for data in secrets]


def discovery(fake: FakeKubernetes) -> None:
    """What Helm asks before it can look anything up."""
    secrets = {"name": "secrets", "singularName": "secret", "namespaced": True, "kind": "Secret", "verbs": ["get"]}
    fake.anonymous = True
    fake.objects["/version"] = {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
    fake.objects["/api"] = {"kind": "APIVersions", "versions": ["v1"]}
    fake.objects["/apis"] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}
    fake.objects["/api/v1"] = {"kind": "APIResourceList", "groupVersion": "v1", "resources": [secrets]}


def test_generated_keys_are_found_again(tmp_path: Path) -> None:
    with fake_kubernetes() as fake:
        discovery(fake)
        fresh = upgraded(fake, tmp_path, SERVER)
        keys = {"AWS_ACCESS_KEY_ID": "kept-id", "AWS_SECRET_ACCESS_KEY": "kept-secret"}
        path = f"/api/v1/namespaces/{NAMESPACE}/secrets/rankwise-s3"
        data = {name: base64.b64encode(text.encode()).decode() for name, text in keys.items()}
        fake.put(path, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "rankwise-s3"}, "data": data})
        found = upgraded(fake, tmp_path, SERVER)
        given = {"enabled": True}, "given-id", "given-secret"
        values = dict(zip(("server", "accessKeyId", "secretAccessKey"), given, strict=True))
        changed = upgraded(fake, tmp_path, {"s3": values})
        assert path in {request.path for request in fake.seen}
        assert not fake.writes
    assert len(fresh[0]["AWS_SECRET_ACCESS_KEY"]) == 40
    assert len(found) == 2  # in both namespaces
    assert all(secret.items() >= keys.items() for secret in found)
    # Keys that are given win over those that are there.
    assert [secret["AWS_SECRET_ACCESS_KEY"] for secret in changed] == ["given-secret"]
