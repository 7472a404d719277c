"""What the cluster tests say to Kubernetes: kubectl and helm, and waiting with a reason when it is in vain."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "rankwise"
EXPERIMENTS = ROOT / "katib" / "experiments"
LABEL = "katib.kubeflow.org/experiment"


class CommandFailed(AssertionError):
    """kubectl or helm ended with an error."""


def run(*command: str | Path, stdin: str | None = None, seconds: float = 120) -> str:
    """Run a command; its standard output.

    Raises:
        CommandFailed: with what it said.
    """
    words = [str(word) for word in command]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise CommandFailed(
            f"{' '.join(words)}\nexit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    return done.stdout


def kubectl(*arguments: str | Path, stdin: str | None = None, seconds: float = 120) -> str:
    """Run kubectl on the cluster of KUBECONFIG."""
    return run("kubectl", *arguments, stdin=stdin, seconds=seconds)


def helm(*arguments: str | Path, seconds: float = 400) -> str:
    """Run helm on the cluster of KUBECONFIG."""
    return run("helm", *arguments, seconds=seconds)


def get(kind: str, name: str, namespace: str) -> Object:
    """One object.

    Raises:
        CommandFailed: there is none.
    """
    return dict(json.loads(kubectl("--namespace", namespace, "get", kind, name, "--output=json")))


def find(kind: str, namespace: str, selector: str = "") -> list[Object]:
    """The objects of a kind in a namespace, by label."""
    arguments = ["--namespace", namespace, "get", kind, "--output=json"]
    return list(json.loads(kubectl(*arguments, *([f"--selector={selector}"] if selector else [])))["items"])


def apply(*documents: Object, namespace: str) -> None:
    """Create or change objects, checked by the server."""
    # As JSON: what PyYAML writes for the text "1e-4" is a number to Kubernetes.
    listed = {"apiVersion": "v1", "kind": "List", "items": documents}
    kubectl("--namespace", namespace, "apply", "--filename=-", stdin=json.dumps(listed))


def wait(what: str, ready: Callable[[], Any], seconds: float, every: float = 0.5) -> Any:
    """Wait until ``ready()`` is true; its value.

    Raises:
        AssertionError: it was not, in time.
    """
    end = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(every)
    return value


def condition(thing: Mapping[str, Any], kind: str) -> Object | None:
    """A condition of an object when it is True."""
    for entry in thing.get("status", {}).get("conditions", []):
        if entry["type"] == kind and entry["status"] == "True":
            return dict(entry)
    return None


@dataclass(frozen=True, slots=True)
class Search:
    """An Experiment in the cluster."""

    name: str
    namespace: str

    def experiment(self) -> Object:
        return get("experiment", self.name, self.namespace)

    def suggestion(self) -> Object:
        return get("suggestion", self.name, self.namespace)

    def trials(self) -> list[Object]:
        """Its Trials, oldest first."""
        found = find("trials", self.namespace, f"{LABEL}={self.name}")
        return sorted(found, key=lambda trial: (trial["metadata"]["creationTimestamp"], trial["metadata"]["name"]))

    def suggestions(self) -> list[dict[str, str]]:
        """What was suggested, in order: assignments by parameter."""
        given = self.suggestion().get("status", {}).get("suggestions", [])
        return [{entry["name"]: entry["value"] for entry in one["parameterAssignments"]} for one in given]

    def names(self) -> list[str]:
        """The names of what was suggested, in order."""
        return [one["name"] for one in self.suggestion().get("status", {}).get("suggestions", [])]

    def suggestion_pods(self) -> list[Object]:
        """The pods of its suggestion service that are not being deleted."""
        selector = f"katib.kubeflow.org/suggestion={self.name}"
        pods = find("pods", self.namespace, selector)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def wait(self, seconds: float, *conditions: str) -> Object:
        """Wait until the Experiment has one of these conditions (by default: it ended); the Experiment.

        Raises:
            AssertionError: not in time; with the states of Experiment, Trials and pods.
        """
        wanted = conditions or ("Succeeded", "Failed")
        end = time.monotonic() + seconds
        while True:
            experiment = self.experiment()
            if any(condition(experiment, kind) for kind in wanted):
                return experiment
            if time.monotonic() > end:
                raise AssertionError(f"{self.name} has none of {wanted} after {seconds:.0f} s:\n{self.describe()}")
            time.sleep(1)

    def describe(self) -> str:
        """What a person would look at first."""
        parts = [kubectl("-n", self.namespace, "get", "experiment,suggestion,trial,pods", "-o", "wide")]
        for what in ("experiment", "suggestion"):
            conditions = get(what, self.name, self.namespace).get("status", {}).get("conditions", [])
            parts.append(json.dumps(conditions, indent=1))
        parts.append(kubectl("-n", self.namespace, "get", "events", "--sort-by=.lastTimestamp")[-3000:])
        return "\n".join(parts)

    def delete(self) -> None:
        """Delete it and wait until nothing of it is left."""
        # Not --cascade=foreground: while a Suggestion waits for its service's end, Katib's controller makes a new one.
        kubectl("-n", self.namespace, "delete", "experiment", self.name, "--ignore-not-found")
        wait(f"{self.name} to be gone", lambda: not self._left(), 120)

    def _left(self) -> list[str]:
        kinds, selector = "trials,suggestions,pods", f"--selector={LABEL}={self.name}"
        return kubectl("--namespace", self.namespace, "get", kinds, "--output=name", selector).split()


def counts(experiment: Object) -> dict[str, int]:
    """The numbers of trials by state in an Experiment's status; what is absent is 0."""
    names = ("trials", "trialsSucceeded", "trialsFailed", "trialsKilled", "trialsEarlyStopped", "trialsRunning")
    names += ("trialsPending", "trialMetricsUnavailable")
    return {name: int(experiment["status"].get(name, 0)) for name in names}


