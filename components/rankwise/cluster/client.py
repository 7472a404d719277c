"""One way to a cluster: which credentials are used, how calls are retried, how failures are said.

Answers are plain JSON objects, not the client's classes: an object that is read and written back keeps fields that
this version of the client has never heard of. No message carries a body, a header or a line of a kubeconfig: any of
them may hold a secret.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from rankwise.errors import InvalidInput, Problem, RankwiseError, SurroundingsError
from rankwise.retry import Backoff, call

MERGE_PATCH = "application/merge-patch+json"
_TIMEOUT = (5.0, 30.0)
"""Seconds to connect and seconds to wait for an answer."""
_PATIENCE = Backoff(attempts=5)
"""4 to 8 seconds in all: outlasts a leader change of the API server, and a Job retries beyond that."""
_PAGE = 100
"""Objects a request for a list: an Experiment holds the pod template of its trials, some 10 KB."""


class NotThere(RankwiseError):
    """The API server knows no such object (404)."""


class Conflict(RankwiseError):
    """The object was changed by someone else since it was read (409)."""


class Forbidden(SurroundingsError):
    """The account lacks a right (403)."""


class Expired(SurroundingsError):
    """The API server has forgotten where a list was to go on (410); it has to be read from its start."""


class Cluster:
    """Calls to one API server, with bounded retries of what may go away by itself.

    Args:
        api: a configured client.
        backoff: retries of 429, 5xx, timeouts and broken connections.
    """

    def __init__(self, api: client.ApiClient, backoff: Backoff = _PATIENCE) -> None:
        self._api = api
        self._backoff = backoff

    @property
    def host(self) -> str:
        """The API server's address, without anything that a proxy's address may carry."""
        return str(self._api.configuration.host).rpartition("@")[2]

    def get(self, path: str) -> dict[str, Any]:
        """Read an object.

        Raises:
            NotThere: there is no such object.
            SurroundingsError: the server refused, or failed after bounded retries.
        """
        return self._request("GET", path)

    def items(self, path: str) -> Iterator[dict[str, Any]]:
        """Read the objects of a list, page by page; one that changes meanwhile may come twice.

        Raises:
            NotThere: the server knows no such kind.
            Forbidden: the account may not list it.
            Expired: reading took too long; what came so far may not be all.
            SurroundingsError: the server failed after bounded retries.
        """
        where: dict[str, str] = {}
        while True:
            page = self._request("GET", path, query={"limit": str(_PAGE), **where})
            yield from page.get("items") or ()
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            where = {"continue": str(token)}

    def patch(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Change an object by a JSON merge patch.

        With ``metadata.resourceVersion`` in the body the server refuses it when someone else was faster.

        Raises:
            NotThere: there is no such object.
            Conflict: its resourceVersion is another one by now.
            SurroundingsError: the server refused, or failed after bounded retries.
        """
        return self._request("PATCH", path, body)

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = MERGE_PATCH

        def ask() -> dict[str, Any]:
            answer: dict[str, Any] = self._api.call_api(
                path,
                method,
                query_params=dict(query or {}),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                response_type="object",
                _return_http_data_only=True,
                _request_timeout=_TIMEOUT,
            )
            return answer

        try:
            return call(ask, is_temporary=_is_temporary, backoff=self._backoff)
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            raise self._translated(method, path, error) from None  # the cause prints headers and body

    def _translated(self, method: str, path: str, error: Exception) -> RankwiseError:
        what = f"{method} {path} at {self.host}"
        if isinstance(error, ApiException):
            if error.status == 404:
                return NotThere(f"{what}: there is no such object")
            if error.status == 409:
                return Conflict(f"{what}: somebody else changed it meanwhile")
            if error.status == 410:
                return Expired(f"{what}: the list changed faster than it could be read; do it again")
            if error.status in (401, 403):
                kind = Forbidden if error.status == 403 else SurroundingsError
                return kind(
                    f"{what}: refused (HTTP {error.status}); the account that is used needs the right to do this "
                    f"(`kubectl auth can-i` tells)"
                )
            # The client's way to say that TLS failed: status 0.
            reason = f"HTTP {error.status}" if error.status else "TLS: not the certificate that was expected, or none"
        else:
            reason = type(error).__name__
        times = f"failed {self._backoff.attempts} times" if _is_temporary(error) else "failed"
        # A request whose answer got lost may have been done.
        after = "nothing was changed" if method == "GET" else "whether it was done is not known; do it again"
        return SurroundingsError(f"{what}: {times} ({reason}); {after}")


def _is_temporary(error: Exception) -> bool:
    if isinstance(error, ApiException):
        return error.status in (408, 429) or (error.status or 0) >= 500
    if isinstance(error, urllib3.exceptions.SSLError | urllib3.exceptions.LocationParseError):
        return False
    return isinstance(error, urllib3.exceptions.HTTPError)


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose a cluster."""
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="credentials (default: $KUBECONFIG, else the pod's own account, else ~/.kube/config)",
    )
    parser.add_argument("--context", metavar="NAME", help="context of the kubeconfig (default: its current one)")


def connect(
    kubeconfig: Path | None = None, context: str | None = None, environment: Mapping[str, str] | None = None
) -> Cluster:
    """Make a client. Nothing is asked of the cluster yet.

    Args:
        kubeconfig: a kubeconfig; None for the usual places.
        context: one of its contexts; None for the current one.
        environment: variables; ``os.environ`` when None.

    Raises:
        InvalidInput: there are no credentials, or they cannot be used.
    """
    return Cluster(api_client(kubeconfig, context, environment))


def api_client(
    kubeconfig: Path | None = None, context: str | None = None, environment: Mapping[str, str] | None = None
) -> client.ApiClient:
    """A configured client of the Kubernetes package; see :func:`connect`."""
    env = os.environ if environment is None else environment
    settings = client.Configuration()
    # The client's own retries would multiply with ours.
    settings.retries = False
    named = str(kubeconfig) if kubeconfig else env.get("KUBECONFIG", "")
    try:
        if not named and context is None and env.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(named or None, context, client_configuration=settings, persist_config=False)
    # Whatever is wrong with a kubeconfig, its parser's message may quote a line with a token.
    except Exception as error:
        where = "--kubeconfig" if kubeconfig else "KUBECONFIG"
        wanted = "a kubeconfig that can be read" + (f" and has the context {context!r}" if context else "")
        raise InvalidInput([Problem(where, named or "~/.kube/config", f"{wanted} ({type(error).__name__})")]) from None
    return client.ApiClient(settings)
