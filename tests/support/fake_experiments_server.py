"""A fake API server for what the launcher's client says: creating, watching and deleting Experiments, pods, logs.

It answers from a table and streams watches from a script; it checks nothing that a real server checks.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

CUT = "cut"
"""In a watch's script: half a line, then the connection is closed."""


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    body: Any


@dataclass
class FakeExperimentsServer:
    """The server.

    Attributes:
        answers: (method, path) -> answers in turn, the last one for ever: status code and body; a text is sent as it
            is, anything else as JSON.
        watches: scripts of watches in turn: events, or :data:`CUT`.
        asked: every request.
    """

    answers: dict[tuple[str, str], list[tuple[int, Any]]] = field(default_factory=dict)
    watches: list[list[Any]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        given = self.answers.get((method, path), [(404, {"kind": "Status", "code": 404, "details": {"name": "x"}})])
        return given.pop(0) if len(given) > 1 else given[0]


@contextmanager
def serving(fake: FakeExperimentsServer) -> Iterator[FakeExperimentsServer]:
    """Serve it on a port of the loopback interface."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fake.asked.append(Asked(self.command, parts.path, query, json.loads(raw) if raw else None))
            if query.get("watch") and fake.watches:
                self.stream(fake.watches.pop(0))
                return
            code, body = fake.answer(self.command, parts.path)
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def stream(self, script: list[Any]) -> None:
            """In chunks, one a line, as a real server does; a connection that breaks lacks the last, empty one."""
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in script:
                data = b'{"type": "MODI' if event == CUT else (json.dumps(event) + "\n").encode()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()
            if CUT not in script:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - the names of http.server

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
