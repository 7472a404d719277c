from __future__ import annotations

import functools
import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.artifacts.local import LocalStore
from rankwise.data import Example, LoadedData, load_examples
from rankwise.data import load as load_module
from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.retry import call as call_again

ROWS = [{"text": "a long text", "short": "text"}, {"text": "grün 試験", "short": "λ", "more": [1]}]
EXAMPLES = (Example("a long text", "text"), Example("grün 試験", "λ"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def load(reference: object, cache: Path, **options: Any) -> LoadedData:
    return load_examples(str(reference), source_field="text", target_field="short", cache=cache, **options)


def jsonl(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def problems_of(reference: object, cache: Path) -> list[Problem]:
    with pytest.raises(InvalidInput, match="allowed:") as raised:
        load(reference, cache)
    return list(raised.value.problems)


# ---------------------------------------------------------------------------------------------------------- forms


def forms(folder: Path) -> list[Path]:
    """The same rows in every form that is read from a disk."""
    import pyarrow as pa
    import pyarrow.parquet

    columns = {name: [row[name] for row in ROWS] for name in ("text", "short")}
    pyarrow.parquet.write_table(pa.table(columns), write(folder / "one.parquet", b""))
    pyarrow.parquet.write_table(pa.table(columns), write(folder / "parquet" / "part.parquet", b""))
    write(folder / "jsonl" / "b" / "2.jsonl.gz", gzip.compress(jsonl(ROWS[1:])))
    write(folder / "jsonl" / "a.jsonl", jsonl([{**ROWS[0], "more": [2]}]))
    write(folder / "jsonl" / "README.md", b"not data")
    write(folder / "jsonl" / ".hidden.jsonl", b"not data")
    return [
        write(folder / "one.jsonl", jsonl(ROWS)),
        write(folder / "one.jsonl.gz", gzip.compress(jsonl(ROWS))),
        folder / "one.parquet",
        folder / "parquet",
        folder / "jsonl",
    ]


def test_every_form_gives_the_same_examples_and_hash(tmp_path: Path, cache: Path) -> None:
    loaded = [load(path, cache) for path in forms(tmp_path / "data")]
    assert [data.examples for data in loaded] == [EXAMPLES] * 5
    expected = '["a long text", "text"]\n["grün 試験", "λ"]\n'
    assert {data.sha256 for data in loaded} == {hashlib.sha256(expected.encode()).hexdigest()}
    assert [data.reference for data in loaded] == [str(path) for path in forms(tmp_path / "data")]


def test_the_hash_follows_content_and_order(tmp_path: Path, cache: Path) -> None:
    contents = [ROWS, ROWS[::-1], ROWS[:1], [{"text": "a long", "short": "texttext"}, ROWS[1]]]
    hashes = {load(write(tmp_path / "x.jsonl", jsonl(rows)), cache).sha256 for rows in contents}
    assert len(hashes) == len(contents)
    # Fields that are not used do not matter, nor does the order of a row's fields.
    other = [{"short": "text", "id": 3, "text": "a long text"}]
    assert load(write(tmp_path / "y.jsonl", jsonl(other)), cache).sha256 in hashes


@given(
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)] * 2), min_size=1
    )
)
def test_any_text_comes_back_without_the_blanks_at_its_ends(tmp_path_factory: Any, rows: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = write(folder / "x.jsonl", jsonl([{"text": text, "short": short} for text, short in rows]))
    expected = tuple(Example(text.strip(), short.strip()) for text, short in rows)
    assert load(path, folder).examples == expected


def test_a_mark_at_the_start_and_empty_lines_are_skipped(tmp_path: Path, cache: Path) -> None:
    content = b"\xef\xbb\xbf" + jsonl(ROWS[:1]) + b"\n  \r\n" + jsonl(ROWS[1:]).replace(b"\n", b"\r\n")
    assert load(write(tmp_path / "x.jsonl", content), cache).examples == EXAMPLES


def test_a_home_folder_is_found(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "x.jsonl", jsonl(ROWS))
    assert load("~/x.jsonl", cache).examples == EXAMPLES


def test_plain_jsonl_needs_no_heavy_library(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl.gz", gzip.compress(jsonl(ROWS)))
    code = (
        "import sys; from pathlib import Path; from rankwise.data import load_examples, split, subset, batches\n"
        f"load_examples({str(path)!r}, source_field='text', target_field='short', cache=Path({str(tmp_path)!r}))\n"
        "print([name for name in ('datasets', 'torch', 'transformers', 'pandas', 'minio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ------------------------------------------------------------------------------------------------------- bad rows


def test_bad_rows_are_named_with_their_lines(tmp_path: Path, cache: Path) -> None:
    rows = [
        ROWS[0],
        {"text": "no target"},
        {"text": "", "short": "x"},
        {"text": "x", "short": " \t"},
        {"text": None, "short": 7},
        ["a", "list"],
        "a text",
    ]
    content = jsonl(rows) + b'{"text": "cut\n\n{"text": "\xff", "short": "x"}\n{"text": "\\ud800", "short": "x"}\n'
    problems = problems_of(write(tmp_path / "x.jsonl", content), cache)
    found = [(problem.path, problem.allowed) for problem in problems]
    assert found[:7] == [
        ("x.jsonl:2", "a row with the field 'short'"),
        ("x.jsonl:3: text", "a text that is not empty"),
        ("x.jsonl:4: short", "a text that is not empty"),
        ("x.jsonl:5: text", "a text"),
        ("x.jsonl:5: short", "a text"),
        ("x.jsonl:6", "a JSON object"),
        ("x.jsonl:7", "a JSON object"),
    ]
    assert found[7][0] == "x.jsonl:8"
    assert found[7][1].startswith("a JSON object (")
    assert found[8:] == [
        ("x.jsonl:10", "UTF-8"),
        ("x.jsonl:11: text", "valid Unicode (it holds half of a surrogate pair)"),
        (str(tmp_path / "x.jsonl"), "no bad row; the first problems are listed above"),
    ]
    assert problems[-1].value == "9 bad of 10 rows"
    str(InvalidInput(problems)).encode()  # can be printed, whatever was in the rows


def test_the_first_twenty_problems_and_their_number(tmp_path: Path, cache: Path) -> None:
    rows = [ROWS[0], *[{"text": 1, "short": 2} for _ in range(500)]]
    problems = problems_of(write(tmp_path / "x.jsonl", jsonl(rows)), cache)
    assert len(problems) == 21
    assert [problem.path for problem in problems[:3]] == ["x.jsonl:2: text", "x.jsonl:2: short", "x.jsonl:3: text"]
    assert problems[-1].value == "500 bad of 501 rows"


def test_a_wrong_field_name_shows_the_names_there_are(tmp_path: Path, cache: Path) -> None:
    problems = problems_of(write(tmp_path / "x.jsonl", jsonl([{"long": "a", "brief": "b"}])), cache)
    assert [(p.value, p.allowed) for p in problems[:2]] == [
        ("fields long, brief", "a row with the field 'text'"),
        ("fields long, brief", "a row with the field 'short'"),
    ]


def test_bad_rows_of_a_folder_are_named_by_number(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "data" / "x.jsonl", jsonl([ROWS[0], {"text": "b", "short": None}]))
    problems = problems_of(tmp_path / "data", cache)
    assert (problems[0].path, problems[0].allowed) == (f"{tmp_path / 'data'} row 2: short", "a text")


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_data_without_rows(tmp_path: Path, cache: Path, content: bytes) -> None:
    (problem,) = problems_of(write(tmp_path / "x.jsonl", content), cache)
    assert problem.allowed == "data with at least one row"


def test_a_gzip_file_that_was_cut_or_is_none(tmp_path: Path, cache: Path) -> None:
    rows = [{"text": f"text {i}", "short": "x"} for i in range(1000)]
    whole = gzip.compress(jsonl(rows))
    assert len(load(write(tmp_path / "x.jsonl.gz", whole), cache).examples) == 1000
    for content in (whole[:-20], jsonl(rows), whole[:200] + b"\0" * 50 + whole[250:]):
        problems = problems_of(write(tmp_path / "x.jsonl.gz", content), cache)
        assert "a whole gzip file" in [problem.allowed for problem in problems]


def test_files_that_the_library_cannot_read(tmp_path: Path, cache: Path) -> None:
    (problem,) = problems_of(write(tmp_path / "x.parquet", b"no parquet"), cache)
    assert problem.allowed.startswith("readable parquet files")
    (problem,) = problems_of(write(tmp_path / "folder" / "x.jsonl", b'{"text": "cut').parent, cache)
    assert problem.allowed.startswith("readable json files")


# ----------------------------------------------------------------------------------------------- wrong references


@pytest.mark.parametrize(
    "reference",
    ["", "nowhere.jsonl", "/no/where.jsonl", "package:unknown", "package:rankwise/other", "a/b/c", "s3://x", "s3:///k"],
)
def test_references_that_name_nothing(reference: str, cache: Path) -> None:
    (problem,) = problems_of(reference, cache)
    assert (problem.path, problem.value) == ("data", reference)


def test_files_and_folders_of_other_kinds(tmp_path: Path, cache: Path) -> None:
    (problem,) = problems_of(write(tmp_path / "x.csv", b"a,b"), cache)
    assert ".jsonl" in problem.allowed
    (problem,) = problems_of(write(tmp_path / "empty" / "x.csv", b"a,b").parent, cache)
    assert "a folder without such files" in problem.value
    write(tmp_path / "both" / "x.jsonl", jsonl(ROWS))
    (problem,) = problems_of(write(tmp_path / "both" / "x.parquet", b"").parent, cache)
    assert "a mixture" in problem.value


# ---------------------------------------------------------------------------------------------------- store and hub


@pytest.fixture
def fake_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """Stands for the bucket ``s3://bucket``; S3 itself is tested in tests/contract."""
    store = LocalStore(tmp_path / "bucket")

    def fake_open(uri: str, environment: object) -> LocalStore:
        assert (uri, environment) == ("s3://bucket", {"S3_ENDPOINT": "http://x"})
        return store

    monkeypatch.setattr(load_module, "open_store", fake_open)
    return store


def test_files_and_folders_of_a_fake_store(fake_bucket: LocalStore, tmp_path: Path, cache: Path) -> None:
    environment = {"S3_ENDPOINT": "http://x"}
    fake_bucket.put_bytes("deep/x.jsonl", jsonl(ROWS))
    fake_bucket.put_folder("folder", write(tmp_path / "folder" / "x.jsonl", jsonl(ROWS[:1])).parent)
    data = load("s3://bucket/deep/x.jsonl", cache, store_environment=environment)
    assert (data.examples, data.reference) == (EXAMPLES, "s3://bucket/deep/x.jsonl")
    assert load("s3://bucket/folder/", cache, store_environment=environment).examples == EXAMPLES[:1]
    # A changed object is read anew.
    fake_bucket.put_bytes("deep/x.jsonl", jsonl(ROWS[:1]))
    assert load("s3://bucket/deep/x.jsonl", cache, store_environment=environment).examples == EXAMPLES[:1]
    for missing in ("s3://bucket/deep/y.jsonl", "s3://bucket/deep/"):
        with pytest.raises(InvalidInput, match="an object of the store"):
            load(missing, cache, store_environment=environment)
    assert list((cache / "downloads").iterdir()) == []


class FakeHub:
    """Stands for ``datasets.load_dataset`` with a hub that is there, or not."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures
        self.calls: list[tuple[object, ...]] = []

    def __call__(self, name: str, config: str | None, *, split: str, revision: str | None, cache_dir: str) -> Any:
        self.calls.append((name, config, split, revision))
        assert cache_dir
        if self.failures:
            raise self.failures.pop(0)
        return ROWS


@pytest.mark.parametrize(
    ("reference", "asked"),
    [
        ("owner/name", ("owner/name", None, "train", None)),
        ("owner/name@v1:config#test", ("owner/name", "config", "test", "v1")),
        ("owner/na.me-x#validation", ("owner/na.me-x", None, "validation", None)),
    ],
)
def test_data_of_a_fake_hub(
    reference: str, asked: tuple[object, ...], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub([ConnectionError("once")])
    monkeypatch.setattr("datasets.load_dataset", hub)
    monkeypatch.setattr(load_module, "call", functools.partial(call_again, sleep=lambda _: None))
    assert load(reference, cache).examples == EXAMPLES
    assert hub.calls == [asked, asked]


def test_a_fake_hub_that_is_not_there_and_one_that_says_no(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets.exceptions import DatasetNotFoundError

    monkeypatch.setattr(load_module, "call", functools.partial(call_again, sleep=lambda _: None))
    hub = FakeHub([ConnectionError("down")] * 9)
    monkeypatch.setattr("datasets.load_dataset", hub)
    with pytest.raises(SurroundingsError, match=r"owner/name from the hub.*package:rankwise/debian-descriptions"):
        load("owner/name", cache)
    assert len(hub.calls) == 5
    for error in (DatasetNotFoundError("Dataset 'owner/name' doesn't exist"), ValueError('Unknown split "train"')):
        hub = FakeHub([error] * 9)
        monkeypatch.setattr("datasets.load_dataset", hub)
        with pytest.raises(InvalidInput, match="a data set of the hub"):
            load("owner/name", cache)
        assert len(hub.calls) == 1
