"""What every store promises (rankwise.artifacts.store): one suite, joined by the local folder and by S3."""
# ruff: noqa: F811 - a fixture is imported by name and taken by that name

from __future__ import annotations

import functools
import json
import logging
import secrets
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from minio import Minio

from rankwise.artifacts import Incomplete, NotFound, Store, open_store
from rankwise.artifacts.folders import MARKER
from rankwise.artifacts.s3 import S3Store, open_s3
from rankwise.data import Example, load_examples
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.retry import Backoff
from support.s3_server import S3Server, s3_server  # noqa: F401 - a fixture

QUICK = Backoff(attempts=3, first=0.01, longest=0.02)


@pytest.fixture
def bucket() -> str:
    """A bucket that is not there yet; few tests take one, since the server sets whole volumes aside for each."""
    return "bucket-" + secrets.token_hex(6)


@pytest.fixture(params=["local", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "local" else f"s3://shared/{secrets.token_hex(8)}/prefix"


@pytest.fixture
def open_again(uri: str, request: pytest.FixtureRequest) -> Callable[[str], Store]:
    environment = {} if "://" not in uri else request.getfixturevalue("s3_server").environment
    return lambda other: open_store(other, environment)


@pytest.fixture
def store(uri: str, open_again: Callable[[str], Store]) -> Store:
    return open_again(uri)


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def read_tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ------------------------------------------------------------------------------------------------ single objects


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 40])
def test_bytes_come_back(store: Store, content: bytes) -> None:
    store.put_bytes("a/b.bin", content)
    assert store.get_bytes("a/b.bin") == content


def test_a_large_file_comes_back(store: Store, tmp_path: Path) -> None:
    content = secrets.token_bytes(8 << 20)  # more than one part of a multipart upload (5 MiB)
    (tmp_path / "large").write_bytes(content)
    store.put_file("large", tmp_path / "large")
    store.get_file("large", tmp_path / "made" / "for it" / "copy")
    assert (tmp_path / "made" / "for it" / "copy").read_bytes() == content
    assert [path.name for path in (tmp_path / "made" / "for it").iterdir()] == ["copy"]
    assert store.get_bytes("large") == content


def test_a_write_and_a_read_replace_the_old_content(store: Store, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"a long old content")
    store.put_bytes("key", b"a long old content")
    store.put_bytes("key", b"new")
    store.get_file("key", tmp_path / "target")
    assert store.get_bytes("key") == (tmp_path / "target").read_bytes() == b"new"
    assert store.list() == ["key"]


def test_what_is_not_there_is_not_found(store: Store, tmp_path: Path) -> None:
    for filled in (False, True):  # before and after the first write, which makes the folder or the bucket
        with pytest.raises(NotFound, match=r"no (object|bucket)"):
            store.get_bytes("missing")
        with pytest.raises(NotFound, match=r"no (object|bucket)"):
            store.get_file("missing", tmp_path / "target")
        with pytest.raises(NotFound, match="nothing under 'missing'"):
            store.get_folder("missing", tmp_path / "target")
        assert not (tmp_path / "target").exists()
        assert not store.exists("missing")
        assert store.list() == (["there"] if filled else [])
        store.delete("missing")
        store.put_bytes("there", b"1")


def test_a_folder_is_no_object(store: Store) -> None:
    store.put_bytes("folder/object", b"1")
    assert store.exists("folder/object")
    assert not store.exists("folder")
    with pytest.raises(NotFound, match="no object 'folder'"):
        store.get_bytes("folder")
    store.delete("folder")
    assert store.get_bytes("folder/object") == b"1"


def test_delete(store: Store) -> None:
    store.put_bytes("a", b"1")
    store.put_bytes("b", b"2")
    store.delete("a")
    assert not store.exists("a")
    assert store.list() == ["b"]
    store.delete("a")