def load_experiment(file: str, name: str, **spec: Any) -> Object:
    """An Experiment of ``katib/experiments`` under another name, with fields of its spec replaced."""
    document = dict(yaml.safe_load((EXPERIMENTS / file).read_text()))
    document["metadata"] = {**document["metadata"], "name": name}
    document["metadata"].pop("namespace", None)
    document["spec"] = {**document["spec"], **spec}
    return document


def trainer(experiment: Object) -> Object:
    """The trainer's container in an Experiment's trial template, to be changed in place."""
    containers = experiment["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"]
    first: Object = containers[0]
    return first


SMALL = ("--num-layers=2", "--subset=16", "--validation=8", "--max-source-tokens=24", "--metrics=loss")


def small_search(
    name: str, *, trials: int = 4, parallel: int = 2, settings: Sequence[tuple[str, str]] = (), **spec: Any
) -> Object:
    """The quickstart with real but very short trainings (the model's first two layers, 16 examples)."""
    experiment = load_experiment(
        "quickstart.yaml", name, maxTrialCount=trials, parallelTrialCount=parallel, maxFailedTrialCount=trials, **spec
    )
    chosen = {"initial_points": "3", **dict(settings)}
    experiment["spec"]["algorithm"] = {
        "algorithmName": "language-bo",
        "algorithmSettings": [{"name": key, "value": value} for key, value in chosen.items()],
    }
    container = trainer(experiment)
    flags = {flag.partition("=")[0] for flag in SMALL}
    container["command"] = [word for word in container["command"] if word.partition("=")[0] not in flags] + list(SMALL)
    return experiment


_FORMULA = """
import math, sys, time
rank, ratio, dropout, rate, batch = map(float, sys.argv[1:6])
time.sleep(float(sys.argv[6]))
loss = (math.log10(rate) + 3.2) ** 2 + 0.2 * (math.log2(rank) - 4) ** 2 + 0.1 * math.log2(ratio) ** 2
loss += dropout + batch / 50
print(f"loss={loss:.6f}", flush=True)
"""


def formula_search(name: str, *, trials: int, parallel: int = 1, seconds: float = 3.0, **spec: Any) -> Object:
    """The quickstart's space with a formula in place of the training, for tests of everything but the training.

    Args:
        name: of the Experiment.
        trials: maxTrialCount.
        parallel: parallelTrialCount.
        seconds: how long a trial takes. Of a program that has ended before Katib's collector looks for it, 1 or 2
            seconds after its start, nothing is collected: the collector fails, and so does the trial.
        **spec: fields of the Experiment's spec.
    """
    experiment = small_search(name, trials=trials, parallel=parallel, **spec)
    container = trainer(experiment)
    values = [f"${{trialParameters.{key}}}" for key in ("rank", "alphaRatio", "dropout", "learningRate", "batchSize")]
    # Katib joins a command with spaces and gives it to a shell, but leaves `sh -c` alone.
    container["command"] = ["sh", "-c", f"python -c '{_FORMULA}' {' '.join(values)} {seconds}"]
    container["resources"] = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}
    return experiment
