"""What only the local store does; all else is in tests/contract/test_stores.py."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rankwise.artifacts import Incomplete, NotFound, open_store
from rankwise.artifacts.local import LocalStore, replace_file
from rankwise.errors import SurroundingsError


def test_forms_of_the_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_store(str(tmp_path / "a b")).put_bytes("key", b"1")
    for uri in ("a b", f"file://{tmp_path}/a%20b", f"file://localhost{tmp_path}/a%20b"):
        assert open_store(uri).get_bytes("key") == b"1"
    relative = open_store("a b")
    monkeypatch.chdir("/")
    assert relative.get_bytes("key") == b"1"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store("~/a b").get_bytes("key") == b"1"


def test_nothing_is_made_before_the_first_write(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    assert store.list() == []
    assert not store.exists("key")
    assert list(tmp_path.iterdir()) == []


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        LocalStore(tmp_path).put_bytes("key", b"1")
    finally:
        os.umask(old)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o640


def test_half_written_files_are_no_objects(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put_bytes("key", b"1")
    (tmp_path / ".tmp" / "left by a crash").write_bytes(b"half")
    assert store.list() == ["key"]
    assert store.list(".") == []


def test_a_full_disk_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.put_bytes("key", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SurroundingsError, match="could not write 'key': No space left on device"):
            store.put_bytes("key", b"new")
    assert store.get_bytes("key") == b"old"
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_a_key_below_an_object_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put_bytes("a", b"1")
    with pytest.raises(SurroundingsError, match="could not write 'a/b'"):
        store.put_bytes("a/b", b"2")
    with pytest.raises(NotFound, match="no object 'a/b'"):
        store.get_bytes("a/b")
    store.delete("a/b")
    assert store.get_bytes("a") == b"1"


WRITER = """
import sys
from pathlib import Path
from rankwise.artifacts.local import LocalStore
store = LocalStore(Path(sys.argv[1]))
while True:
    for letter in b"ab":
        store.put_bytes("key", bytes([letter]) * (1 << 20))
        store.put_folder("folder", Path(sys.argv[2]))
        print("written", flush=True)
"""


def test_a_writer_that_is_killed_leaves_whole_objects(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(5):
        (folder / str(i)).write_bytes(b"x" * 100_000)
    store = LocalStore(tmp_path / "store")
    for round_ in range(3):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "store"), str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"written\n"
            time.sleep(0.013 * (round_ + 1))  # into the middle of a later write
            process.kill()
        content = store.get_bytes("key")
        assert (len(content), len(set(content))) == (1 << 20, 1)
        target = tmp_path / f"target{round_}"
        try:
            store.get_folder("folder", target)
        except Incomplete:
            assert not target.exists()
        else:
            assert sorted(path.name for path in target.iterdir()) == ["0", "1", "2", "3", "4"]


def test_replace_file_leaves_nothing_of_a_failed_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def write(out: object) -> None:
        out.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt("Ctrl-C")

    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        replace_file(tmp_path / "file", tmp_path, write)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}
