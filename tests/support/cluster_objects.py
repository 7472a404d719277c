"""Experiments, Suggestions and Trials as Katib v0.19 writes them, and a fake API server that gives them out over HTTP.

The objects follow Katib's Go types (``omitempty`` included: what is empty is not there). The server knows get and list
of ``kubeflow.org/v1beta1`` with label selectors and ``limit``/``continue``, and answers with the Status objects of a
real one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LABEL = "katib.kubeflow.org/experiment"
TOKEN = "a-token-that-nobody-may-see"
UID = "7d1f3c1e-0000-4000-8000-000000000001"
Object = dict[str, Any]

PARAMETERS = [
    {
        "name": "learning_rate",
        "parameterType": "double",
        "feasibleSpace": {"min": "1e-5", "max": "1e-2", "distribution": "logUniform"},
    },
    {
        "name": "rank",
        "parameterType": "discrete",
        "feasibleSpace": {"list": ["4", "8", "16"], "distribution": "uniform"},
    },
    {
        "name": "modules",
        "parameterType": "categorical",
        "feasibleSpace": {"list": ["attention", "all-linear"], "distribution": "uniform"},
    },
]
_MESSAGES = {
    "Created": ("TrialCreated", "Trial is created"),
    "Running": ("TrialRunning", "Trial is running"),
    "Succeeded": (
        "TrialSucceeded. Job reason: CompletionsReached",
        "Trial has succeeded. Job message: Reached expected number of succeeded pods",
    ),
    "Failed": (
        "TrialFailed. Job reason: BackoffLimitExceeded",
        "Trial has failed. Job message: Job has reached the specified backoff limit",
    ),
    "Killed": ("TrialKilled", "Trial is killed"),
    "MetricsUnavailable": (
        "MetricsUnavailable. Job reason: CompletionsReached",
        "Metrics are not available. Job message: Reached expected number of succeeded pods",
    ),
    "EarlyStopped": ("TrialEarlyStopped", "Trial is early stopped"),
}


def condition(kind: str, reason: str, message: str, time: str, status: str = "True") -> Object:
    """An entry of ``status.conditions``."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastUpdateTime": time,
        "lastTransitionTime": time,
    }


def clock(minute: int) -> str:
    """A time of 2 March 2026, that many minutes after nine."""
    return f"2026-03-02T{9 + minute // 60:02d}:{minute % 60:02d}:00Z"


def metric(name: str, latest: str, low: str | None = None, high: str | None = None) -> Object:
    """One metric of an observation; Go leaves out an empty text."""
    values = {"name": name, "min": latest if low is None else low, "max": latest if high is None else high}
    return {key: value for key, value in {**values, "latest": latest}.items() if value != ""}


def trial(
    index: int,
    kind: str = "Succeeded",
    metrics: Sequence[Object] = (),
    *,
    experiment: str = "quickstart",
    namespace: str = "rankwise",
    name: str = "",
    assignments: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    uid: str = UID,
    arguments: Sequence[str] = (),
    env: Sequence[Object] = (),
    started: int | None = None,
) -> Object:
    """A Trial whose last condition is ``kind``; it starts at minute 10 * index and takes 7."""
    name = name or f"{experiment}-3c1a{index:08x}"
    values = assignments or {"learning_rate": f"{(index + 1)}e-4", "rank": "8", "modules": "attention"}
    begin = 10 * index if started is None else started
    start, end = clock(begin), clock(begin + 7)
    status: Object = {"startTime": start, "completionTime": None, "lastReconcileTime": end}
    conditions = [condition("Created", *_MESSAGES["Created"], start)]
    if kind not in ("Created", "Running"):
        conditions.append(condition("Running", *_MESSAGES["Running"], end, "False"))
        conditions.append(condition(kind, *_MESSAGES[kind], end))
        status["completionTime"] = end
    elif kind == "Running":
        conditions.append(condition("Running", *_MESSAGES["Running"], start))
    status["conditions"] = conditions
    if metrics:
        status["observation"] = {"metrics": list(metrics)}
    command = ["rankwise", "train", *arguments]
    container = {"name": "trainer", "image": "rankwise-trainer:0.1.0", "command": command, "env": list(env)}
    owner = {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "name": experiment,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Trial",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "creationTimestamp": start,
            "labels": {LABEL: experiment, "rankwise.dev/suggestion": str(index), **(labels or {})},
            "ownerReferences": [owner] if uid else [],
            "finalizers": ["clean-metrics-in-db"],
        },
        "spec": {
            "objective": objective(),
            "parameterAssignments": [{"name": key, "value": value} for key, value in values.items()],
            "primaryContainerName": "trainer",
            "metricsCollector": {"collector": {"kind": "StdOut"}},
            "runSpec": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"template": {"spec": {"containers": [container], "restartPolicy": "Never"}}},
            },
        },
        "status": status,
    }


