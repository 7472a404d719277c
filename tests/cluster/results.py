"""What a search in the cluster left: results in the store, the service's own counts, what was seen on the way."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kube import LABEL, ROOT, Object, Search, condition, get, kubectl, run
from prometheus_client.parser import text_string_to_metric_families

from rankwise.artifacts import Manifest, Store, open_store, trial_key

ISSUED = "rankwise-issued"
ENDED = ("Succeeded", "Failed", "Killed", "EarlyStopped", "MetricsUnavailable")


@contextmanager
def store_variables(namespace: str) -> Iterator[dict[str, str]]:
    """RANKWISE_STORE, S3_ENDPOINT and keys as they are used from outside the cluster: by a forwarded port."""
    secret = get("secret", "rankwise-s3", namespace)["data"]
    variables = {name: base64.b64decode(text).decode() for name, text in secret.items()}
    service, owner = variables["S3_ENDPOINT"].rpartition("/")[2].split(".")[:2]
    port = variables["S3_ENDPOINT"].rpartition(":")[2]
    words = ["kubectl", "-n", owner, "port-forward", f"service/{service}", f":{port}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as forward:
        assert forward.stdout is not None
        try:
            line = forward.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert found, f"the store's port is not forwarded: {line}"
            yield {**variables, "S3_ENDPOINT": f"http://127.0.0.1:{found[1]}"}
        finally:
            forward.terminate()


@contextmanager
def store_of(namespace: str) -> Iterator[Store]:
    """The store of the namespace's trials."""
    with store_variables(namespace) as variables:
        yield open_store(variables["RANKWISE_STORE"], variables)


def manifest_of(store: Store, search: Search, trial: str) -> Manifest:
    """What the trial's own program wrote down."""
    key = trial_key(search.name, trial, "manifest.json", namespace=search.namespace)
    return Manifest.from_json(store.get_bytes(key))


def fetch_adapter(store: Store, search: Search, trial: str, target: Path) -> Path:
    """The trial's adapter, checked against the hashes that lie beside it."""
    store.get_folder(trial_key(search.name, trial, "adapter", namespace=search.namespace), target)
    return target


def service_counts(pod: Object) -> dict[str, float]:
    """The suggestion service's metrics: name and labels -> value."""
    metadata = pod["metadata"]
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}:9464/proxy/metrics"
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(kubectl("get", "--raw", path)):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            values[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return values


def service_answers(pod: Object) -> list[Object]:
    """The service's log lines about answered requests."""
    metadata = pod["metadata"]
    text = kubectl("-n", metadata["namespace"], "logs", metadata["name"], "--container=suggestion")
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert lines, f"the service logged nothing:\n{text[-500:]}"
    return [line for line in lines if line.get("message") == "answered"]


def state_of(trial: Object) -> str:
    """How a Trial ended; ``Active`` while it has not."""
    return next((kind for kind in ENDED if condition(trial, kind)), "Active")


def metric(trial: Object, name: str) -> dict[str, str]:
    """A metric of the Trial's observation: ``min``, ``max`` and ``latest`` as Katib recorded them."""
    metrics = trial["status"]["observation"]["metrics"]
    return next({key: str(one[key]) for key in ("min", "max", "latest")} for one in metrics if one["name"] == name)


def assignments(thing: Object) -> dict[str, str]:
    """Parameter -> text value, of a Trial's spec or of ``status.currentOptimalTrial``."""
    return {one["name"]: one["value"] for one in thing["parameterAssignments"]}


def written_back(search: Search) -> list[list[object]]:
    """What our service had Katib keep for it: ``[index, old, value, …]`` for each suggestion without a result."""
    settings = search.suggestion()["status"]["algorithmSettings"]
    [text] = [one["value"] for one in settings if one["name"] == ISSUED]
    state = json.loads(text)
    assert state["version"] == 1
    return list(state["items"])


@dataclass
class Seen:
    """What was seen while a search ran.

    Attributes:
        most: most trials that were active at one moment.
        looks: how often it was looked.
        pods: trial -> its pod, as it was while it ran.
    """

    most: int = 0
    looks: int = 0
    pods: dict[str, Object] = field(default_factory=dict)

    def look(self, search: Search) -> None:
        selector = f"--selector={LABEL}={search.name}"
        found = json.loads(kubectl("-n", search.namespace, "get", "trials,pods", selector, "--output=json"))["items"]
        trials = [thing for thing in found if thing["kind"] == "Trial"]
        self.most = max(self.most, sum(state_of(trial) == "Active" for trial in trials))
        self.looks += 1
        for thing in found:
            if thing["kind"] == "Pod" and (name := thing["metadata"]["labels"].get("katib.kubeflow.org/trial")):
                self.pods[name] = thing


def follow(search: Search, seconds: float, until: Callable[[Object], bool] | None = None) -> Seen:
    """Look at a search until it ends (or until what is asked for); what was seen.

    Raises:
        AssertionError: not in time.
    """
    seen = Seen()
    end = time.monotonic() + seconds
    while True:
        seen.look(search)
        experiment = search.experiment()
        ended = any(condition(experiment, kind) for kind in ("Succeeded", "Failed"))
        if until(experiment) if until else ended:
            return seen
        assert time.monotonic() < end, f"{search.name} is not done after {seconds:.0f} s:\n{search.describe()}"
        time.sleep(0.5)


def rankwise(*arguments: str | Path, **variables: str) -> str:
    """Run the command of this installation on this machine; its standard output."""
    program = ROOT / ".venv" / "bin" / "rankwise"
    pairs = [f"{name}={value}" for name, value in variables.items()]
    return run("env", *pairs, program if program.exists() else "rankwise", *arguments, seconds=240)
