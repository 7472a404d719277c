"""A model hub on loopback that serves one repository from a folder, or errors."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Answers what ``huggingface_hub.snapshot_download`` asks for ``owner/name``.

    Args:
        files: path -> content of the repository.
        errors: (status, X-Error-Code or None) to answer with first, one for each request.
    """

    def __init__(self, files: dict[str, bytes], errors: list[tuple[int, str | None]] | None = None) -> None:
        self.files = files
        self.errors = errors or []
        self.requests: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                fake.requests.append(path)
                if fake.errors:
                    status, code = fake.errors.pop(0)
                    self.reply(status, b"{}", {"X-Error-Code": code} if code else {})
                    return
                self.reply(*fake.answer(path))

            do_HEAD = do_GET  # noqa: N815 - the names of http.server

            def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        as_json = {"Content-Type": "application/json"}
        if path in ("/api/models/owner/name", "/api/models/owner/name/revision/main"):
            siblings = [{"rfilename": file} for file in self.files]
            info = {"id": "owner/name", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            return 200, json.dumps(info).encode(), as_json
        if path == f"/api/models/owner/name/tree/{COMMIT}":
            entries = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in self.files.items()
            ]
            return 200, json.dumps(entries).encode(), as_json
        if path.startswith("/api/models/owner/name/revision/"):
            return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
        file = path.removeprefix(f"/owner/name/resolve/{COMMIT}/")
        if file in self.files:
            etag = hashlib.sha1(self.files[file]).hexdigest()
            return 200, self.files[file], {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        return 404, b"{}", {"X-Error-Code": "RepoNotFound"}

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeHub]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
