"""What the fault tests share: trials that go wrong at chosen places of a search, and what is true after any fault.

Whatever happens, a search ends, its Experiment's counts are those of its Trials, and a trial that had ended before the
fault is still there with the same observation.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from conftest import KATIB, NAMESPACE
from harness.build import build
from harness.node import Node
from harness.places import Places
from kube import Object, Search, condition, counts, find, formula_search, get, kubectl, small_search, trainer, wait
from prometheus_client.parser import text_string_to_metric_families

from rankwise.artifacts import Store, open_store
from rankwise.katib_api import api_pb2, api_pb2_grpc

COLLECTOR = "metrics-logger-and-collector"
"""Container that Katib adds to a trial's pod; it prints what the trial prints."""
PLACE = "rankwise.dev/suggestion"
"""Label of a Trial and its pods: which suggestion of the search it tries, from 0."""
FALLBACK = "rankwise.dev/fallback"
"""Label of a Trial whose suggestion is not the algorithm's own."""
ENDS = ("Succeeded", "Failed", "MetricsUnavailable", "EarlyStopped", "Killed")

NARROW: dict[str, tuple[str, ...]] = {
    "rank": ("4", "8", "16", "32"),
    "alpha_ratio": ("1", "2"),
    "dropout": ("0", "0.1"),
    "learning_rate": ("1e-4", "3e-4", "1e-3", "3e-3"),
    "batch_size": ("4", "8"),
}
"""128 configurations: a service with an empty cache embeds them in seconds."""


# -- searches ------------------------------------------------------------------------------------------------------


def narrow(experiment: Object, values: Mapping[str, tuple[str, ...]] = NARROW) -> Object:
    """The same Experiment over a space of these values; its service stays when it has ended, to be asked."""
    experiment["spec"]["parameters"] = [
        {"name": name, "parameterType": "discrete", "feasibleSpace": {"list": list(one)}}
        for name, one in values.items()
    ]
    experiment["spec"]["resumePolicy"] = "LongRunning"
    return experiment


def small_training(name: str, *flags: str, parallel: int) -> Object:
    """A search of two real trainings, with these flags besides; each training takes 8 examples a step."""
    experiment = narrow(small_search(name, trials=2, parallel=parallel), {**NARROW, "batch_size": ("8",)})
    container = trainer(experiment)
    container["command"] += flags
    # A busy node shall find a place for it: the time until it starts is part of what is waited for.
    container["resources"]["requests"] = {"cpu": "100m", "memory": "1Gi"}
    return experiment


_FAULTS = """
import json, os, sys, time
time.sleep(2.5)
fault = json.loads(os.environ["FAULTS"]).get(os.environ["PLACE"])
if fault == "memory":
    bytearray(b"1") * (2 << 30)
if fault == "crash":
    sys.exit(1)
if fault is not None:
    print(fault, flush=True)
    sys.exit(0)
"""


def faulty_search(name: str, faults: Mapping[int, str], *, trials: int) -> Object:
    """A search with formulas, in which the trials of some places go wrong; pods are kept to be looked at.

    Args:
        name: of the Experiment.
        faults: place in the search -> ``memory`` (takes more than its limit), ``crash`` (exit code 1), or what it
            prints in place of a loss.
        trials: maxTrialCount.
    """
    experiment = narrow(formula_search(name, trials=trials, seconds=0.5))
    container = trainer(experiment)
    shell, option, line = container["command"]
    container["command"] = [shell, option, line.replace("python -c '", f"python -c '{_FAULTS}", 1)]
    label = {"fieldRef": {"fieldPath": f"metadata.labels['{PLACE}']"}}
    container["env"] += [
        {"name": "PLACE", "valueFrom": label},
        {"name": "FAULTS", "value": json.dumps({str(place): fault for place, fault in faults.items()})},
    ]
    experiment["spec"]["trialTemplate"]["retain"] = True
    return experiment


# -- what is true after a fault ------------------------------------------------------------------------------------


