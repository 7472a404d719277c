"""A small Kubernetes API server over real HTTP: objects by path, lists, resourceVersion, merge patches, 409, faults."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

TOKEN = "token-4fd1c9e0"
"""What a client has to send; it must never appear in a message."""


@dataclass
class Seen:
    """A request that arrived."""

    method: str
    path: str
    content_type: str
    body: Any
    query: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeKubernetes:
    """The server.

    Attributes:
        objects: what it holds, by path.
        seen: every request, in order.
        faults: status codes that the next requests are answered with, instead of being done.
        kinds: paths of lists over all namespaces (/apis/GROUP/VERSION/PLURAL) that it knows.
        forbidden: paths that are answered with 403.
        expiring: how many of the next continue tokens it has forgotten (410).
        anonymous: whether requests without a token are answered (Go's client sends none without TLS).
        before_patch: called before each patch is looked at: a writer who is faster.
    """

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    forbidden: set[str] = field(default_factory=set)
    expiring: int = 0
    anonymous: bool = False
    before_patch: Callable[[FakeKubernetes], None] | None = None
    address: str = ""
    _version: int = 1000
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, path: str, content: dict[str, Any]) -> None:
        """Create or replace an object, as somebody else would."""
        self._version += 1
        metadata = {**content.get("metadata", {}), "resourceVersion": str(self._version)}
        self.objects[path] = {**content, "metadata": metadata}

    def put_config_map(self, namespace: str, name: str, data: dict[str, str], **more: Any) -> str:
        """Create or replace a ConfigMap; return its path."""
        path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
        metadata = {"name": name, "namespace": namespace, "labels": {"kept": "yes"}}
        self.put(path, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data, **more})
        return path

    def put_namespace(self, name: str, labels: dict[str, str] | None = None) -> str:
        """Create or replace a Namespace; return its path."""
        path = f"/api/v1/namespaces/{name}"
        self.put(path, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}})
        return path

    def put_experiment(self, namespace: str, name: str, algorithm: str) -> str:
        """Create or replace an Experiment of Katib; return its path."""
        group = "/apis/kubeflow.org/v1beta1"
        self.kinds.add(f"{group}/experiments")
        path = f"{group}/namespaces/{namespace}/experiments/{name}"
        spec = {"algorithm": {"algorithmName": algorithm}}
        self.put(path, {"kind": "Experiment", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
        return path

    @property
    def writes(self) -> list[Seen]:
        """The requests that ask for a change."""
        return [request for request in self.seen if request.method != "GET"]

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig for this server."""
        path = folder / "kubeconfig"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.address}}],
            "users": [{"name": "fake", "user": {"token": TOKEN}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        }
        path.write_text(json.dumps(content))
        return path

    def answer(self, method: str, path: str, content_type: str, body: Any, token: str) -> tuple[int, dict[str, Any]]:
        """Handle one request."""
        path, _, query_text = path.partition("?")
        query = {key: values[-1] for key, values in parse_qs(query_text).items()}
        with self._lock:
            self.seen.append(Seen(method, path, content_type, body, query))
            if self.faults:
                # Like some proxies, repeat what was sent: nothing of it may reach a message.
                return self.faults.pop(0), {"kind": "Status", "message": f"sent {token}"}
            if token != f"Bearer {TOKEN}" and not self.anonymous:
                return 401, {"kind": "Status", "message": f"sent {token}"}
            if path in self.forbidden:
                return 403, {"kind": "Status", "reason": "Forbidden", "message": f"sent {token}"}
            if method == "GET" and path in self.kinds:
                return self._page(path, query)
            if method == "PATCH" and self.before_patch is not None:
                self.before_patch(self)
            found = self.objects.get(path)
            if found is None:
                return 404, {"kind": "Status", "reason": "NotFound"}
            if method == "GET":
                return 200, found
            if method != "PATCH" or content_type != "application/merge-patch+json":
                return 415, {"kind": "Status", "reason": "UnsupportedMediaType"}
            version = body.get("metadata", {}).get("resourceVersion")
            if version is not None and version != found["metadata"]["resourceVersion"]:
                return 409, {"kind": "Status", "reason": "Conflict"}
            self.put(path, _merged(found, body))
            return 200, self.objects[path]

    def _page(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Part of a list over all namespaces, in the order of paths; the token is the last path that was given."""
        after = query.get("continue", "")
        if after and self.expiring:
            self.expiring -= 1
            return 410, {"kind": "Status", "reason": "Expired"}
        group, _, plural = path.rpartition("/")
        listed = [
            key
            for key in sorted(self.objects)
            if key.startswith(f"{group}/namespaces/") and key.split("/")[-2] == plural and key > after
        ]
        given = listed[: int(query.get("limit", len(listed)))]
        more = {"continue": given[-1]} if len(given) < len(listed) else {}
        return 200, {"kind": "List", "metadata": more, "items": [self.objects[key] for key in given]}


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


@contextlib.contextmanager
def fake_kubernetes() -> Iterator[FakeKubernetes]:
    """A running server on loopback."""
    fake = FakeKubernetes()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.loads(raw) if raw else None
            content_type = self.headers.get("Content-Type", "")
            status, answer = fake.answer(
                self.command, self.path, content_type, body, self.headers.get("Authorization", "")
            )
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PATCH = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 - the names of http.server

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
