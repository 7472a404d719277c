"""YAML as a cluster reads it, and its mistakes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rankwise.errors import InvalidInput
from rankwise.local.document import MAX_BYTES, dump, read_file, read_text
from support.spaces import untimed


def read(text: str) -> dict[str, Any]:
    document, problems = read_text(text, "file.yaml")
    assert problems == []
    return document


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("8", 8),
        ("-8", -8),
        ("0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 15),
        ("0b11", 3),
        ("1_000", 1000),
        ("1.5", 1.5),
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("true", True),
        ("Yes", True),
        ("off", False),
        ("n", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("1:30", "1:30"),
        ("2026-01-31", "2026-01-31"),
        ("1.2.3", "1.2.3"),
        ("batch/v1", "batch/v1"),
        ("'1e-4'", "1e-4"),
        ('"yes"', "yes"),
        ("!!str 5", "5"),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_scalars_are_what_a_cluster_reads(written: str, value: object) -> None:
    document = read(f"key: {written}\n")
    assert document == {"key": value}
    assert type(document["key"]) is type(value)


def test_anchors_aliases_and_merges() -> None:
    text = "a: &a {x: 1, w: 2}\nb: *a\nc: {<<: *a, w: 3}\nd: {<<: [*a, {z: 4, x: 9}]}\n"
    a = {"x": 1, "w": 2}
    assert read(text) == {"a": a, "b": a, "c": {"x": 1, "w": 3}, "d": {"x": 1, "w": 2, "z": 4}}


def test_empty_documents_around_it_are_nothing() -> None:
    assert read("---\na: 1\n---\n") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "path", "value", "allowed"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", "a", "a key that stands once (lines 1 and 3)"),
        ("a:\n  b: 1\n  b: 2\n", "a.b", "b", "a key that stands once (lines 2 and 3)"),
        ("a:\n- x: 1\n  x: 2\n", "a[0].x", "x", "a key that stands once (lines 2 and 3)"),
        ("a: {1: x}\n", "a", "1", "a text as key; put it into quotes (line 1)"),
        ("a: {true: x}\n", "a", "true", "a text as key; put it into quotes (line 1)"),
        ("a: {[1]: x}\n", "a", "sequence", "a text as key; put it into quotes (line 1)"),
        ("a: .inf\n", "a", ".inf", "a finite number"),
        ("a: .NaN\n", "a", ".NaN", "a finite number"),
        ("a: 1e999\n", "a", "1e999", "a finite number"),
        ("a: !!binary aGk=\n", "a", "tag:yaml.org,2002:binary", "a value without a tag (line 1)"),
        (
            "a: !!python/name:os.system x\n",
            "a",
            "tag:yaml.org,2002:python/name:os.system",
            "a value without a tag (line 1)",
        ),
        ("a: !x {}\n", "a", "!x", "a value without a tag (line 1)"),
        ("a: !!set {x, y}\n", "a", "tag:yaml.org,2002:set", "a value without a tag (line 1)"),
        ("a: !!int many\n", "a", "many", "a value that its tag tag:yaml.org,2002:int fits"),
        ("a: {<<: 5}\n", "a", "<<", "a mapping to merge (line 1)"),
    ],
    ids=repr,
)
def test_mistakes_that_leave_the_rest_readable(text: str, path: str, value: str, allowed: str) -> None:
    document, problems = read_text(text + "rest: 1\n", "file.yaml")
    assert document["rest"] == 1
    assert [(problem.path, problem.value, problem.allowed) for problem in problems] == [(path, value, allowed)]


def test_several_mistakes_are_found_at_once() -> None:
    _, problems = read_text("a: 1\na: 2\nb: .nan\nc: !x y\n", "file.yaml")
    assert [problem.path for problem in problems] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2\nb: 3\n", r"file\.yaml, line 2, column 2: got 'b: 3'; allowed: YAML \("),
        ("a:\n\tb: 1\n", r"file\.yaml, line 2, column 1: got 'b: 1'; allowed: YAML \("),
        ("a: b: c\n", r"file\.yaml, line 1, column 5: got 'a: b: c'; allowed: YAML \(mapping values"),
        ("a: *missing\n", r"file\.yaml, line 1, column 4: got 'a: \*missing'; allowed: YAML \(found undefined alias"),
        ("a: 'open\n", r"file\.yaml, line 2, column 1: got 'the end of the file'; allowed: YAML \("),
        ("a: \x07\n", r"file\.yaml: got .*special characters"),
        ("a: 1\n---\nb: 2\n", r"file\.yaml, line 3: got 'a second document'; allowed: one Experiment in one file"),
        ("", r"file\.yaml, line 1: got ''; allowed: an Experiment: a mapping"),
        ("# nothing\n", r"file\.yaml, line 1: got '# nothing'; allowed: an Experiment"),
        ("- a\n", r"file\.yaml, line 1: got '- a'; allowed: an Experiment"),
        ("just words\n", r"file\.yaml, line 1: got 'just words'; allowed: an Experiment"),
        ("a: &x [*x]\n", r"file\.yaml: got 'an alias at a\[0\] that contains itself'"),
        ("a: " + "[" * 1000, r"file\.yaml: got 'values nested too deeply'"),
        (
            "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
            r"file\.yaml: got 'a document that is too large'; allowed: at most 100000 values, aliases written out",
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_single_mapping(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_text(text, "file.yaml")


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9\n")
    assert read_file(file) == ({"a": "é"}, [])
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(InvalidInput, match=r"file\.yaml, line 2: got '255'; allowed: UTF-8 text"):
        read_file(file)
    file.write_bytes(b"a: 1\n" + b"#" * MAX_BYTES)
    with pytest.raises(InvalidInput, match=r"file\.yaml: got 'more than 1000000 bytes'"):
        read_file(file)


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=10)
ambiguous = st.sampled_from(
    ("1e-4", "0.1", "yes", "n", "null", "~", "", "017", "1_0", "2026-01-31", "1:30", "<<", "=", "0x1")
)
values = st.recursive(
    plain | texts | ambiguous,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | ambiguous, inner, max_size=4),
    max_leaves=12,
)


@untimed
@given(st.dictionaries(texts | ambiguous, values, max_size=5))
def test_what_is_dumped_is_read_back(document: dict[str, Any]) -> None:
    assert read(dump(document)) == document
    assert yaml.safe_load(dump(document)) == document


def test_a_text_that_looks_like_a_number_is_quoted() -> None:
    # PyYAML alone would write min: 1e-4, which a cluster reads as a number and refuses.
    assert dump({"min": "1e-4"}) == "min: '1e-4'\n"


@untimed
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        document, _ = read_text(text, "file.yaml")
    except InvalidInput as error:
        assert re.match(r"file\.yaml", str(error))  # noqa: PT017 — both outcomes are right here
    else:
        assert isinstance(document, dict)
