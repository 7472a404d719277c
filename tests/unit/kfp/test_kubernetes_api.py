"""The launcher's requests over HTTP, with the real Kubernetes client against a fake server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from rankwise.cluster.objects import Forbidden, Missing
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.kfp.api import AlreadyThere, Expired, WatchBroken
from rankwise.kfp.kubernetes_api import RIGHTS, KubernetesKatib, own_namespace
from rankwise.retry import Backoff
from support.fake_experiments_server import CUT, FakeExperimentsServer, serving

REPOSITORY = Path(__file__).parents[3]
EXPERIMENTS = "/apis/kubeflow.org/v1beta1/namespaces/team/experiments"
PODS = "/api/v1/namespaces/team/pods"


@pytest.fixture
def server() -> Iterator[FakeExperimentsServer]:
    with serving(FakeExperimentsServer()) as fake:
        yield fake


@pytest.fixture
def katib(server: FakeExperimentsServer) -> Iterator[KubernetesKatib]:
    settings = client.Configuration()
    settings.host, settings.retries = server.url, False
    with client.ApiClient(settings) as api:
        yield KubernetesKatib(api, "team", Backoff(attempts=3, first=0, longest=0), {"KFP_POD_NAME": "tune-0"})


def event(kind: str, **status: Any) -> dict[str, Any]:
    return {"type": kind, "object": {"kind": "Experiment", "metadata": {"name": "e", "resourceVersion": "8"}, **status}}


def status(code: int, message: str = "", **more: Any) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": "Because", "message": message, **more}


def test_create_sends_the_document(server: FakeExperimentsServer, katib: KubernetesKatib) -> None:
    server.answers["POST", EXPERIMENTS] = [(503, status(503)), (201, {"metadata": {"name": "e", "uid": "u"}})]
    made = katib.create({"kind": "Experiment", "metadata": {"name": "e"}})
    assert made["metadata"]["uid"] == "u"
    assert [asked.body["metadata"]["name"] for asked in server.asked] == ["e", "e"], "503 is tried again"


@pytest.mark.parametrize(
    ("code", "message", "error", "said"),
    [
        (409, "already exists", AlreadyThere, "exists in namespace team"),
        (400, 'admission webhook "validator.experiment" denied the request: bad', InvalidInput, "denied the request"),
        (403, 'admission webhook "validator.experiment" denied the request: bad', InvalidInput, "denied the request"),
        (403, "ann cannot create experiments", Forbidden, r"pipelines/rbac\.yaml \(ann cannot create experiments\)"),
        (401, "Unauthorized", SurroundingsError, "answered 401 to create experiments: Unauthorized"),
        (500, "etcd", SurroundingsError, "answered 500 to create experiments: etcd"),
    ],
)
def test_what_a_refused_creation_becomes(
    server: FakeExperimentsServer, katib: KubernetesKatib, code: int, message: str, error: type[Exception], said: str
) -> None:
    server.answers["POST", EXPERIMENTS] = [(code, status(code, message))]
    with pytest.raises(error, match=said):
        katib.create({"metadata": {"name": "e"}})


def test_get(server: FakeExperimentsServer, katib: KubernetesKatib) -> None:
    server.answers["GET", f"{EXPERIMENTS}/e"] = [(200, {"metadata": {"name": "e"}})]
    assert katib.get("e") == {"metadata": {"name": "e"}}
    with pytest.raises(Missing):
        katib.get("other")


def test_a_watch_is_of_one_experiment_from_one_version(server: FakeExperimentsServer, katib: KubernetesKatib) -> None:
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}
    server.watches = [[event("MODIFIED", status={"trials": 1}), bookmark, event("DELETED")]]
    events = list(katib.watch("e", "7", 20.4))
    assert [one.kind for one in events] == ["MODIFIED", "BOOKMARK", "DELETED"]
    assert events[0].object["status"] == {"trials": 1}
    (asked,) = server.asked
    wanted = {
        "fieldSelector": "metadata.name=e",
        "resourceVersion": "7",
        "timeoutSeconds": "20",
        "allowWatchBookmarks": "true",
        "watch": "true",
    }
    assert {key: value.lower() if key != "fieldSelector" else value for key, value in asked.query.items()} == wanted


def test_a_forgotten_version_as_an_event_and_as_an_answer(
    server: FakeExperimentsServer, katib: KubernetesKatib
) -> None:
    server.watches = [[event("MODIFIED"), {"type": "ERROR", "object": status(410, "too old resource version")}]]
    events = katib.watch("e", "7", 20)
    assert next(events).kind == "MODIFIED"
    with pytest.raises(Expired, match="version 7"):
        next(events)
    server.answers["GET", EXPERIMENTS] = [(410, status(410))]
    with pytest.raises(Expired):
        list(katib.watch("e", "7", 20))


def test_a_connection_that_breaks_in_the_middle_of_a_line(
    server: FakeExperimentsServer, katib: KubernetesKatib
) -> None:
    server.watches = [[event("MODIFIED"), CUT]]
    events = katib.watch("e", "7", 20)
    assert next(events).kind == "MODIFIED"
    with pytest.raises(WatchBroken, match="the connection broke"):
        next(events)


@pytest.mark.parametrize(("code", "error"), [(429, WatchBroken), (503, WatchBroken), (403, Forbidden)])
def test_a_watch_that_is_refused(
    server: FakeExperimentsServer, katib: KubernetesKatib, code: int, error: type[Exception]
) -> None:
    server.answers["GET", EXPERIMENTS] = [(code, status(code, "no"))]
    with pytest.raises(error):
        list(katib.watch("e", "7", 20))


def test_a_server_that_is_away(katib: KubernetesKatib, server: FakeExperimentsServer) -> None:
    settings = client.Configuration()
    settings.host, settings.retries = "http://127.0.0.1:9", False  # the discard port: nobody listens
    with client.ApiClient(settings) as api:
        away = KubernetesKatib(api, "team", Backoff(attempts=2, first=0, longest=0))
        with pytest.raises(WatchBroken):
            list(away.watch("e", "7", 20))
        with pytest.raises(SurroundingsError, match="gave no answer"):
            away.create({"metadata": {}})
        assert away.suggestion("e") == {}
        assert away.trial_log("e", "t", "trainer", 5) == ""


def test_delete_names_the_very_object(server: FakeExperimentsServer, katib: KubernetesKatib) -> None:
    server.answers["DELETE", f"{EXPERIMENTS}/e"] = [
        (200, {}),
        (409, status(409)),
        (404, status(404)),
        (403, status(403)),
    ]
    for _ in range(3):  # gone, or another one's by now: nothing to do
        katib.delete("e", "uid-1")
    with pytest.raises(Forbidden, match="delete"):
        katib.delete("e", "uid-1")
    assert server.asked[0].body == {"preconditions": {"uid": "uid-1"}, "propagationPolicy": "Background"}


def pod(name: str, minute: int, conditions: list[dict[str, str]] | None = None) -> dict[str, Any]:
    metadata = {"name": name, "creationTimestamp": f"2026-03-02T09:{minute:02d}:00Z"}
    return {"kind": "Pod", "metadata": metadata, "spec": None, "status": {"conditions": conditions or []}}


def test_the_log_is_that_of_the_trials_last_pod(server: FakeExperimentsServer, katib: KubernetesKatib) -> None:
    pods = [pod("t-10-a", 9), pod("t-1-b", 1), pod("t-1-a", 2)]
    server.answers["GET", PODS] = [(200, {"kind": "PodList", "items": pods})]
    server.answers["GET", f"{PODS}/t-1-a/log"] = [(200, "one\ntwo\n")]
    assert katib.trial_log("e", "t-1", "trainer", 5) == "one\ntwo"
    assert server.asked[0].query == {"labelSelector": "katib.kubeflow.org/experiment=e"}
    assert (server.asked[1].query["container"], server.asked[1].query["tailLines"]) == ("trainer", "5")
    assert katib.trial_log("e", "t-2", "trainer", 5) == ""


@pytest.mark.parametrize(
    ("conditions", "goes"),
    [
        ([], False),
        ([{"type": "Ready", "status": "True"}], False),
        ([{"type": "DisruptionTarget", "status": "False"}], False),
        ([{"type": "Ready", "status": "True"}, {"type": "DisruptionTarget", "status": "True"}], True),
    ],
)
def test_whether_the_node_sends_the_pod_away(
    server: FakeExperimentsServer, katib: KubernetesKatib, conditions: list[dict[str, str]], goes: bool
) -> None:
    server.answers["GET", f"{PODS}/tune-0"] = [(200, pod("tune-0", 1, conditions))]
    assert katib.moved() is goes


def test_a_pod_that_is_being_deleted_is_moved(server: FakeExperimentsServer, katib: KubernetesKatib) -> None:
    leaving = pod("tune-0", 1)
    leaving["metadata"]["deletionTimestamp"] = "2026-03-02T09:30:00Z"
    server.answers["GET", f"{PODS}/tune-0"] = [(200, leaving)]
    assert katib.moved()


def test_the_own_pod_is_looked_for_where_it_runs(server: FakeExperimentsServer) -> None:
    conditions = [{"type": "DisruptionTarget", "status": "True"}]
    server.answers["GET", "/api/v1/namespaces/pipelines/pods/tune-0"] = [(200, pod("tune-0", 1, conditions))]
    settings = client.Configuration()
    settings.host, settings.retries = server.url, False
    with client.ApiClient(settings) as api:
        here = {"RANKWISE_POD": "tune-0", "NAMESPACE": "pipelines"}
        assert KubernetesKatib(api, "team", environment=here).moved()


def test_a_pod_that_is_not_known_is_not_moved(katib: KubernetesKatib) -> None:
    assert not katib.moved()  # 404


def test_the_own_namespace(tmp_path: Path) -> None:
    file = tmp_path / "namespace"
    file.write_text("team\n")
    assert own_namespace({}, file) == "team"
    assert own_namespace({"NAMESPACE": "other"}, file) == "other"
    with pytest.raises(InvalidInput, match="outside of a pod it has to be given"):
        own_namespace({}, tmp_path / "none")


def test_the_role_grants_what_is_asked_for_and_no_more() -> None:
    documents = list(yaml.safe_load_all((REPOSITORY / "pipelines/rbac.yaml").read_text()))
    (role,) = [document for document in documents if document["kind"] == "Role"]
    granted: dict[tuple[str, str], tuple[str, ...]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                granted[group, resource] = tuple(sorted(rule["verbs"]))
    assert granted == dict(RIGHTS)
