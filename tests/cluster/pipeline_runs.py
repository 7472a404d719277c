"""Runs of Kubeflow Pipelines in the cluster: started and read through KFP's own client."""

from __future__ import annotations

import base64
import functools
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp
from conftest import PIPELINES
from kube import Object, find, get, kubectl, wait
from minio import Minio

BUCKET = "mlpipeline"
ENDED = ("SUCCEEDED", "FAILED", "CANCELED")


@functools.cache
def client() -> Any:
    """KFP's client. The tests run where addresses of Services are reached."""
    address = get("service", "ml-pipeline", PIPELINES)["spec"]["clusterIP"]
    with warnings.catch_warnings():
        # It says for which versions of the backend it is.
        warnings.simplefilter("ignore", FutureWarning)
        return kfp.Client(host=f"http://{address}:8888")


@contextmanager
def artifacts() -> Iterator[Minio]:
    """KFP's own object store."""
    address = get("service", "minio-service", PIPELINES)["spec"]["clusterIP"]
    keys = get("secret", "mlpipeline-minio-artifact", PIPELINES)["data"]
    access, secret = (base64.b64decode(keys[name]).decode() for name in ("accesskey", "secretkey"))
    yield Minio(f"{address}:9000", access, secret, secure=False)


@dataclass(frozen=True, slots=True)
class Run:
    """A run by its id."""

    id: str

    @classmethod
    def start(cls, package: Path, name: str, **arguments: object) -> Run:
        """Start a compiled pipeline, nothing of an earlier run being used for it but by the steps themselves."""
        started = client().create_run_from_pipeline_package(str(package), arguments=arguments, run_name=name)
        return cls(started.run_id)

    def state(self) -> str:
        """KFP's word for where it is."""
        return str(client().get_run(self.id).state)

    def wait(self, seconds: float, *states: str) -> str:
        """Wait until it has one of these states (by default: it ended); the state.

        Raises:
            AssertionError: not in time; with the states of steps and pods.
        """
        end = time.monotonic() + seconds
        while (state := self.state()) not in (states or ENDED):
            assert time.monotonic() < end, f"run {self.id} is {state} after {seconds:.0f} s\n{self.describe()}"
            time.sleep(2)
        return state

    def steps(self) -> dict[str, Object]:
        """Step -> Argo's node of its task, of the run's Workflow: with ``phase``, ``startedAt``, ``finishedAt``."""
        nodes = self.workflow()["status"].get("nodes", {}).values()
        return {node["displayName"]: node for node in nodes if node["type"] in {"DAG", "Retry", "Pod"}}

    def workflow(self) -> Object:
        """The Workflow that runs it."""
        [found] = find("workflows", PIPELINES, f"pipeline/runid={self.id}")
        return found

    def pods(self, step: str) -> list[Object]:
        """The pods in which a step's own program ran, oldest first."""
        key = "workflows.argoproj.io/node-name"
        pods = [
            pod
            for pod in find("pods", PIPELINES, f"pipeline/runid={self.id}")
            if f".{step}.executor(" in pod["metadata"]["annotations"].get(key, "")
        ]
        return sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def running_pod(self, step: str, seconds: float = 300) -> str:
        """Name of the step's pod once its program runs."""

        def look() -> str:
            for pod in self.pods(step):
                states = {one["name"]: one["state"] for one in pod["status"].get("containerStatuses", [])}
                if "running" in states.get("main", {}):
                    return str(pod["metadata"]["name"])
            return ""

        return str(wait(f"step {step} to run", look, seconds))

    def log(self, pod: str) -> str:
        """What the step's own program printed."""
        return kubectl("-n", PIPELINES, "logs", pod, "--container=main")

    def cancel(self) -> None:
        """What the button `Terminate` does."""
        client().terminate_run(self.id)

    def retry(self) -> None:
        """What the button `Retry` of a failed run does."""
        client()._run_api.run_service_retry_run(run_id=self.id)

    def describe(self) -> str:
        """What a person would look at first."""
        states = {name: (node["phase"], node.get("message", "")) for name, node in self.steps().items()}
        pods = kubectl("-n", PIPELINES, "get", "pods,experiments", "-o", "wide")
        return f"{json.dumps(states, indent=1)}\n{pods}"

    def delete(self) -> None:
        """Delete it with its Workflow and pods."""
        kubectl("-n", PIPELINES, "delete", "workflows", f"--selector=pipeline/runid={self.id}", seconds=150)


def until(what: str, ready: Callable[[], Any], seconds: float) -> Any:
    """:func:`kube.wait`, looking every second."""
    return wait(what, ready, seconds, every=1)
