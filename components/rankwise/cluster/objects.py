"""Katib's objects in one namespace of a cluster, read only.

A report needs ``get`` on experiments and suggestions and ``list`` on trials of ``kubeflow.org``, in the Experiment's
namespace alone. ``list`` on experiments is asked for only to say what there is when a name is not found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3.exceptions
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from rankwise.errors import RankwiseError, SurroundingsError
from rankwise.retry import Backoff, call

GROUP, VERSION = "kubeflow.org", "v1beta1"
EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"
"""Katib's label on trials: the name of their Experiment."""
PAGE = 250
"""Objects a request for a list: a trial holds its whole pod template, some 10 KB."""

_TIMEOUT = (5.0, 30.0)  # seconds to connect, and between two bytes
_RESTARTS = 3  # of a list whose continue token the server has forgotten

Object = Mapping[str, Any]
T = TypeVar("T")


class Missing(RankwiseError):
    """The server knows the kind, but there is no object of that name."""


class Forbidden(SurroundingsError):
    """A right is missing; the message names verb and resource."""


class KatibObjects:
    """Experiments, suggestions and trials of one namespace.

    Args:
        api: a configured client.
        namespace: the namespace.
        backoff: retries of 429 and 5xx answers, broken connections and timeouts. The default waits 4 to 8 seconds in
            all.
    """

    def __init__(self, api: client.ApiClient, namespace: str, backoff: Backoff | None = None) -> None:
        self._api = client.CustomObjectsApi(api)
        self._namespace = namespace
        self._backoff = backoff or Backoff()

    @property
    def server(self) -> str:
        """Address of the API server, without what may be secret in it."""
        parts = urlsplit(self._api.api_client.configuration.host)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def get(self, plural: str, name: str) -> Object:
        """One object.

        Raises:
            Missing: there is none of that name.
            Forbidden: the right is missing.
            SurroundingsError: the server failed after bounded retries, or does not know Katib.
        """
        found = self._call(
            "get",
            plural,
            lambda: self._api.get_namespaced_custom_object(
                GROUP, VERSION, self._namespace, plural, name, _request_timeout=_TIMEOUT
            ),
        )
        return _mapping(found, f"{plural} {name!r}")

    def trials(self, experiment: str) -> list[Object]:
        """All trials with the Experiment's label, each once, in the server's order.

        Raises:
            Forbidden, SurroundingsError: as :meth:`get`.
        """
        return self._list("trials", f"{EXPERIMENT_LABEL}={experiment}")

    def experiment_names(self) -> list[str]:
        """Names of the namespace's Experiments, sorted.

        Raises:
            Forbidden, SurroundingsError: as :meth:`get`.
        """
        return sorted(str(item["metadata"]["name"]) for item in self._list("experiments", ""))

    def _list(self, plural: str, selector: str) -> list[Object]:
        for _ in range(_RESTARTS):
            try:
                # By name, since an object that changes between two pages may stand on both.
                return list({str(item["metadata"]["name"]): item for item in self._pages(plural, selector)}.values())
            except _Expired:
                continue
        raise SurroundingsError(f"the list of {plural} changed faster than {self.server} could give it out; try again")

    def _pages(self, plural: str, selector: str) -> Iterator[Object]:
        token = ""
        while True:
            options = {"label_selector": selector} if selector else {}
            if token:
                options["_continue"] = token

            def page(options: dict[str, str] = options) -> Any:
                return self._api.list_namespaced_custom_object(
                    GROUP, VERSION, self._namespace, plural, limit=PAGE, _request_timeout=_TIMEOUT, **options
                )

            answer = _mapping(self._call("list", plural, page), f"the list of {plural}")
            yield from answer.get("items") or ()
            token = (answer.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    def _call(self, verb: str, plural: str, work: Callable[[], T]) -> T:
        try:
            return call(work, is_temporary=_is_temporary, backoff=self._backoff)
        except ApiException as error:
            raise self._explained(error, verb, plural) from None
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            # ValueError: an answer that is no JSON, as a proxy in between gives.
            raise SurroundingsError(f"the API server {self.server} gave no answer: {_short(error)}") from None

    def _explained(self, error: Any, verb: str, plural: str) -> Exception:
        where = f"namespace {self._namespace}"
        if error.status == 403:
            return Forbidden(
                f"not allowed to {verb} {plural}.{GROUP} in {where}: a Role of that namespace has to grant the verb"
                f" {verb!r} on resource {plural!r} of API group {GROUP!r}"
            )
        if error.status == 401:
            return SurroundingsError(f"{self.server} refused the credentials (401): log in again, or give --context")
        if error.status == 410:
            return _Expired()
        if error.status == 404:
            if _details(error).get("name"):
                return Missing()
            return SurroundingsError(f"{self.server} knows no {plural}.{GROUP}/{VERSION}: Katib is not installed there")
        if not error.status:
            # The client's word for a failed TLS handshake.
            return SurroundingsError(f"no secure connection to {self.server}: {_short(error.reason)}")
        tries = f" after {self._backoff.attempts} attempts" if _is_temporary(error) else ""
        return SurroundingsError(f"{self.server} answered {error.status} ({error.reason}) to {verb} {plural}{tries}")


class _Expired(Exception):
    """The server has forgotten where a list was continued."""


def _is_temporary(error: Exception) -> bool:
    if isinstance(error, ApiException):
        return error.status in (408, 429) or (error.status or 0) >= 500
    return isinstance(error, urllib3.exceptions.HTTPError) and not isinstance(error, urllib3.exceptions.SSLError)


def _details(error: Any) -> Mapping[str, Any]:
    """``details`` of the server's Status object; empty where the answer is another one."""
    try:
        details = json.loads(error.body).get("details")
    except (ValueError, TypeError, AttributeError):
        return {}
    return details if isinstance(details, dict) else {}


def _short(error: object) -> str:
    return " ".join(str(error).split())[:200]


def _mapping(value: object, what: str) -> Object:
    if not isinstance(value, dict):
        raise SurroundingsError(f"the API server's answer to {what} is no object")
    return value
