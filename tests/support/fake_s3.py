"""An HTTP server that answers S3 requests from a script: for answers that a real server gives only when it is ill."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeS3:
    """Answers each request with the next of ``answers``; the last one again and again.

    Args:
        answers: (status, S3 error code or None for a plain body, body).
    """

    def __init__(self, answers: list[tuple[int, str | None, bytes]]) -> None:
        self.answers = answers
        self.requests: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fake.requests.append(f"{self.command} {self.path}")
                status, code, body = fake.answers.pop(0) if len(fake.answers) > 1 else fake.answers[0]
                if code is not None:
                    # Like some servers, repeat what the client sent: nothing of it may reach a message.
                    sent = self.headers.get("Authorization", "")
                    body = f"<Error><Code>{code}</Code><Message>sent {sent}</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/xml" if code is not None else "text/html")
                # A body that is announced and never comes: the connection breaks in the middle.
                announced = len(body) + (100 if body.endswith(b"<cut>") else 0)
                self.send_header("Content-Length", str(announced))
                self.send_header("ETag", '"x"')
                self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
                self.close_connection = True

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815 - the names of http.server

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeS3]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