def state(trial: Object) -> str:
    """How a Trial ended; empty while it has not."""
    return next((kind for kind in ENDS if condition(trial, kind)), "")


def place(trial: Object) -> int:
    """Which suggestion of the search a Trial tries, from 0."""
    return int(trial["metadata"]["labels"][PLACE])


def loss(trial: Object) -> str:
    """The latest loss as Katib recorded it; empty where it found no number."""
    (metric,) = trial["status"]["observation"]["metrics"]
    return str(metric.get("latest", ""))


def ended(search: Search) -> dict[str, Any]:
    """Trials that have ended: name -> how, with which assignments and observation."""
    return {
        trial["metadata"]["name"]: (state(trial), trial["spec"]["parameterAssignments"], trial["status"]["observation"])
        for trial in search.trials()
        if state(trial) and "observation" in trial["status"]
    }


def check_books(search: Search, before: Mapping[str, Any], **expected: int) -> list[Object]:
    """Check that the Experiment's counts are those of its Trials and that nothing that had ended was lost.

    Args:
        search: an ended search.
        before: :func:`ended` from before the fault.
        **expected: counts that the Experiment has to have.

    Returns:
        The Trials, in the order of their suggestions.
    """
    trials = sorted(search.trials(), key=place)
    numbers = counts(search.experiment())
    states = Counter(state(trial) for trial in trials)
    told = {
        "Succeeded": numbers["trialsSucceeded"],
        "Failed": numbers["trialsFailed"],
        "MetricsUnavailable": numbers["trialMetricsUnavailable"],
        "EarlyStopped": numbers["trialsEarlyStopped"],
        "Killed": numbers["trialsKilled"],
    }
    assert +Counter(told) == states, (numbers, states)
    assert numbers["trials"] == len(trials)
    # Each suggestion became one Trial, with its name and place.
    assert [trial["metadata"]["name"] for trial in trials] == search.names()
    assert [place(trial) for trial in trials] == list(range(len(trials)))
    now = ended(search)
    lost = {name: value for name, value in before.items() if now.get(name) != value}
    assert lost == {}
    assert {name: numbers[name] for name in expected} == expected
    return trials


def check_service(search: Search, restarts: int = 0) -> int:
    """Check that the search's service was not ended by anybody but us; the most memory that it had, in MiB."""
    (pod,) = search.suggestion_pods()
    (status,) = [one for one in pod["status"]["containerStatuses"] if one["name"] == "suggestion"]
    assert status["restartCount"] == restarts, status
    assert "OOMKilled" not in json.dumps(status)
    name = pod["metadata"]["name"]
    text = kubectl("-n", search.namespace, "exec", name, "-c", "suggestion", "--", "cat", "/proc/1/status")
    match = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert match
    peak = int(match[1]) // 1024
    print(f"{search.namespace}/{search.name}: the service's memory was {peak} MiB at most")
    assert peak < 3 * 1024
    return peak


def check_own_choices(trials: list[Object]) -> None:
    """Check that every suggestion is the algorithm's own: nothing was late, nothing failed."""
    assert [trial["metadata"]["name"] for trial in trials if FALLBACK in trial["metadata"]["labels"]] == []


def figures(search: Search) -> dict[str, float]:
    """The service's metrics: name, or ``name/state`` for the trials of its last request."""
    (pod,) = search.suggestion_pods()
    path = f"/api/v1/namespaces/{search.namespace}/pods/{pod['metadata']['name']}:9464/proxy/metrics"
    found = {}
    for family in text_string_to_metric_families(kubectl("get", "--raw", path)):
        for sample in family.samples:
            marks = [sample.labels[key] for key in ("state", "reason") if key in sample.labels]
            found["/".join([sample.name, *marks])] = sample.value
    return found


# -- faults --------------------------------------------------------------------------------------------------------


def node() -> Node:
    """The harness's node."""
    places = Places.from_environment()
    return Node(places, build("kubernetes", places.cache, places.logs / "build.log"))