def test_a_missing_source_says_so_and_leaves_the_object(store: Store, tmp_path: Path) -> None:
    store.put_bytes("key", b"old")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        store.put_file("key", tmp_path / "nowhere")
    assert store.get_bytes("key") == b"old"


@pytest.mark.parametrize(
    "key", ["", "/absolute", "a/../../b", "..", "a//b", "a/./b", "a/", "a\\b", "a\nb", ".tmp/x", "\ud800"]
)
def test_bad_keys_are_refused_by_every_method(store: Store, tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_bytes(b"1")
    methods: list[Callable[[], object]] = [
        lambda: store.put_bytes(key, b""),
        lambda: store.put_file(key, tmp_path / "file"),
        lambda: store.get_bytes(key),
        lambda: store.get_file(key, tmp_path / "target"),
        lambda: store.exists(key),
        lambda: store.delete(key),
    ]
    for method in methods:
        with pytest.raises(InvalidInput, match="a relative path of parts"):
            method()
    assert store.list() == []


def test_folders_cannot_be_put_outside_of_the_store(store: Store, tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "folder", {"file": b"1"})
    for prefix in ("../outside", "/outside"):
        with pytest.raises(InvalidInput, match="a relative path of parts"):
            store.put_folder(prefix, folder)
        with pytest.raises(InvalidInput, match="a relative path of parts"):
            store.get_folder(prefix, tmp_path / "target")


KEYS = ["grün/λ/試験.json", "a b/c+d/e%2Fü=1&x?.txt", "emoji/🙂", "quote's/(1),;:@!$*~", "e\u0301/decomposed"]


def test_unusual_keys(store: Store) -> None:
    for i, key in enumerate(KEYS):
        store.put_bytes(key, str(i).encode())
    assert [store.get_bytes(key) for key in KEYS] == [b"0", b"1", b"2", b"3", b"4"]
    assert store.list() == sorted(KEYS)
    assert all(store.exists(key) for key in KEYS)
    for key in KEYS:
        store.delete(key)
    assert store.list() == []


def test_list_takes_the_prefix_as_text(store: Store) -> None:
    for key in ("a/b/1", "a/b/2", "a/bc", "ab", "z"):
        store.put_bytes(key, b"1")
    assert store.list() == ["a/b/1", "a/b/2", "a/bc", "ab", "z"]
    assert store.list("a") == ["a/b/1", "a/b/2", "a/bc", "ab"]
    assert store.list("a/") == ["a/b/1", "a/b/2", "a/bc"]
    assert store.list("a/b") == ["a/b/1", "a/b/2", "a/bc"]
    assert store.list("a/b/") == ["a/b/1", "a/b/2"]
    assert store.list("nothing/here") == []


def test_list_gives_more_than_one_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # S3 gives a list in pages of up to 1,000; the real server is asked for pages of 4 here.
    monkeypatch.setattr(Minio, "_list_objects", functools.partialmethod(Minio._list_objects, max_keys=4))
    keys = [f"many/{i:02}/x" for i in range(13)]
    for key in keys:
        store.put_bytes(key, b"1")
    assert store.list("many/") == keys


def test_the_uri_opens_the_same_store(store: Store, open_again: Callable[[str], Store]) -> None:
    store.put_bytes("key", b"1")
    again = open_again(store.uri)
    assert again.get_bytes("key") == b"1"
    assert again.uri == store.uri


def test_prefixes_keep_stores_apart(uri: str, open_again: Callable[[str], Store]) -> None:
    one, two = open_again(uri + "/a"), open_again(uri + "/ab")
    one.put_bytes("key", b"1")
    two.put_bytes("key", b"2")
    assert one.list() == two.list() == ["key"]
    assert (one.get_bytes("key"), two.get_bytes("key")) == (b"1", b"2")
    assert open_again(uri).list() == ["a/key", "ab/key"]


def test_a_reader_sees_the_old_content_or_the_new(store: Store, tmp_path: Path) -> None:
    contents = [bytes([65 + i]) * (1 << 20) for i in range(12)]
    store.put_bytes("key", contents[0])
    seen: list[bytes] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                seen.append(store.get_bytes("key"))
                store.get_file("key", tmp_path / "read")
                seen.append((tmp_path / "read").read_bytes())
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for content in contents[1:]:
        store.put_bytes("key", content)
    done.set()
    reader.join()
    assert failures == []
    assert len(seen) >= 2
    assert all(content in contents for content in seen)
    assert store.get_bytes("key") == contents[-1]


# ------------------------------------------------------------------------------------------------------- folders

TREE = {"config.json": b"{}", "weights.safetensors": b"w" * 1000, "deep/er/grün.txt": "ü".encode(), "empty": b""}


def test_a_folder_comes_back(store: Store, tmp_path: Path) -> None:
    store.put_folder("run/adapter", write_tree(tmp_path / "folder", TREE))
    for target in (tmp_path / "new" / "copy", tmp_path / "there already"):
        if target.name == "there already":
            target.mkdir()
        store.get_folder("run/adapter", target)
        assert read_tree(target) == TREE
        assert [path for path in target.parent.iterdir() if path.name.startswith(".")] == []
    # The objects lie under their own names, so that other programs find them.
    assert store.get_bytes("run/adapter/weights.safetensors") == TREE["weights.safetensors"]
    assert store.list("run/") == sorted(f"run/adapter/{name}" for name in [*TREE, MARKER])


def test_a_folder_that_is_put_again_replaces_the_old_one(store: Store, tmp_path: Path) -> None:
    store.put_folder("f", write_tree(tmp_path / "old", {"stays": b"old", "goes": b"1", "deep/goes": b"2"}))
    store.put_bytes("f/not ours", b"3")
    store.put_folder("f", write_tree(tmp_path / "new", {"stays": b"new", "comes": b"4"}))
    store.get_folder("f", tmp_path / "target")
    assert read_tree(tmp_path / "target") == {"stays": b"new", "comes": b"4"}
    assert store.list("f/") == sorted(["f/stays", "f/comes", "f/not ours", f"f/{MARKER}"])


class InterruptedUploadError(Exception):
    """Stands for the death of the process that uploads."""


def interrupt(store: Store, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the store's process die in a write, after so many that worked."""
    counter = iter(range(10_000))

    def dying(name: str, original: Callable[..., None]) -> Callable[..., None]:
        def write(key: str, what: object) -> None:
            if next(counter) >= after:
                raise InterruptedUploadError(f"{name} {key}")
            original(key, what)

        return write

    for name in ("put_file", "put_bytes"):
        monkeypatch.setattr(store, name, dying(name, getattr(store, name)))


@pytest.mark.parametrize("after", [1, len(TREE)])  # in the middle; everything but the marker
@pytest.mark.parametrize("earlier", [False, True])
def test_an_interrupted_upload_is_refused_and_can_be_repeated(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, earlier: bool
) -> None:
    if earlier:
        store.put_folder("f", write_tree(tmp_path / "earlier", {"config.json": b"earlier"}))
    folder = write_tree(tmp_path / "folder", TREE)
    with monkeypatch.context() as patch:
        interrupt(store, patch, after)
        with pytest.raises(InterruptedUploadError, match="put_"):
            store.put_folder("f", folder)
    assert store.list("f/")  # something is there
    with pytest.raises(Incomplete, match="'f' is there only in part"):
        store.get_folder("f", tmp_path / "target")
    assert not (tmp_path / "target").exists()
    store.put_folder("f", folder)
    store.get_folder("f", tmp_path / "target")
    assert read_tree(tmp_path / "target") == TREE


def test_a_folder_whose_object_was_changed_or_lost_is_refused(store: Store, tmp_path: Path) -> None:
    store.put_folder("f", write_tree(tmp_path / "folder", TREE))
    store.put_bytes("f/config.json", b"[]")  # the same length, other content
    with pytest.raises(Incomplete, match="not those that its marker names"):
        store.get_folder("f", tmp_path / "target")
    store.delete("f/config.json")
    with pytest.raises(Incomplete, match="not those that its marker names"):
        store.get_folder("f", tmp_path / "target")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "store") == ["folder"]


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/../../evil"])
def test_a_marker_cannot_write_outside_of_the_target(store: Store, tmp_path: Path, name: str) -> None:
    store.put_bytes("f/x", b"1")
    marker = {"schema_version": 1, "files": {name: {"size": 1, "sha256": "0" * 64}}}
    store.put_bytes(f"f/{MARKER}", json.dumps(marker).encode())
    with pytest.raises(Incomplete, match="marker of 'f' cannot be read"):
        store.get_folder("f", tmp_path / "inner" / "target")
    assert list(tmp_path.rglob("evil*")) == []


@pytest.mark.parametrize("marker", [b"", b"[]", b"{}", b'{"files": {"x": {}}}', b"\xff"])
def test_a_broken_marker_is_refused(store: Store, tmp_path: Path, marker: bytes) -> None:
    store.put_bytes(f"f/{MARKER}", marker)
    with pytest.raises(Incomplete, match="marker of 'f' cannot be read"):
        store.get_folder("f", tmp_path / "target")


def test_a_target_that_is_in_use_is_not_touched(store: Store, tmp_path: Path) -> None:
    store.put_folder("f", write_tree(tmp_path / "folder", TREE))
    used = write_tree(tmp_path / "used", {"mine": b"1"})
    with pytest.raises(ValueError, match="must not exist or be an empty folder"):
        store.get_folder("f", used)
    assert read_tree(used) == {"mine": b"1"}


def test_what_is_no_folder_to_store_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="needs files"):
        store.put_folder("f", tmp_path / "empty")
    with pytest.raises(ValueError, match="none of them named"):
        store.put_folder("f", write_tree(tmp_path / "marked", {MARKER: b"1"}))
    with pytest.raises(NotADirectoryError, match="nowhere"):
        store.put_folder("f", tmp_path / "nowhere")
    assert store.list() == []


