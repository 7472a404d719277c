"""S3 answers that a healthy server does not give; all else is in tests/contract/test_stores.py."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from rankwise.artifacts.s3 import S3Store, open_s3
from rankwise.artifacts.store import NotFound, open_store
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.retry import Backoff
from support.fake_s3 import FakeS3

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "the-access-key",
    "AWS_SECRET_ACCESS_KEY": "the-secret-key",
    "AWS_SESSION_TOKEN": "the-session-token",
    "AWS_REGION": "eu-central-1",
}
OK = (200, None, b"content")
QUICK = Backoff(attempts=3, first=0.001, longest=0.001)


def store_of(fake: FakeS3) -> S3Store:
    return open_s3("s3://bucket/prefix", ENVIRONMENT | {"S3_ENDPOINT": fake.endpoint}, backoff=QUICK)


@pytest.mark.parametrize(
    "failure",
    [
        (500, "InternalError", b""),
        (503, "SlowDown", b""),
        (429, "TooManyRequests", b""),
        (502, None, b"<html>bad gateway</html>"),
        (200, None, b"half of it<cut>"),
    ],
)
def test_temporary_failures_of_a_fake_server_are_retried(
    failure: tuple[int, str | None, bytes], tmp_path: Path
) -> None:
    with FakeS3([failure, failure, OK]).running() as fake:
        assert store_of(fake).get_bytes("a/key") == b"content"
        assert fake.requests == ["GET /bucket/prefix/a/key"] * 3
    with FakeS3([failure, failure, OK]).running() as fake:
        store_of(fake).get_file("key", tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == b"content"
        assert [path.name for path in tmp_path.iterdir()] == ["target"]
    with FakeS3([failure]).running() as fake:
        with pytest.raises(SurroundingsError, match="failed 3 times") as raised:
            store_of(fake).get_file("key", tmp_path / "other")
        assert len(fake.requests) == 3
        assert fake.endpoint in str(raised.value)
        assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied", "ExpiredToken"])
def test_refused_credentials_of_a_fake_server_are_not_retried(code: str) -> None:
    with FakeS3([(403, code, b"")]).running() as fake:
        with pytest.raises(
            SurroundingsError, match=rf"refused the credentials \({code}\).*AWS_ACCESS_KEY_ID"
        ) as raised:
            store_of(fake).put_bytes("key", b"1")
        assert fake.requests == ["PUT /bucket/prefix/key"]
    # The fake sent the request's Authorization header back in its message.
    assert "Credential=" not in str(raised.value)
    for secret in ("the-secret-key", "the-session-token"):
        assert secret not in "".join(traceback.format_exception(raised.value))
        assert secret not in repr(store_of(fake))


@pytest.mark.parametrize(
    ("status", "code"), [(400, "InvalidRequest"), (301, "PermanentRedirect"), (501, "NotImplemented")]
)
def test_other_answers_of_a_fake_server_are_reported_once_or_as_broken(status: int, code: str) -> None:
    with FakeS3([(status, code, b"")]).running() as fake:
        with pytest.raises(SurroundingsError, match=rf"{code}.*could not read 'key'"):
            store_of(fake).get_bytes("key")
        assert len(fake.requests) == (3 if status >= 500 else 1)


def test_a_missing_bucket_of_a_fake_server_is_made_once() -> None:
    missing = (404, "NoSuchBucket", b"")
    with FakeS3([missing, OK, OK]).running() as fake:
        store_of(fake).put_bytes("key", b"1")
        assert fake.requests == ["PUT /bucket/prefix/key", "PUT /bucket", "PUT /bucket/prefix/key"]
    with FakeS3([missing]).running() as fake:
        with pytest.raises(NotFound, match="no bucket 'bucket'"):
            store_of(fake).get_bytes("key")
        assert store_of(fake).list() == []
        assert not store_of(fake).exists("key")


def test_a_bucket_that_another_made_meanwhile_on_a_fake_server() -> None:
    with FakeS3([(404, "NoSuchBucket", b""), (409, "BucketAlreadyOwnedByYou", b""), OK]).running() as fake:
        store_of(fake).put_bytes("key", b"1")
        assert len(fake.requests) == 3


def test_an_address_where_nothing_listens() -> None:
    with FakeS3([OK]).running() as fake:
        store = store_of(fake)
    with pytest.raises(SurroundingsError, match=rf"{fake.endpoint}, bucket 'bucket', failed 3 times \(NewConnection"):
        store.get_bytes("key")


@pytest.mark.parametrize(("long", "lines"), [(2.0, 0), (0.0, 2)])
def test_long_waits_for_a_fake_server_are_told_without_secrets(
    long: float, lines: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankwise.artifacts.s3._TOLD_FROM", long)
    with FakeS3([(503, "SlowDown", b""), (503, "SlowDown", b""), OK]).running() as fake:
        assert store_of(fake).get_bytes("key") == b"content"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == lines
    for line in told:
        assert line.startswith(
            f"the store at {fake.endpoint}, bucket 'bucket', does not answer (SlowDown); asked again"
        )
        assert "the-secret-key" not in line


def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with FakeS3([OK]).running() as fake, pytest.raises(SurroundingsError, match=r"could not write .*target"):
        store_of(fake).get_file("key", tmp_path / "file" / "target")


# ---------------------------------------------------------------------------------------------- URIs and variables


def problems_of(uri: str, environment: dict[str, str]) -> dict[str, str]:
    with pytest.raises(InvalidInput, match="allowed:") as raised:
        open_store(uri, environment)
    return {problem.path: problem.value for problem in raised.value.problems}


GOOD = {"S3_ENDPOINT": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://", "s3://"),
        ("s3://ab", "s3://ab"),
        ("s3://UPPER", "s3://UPPER"),
        ("s3://bucket/a/../b", "a/../b"),
        ("s3://bucket/a?b=1", "s3://bucket/a"),
        ("s3://user:password@bucket", "s3://bucket"),
        ("https://user:password@host/x", "https://host"),
        ("ftp://host", "ftp://host"),
        ("file://host/folder", "file://host"),
        ("file:", "file"),
        ("", ""),
    ],
)
def test_bad_uris(uri: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if uri == "file:":
        monkeypatch.chdir(tmp_path)
        assert open_store(uri).uri == (tmp_path / "file:").as_uri()  # a folder may have that name
        return
    assert problems_of(uri, GOOD) == {"store": shown}


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("", ""),
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("ftp://host", "ftp://host"),
        ("http://host:port", "http://host:port"),
        ("http://host:0", "http://host:0"),
        ("http://[::1", "http://[::1"),
        ("http://host/path", "http://host/path"),
        ("http://host?x=1", "http://host?x=1"),
        ("http://user:password@host", "host"),
        ("http://", "http://"),
    ],
)
def test_bad_endpoints_are_named_without_passwords(endpoint: str, shown: str) -> None:
    assert problems_of("s3://bucket", {"S3_ENDPOINT": endpoint}) == {"S3_ENDPOINT": shown}


def test_all_problems_at_once() -> None:
    environment = {"AWS_ENDPOINT_URL": "nowhere", "AWS_SECRET_ACCESS_KEY": "hidden"}
    found = problems_of("s3://A/a//b", environment)
    assert found == {"store": "a//b", "AWS_ENDPOINT_URL": "nowhere", "AWS_ACCESS_KEY_ID": ""}
    assert problems_of("s3://bucket", GOOD | {"AWS_ACCESS_KEY_ID": "hidden"}) == {"AWS_SECRET_ACCESS_KEY": ""}


def test_variables_are_read_in_order_and_empty_ones_count_as_unset() -> None:
    environment = {"S3_ENDPOINT": "", "AWS_ENDPOINT_URL_S3": "http://one:1/", "AWS_ENDPOINT_URL": "http://two:2"}
    assert "'http://one:1'" in repr(open_store("s3://bucket/a/", environment | {"AWS_ACCESS_KEY_ID": ""}))
    assert "'http://three:3'" in repr(open_store("minio://bucket", environment | {"S3_ENDPOINT": "http://three:3"}))
    assert open_store("minio://bucket/a/b/", GOOD).uri == "s3://bucket/a/b"


def test_credentials_reach_a_fake_server_only_when_given() -> None:
    with FakeS3([(403, "AccessDenied", b"")]).running() as fake:
        with pytest.raises(SurroundingsError, match="refused the credentials") as raised:
            open_s3("s3://bucket", {"S3_ENDPOINT": fake.endpoint}, backoff=QUICK).get_bytes("key")
        # The message of the fake repeats the Authorization header: an anonymous request has none.
        assert "Authorization" not in str(raised.value.__cause__)
        assert "Credential=" not in str(raised.value.__cause__)
        with pytest.raises(SurroundingsError, match="refused the credentials") as raised:
            store_of(fake).get_bytes("key")
        assert "Credential=the-access-key" in str(raised.value.__cause__)