def kill_service(search: Search, how: str) -> bool:
    """End the service's pod (``pod``: force deletion) or its process (``process``: SIGKILL); False when there is none.

    Args:
        search: whose.
        how: ``pod`` or ``process``.
    """
    pods = search.suggestion_pods()
    if not pods:
        return False
    if how == "pod":
        name = pods[0]["metadata"]["name"]
        kubectl("-n", search.namespace, "delete", "pod", name, "--force", "--grace-period=0", "--ignore-not-found")
        return True
    for status in pods[0]["status"].get("containerStatuses", []):
        identity = status.get("containerID", "").removeprefix("containerd://")
        for line in node().ctr("tasks", "list").splitlines():
            task, pid, *_ = line.split()
            if status["name"] == "suggestion" and task == identity and pid.isdigit():
                os.kill(int(pid), signal.SIGKILL)
                return True
    return False


def trial_pods(search: Search, trial: str | None = None) -> list[Object]:
    """Pods of the search's trials, or of one of them, oldest first."""
    selector = f"katib.kubeflow.org/experiment={search.name},app.kubernetes.io/component=trial"
    pods = find("pods", search.namespace, selector)
    pods = [pod for pod in pods if trial in (None, pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])]
    return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def training_pods(search: Search, said: str = "training loss") -> list[Object]:
    """Pods that run and whose trainers have said something already."""
    running = [pod for pod in trial_pods(search) if pod["status"]["phase"] == "Running"]
    return [pod for pod in running if said in output(pod)]


def output(pod: Object) -> str:
    """What the trial of a pod printed, with the collector's time before each line; empty when it cannot be read yet."""
    metadata = pod["metadata"]
    command = ["kubectl", "-n", metadata["namespace"], "logs", metadata["name"], "-c", COLLECTOR]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout


@contextmanager
def scaled_down(kind: str, name: str, namespace: str, seconds: float) -> Iterator[None]:
    """Context that begins when a workload's last pod is gone and ends, ``seconds`` after that, when it is back."""
    kubectl("-n", namespace, "scale", f"{kind}/{name}", "--replicas=0")
    try:
        selector = ",".join(
            f"{k}={v}" for k, v in get(kind, name, namespace)["spec"]["selector"]["matchLabels"].items()
        )
        wait(f"{name} to be gone", lambda: not find("pods", namespace, selector), 60)
        gone = time.monotonic()
        yield
        time.sleep(max(0.0, seconds - (time.monotonic() - gone)))
    finally:
        kubectl("-n", namespace, "scale", f"{kind}/{name}", "--replicas=1")
        kubectl("-n", namespace, "rollout", "status", f"{kind}/{name}", "--timeout=120s", seconds=150)


# -- looking at what was kept --------------------------------------------------------------------------------------


@contextmanager
def forwarded(target: str, namespace: str, port: int) -> Iterator[int]:
    """A port of this machine that leads to a port of a Service or Deployment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        local = int(free.getsockname()[1])
    command = ["kubectl", "-n", namespace, "port-forward", "--address=127.0.0.1", target, f"{local}:{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "Forwarding" in line, line
            yield local
        finally:
            process.terminate()


@contextmanager
def kept() -> Iterator[Store]:
    """The store that the trials' Secret names."""
    data = get("secret", "rankwise-s3", NAMESPACE)["data"]
    values = {name: base64.b64decode(text).decode() for name, text in data.items()}
    with forwarded("service/rankwise-s3", NAMESPACE, 8333) as port:
        environment = {**values, "S3_ENDPOINT": f"http://127.0.0.1:{port}"}
        yield open_store(values["RANKWISE_STORE"], environment)


def recorded(trial: str) -> list[tuple[str, str]]:
    """What Katib's database holds of a trial: (name, value) of each report, in order of time."""
    with forwarded("service/katib-db-manager", KATIB, 6789) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as to:
        request = api_pb2.GetObservationLogRequest(trial_name=trial)
        reply = api_pb2_grpc.DBManagerStub(to).GetObservationLog(request, timeout=20)
    return [(log.metric.name, log.metric.value) for log in reply.observation_log.metric_logs]