# --------------------------------------------------------------------------------- what only a server can do to us


@pytest.fixture
def quick(s3_server: S3Server) -> S3Store:
    return open_s3(f"s3://shared/{secrets.token_hex(8)}", s3_server.environment, backoff=QUICK)


@pytest.fixture
def no_secrets(s3_server: S3Server, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[BaseException], str]]:
    """Returns an error's whole text; checks it and the log for secrets."""
    caplog.set_level(logging.DEBUG)
    secret = [s3_server.access_key, s3_server.secret_key, s3_server.reader_access_key, s3_server.reader_secret_key]

    def check(error: BaseException) -> str:
        text = "".join(traceback.format_exception(error)) + repr(error) + str(error)
        assert not any(each in text for each in secret)
        return str(error)

    yield check
    assert not any(each in caplog.text for each in secret)


def test_a_server_that_stops_and_comes_back(
    s3_server: S3Server,
    quick: S3Store,
    tmp_path: Path,
    no_secrets: Callable[[BaseException], str],
) -> None:
    quick.put_bytes("before", b"1")
    s3_server.stop()
    attempts: list[Callable[[], object]] = [
        lambda: quick.put_bytes("during", b"2"),
        lambda: quick.get_bytes("before"),
        lambda: quick.exists("before"),
        lambda: quick.list(),
        lambda: quick.delete("before"),
        lambda: quick.get_folder("f", tmp_path / "target"),
    ]
    for attempt in attempts:
        with pytest.raises(SurroundingsError, match="failed 3 times") as raised:
            attempt()
        message = no_secrets(raised.value)
        assert s3_server.endpoint in message
        assert repr(quick.uri.split("/")[2]) in message

    # A store with more patience goes on by itself when the server comes back.
    patient = open_s3(quick.uri, s3_server.environment, backoff=Backoff(attempts=400, first=0.1, longest=0.2))
    outcome: list[object] = []

    def write() -> None:
        try:
            patient.put_bytes("during", b"2")
            outcome.append("written")
        except Exception as error:
            outcome.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    assert outcome == []
    s3_server.start()
    writer.join()
    assert outcome == ["written"]
    assert quick.list() == ["before", "during"]
    assert (quick.get_bytes("before"), quick.get_bytes("during")) == (b"1", b"2")


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials(
    s3_server: S3Server,
    quick: S3Store,
    variable: str,
    no_secrets: Callable[[BaseException], str],
) -> None:
    quick.put_bytes("key", b"1")
    wrong = "wrong" + secrets.token_hex(12)
    store = open_s3(quick.uri, s3_server.environment | {variable: wrong}, backoff=QUICK)
    attempts: list[Callable[[], object]] = [
        lambda: store.put_bytes("key", b"2"),
        lambda: store.get_bytes("key"),
        lambda: store.exists("key"),
        lambda: store.list(),
        lambda: store.delete("key"),
    ]
    for attempt in attempts:
        with pytest.raises(SurroundingsError, match="refused the credentials") as raised:
            attempt()
        message = no_secrets(raised.value)
        assert s3_server.endpoint in message
        assert wrong not in "".join(traceback.format_exception(raised.value))
    assert wrong not in repr(store)
    assert quick.get_bytes("key") == b"1"


