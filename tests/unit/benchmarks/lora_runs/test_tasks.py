from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.lora_runs import sources
from benchmarks.lora_runs.tasks import TASKS, encode, make_sets
from rankwise.data import Example
from support.small_tokenizers import small_tokenizer

CANDIDATES = [Example(f"text {i}", "abc"[i % 3]) for i in range(40)]


def test_sets_are_disjoint_and_do_not_depend_on_the_order_of_the_candidates() -> None:
    sets = make_sets(CANDIDATES, 20, 8, 4, labelled=True)
    assert (len(sets.train), len(sets.validation), len(sets.test)) == (20, 8, 4)
    assert len({example.source for part in (sets.train, sets.validation, sets.test) for example in part}) == 32
    assert make_sets(reversed(CANDIDATES), 20, 8, 4, labelled=True) == sets
    assert sets.classes == ("a", "b", "c")
    lines = [
        json.dumps([name, e.source, e.target], ensure_ascii=False).encode() + b"\n"
        for name in ("train", "validation", "test")
        for e in getattr(sets, name)
    ]
    assert sets.sha256 == hashlib.sha256(b"".join(lines)).hexdigest()


def test_a_source_that_comes_twice_is_drawn_once() -> None:
    sets = make_sets([*CANDIDATES, *(replace(e, source=e.source.upper()) for e in CANDIDATES)], 30, 5, 5, labelled=True)
    drawn = [example.source.lower() for part in (sets.train, sets.validation, sets.test) for example in part]
    assert len(set(drawn)) == len(drawn) == 40


def test_subsets_are_nested() -> None:
    sets = make_sets(CANDIDATES, 20, 8, 4, labelled=False)
    assert sets.classes == ()
    assert set(sets.proxy(3)) < set(sets.proxy(10)) < set(sets.proxy(20)) == set(sets.train)


def test_too_few_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="40 different examples, needs 41"):
        make_sets(CANDIDATES, 30, 6, 5, labelled=False)


def test_items_of_encoders_and_decoders() -> None:
    tokenizer = small_tokenizer(closing=True)
    (item,) = encode(replace(TASKS["minilm-section"], source_tokens=5), tokenizer, [Example("a" * 30, "b")], ("a", "b"))
    assert (len(item.ids), item.label, item.targets, item.weight) == (5, 1, 0, 1)
    task = TASKS["smollm2-answer"]
    (item,) = encode(task, small_tokenizer(), [Example("to be", "a short text")], ())
    assert item.label == -1
    assert item.targets == item.weight > 1
    assert small_tokenizer().decode(item.ids[: -item.targets]) == "Question: to be\nAnswer:"
    assert small_tokenizer().decode(item.ids[-item.targets :]) == " a short text</s>"


def test_wordnet_lines(tmp_path: Path) -> None:
    folder = tmp_path / "wordnet"
    folder.mkdir()
    licence = "  1 a licence, which is no entry | of the list\n"
    line = (
        "00017222 03 n 02 plant 0 flora(p) 1 002 @ 00004475 n 0000 ~ 00021000 n 0000 | (botany) a living organism; "
        '"the flora of the hills"; "he grew plants"  \n'
    )
    for part in ("noun", "verb", "adj", "adv"):
        (folder / f"data.{part}").write_text(licence + (line if part == "noun" else ""), encoding="latin-1")
    (found,) = sources.synsets(tmp_path)
    assert found == sources.Synset(
        offset="noun00017222",
        category="noun.Tops",
        words=("plant", "flora"),
        gloss="(botany) a living organism",
        examples=("the flora of the hills", "he grew plants"),
    )
    assert len(set(sources.CATEGORIES)) == 45


STANZA = "Package: {}\nDescription: {}\nSection: x\nTag: {}\n"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("role::program, use::viewing", "program"),
        ("devel::library, implemented-in::c,\n role::devel-lib,\n works-with::text", "devel-lib"),
        ("role::program, role::plugin", None),
        ("role::program,\n use::viewing,\n role::plugin", None),
        ("game::arcade, x-role::program", None),
        ("\n role::app-data", "app-data"),
    ],
)
def test_the_role_of_a_package_that_has_one(tags: str, expected: str | None) -> None:
    stanza = f"Package: a\nTag: {tags}\nHomepage: role::source"
    assert sources.role(stanza) == expected
    assert sources.role("Package: a\nDescription: b") is None


def test_of_a_source_package_each_role_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stanzas = [
        STANZA.format("a1", "a library", "role::shared-lib") + "Source: a (1.2-3)\n",
        STANZA.format("a2", "another library", "role::shared-lib") + "Source: a\n",
        STANZA.format("a", "a program", "use::viewing,\n role::program"),
        STANZA.format("b", "two roles", "role::program, role::plugin"),
        STANZA.format("c", "no role", "use::viewing"),
        "Package: d\nTag: role::program\n",
        "",
    ]
    monkeypatch.setattr(sources, "_packages", lambda folder: iter(stanzas))
    assert sources.roles(tmp_path) == [("a library", "shared-lib"), ("a program", "program")]
    assert list(TASKS["minilm-role"].read(tmp_path)) == [
        Example("a library", "shared-lib"),
        Example("a program", "program"),
    ]


def test_roles_are_the_seven_largest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [(f"text {i} {j}", f"role {i}") for i in range(9) for j in range(9 - i)]
    monkeypatch.setattr(sources, "roles", lambda folder: known)
    assert {e.target for e in TASKS["minilm3-role"].read(tmp_path)} == {f"role {i}" for i in range(7)}


def test_words_are_those_of_nouns_without_their_definition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        sources.Synset("noun1", "noun.plant", ("oak", "oak tree"), "a tree", ("an oak stood there",)),
        sources.Synset("verb1", "verb.body", ("sleep",), "be asleep", ()),
    ]
    monkeypatch.setattr(sources, "synsets", lambda folder: iter(found))
    assert list(TASKS["minilm-word"].read(tmp_path)) == [Example("oak, oak tree", "noun.plant")]


def test_conversations(tmp_path: Path) -> None:
    folder = tmp_path / "chatterbot"
    folder.mkdir()
    (folder / "a.yml").write_text(
        "conversations:\n- - what is  it\n  - |-\n    two\n    lines\n  - more\n", encoding="utf-8"
    )
    assert list(sources.conversations(tmp_path)) == [("what is it", "two lines")]
