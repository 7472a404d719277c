"""A fake of :class:`rankwise.kfp.api.KatibApi` in memory: a small Katib whose watches follow a script.

The script is a list of watches; a watch is a list of steps, taken in order. A step is

- a mapping: the Experiment's status is changed by it, and the watch tells it,
- :data:`BOOKMARK`: the watch tells a new version and nothing else,
- :data:`DELETED`: somebody deletes the Experiment,
- an exception: it is raised,
- a callable: it is called with the fake (to send a signal, to wait).

A watch whose steps are used up is ended by the server, ``watch_lasts`` seconds of the clock after it began. When no
watch is left, the fake fails the test instead of letting it wait for ever.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rankwise.cluster.facts import Snapshot, read_cluster
from rankwise.cluster.objects import Missing, Object
from rankwise.kfp.api import AlreadyThere, Event
from support import cluster_objects as objects

BOOKMARK = "BOOKMARK"
DELETED = "DELETED"
Step = Mapping[str, Any] | str | BaseException | Callable[["FakeKatib"], None]


def counts(succeeded: int = 0, failed: Sequence[str] = (), running: int = 0, best: str = "") -> dict[str, Any]:
    """A status of an Experiment that runs."""
    status: dict[str, Any] = {
        "trials": succeeded + len(failed) + running,
        "trialsSucceeded": succeeded,
        "trialsFailed": len(failed),
        "trialsRunning": running,
        "failedTrialList": list(failed),
        "conditions": [objects.condition("Running", "ExperimentRunning", "Experiment is running", objects.clock(1))],
    }
    if best:
        metrics = [objects.metric("loss", "2.75", "2.5", "4")]
        parameters = [{"name": "rank", "value": "8"}]
        status["currentOptimalTrial"] = {
            "bestTrialName": best,
            "parameterAssignments": parameters,
            "observation": {"metrics": metrics},
        }
    return status


def succeeded(best: str = "t-1", count: int = 2) -> dict[str, Any]:
    """The status of an Experiment that has succeeded."""
    message = "Experiment has succeeded because max trial count has reached"
    end = objects.condition("Succeeded", "ExperimentMaxTrialsReached", message, objects.clock(125))
    return {**counts(count, best=best), "conditions": [end]}


def failed(trials: Sequence[str] = ()) -> dict[str, Any]:
    """The status of an Experiment that has failed."""
    message = "Experiment has failed because max failed count has reached"
    end = objects.condition("Failed", "ExperimentMaxFailedTrialsReached", message, objects.clock(125))
    return {**counts(0, trials), "conditions": [end]}


@dataclass
class FakeKatib:
    """See the module.

    Attributes:
        script: the watches.
        namespace: where it is.
        experiments: what there is, by name.
        logs: trial -> what its container printed; a trial that is missing has no pod.
        said: message of the Suggestion's condition ``Failed``; "" for none.
        node_goes: what :meth:`moved` answers.
        create_fails: raised by the next calls of :meth:`create`, after the object was made.
        asked: every call, in order, as (verb, name or version).
        watch_lasts: seconds of the clock that a watch takes.
        now: the clock.
    """

    script: list[list[Step]] = field(default_factory=list)
    namespace: str = "rankwise"
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    trials: list[Object] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    said: str = ""
    node_goes: bool = False
    create_fails: list[BaseException] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    watch_lasts: float = 300.0
    now: float = 0.0
    slept: list[float] = field(default_factory=list)
    _version: int = 100
    _uids: int = 0

    # -- the clock of the launcher under test

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    # -- what others do

    def put(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object, as the server does."""
        self._uids += 1
        made = copy.deepcopy(dict(document))
        made["metadata"] |= {"uid": f"uid-{self._uids}", "resourceVersion": self._next()}
        made.setdefault("status", {})
        self.experiments[made["metadata"]["name"]] = made
        return made

    def change(self, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """Change an Experiment's status."""
        found = self.experiments[name]
        found["status"] = {**found["status"], **copy.deepcopy(dict(status))}
        found["metadata"]["resourceVersion"] = self._next()
        return found

    def _next(self) -> str:
        self._version += 1
        return str(self._version)

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.asked]

    # -- KatibApi

    def create(self, document: Mapping[str, Any]) -> Object:
        name = document["metadata"]["name"]
        self.asked.append(("create", name))
        if name in self.experiments:
            raise AlreadyThere(name)
        made = self.put(document)
        if self.create_fails:
            raise self.create_fails.pop(0)
        return copy.deepcopy(made)

    def get(self, name: str) -> Object:
        self.asked.append(("get", name))
        if name not in self.experiments:
            raise Missing(name)
        return copy.deepcopy(self.experiments[name])

    def watch(self, name: str, version: str, seconds: float) -> Iterator[Event]:
        self.asked.append(("watch", version))
        begun = self.now
        assert self.script, "the launcher watches once more than the test expects"
        for step in self.script.pop(0):
            if isinstance(step, BaseException):
                raise step
            if callable(step):
                step(self)
            elif step == BOOKMARK:
                yield Event("BOOKMARK", {"metadata": {"resourceVersion": self._next()}})
            elif step == DELETED:
                yield Event("DELETED", copy.deepcopy(self.experiments.pop(name)))
            else:
                assert isinstance(step, Mapping)
                yield Event("MODIFIED", copy.deepcopy(self.change(name, step)))
        self.now = max(self.now, begun + min(seconds, self.watch_lasts))

    def delete(self, name: str, uid: str) -> None:
        self.asked.append(("delete", name))
        found = self.experiments.get(name)
        if found is not None and found["metadata"]["uid"] == uid:
            del self.experiments[name]

    def suggestion(self, name: str) -> Object:
        self.asked.append(("suggestion", name))
        if not self.said:
            return {}
        return {"status": {"conditions": [objects.condition("Failed", "Refused", self.said, objects.clock(3))]}}

    def trial_log(self, experiment: str, trial: str, container: str, lines: int) -> str:
        self.asked.append(("log", trial))
        return "\n".join(self.logs.get(trial, "").splitlines()[-lines:])

    def snapshot(self, name: str) -> Snapshot:
        self.asked.append(("snapshot", name))
        return read_cluster(_Reader(self), self.namespace, name)  # type: ignore[arg-type]

    def moved(self) -> bool:
        return self.node_goes


class _Reader:
    """The part of KatibObjects that a snapshot reads."""

    def __init__(self, fake: FakeKatib) -> None:
        self._fake = fake

    def get(self, plural: str, name: str) -> Object:
        if plural == "experiments":
            return self._fake.experiments[name]
        raise Missing(name)

    def trials(self, experiment: str) -> list[Object]:
        return list(self._fake.trials)