def objective() -> Object:
    """``spec.objective`` with the strategies that Katib's webhook fills in, and one of the user's own."""
    return {
        "type": "minimize",
        "objectiveMetricName": "loss",
        "additionalMetricNames": ["seconds"],
        "metricStrategies": [{"name": "loss", "value": "min"}, {"name": "seconds", "value": "latest"}],
    }


def experiment(
    name: str = "quickstart",
    namespace: str = "rankwise",
    *,
    optimal: str = "",
    trials: int = 0,
    ended: str = "Succeeded",
    parameters: Sequence[Object] = tuple(PARAMETERS),
    annotations: Mapping[str, str] | None = None,
    uid: str = UID,
) -> Object:
    """An Experiment; ``ended`` is its last condition, "" while it runs."""
    conditions = [condition("Created", "ExperimentCreated", "Experiment is created", clock(0))]
    running = "False" if ended else "True"
    conditions.append(condition("Running", "ExperimentRunning", "Experiment is running", clock(1), running))
    status: Object = {"startTime": clock(0), "completionTime": None}
    if ended == "Succeeded":
        message = "Experiment has succeeded because max trial count has reached"
        conditions.append(condition("Succeeded", "ExperimentMaxTrialsReached", message, clock(125)))
    elif ended == "Failed":
        message = "Experiment has failed because max failed count has reached"
        conditions.append(condition("Failed", "ExperimentFailed", message, clock(125)))
    if ended:
        status["completionTime"] = clock(125)
    status["conditions"] = conditions
    if trials:
        status["trials"] = trials
    status["currentOptimalTrial"] = {"bestTrialName": optimal} if optimal else {"observation": {}}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "creationTimestamp": clock(0),
            "annotations": dict(annotations or {}),
        },
        "spec": {
            "objective": objective(),
            "algorithm": {
                "algorithmName": "language-bo",
                "algorithmSettings": [{"name": "initial_points", "value": "3"}],
            },
            "parallelTrialCount": 2,
            "maxTrialCount": 12,
            "resumePolicy": "Never",
            "parameters": list(parameters),
        },
        "status": status,
    }


def suggestion(name: str, trials: Sequence[str], namespace: str = "rankwise") -> Object:
    """The Experiment's Suggestion, which lists the trials in the order of suggestion."""
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Suggestion",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"requests": len(trials), "algorithm": {"algorithmName": "language-bo"}},
        "status": {"suggestionCount": len(trials), "suggestions": [{"name": item} for item in trials]},
    }


_ENDS = ("Succeeded", "Failed", "Succeeded", "Killed", "EarlyStopped", "MetricsUnavailable")


