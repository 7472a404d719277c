from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.resources
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.data import debian, load_examples
from rankwise.data.debian import Description, Pair, contains_words, deduplicate, parse, sample, to_pair, words
from rankwise.retry import call

REFERENCE = "package:rankwise/debian-descriptions"

LIST = """\
Package: alpha
Description-md5: 0123
Description-en: tool to do a first thing
 Alpha does one thing and does it well, which is more than can be said of
 many an other program of this age.
 .
 A second paragraph.

Package: beta
Description-en: server for the second thing (runtime)
 Beta is too short alone.
 .
 So the second paragraph is taken as well, which brings it over the limit.
 .
 The third one is not.

Package: gamma
Description-md5: 4567
Description-en: list that follows a text
 Gamma has a list below, and lists are not running text that can be used:
  * one
  * two
 .
 After it.

Package: delta-dev
Description-en: development files of the fourth thing
 This is the same text as that of delta, of which it is a part, and so on and so on, on and on.

Package: epsilon
Description-en:
"""


def test_stanzas_of_a_list() -> None:
    found = list(parse(LIST))
    assert [d.package for d in found] == ["alpha", "beta", "gamma", "delta-dev", "epsilon"]
    assert found[0] == Description(
        "alpha",
        "tool to do a first thing",
        (
            "Alpha does one thing and does it well, which is more than can be said of many an other program "
            "of this age.",
            "A second paragraph.",
        ),
    )
    assert len(found[1].paragraphs) == 3
    assert found[2].paragraphs == ("Gamma has a list below, and lists are not running text that can be used:",)
    assert found[4] == Description("epsilon", "", ())
    assert list(parse("")) == []


def test_pairs_of_stanzas() -> None:
    pairs = [to_pair(description) for description in parse(LIST)]
    assert pairs[0] is not None
    assert pairs[0].source.endswith("of this age.")
    assert pairs[1] == Pair(
        "beta",
        "Beta is too short alone. So the second paragraph is taken as well, which brings it over the limit.",
        "server for the second thing",
    )
    # A list that is announced, a part of another package, nothing at all.
    assert pairs[2:] == [None, None, None]


LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"


@pytest.mark.parametrize(
    ("package", "short", "source"),
    [
        ("foo-dbg", "a good short text", LONG),
        ("foo-doc-de", "a good short text", LONG),
        ("foo-l10n-de", "a good short text", LONG),
        ("librust-foo", "a good short text", LONG),
        ("foo", "transitional package for bar", LONG),
        ("foo", "a good short text", LONG + " debug symbols"),
        ("foo", "too short", LONG),
        ("foo", "word " * 15, LONG),
        ("foo", "a good short text", "few words"),
        ("foo", "a good short text", "word " * 81),
        ("foo", "a good short text", LONG + " a \u00a0 blank"),
        ("foo", "Seven eight, nine!", LONG),
    ],
)
def test_descriptions_that_make_no_pair(package: str, short: str, source: str) -> None:
    assert to_pair(Description("foo", "a good short text", (LONG,))) is not None
    assert to_pair(Description(package, short, (source,))) is None


@pytest.mark.parametrize(
    ("short", "target"),
    [
        ("parser of some format (Python 3)", "parser of some format"),
        ("parser of some format - runtime files", "parser of some format"),
        ("parser of some format (default Python3 version)", "parser of some format"),
        ("parser of some format -- Python 3.x", "parser of some format"),
        ("parser of some format (JSON)", "parser of some format (JSON)"),
        ("frob - parser of some format", "frob - parser of some format"),
        ("parser of library formats", "parser of library formats"),
    ],
)
def test_what_a_package_holds_is_cut_from_a_target(short: str, target: str) -> None:
    pair = to_pair(Description("foo", short, (LONG,)))
    assert pair is not None
    assert pair.target == target


def test_words_and_runs_of_words() -> None:
    assert words("Foo-2.10, BAR's (v3)") == ["foo", "0", "0", "bar", "s", "v3"]
    assert contains_words("It is a Tool, for text.", "tool for TEXT")
    assert not contains_words("It is a toolbox for text", "tool")
    assert not contains_words("a tool for long text", "tool for text")


def pair(package: str, source: str, target: str = "") -> Pair:
    return Pair(package, source, target or f"target of {package}")


def test_of_near_identical_texts_the_one_with_the_shortest_name_stays() -> None:
    other = "quite another text that shares nothing with the first ones and is long enough to be a source"
    pairs = [
        pair("foo-variant", LONG + " seventeen"),
        pair("foo", LONG),
        pair("bar", other),
        pair("bar2", other.replace("first", "1st")),
        pair("later", "numbers 1 2 3 and nothing in common with any of the texts above", "Target of foo!"),
    ]
    assert [p.package for p in deduplicate(pairs)] == ["bar", "foo"]
    assert deduplicate(reversed(pairs)) == deduplicate(pairs)
    assert deduplicate(deduplicate(pairs)) == deduplicate(pairs)


def test_the_limit_of_overlap_decides() -> None:
    """13 words have 10 shingles of 4; k changed words at the end leave 10 - k of them: 3 is allowed, 4 is not."""
    base = [f"w{chr(97 + i)}" for i in range(13)]
    for changed, kept in ((7, 2), (6, 1)):
        other = base[: 13 - changed] + [f"x{chr(97 + i)}" for i in range(changed)]
        assert len(deduplicate([pair("a", " ".join(base)), pair("bb", " ".join(other))])) == kept