def test_a_bucket_that_may_not_be_made(
    s3_server: S3Server,
    bucket: str,
    no_secrets: Callable[[BaseException], str],
) -> None:
    store = open_s3(f"s3://{bucket}", s3_server.reader_environment, backoff=QUICK)
    with pytest.raises(SurroundingsError, match="refused the credentials") as raised:
        store.put_bytes("key", b"1")
    assert bucket in no_secrets(raised.value)


def test_credentials_that_may_read_only(s3_server: S3Server, quick: S3Store) -> None:
    quick.put_bytes("key", b"1")
    store = open_s3(quick.uri, s3_server.reader_environment, backoff=QUICK)
    assert store.get_bytes("key") == b"1"
    assert store.list() == ["key"]
    with pytest.raises(SurroundingsError, match=r"refused the credentials \(AccessDenied\)"):
        store.put_bytes("key", b"2")
    assert quick.get_bytes("key") == b"1"


def test_an_object_under_the_bare_bucket(s3_server: S3Server, bucket: str) -> None:
    store = open_store(f"s3://{bucket}", s3_server.environment)
    store.put_bytes("key", b"1")
    assert store.uri == f"s3://{bucket}"
    assert open_store(f"minio://{bucket}/", s3_server.environment).get_bytes("key") == b"1"


def test_examples_are_loaded_from_a_bucket(s3_server: S3Server, quick: S3Store, tmp_path: Path) -> None:
    quick.put_bytes("data/x.jsonl", b'{"source": "long", "target": "short"}\n')
    fields = {"source_field": "source", "target_field": "target", "cache": tmp_path}
    data = load_examples(f"{quick.uri}/data/x.jsonl", store_environment=s3_server.reader_environment, **fields)
    assert data.examples == (Example("long", "short"),)
    with pytest.raises(InvalidInput, match="an object of the store"):
        load_examples(f"{quick.uri}/data/y.jsonl", store_environment=s3_server.environment, **fields)


def test_many_writers_make_one_bucket(s3_server: S3Server, bucket: str) -> None:
    stores = [open_store(f"s3://{bucket}", s3_server.environment) for _ in range(6)]
    failures: list[BaseException] = []

    def write(i: int) -> None:
        try:
            stores[i].put_bytes(f"key{i}", b"1")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert stores[0].list() == [f"key{i}" for i in range(len(stores))]
