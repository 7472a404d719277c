"""The Katib launcher: makes an Experiment, waits for its end, and can be killed at any moment.

An attempt that was killed is repeated by the pipeline; the next one finds the Experiment by its name, which follows
from the run's id, and goes on waiting. So two attempts never make two searches.

::

    create, or find the one of this run ──> watch from its version ──> Succeeded: snapshot of all trials
                                              │  ▲                 ──> Failed: ExperimentFailed, with the reasons
               ended by the server, broken:   │  │
               from the last version; 410:    └──┘                 SIGTERM, or too late: the Experiment is deleted,
               read anew, then on from there                       unless the pod only moves to another node
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rankwise.cluster.experiment import items, mapping
from rankwise.cluster.facts import Snapshot
from rankwise.cluster.objects import Missing, Object
from rankwise.errors import InvalidInput, Problem, RankwiseError, SurroundingsError
from rankwise.kfp.api import AlreadyThere, Expired, KatibApi, WatchBroken
from rankwise.kfp.cancellation import Cancelled
from rankwise.kfp.progress import ended, progress_line
from rankwise.retry import Backoff

log = logging.getLogger(__name__)

RUN_LABEL = "rankwise.dev/run"
"""On an Experiment: the run that made it. An annotation would be refused by ``rankwise validate``."""
SPEC_LABEL = "rankwise.dev/spec"
"""On an Experiment: hash of the spec that was asked for. Katib's webhook fills in defaults, so that the spec itself
cannot be compared."""

_TRIAL_SUFFIX = 9  # "-" and 8 characters, which Katib appends to name a trial
_LONGEST = 63  # characters of a label and of a DNS name
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_HASH = 10
_SOON = 1.0
"""Seconds. A watch that ends sooner without an event counts as broken: reconnecting at once would be a busy loop."""
_LOOKS = 3
"""How often a cancelled launcher looks for an Experiment whose creation it was interrupted in."""


class ExperimentFailed(RankwiseError):
    """The Experiment ended without success, or without a best trial. The message says why."""


class Deleted(ExperimentFailed):
    """Somebody deleted the Experiment while it was waited for."""


class TooLate(RankwiseError):
    """The Experiment did not end in the time that it was given."""


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """How a launcher behaves.

    Attributes:
        timeout: seconds from the Experiment's creation to its end, the same for all attempts; None waits for as long as
            it takes.
        watch_seconds: length of one watch. Without news for so long, the log says so.
        backoff: waits between reconnections that fail one after the other; 10 of them outlast four minutes or more.
        delete_on_cancel: whether an Experiment is deleted when its run is cancelled or out of time. Its trials would
            go on using GPUs otherwise. What they stored stays.
        log_lines: lines of a failed trial's log that a failure repeats.
    """

    timeout: float | None = None
    watch_seconds: float = 300.0
    backoff: Backoff = field(default_factory=lambda: Backoff(attempts=11, first=1.0, longest=60.0))
    delete_on_cancel: bool = True
    log_lines: int = 30

    def __post_init__(self) -> None:
        if self.watch_seconds <= 0 or (self.timeout is not None and self.timeout <= 0) or self.log_lines < 0:
            raise ValueError(f"times must be positive and lines not negative, got {self!r}")


@dataclass(frozen=True, slots=True)
class Launched:
    """An Experiment that succeeded.

    Attributes:
        name, namespace, uid: which one.
        resumed: whether an earlier attempt had made it.
        snapshot: it and its trials, as they were at the end.
    """

    name: str
    namespace: str
    uid: str
    resumed: bool
    snapshot: Snapshot


def experiment_name(base: str, run: str, algorithm: str) -> str:
    """The name of a run's Experiment: the same for every attempt, another one for every run.

    Args:
        base: name in the Experiment's file.
        run: id of the run.
        algorithm: Katib calls the search's Deployment ``<experiment>-<algorithm>``.

    Returns:
        ``<base, cut>-<10 hex digits>``, short enough for Katib's names of trials and Deployments (63 characters).

    Raises:
        InvalidInput: the run has no id, or the algorithm's name leaves no room.
    """
    if not run.strip():
        raise InvalidInput([Problem("run", run, "the id of the run, a text that is not empty")])
    longest = min(_LONGEST - _TRIAL_SUFFIX, _LONGEST - 1 - len(algorithm))
    room = longest - 1 - _HASH
    if room < 1:
        allowed = f"a name of at most {_LONGEST - 3 - _HASH} characters"
        raise InvalidInput([Problem("spec.algorithm.algorithmName", algorithm, allowed)])
    digest = hashlib.sha256(f"{base}\0{run}".encode()).hexdigest()[:_HASH]
    return f"{base[:room].rstrip('-')}-{digest}"


def _label(text: str) -> str:
    return text if _LABEL_VALUE.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:40]


def _spec_hash(spec: object) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:40]


class KatibLauncher:
    """Launches Experiments in one namespace.

    Args:
        api: the cluster.
        options: see :class:`LaunchOptions`.
        clock: monotonic seconds (tests pass their own).
        sleep: waits the given seconds.
        now: seconds since 1970, to tell an Experiment's age.
    """

    def __init__(
        self,
        api: KatibApi,
        options: LaunchOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._options = options or LaunchOptions()
        self._clock = clock
        self._sleep = sleep
        self._now = now

    def launch(self, document: Mapping[str, Any], run: str) -> Launched:
        """Make an Experiment, or find the one that an earlier attempt of the run made, and wait for its end.

        Args:
            document: the Experiment. Its ``metadata.name`` becomes the beginning of :func:`experiment_name`; its
                namespace becomes the launcher's.
            run: id of the run, the same in every attempt.

        Raises:
            InvalidInput: the server refused it, or another Experiment has its name.
            ExperimentFailed: it ended without success; :class:`Deleted`: somebody deleted it.
            TooLate: it did not end in time.
            SurroundingsError: a right is missing, or the server failed after bounded retries; the Experiment goes on.
            Cancelled: the run was cancelled.
        """
        end = None if self._options.timeout is None else self._clock() + self._options.timeout
        wanted = self._wanted(document, run)
        name = str(wanted["metadata"]["name"])
        try:
            begun, resumed = self._ensure(wanted)
            if end is not None and resumed:
                end -= self._age(begun)
            uid = str(mapping(begun.get("metadata")).get("uid", ""))
            _Wait(self._api, self._options, name, uid, self._clock, self._sleep, end).run(begun)
        except (Cancelled, TooLate) as error:
            self._clean_up(name, str(wanted["metadata"]["labels"][RUN_LABEL]), error)
            raise
        log.info("the Experiment has succeeded", extra={"experiment": name, "namespace": self._api.namespace})
        return Launched(name, self._api.namespace, uid, resumed, self._api.snapshot(name))

    def stop(self, document: Mapping[str, Any], run: str) -> None:
        """Delete the Experiment of a run if it still runs; what has ended, and what others made, stays.

        Args:
            document, run: as they were launched.
        """
        metadata = self._wanted(document, run)["metadata"]
        self._clean_up(str(metadata["name"]), str(metadata["labels"][RUN_LABEL]), None)

    def _wanted(self, document: Mapping[str, Any], run: str) -> dict[str, Any]:
        metadata, spec = mapping(document.get("metadata")), mapping(document.get("spec"))
        algorithm = str(mapping(spec.get("algorithm")).get("algorithmName", ""))
        labels = {str(key): str(value) for key, value in mapping(metadata.get("labels")).items()}
        ours = {RUN_LABEL: _label(run), SPEC_LABEL: _spec_hash(spec)}
        name = experiment_name(str(metadata.get("name", "")), run, algorithm)
        kept = {key: metadata[key] for key in ("annotations",) if key in metadata}
        return {
            "apiVersion": document.get("apiVersion"),
            "kind": document.get("kind"),
            "metadata": {"name": name, "namespace": self._api.namespace, "labels": {**labels, **ours}, **kept},
            "spec": document.get("spec"),
        }

    def _ensure(self, wanted: Mapping[str, Any]) -> tuple[Object, bool]:
        """The Experiment, and whether it was there."""
        name = str(wanted["metadata"]["name"])
        facts = {"experiment": name, "namespace": self._api.namespace}
        try:
            found = self._api.get(name)
        except Missing:
            try:
                made = self._api.create(wanted)
            except AlreadyThere:
                # Another attempt was faster, or our own request was done although its answer got lost.
                try:
                    found = self._api.get(name)
                except Missing:
                    raise SurroundingsError(
                        f"Experiment {name} was deleted while it was being made; a retry makes it anew"
                    ) from None
            else:
                log.info("the Experiment is made", extra=facts)
                return made, False
        self._check_found(found, wanted)
        log.info("the Experiment of an earlier attempt is there; it goes on", extra=facts)
        return found, True

    def _check_found(self, found: Object, wanted: Mapping[str, Any]) -> None:
        metadata = mapping(found.get("metadata"))
        labels, ours = mapping(metadata.get("labels")), wanted["metadata"]["labels"]
        name = str(wanted["metadata"]["name"])
        if metadata.get("deletionTimestamp"):
            raise SurroundingsError(f"Experiment {name} is being deleted; when it is gone, a retry makes it anew")
        if labels.get(RUN_LABEL) != ours[RUN_LABEL]:
            allowed = "a name that no other run has; that Experiment carries no label of this run"
            raise InvalidInput([Problem("metadata.name", name, allowed)])
        if labels.get(SPEC_LABEL) != ours[SPEC_LABEL]:
            allowed = (
                "one spec for each name in a run: an Experiment with another spec has it. Two searches of one run "
                "need two names; to search anew with a changed spec, delete the Experiment"
            )
            raise InvalidInput([Problem("spec", name, allowed)])

    def _clean_up(self, name: str, run: str, why: BaseException | None) -> None:
        """Delete the Experiment of this run, where that is wanted. Never raises: ``why`` is what has to be told."""
        facts = {"experiment": name, "namespace": self._api.namespace}
        try:
            if isinstance(why, Cancelled) and self._api.moved():
                log.warning("this pod's node sends it away: the Experiment goes on, for the next attempt", extra=facts)
                return
            if not self._options.delete_on_cancel:
                log.warning("the Experiment is left running, as it was asked for", extra=facts)
                return
            found = self._look_for(name)
            metadata = mapping(found.get("metadata"))
            if mapping(metadata.get("labels")).get(RUN_LABEL) != run:
                return
            if ended(found):
                log.info("the Experiment had ended before; it stays", extra=facts)
                return
            self._api.delete(name, str(metadata.get("uid", "")))
            log.warning("the Experiment is deleted; what its trials stored stays", extra=facts)
        except Missing:
            log.info("no Experiment had been made", extra=facts)
        except RankwiseError as error:
            log.error("the Experiment could not be deleted and may still run: %s", error, extra=facts)

    def _age(self, found: Object) -> float:
        """Seconds since an Experiment was made; 0 where it does not say."""
        made = mapping(found.get("metadata")).get("creationTimestamp")
        if not made:
            return 0.0
        # The server's clock and ours may differ by seconds; the times that are given are hours.
        return max(0.0, self._now() - dt.datetime.fromisoformat(str(made)).timestamp())

    def _look_for(self, name: str) -> Object:
        for _ in range(_LOOKS - 1):
            try:
                return self._api.get(name)
            except Missing:
                self._sleep(_SOON)
        return self._api.get(name)


class _Wait:
    """Waiting for one Experiment's end."""

    def __init__(
        self,
        api: KatibApi,
        options: LaunchOptions,
        name: str,
        uid: str,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        end: float | None,
    ) -> None:
        self._api = api
        self._options = options
        self._name = name
        self._uid = uid
        self._clock = clock
        self._sleep = sleep
        self._end = end
        self._facts = {"experiment": name, "namespace": api.namespace}
        self._told = ""
        self._failed: list[str] = []
        self._log = ("", "")  # the last failed trial, and the end of its log
        self._waits = options.backoff.waits()
        self._current: Object = {}  # as the last event showed it

    def run(self, begun: Object) -> None:
        """Wait until the Experiment has succeeded.

        Raises:
            ExperimentFailed, TooLate, SurroundingsError: see :meth:`KatibLauncher.launch`.
        """
        self._news(begun)
        while (word := ended(self._current)) is None:
            try:
                self._watch()
            except Expired:
                log.info("the watch's place is forgotten: the Experiment is read anew", extra=self._facts)
                self._pause("its watch expired")
                self._news(self._read())
            except WatchBroken as error:
                log.warning("the watch broke: %s", error, extra=self._facts)
                self._pause(str(error))
        if word == "Failed":
            raise ExperimentFailed(self._why())
        if not mapping(mapping(self._current.get("status")).get("currentOptimalTrial")).get("bestTrialName"):
            raise ExperimentFailed(f"Experiment {self._name} succeeded, but no trial has a value of its objective")

    def _watch(self) -> None:
        """One watch, from the last version that is known."""
        begun, seconds = self._clock(), self._left()
        quiet = True
        version = str(mapping(self._current.get("metadata")).get("resourceVersion", ""))
        for event in self._api.watch(self._name, version, seconds):
            quiet = False
            self._waits = self._options.backoff.waits()
            if event.kind == "DELETED":
                raise Deleted(f"Experiment {self._name} was deleted while it ran")
            if event.kind == "BOOKMARK":
                self._current = _at_version(self._current, event.object)
            else:
                self._news(event.object)
            if ended(self._current) is not None:
                return
            self._left()
        if quiet and self._clock() - begun < min(_SOON, seconds):
            raise WatchBroken("the server ended it at once")
        if quiet:  # and it lasted: the server is well
            self._waits = self._options.backoff.waits()
            log.info("no news for %.0f s: %s", self._clock() - begun, self._told, extra=self._facts)

    def _left(self) -> float:
        """Seconds for the next watch.

        Raises:
            TooLate: there are none.
        """
        if self._end is None:
            return self._options.watch_seconds
        left = self._end - self._clock()
        if left <= 0:
            raise TooLate(
                f"Experiment {self._name} did not end within {self._options.timeout:g} s ({self._told or 'no news'})"
            )
        return min(left, self._options.watch_seconds)

    def _pause(self, why: str) -> None:
        wait = next(self._waits, None)
        if wait is None:
            raise SurroundingsError(
                f"the API server could not be followed any more ({why}); Experiment {self._name} goes on, and a retry "
                f"of this step goes on with it"
            )
        self._sleep(min(wait, self._left()))

    def _read(self) -> Object:
        try:
            return self._api.get(self._name)
        except Missing:
            raise Deleted(f"Experiment {self._name} was deleted while it ran") from None

    def _news(self, current: Object) -> None:
        """Tell what is new, and keep the log of a trial that failed while its pod is there."""
        uid = str(mapping(current.get("metadata")).get("uid", ""))
        if uid != self._uid:
            raise Deleted(f"Experiment {self._name} was deleted, and another one has its name")
        line = progress_line(current)
        if line != self._told:
            self._told = line
            log.info("%s", line, extra=self._facts)
        failed = [str(name) for name in mapping(current.get("status")).get("failedTrialList") or ()]
        for trial in [name for name in failed if name not in self._failed]:
            text = self._api.trial_log(self._name, trial, self._container(current), self._options.log_lines)
            log.warning("trial %s failed", trial, extra=self._facts)
            if text or not self._log[1]:
                self._log = (trial, text)
        self._failed = failed
        self._current = current

    def _container(self, current: Object) -> str:
        return str(mapping(mapping(current.get("spec")).get("trialTemplate")).get("primaryContainerName") or "")

    def _why(self) -> str:
        """Everything that is known of the failure, one thing a line."""
        lines = [f"Experiment {self._name} in namespace {self._api.namespace} failed."]
        for condition in items(mapping(self._current.get("status")).get("conditions")):
            if condition.get("status") == "True" and condition.get("type") not in ("Created", "Running"):
                said = (str(condition.get(key) or "") for key in ("type", "reason", "message"))
                lines.append("condition " + ": ".join(word for word in said if word))
        lines += [
            f"its Suggestion: {condition.get('message') or condition.get('reason') or 'failed'}"
            for condition in items(mapping(self._api.suggestion(self._name).get("status")).get("conditions"))
            if condition.get("type") == "Failed" and condition.get("status") == "True"
        ]
        trial, text = self._log
        if text:
            lines += [f"the last lines of trial {trial}, which failed:", *(f"  {line}" for line in text.splitlines())]
        elif trial:
            lines.append(
                f"the log of trial {trial}, which failed, is gone with its pod; trialTemplate.retain: true keeps pods"
            )
        lines.append(f"details: kubectl describe experiment,suggestion,trial -n {self._api.namespace}")
        return "\n".join(lines)


def _at_version(current: Object, bookmark: Object) -> Object:
    version = mapping(bookmark.get("metadata")).get("resourceVersion")
    return {**current, "metadata": {**mapping(current.get("metadata")), "resourceVersion": version}}