def search(count: int = 12) -> tuple[Object, Object, list[Object]]:
    """A whole search of ``count`` trials with every end that Katib knows; its best trial is number 8."""
    trials = []
    for index in range(count):
        kind = _ENDS[index % 6] if index % 8 else "Succeeded"
        loss = 3.0 - 0.5 * (index == 8) - 0.001 * index
        metrics = [metric("loss", f"{loss + 0.25:.3f}", f"{loss:.3f}", "4.5"), metric("seconds", f"{300 + index}")]
        values = {
            "learning_rate": f"{1 + index % 9}e-4",
            "rank": ("4", "8", "16")[index % 3],
            "modules": ("attention", "all-linear")[index % 2],
        }
        labels = {"rankwise.dev/fallback": "deadline"} if index == 2 else {}
        if kind == "MetricsUnavailable":
            metrics = [metric(name, "unavailable") for name in ("loss", "seconds")]
        shown = metrics if kind in ("Succeeded", "EarlyStopped", "MetricsUnavailable") else ()
        trials.append(trial(index, kind, shown, assignments=values, labels=labels))
    names = [item["metadata"]["name"] for item in trials]
    best = names[8] if count > 8 else names[0]
    return experiment(optimal=best, trials=count), suggestion("quickstart", names), trials


# -------------------------------------------------------------------------------------------------------- server


@dataclass
class FakeCluster:
    """What the server gives out, and what it was asked.

    Attributes:
        objects: of any kind and namespace.
        forbidden: pairs (verb, plural) that are refused.
        failing: status codes that the next requests are answered with.
        forget_after: a list's continue tokens are forgotten (410) so many times.
        without_katib: whether the kinds are unknown.
        asked: (verb, plural, query) of every request that was answered.
    """

    objects: list[Object] = field(default_factory=list)
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    failing: list[int] = field(default_factory=list)
    forget_after: int = 0
    without_katib: bool = False
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, object]:
        """Status code and body."""
        if self.failing:
            code = self.failing.pop(0)
            return code, _status(code, "InternalError", "the server is not itself")
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if len(parts) < 6 or parts[:3] != ["apis", "kubeflow.org", "v1beta1"] or self.without_katib:
            return 404, "404 page not found\n"
        namespace, plural, names = parts[4], parts[5], parts[6:]
        verb = "get" if names else "list"
        self.asked.append((verb, plural, query))
        if (verb, plural) in self.forbidden:
            message = f'{plural}.kubeflow.org is forbidden: User "ann" cannot {verb} resource "{plural}"'
            return 403, _status(403, "Forbidden", message)
        kind = {"experiments": "Experiment", "suggestions": "Suggestion", "trials": "Trial"}[plural]
        here = [o for o in self.objects if o["kind"] == kind and o["metadata"]["namespace"] == namespace]
        if names:
            return self._get(here, plural, names[0])
        return self._list(here, kind, query)

    def _get(self, here: list[Object], plural: str, name: str) -> tuple[int, object]:
        for found in here:
            if found["metadata"]["name"] == name:
                return 200, found
        details = {"name": name, "group": "kubeflow.org", "kind": plural}
        return 404, {**_status(404, "NotFound", f'{plural}.kubeflow.org "{name}" not found'), "details": details}

    def _list(self, here: list[Object], kind: str, query: dict[str, str]) -> tuple[int, object]:
        if selector := query.get("labelSelector"):
            key, _, value = selector.partition("=")
            here = [o for o in here if o["metadata"].get("labels", {}).get(key) == value]
        start = int(query.get("continue") or 0)
        if start and self.forget_after:
            self.forget_after -= 1
            return 410, _status(410, "Expired", "The provided continue parameter is too old")
        limit = int(query.get("limit") or len(here) or 1)
        more = {"continue": str(start + limit)} if start + limit < len(here) else {}
        page = here[start : start + limit]
        return 200, {"kind": f"{kind}List", "metadata": {"resourceVersion": "9", **more}, "items": page}


def _status(code: int, reason: str, message: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


@contextmanager
def serving(cluster: FakeCluster) -> Iterator[FakeCluster]:
    """Serve it on a port of the loopback interface."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                code, body = cluster.answer(address.path, query)
            else:
                code, body = 401, _status(401, "Unauthorized", "Unauthorized")
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    cluster.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_kubeconfig(path: Path, url: str, token: str = TOKEN) -> Path:
    """A kubeconfig of one context, ``fake``."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "ann", "user": {"token": token}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "ann"}}],
        "current-context": "fake",
    }
    path.write_text(yaml.safe_dump(document))
    return path
