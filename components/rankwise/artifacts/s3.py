"""A bucket of an S3 server as a store: plain S3 through the ``minio`` client, nothing assumed of the server."""

from __future__ import annotations

import io
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from rankwise.artifacts import folders
from rankwise.artifacts.local import replace_file
from rankwise.artifacts.store import NotFound, check_key
from rankwise.errors import InvalidInput, Problem, RankwiseError, SurroundingsError
from rankwise.retry import Backoff, call

T = TypeVar("T")

log = logging.getLogger(__name__)

_TOLD_FROM = 2.0
"""A wait of so many seconds or more is told: whoever looks at a program that stands still reads why."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_MISSING = ("NoSuchKey", "NoSuchBucket", "NotFound", "ResourceNotFound")
_TEMPORARY_CODES = ("InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown")
_REFUSED = (
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "UnauthorizedAccess",
)


class S3Store:
    """Objects below a prefix of a bucket. The bucket is made at the first write where the credentials allow it.

    An upload becomes visible when the server has all of it: S3's own promise, also for uploads in parts.

    Args:
        endpoint: ``http://host:port`` or ``https://host[:port]``.
        bucket: name of the bucket.
        prefix: put before every key, without slashes at its ends; may be empty.
        access_key: None for anonymous access.
        secret_key: goes with ``access_key``.
        session_token: goes with temporary credentials.
        region: None lets the client ask the server.
        backoff: retries of 5xx answers, broken connections and timeouts. The default waits 4 to 8 seconds in all,
            which outlasts the restart of a small server.
    """

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        prefix: str = "",
        *,
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
        region: str | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        address = urlsplit(endpoint)
        self._endpoint = endpoint
        self._bucket = bucket
        self._prefix = prefix + "/" if prefix else ""
        self._backoff = backoff or Backoff()
        self._client = Minio(
            address.netloc,
            access_key=access_key,
            secret_key=secret_key,
            session_token=session_token,
            secure=address.scheme == "https",
            region=region,
            # The client's own retries would multiply with ours, and its timeouts are five minutes.
            http_client=urllib3.PoolManager(timeout=urllib3.Timeout(connect=5.0, read=60.0), retries=False),
        )

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r}, endpoint={self._endpoint!r})"

    @property
    def uri(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def put_file(self, key: str, source: Path) -> None:
        name = self._name(key)
        size = source.stat().st_size

        def put() -> None:
            # Opened anew for each attempt: a broken one may have read half of it.
            with source.open("rb") as stream:
                self._client.put_object(self._bucket, name, stream, size)

        self._write("write", key, put)

    def put_bytes(self, key: str, data: bytes) -> None:
        name = self._name(key)
        self._write("write", key, lambda: self._client.put_object(self._bucket, name, io.BytesIO(data), len(data)))

    def put_folder(self, prefix: str, folder: Path) -> None:
        folders.put_folder(self, prefix, folder)

    def get_bytes(self, key: str) -> bytes:
        name = self._name(key)

        def get() -> bytes:
            with self._client.get_object(self._bucket, name) as response:
                return bytes(response.read())  # raises when the connection breaks before the last byte

        return self._do("read", key, get)

    def get_file(self, key: str, target: Path) -> None:
        name = self._name(key)

        def get() -> None:
            with self._client.get_object(self._bucket, name) as response:
                target.parent.mkdir(parents=True, exist_ok=True)
                replace_file(target, target.parent, lambda out: shutil.copyfileobj(response, out, 1 << 20))

        try:
            self._do("read", key, get)
        except OSError as error:
            raise SurroundingsError(f"could not write {target}: {error.strerror or error}") from error

    def get_folder(self, prefix: str, target: Path) -> None:
        folders.get_folder(self, prefix, target)

    def exists(self, key: str) -> bool:
        name = self._name(key)
        try:
            self._do("look up", key, lambda: self._client.stat_object(self._bucket, name))
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "") -> list[str]:
        start = self._prefix + prefix

        def names() -> list[str]:
            found = self._client.list_objects(self._bucket, prefix=start, recursive=True)
            return [str(item.object_name) for item in found if not item.is_dir]

        try:
            return sorted(name[len(self._prefix) :] for name in self._do("list", prefix, names))
        except NotFound:  # the bucket is made at the first write
            return []

    def delete(self, key: str) -> None:
        name = self._name(key)
        try:
            self._do("delete", key, lambda: self._client.remove_object(self._bucket, name))
        except NotFound:
            return

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _write(self, action: str, key: str, work: Callable[[], object]) -> None:
        """Do a write; make the bucket first where that turns out to be what is missing."""
        try:
            self._do(action, key, work)
        except NotFound:
            self._do("create the bucket for", key, self._make_bucket)
            self._do(action, key, work)

    def _make_bucket(self) -> None:
        try:
            self._client.make_bucket(self._bucket)
        except S3Error as error:
            # Another trial was faster.
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def _do(self, action: str, key: str, work: Callable[[], T]) -> T:
        """Call the client with retries; its errors become ours.

        Raises:
            NotFound: the server says that the object or the bucket does not exist.
            SurroundingsError: everything else that the server or the network does.
        """
        try:
            return call(work, is_temporary=_is_temporary, backoff=self._backoff, on_wait=self._tell)
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise self._translated(action, key, error) from error

    def _tell(self, error: Exception, wait: float) -> None:
        if wait >= _TOLD_FROM:
            where = f"the store at {self._endpoint}, bucket {self._bucket!r}"
            log.warning("%s, does not answer (%s); asked again in %.0f s", where, _reason(error), wait)

    def _translated(self, action: str, key: str, error: Exception) -> RankwiseError:
        # Only codes and type names go into messages: a server may send back what was sent to it.
        where = f"the store at {self._endpoint}, bucket {self._bucket!r}"
        what = f"could not {action} {key!r}" if key else f"could not {action} it"
        if isinstance(error, S3Error):
            if error.code in _MISSING:
                thing = f"there is no bucket {self._bucket!r}" if error.code == "NoSuchBucket" else f"no object {key!r}"
                return NotFound(f"{self.uri}: {thing}")
            if error.code in _REFUSED:
                return SurroundingsError(
                    f"{where}, refused the credentials ({error.code}), so {what}: check AWS_ACCESS_KEY_ID, "
                    "AWS_SECRET_ACCESS_KEY and what they are allowed to do"
                )
        if _is_temporary(error):
            return SurroundingsError(
                f"{where}, failed {self._backoff.attempts} times ({_reason(error)}), so {what}: check that it runs and "
                "that S3_ENDPOINT is right, then start the same command again; objects that were already written stay"
            )
        return SurroundingsError(f"{where}, answered {_reason(error)}, so {what}")


def _is_temporary(error: Exception) -> bool:
    if isinstance(error, S3Error):
        return error.code in _TEMPORARY_CODES or error.response.status in (408, 429) or error.response.status >= 500
    if isinstance(error, ServerError):
        return error.status_code >= 500
    if isinstance(error, InvalidResponseError):
        status = _plain_status(error)
        return status in (408, 429) or status >= 500  # a proxy's page instead of an answer
    if isinstance(error, urllib3.exceptions.SSLError | urllib3.exceptions.LocationParseError):
        return False
    return isinstance(error, urllib3.exceptions.HTTPError)


def _reason(error: Exception) -> str:
    if isinstance(error, S3Error):
        return str(error.code)
    if isinstance(error, ServerError):
        return f"HTTP {error.status_code}"
    if isinstance(error, InvalidResponseError):
        return f"HTTP {_plain_status(error)} and no S3 answer"
    return type(error).__name__


def _plain_status(error: InvalidResponseError) -> int:
    return int(error._code)  # the client offers no public name for it


def open_s3(uri: str, environment: Mapping[str, str], backoff: Backoff | None = None) -> S3Store:
    """Open ``s3://bucket/prefix`` with endpoint and credentials from variables; see :func:`store.open_store`.

    Raises:
        InvalidInput: with every problem.
    """
    parts = urlsplit(uri)
    prefix = parts.path.strip("/")
    problems: list[Problem] = []
    if not _BUCKET.fullmatch(parts.netloc) or parts.query or parts.fragment:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        allowed = "s3://bucket/prefix with a bucket of 3 to 63 lower-case letters, digits, dots and dashes"
        problems.append(Problem("store", shown, allowed))
    if prefix:
        try:
            check_key(prefix, "store")
        except InvalidInput as error:
            problems += error.problems
    names = ("S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    name, endpoint = next(((n, environment[n]) for n in names if environment.get(n)), (names[0], ""))
    if not _is_endpoint(endpoint):
        shown = endpoint.rpartition("@")[2]  # what stands before may be a password
        problems.append(Problem(name, shown, "the server's address: http://host:port or https://host, and no more"))
    access, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if bool(access) != bool(secret):
        unset = "AWS_SECRET_ACCESS_KEY" if access else "AWS_ACCESS_KEY_ID"
        problems.append(Problem(unset, "", "both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or none of them"))
    if problems:
        raise InvalidInput(problems)
    return S3Store(
        endpoint.rstrip("/"),
        parts.netloc,
        prefix,
        access_key=access or None,
        secret_key=secret or None,
        session_token=environment.get("AWS_SESSION_TOKEN") or None,
        region=environment.get("AWS_REGION") or None,
        backoff=backoff,
    )


def _is_endpoint(text: str) -> bool:
    try:
        address = urlsplit(text)
        port = address.port
    except ValueError:  # a port that is no number, a bracket without its partner
        return False
    return (
        address.scheme in ("http", "https")
        and bool(address.hostname)
        and "@" not in address.netloc
        and port != 0
        and address.path in ("", "/")
        and not address.query
    )
