"""The launcher's cluster: Katib's objects through the Kubernetes client."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import urllib3.exceptions
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException

from rankwise.cluster.facts import Snapshot, read_cluster
from rankwise.cluster.objects import EXPERIMENT_LABEL, GROUP, VERSION, Forbidden, KatibObjects, Missing, Object
from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.kfp.api import AlreadyThere, Event, Expired, WatchBroken
from rankwise.retry import Backoff, call

EXPERIMENTS = "experiments"
RIGHTS: Mapping[tuple[str, str], tuple[str, ...]] = {
    (GROUP, "experiments"): ("create", "delete", "get", "list", "watch"),
    (GROUP, "suggestions"): ("get",),
    (GROUP, "trials"): ("list",),
    ("", "pods"): ("get", "list"),
    ("", "pods/log"): ("get",),
}
"""(API group, resource) -> verbs that the launcher needs in its namespace; pipelines/rbac.yaml grants them."""

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_POD_VARIABLES = ("RANKWISE_POD", "KFP_POD_NAME", "HOSTNAME")
_TIMEOUT = (5.0, 30.0)  # seconds to connect, and between two bytes
_GRACE = 30.0  # seconds that a server may end a watch late
_LOG_BYTES = 16_384

T = TypeVar("T")


def own_namespace(environment: Mapping[str, str] | None = None, file: Path = NAMESPACE_FILE) -> str:
    """The namespace of the pod that this runs in.

    Raises:
        InvalidInput: this is no pod, and no variable ``NAMESPACE`` is set.
    """
    named = (os.environ if environment is None else environment).get("NAMESPACE", "").strip()
    if named:
        return named
    with contextlib.suppress(OSError):
        if text := file.read_text(encoding="utf-8").strip():
            return text
    raise InvalidInput([Problem("namespace", "", "the name of a namespace: outside of a pod it has to be given")])


class KubernetesKatib:
    """Implements :class:`rankwise.kfp.api.KatibApi`.

    Args:
        api: a configured client.
        namespace: where the Experiments are.
        backoff: retries of 429 and 5xx answers, broken connections and timeouts; the default waits 15 to 30 s in all,
            which outlasts an API server's restart.
        environment: names the pod that this runs in; ``os.environ`` when None.
    """

    def __init__(
        self,
        api: client.ApiClient,
        namespace: str,
        backoff: Backoff | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._backoff = backoff or Backoff(attempts=8, first=0.5, longest=8.0)
        self._objects = KatibObjects(api, namespace, self._backoff)
        self._custom = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._namespace = namespace
        self._environment = os.environ if environment is None else environment

    @property
    def namespace(self) -> str:
        return self._namespace

    def create(self, document: Mapping[str, Any]) -> Object:
        """See :class:`rankwise.kfp.api.KatibApi`."""
        try:
            made = self._call(
                lambda: self._custom.create_namespaced_custom_object(
                    GROUP, VERSION, self._namespace, EXPERIMENTS, dict(document), _request_timeout=_TIMEOUT
                )
            )
        except ApiException as error:
            if error.status == 409:
                raise AlreadyThere(f"an Experiment of that name exists in namespace {self._namespace}") from None
            if error.status in (400, 422) or "admission webhook" in _message(error):
                raise InvalidInput([Problem("experiment", _message(error), "what Katib takes")]) from None
            raise self._failed(error, "create", "experiments") from None
        return _object(made)

    def get(self, name: str) -> Object:
        """See :class:`rankwise.kfp.api.KatibApi`."""
        return self._objects.get(EXPERIMENTS, name)

    def watch(self, name: str, version: str, seconds: float) -> Iterator[Event]:
        """See :class:`rankwise.kfp.api.KatibApi`."""
        whole = max(1, round(seconds))
        try:
            for event in watch.Watch().stream(
                self._custom.list_namespaced_custom_object,
                GROUP,
                VERSION,
                self._namespace,
                EXPERIMENTS,
                field_selector=f"metadata.name={name}",
                resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=whole,
                _request_timeout=(_TIMEOUT[0], whole + _GRACE),
            ):
                yield Event(str(event["type"]), _object(event["raw_object"]))
        except ApiException as error:
            if error.status == 410:
                raise Expired(f"version {version} of Experiment {name} is forgotten") from None
            if _is_temporary(error):
                raise WatchBroken(f"the API server answered {error.status}") from None
            raise self._failed(error, "watch", "experiments") from None
        except (urllib3.exceptions.HTTPError, ValueError, KeyError) as error:
            # ValueError, KeyError: a line that was cut off, or is no event.
            raise WatchBroken(f"the connection broke ({type(error).__name__})") from None

    def delete(self, name: str, uid: str) -> None:
        """See :class:`rankwise.kfp.api.KatibApi`."""
        options = client.V1DeleteOptions(
            preconditions=client.V1Preconditions(uid=uid or None), propagation_policy="Background"
        )
        try:
            self._call(
                lambda: self._custom.delete_namespaced_custom_object(
                    GROUP, VERSION, self._namespace, EXPERIMENTS, name, body=options, _request_timeout=_TIMEOUT
                )
            )
        except ApiException as error:
            # 409: the uid is another one's.
            if error.status not in (404, 409):
                raise self._failed(error, "delete", "experiments") from None

    def suggestion(self, name: str) -> Object:
        """See :class:`rankwise.kfp.api.KatibApi`."""
        try:
            return self._objects.get("suggestions", name)
        except (Missing, SurroundingsError):
            return {}

    def trial_log(self, experiment: str, trial: str, container: str, lines: int) -> str:
        """See :class:`rankwise.kfp.api.KatibApi`."""
        try:
            pods = self._core.list_namespaced_pod(
                self._namespace, label_selector=f"{EXPERIMENT_LABEL}={experiment}", _request_timeout=_TIMEOUT
            ).items
            own = [pod.metadata for pod in pods if str(pod.metadata.name).startswith(f"{trial}-")]
            if not own or lines == 0:
                return ""
            newest = max(own, key=lambda metadata: (metadata.creation_timestamp, metadata.name))
            return str(
                self._core.read_namespaced_pod_log(
                    newest.name,
                    self._namespace,
                    container=container,
                    tail_lines=lines,
                    limit_bytes=_LOG_BYTES,
                    _request_timeout=_TIMEOUT,
                )
                or ""
            ).strip()
        except (ApiException, urllib3.exceptions.HTTPError, ValueError):
            # The log is a help, and a pod may go at any moment: nothing fails for want of it.
            return ""

    def snapshot(self, name: str) -> Snapshot:
        """See :class:`rankwise.kfp.api.KatibApi`."""
        return read_cluster(self._objects, self._namespace, name)

    def moved(self) -> bool:
        """See :class:`rankwise.kfp.api.KatibApi`: the own pod is being deleted, or has ``DisruptionTarget``.

        A run that is cancelled ends the pod's processes; its pod is not deleted.
        """
        pod = next((name for key in _POD_VARIABLES if (name := self._environment.get(key))), "")
        if not pod:
            return False
        try:
            found = self._core.read_namespaced_pod(pod, self._pod_namespace(), _request_timeout=_TIMEOUT)
        except (ApiException, urllib3.exceptions.HTTPError, ValueError):
            return False
        return found.metadata.deletion_timestamp is not None or any(
            condition.type == "DisruptionTarget" and condition.status == "True"
            for condition in found.status.conditions or ()
        )

    def _pod_namespace(self) -> str:
        try:
            return own_namespace(self._environment)
        except InvalidInput:
            return self._namespace

    def _call(self, work: Callable[[], T]) -> T:
        try:
            return call(work, is_temporary=_is_temporary, backoff=self._backoff)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise SurroundingsError(
                f"the API server {self._objects.server} gave no answer ({type(error).__name__})"
            ) from None

    def _failed(self, error: Any, verb: str, plural: str) -> SurroundingsError:
        if error.status == 403:
            return Forbidden(
                f"not allowed to {verb} {plural}.{GROUP} in namespace {self._namespace}: the step's account needs the "
                f"Role of pipelines/rbac.yaml ({_message(error)})"
            )
        return SurroundingsError(
            f"{self._objects.server} answered {error.status} to {verb} {plural}: {_message(error)}"
        )


def _is_temporary(error: Exception) -> bool:
    if isinstance(error, ApiException):
        return error.status in (408, 429) or (error.status or 0) >= 500
    return isinstance(error, urllib3.exceptions.HTTPError) and not isinstance(error, urllib3.exceptions.SSLError)


def _message(error: Any) -> str:
    """The server's own words, in one line."""
    try:
        said = str(json.loads(error.body)["message"])
    except (ValueError, TypeError, KeyError):
        said = str(error.reason or "")
    return " ".join(said.split())[:2000]


def _object(value: object) -> Object:
    if not isinstance(value, dict):
        raise SurroundingsError("the API server's answer is no object")
    return value