@given(st.sets(st.text("abcdef", min_size=1), max_size=40), st.integers(0, 5), st.integers(1, 40))
def test_a_sample_hardly_changes_when_packages_come_and_go(names: set[str], seed: int, count: int) -> None:
    pairs = [pair(name, LONG) for name in sorted(names)]
    drawn = sample(pairs, count, seed)
    assert len(drawn) == min(count, len(pairs))
    assert sample(pairs[::-1], count, seed) == drawn
    assert sample(pairs, None, seed)[: len(drawn)] == drawn
    stayed = [p for p in sample([*pairs, pair("zzz", LONG)], count, seed) if p.package != "zzz"]
    assert stayed == drawn[: len(stayed)]
    assert len(stayed) >= len(drawn) - 1


# --------------------------------------------------------------------------------------------------- command line


def write_lists(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    header = "Origin: {}\nCodename: bookworm\nVersion: 12.15\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n"
    (folder / "deb_dists_bookworm_InRelease").write_text(header.format("Debian"))
    (folder / "deb_dists_bookworm_main_i18n_Translation-en").write_text(LIST)
    (folder / "deb_dists_bookworm_non-free_i18n_Translation-en").write_text(LIST.replace("alpha", "unfree"))
    (folder / "other_dists_x_InRelease").write_text(header.format("Somebody else"))
    (folder / "other_dists_x_main_i18n_Translation-en").write_text(LIST.replace("alpha", "foreign"))
    return folder


def test_the_builder_writes_the_same_file_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = write_lists(tmp_path / "lists")
    written = []
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        assert debian.main(["--lists", str(lists), "--output", str(tmp_path / name), "--seed", "3"]) == 0
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    facts = json.loads(capsys.readouterr().out.split("}\n")[0] + "}")
    assert facts["sha256"] == hashlib.sha256(written[0]).hexdigest()
    assert facts["sha256_unpacked"] == hashlib.sha256(gzip.decompress(written[0])).hexdigest()
    assert (facts["pairs"], facts["drawn"], facts["seed"]) == (2, 2, 3)
    assert facts["release"] == "bookworm 12.15 (Sat, 11 Jul 2026 10:16:37 UTC)"
    rows = [json.loads(line) for line in gzip.decompress(written[0]).splitlines()]
    assert {row["package"] for row in rows} == {"alpha", "beta"}  # nothing of other origins or components
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl.gz", "b.jsonl.gz", "lists"]
    assert debian.main(["--lists", str(lists), "--output", str(tmp_path / "c.jsonl.gz"), "--count", "1"]) == 0
    assert len(gzip.decompress((tmp_path / "c.jsonl.gz").read_bytes()).splitlines()) == 1


def test_wrong_arguments_and_missing_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "x.jsonl.gz")]
    assert debian.main(["--output", "x.json"]) == 2
    assert "--output" in capsys.readouterr().err
    assert debian.main([*output, "--count", "0"]) == 2
    assert "--count" in capsys.readouterr().err
    assert debian.main([*output, "--lists", str(tmp_path)]) == 3
    assert "no Translation-en lists of Debian" in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl.gz").exists()


def test_a_system_without_apt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert debian.main(["--output", str(tmp_path / "x.jsonl.gz")]) == 3
    assert "there is no apt-get" in capsys.readouterr().err


def test_a_fake_apt_that_fails_is_called_three_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "apt-get"
    fake.write_text(f"#!/bin/sh\necho \"$@\" >> '{tmp_path}/calls'\necho 'no network' >&2\nexit 100\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("rankwise.data.debian.call", functools.partial(call, sleep=lambda _: None))
    assert debian.main(["--output", str(tmp_path / "x.jsonl.gz")]) == 3
    assert "no network" in capsys.readouterr().err
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 3
    # The system's own lists and cache are left alone.
    assert all("Dir::State::lists=/" in call and "Dir::Cache=/" in call and call.endswith("update") for call in calls)


# --------------------------------------------------------------------------------------------------- frozen sample


@pytest.fixture(scope="module")
def frozen() -> bytes:
    return (importlib.resources.files("rankwise.data") / "debian-descriptions.jsonl.gz").read_bytes()


def test_the_frozen_sample_is_the_one_of_its_card(frozen: bytes) -> None:
    card = (importlib.resources.files("rankwise.data") / "README.md").read_text(encoding="utf-8")
    hashes = re.findall(r"`([0-9a-f]{64})`", card)
    assert hashes == [hashlib.sha256(frozen).hexdigest(), hashlib.sha256(gzip.decompress(frozen)).hexdigest()]
    assert hashes[0] == "1bd9c76d588edc5d048c0fd802f54bb1e32b6cef4bd23d1d587875863b1c3dad"
    assert len(frozen) < 500_000


def test_the_frozen_sample_keeps_its_promises(frozen: bytes, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in gzip.decompress(frozen).splitlines()]
    pairs = [Pair(**row) for row in rows]
    assert len(pairs) == 3600
    assert len({p.package for p in pairs}) == len({p.source for p in pairs}) == len({p.target for p in pairs}) == 3600
    assert deduplicate(pairs) == sorted(pairs, key=lambda p: (len(p.package), p.package))  # nothing near-identical
    assert sample(pairs, None, 0) == pairs  # in the order of the draw
    for p in pairs:
        assert not contains_words(p.source, p.target)
        assert 15 <= len(p.source.split()) <= 80
        assert 3 <= len(p.target.split()) <= 14
        assert p.source.isprintable()
        assert p.target.isprintable()
    data = load_examples(REFERENCE, source_field="source", target_field="target", cache=tmp_path)
    assert [(e.source, e.target) for e in data.examples] == [(p.source, p.target) for p in pairs]
    assert data.sha256 == "571c01215f225481c71387ae0afcec266ddded258460e3b791ed99df17c3776f"
