"""Editing Katib's configuration as text, over arbitrary configurations: what is not ours survives, always."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.cluster.registration_document import OWNER_VARIABLE, Document, Edit, owner_of

OWNER = "rankwise/rankwise"

# Letters, what YAML gives a meaning to, and line breaks that only some readers see.
texts = st.text(st.sampled_from("aZ09 -:#'\"{}[],&*!|>%@`~.\n\t\u2028\u0085é€"), max_size=12)
words = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
scalars = st.one_of(texts, st.booleans(), st.integers(-9, 10**6), st.none(), st.sampled_from(["1e3", "yes", "0o7"]))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=5
)
others = st.builds(
    lambda name, image, more: {**more, "algorithmName": name, "image": image},
    words.filter(lambda name: name != "ours"),
    texts,
    st.dictionaries(words, values, max_size=3),
)


def entry(image: str = "i:1") -> dict[str, Any]:
    return {"algorithmName": "ours", "image": image, "env": [{"name": OWNER_VARIABLE, "value": OWNER}]}


@st.composite
def layouts(draw: st.DrawFn) -> str:
    """A configuration as people write it: block or flow style, any indentation, comments, with or without an end."""
    entries = draw(st.lists(others, max_size=4))
    document = {
        "init": draw(values),
        "runtime": {"metricsCollectors": draw(values), "suggestions": entries, "earlyStoppings": draw(values)},
    }
    if draw(st.booleans()):
        document = dict(reversed(document.items()))
    text = yaml.safe_dump(
        document,
        sort_keys=draw(st.booleans()),
        indent=draw(st.integers(2, 5)),
        default_flow_style=draw(st.sampled_from([False, False, False, None, True])),
        allow_unicode=draw(st.booleans()),
        width=draw(st.sampled_from([20, 80, 1000])),
    )
    if draw(st.booleans()):
        text = f"---\n# first\n{text}# last\n"
    return text if draw(st.booleans()) else text.rstrip("\n")


def put(text: str, new: dict[str, Any]) -> Edit:
    document = Document(text, "test")
    return document.replace(document.named("ours"), new)


def take(text: str) -> Edit:
    document = Document(text, "test")
    return document.replace(document.named("ours"), None)


def without_list(data: Any) -> Any:
    return {**data, "runtime": {key: value for key, value in data["runtime"].items() if key != "suggestions"}}


@settings(max_examples=50, deadline=None)
@given(text=layouts())
def test_others_survive_and_ours_comes_and_goes(text: str) -> None:
    before = yaml.safe_load(text)
    registered = put(text, entry())
    after = yaml.safe_load(registered.text)
    assert after["runtime"]["suggestions"] == [*before["runtime"]["suggestions"], entry()]
    assert without_list(after) == without_list(before)
    # A second time replaces the entry by itself.
    assert yaml.safe_load(put(registered.text, entry()).text) == after
    # A newer one replaces it where it stands.
    newer = put(registered.text, entry("i:2"))
    assert yaml.safe_load(newer.text)["runtime"]["suggestions"] == [*before["runtime"]["suggestions"], entry("i:2")]
    # Taken out, what is left is what was there.
    restored = take(newer.text)
    assert yaml.safe_load(restored.text) == before
    if registered.kept_text and restored.kept_text:
        assert restored.text == text


@settings(max_examples=40, deadline=None)
@given(text=layouts(), comment=st.text(st.characters(codec="ascii", categories=["L", "N", "Zs"]), max_size=9))
def test_lines_of_others_are_kept_wherever_text_is_kept(text: str, comment: str) -> None:
    text = f"{text.rstrip(chr(10))}\n# {comment}"
    document = Document(text, "test")
    edit = document.replace([], entry())
    if edit.kept_text:
        start = edit.text.index("- algorithmName: ours")
        assert text.startswith(edit.text[: edit.text.rindex("\n", 0, start) + 1].rstrip("\n"))
        assert edit.text.endswith(f"# {comment}")


def test_the_usual_layouts_keep_their_text() -> None:
    """The property above says nothing when text is never kept: so these must be."""
    item = "- algorithmName: random\n{0}  image: i # why\n"
    for indent in ("", "  ", "      "):
        for tail in ("", "\n", "# end\n", "  earlyStoppings: []\n", "other: 1\n"):
            text = f"runtime:\n  suggestions:\n  {indent}{item.format('  ' + indent)}{tail}"
            registered = put(text, entry())
            assert registered.kept_text, text
            assert take(registered.text) == Edit(text, kept_text=True)


def test_a_text_without_a_last_newline_stays_without() -> None:
    text = "runtime:\n  suggestions:\n  - algorithmName: random\n    image: i"
    registered = put(text, entry())
    assert registered.kept_text
    assert not registered.text.endswith("\n")
    assert take(registered.text) == Edit(text, kept_text=True)


def test_carriage_returns_stay() -> None:
    text = "runtime:\r\n  suggestions:\r\n  - algorithmName: random\r\n    image: i\r\ninit: {}\r\n"
    registered = put(text, entry())
    assert registered.kept_text
    assert take(registered.text) == Edit(text, kept_text=True)


def test_an_anchor_of_ours_that_others_use_survives() -> None:
    block = f"  - algorithmName: ours\n    image: &i x\n    env: [{{name: {OWNER_VARIABLE}, value: {OWNER}}}]\n"
    text = f"# lost\nruntime:\n  suggestions:\n{block}  - algorithmName: random\n    image: *i\n"
    taken = take(text)
    assert not taken.kept_text
    assert yaml.safe_load(taken.text) == {"runtime": {"suggestions": [{"algorithmName": "random", "image": "x"}]}}


def test_values_keep_their_spelling_when_the_text_cannot_be_kept() -> None:
    text = 'runtime: {suggestions: [], a: 1e3, b: "1e3", c: 0x10, d: 2020-01-01, e: 1:30, f: yes, g: "yes", h: ~}\n'
    edit = put(text, entry())
    assert not edit.kept_text
    for spelled in ("a: 1e3", 'b: "1e3"', "c: 0x10", "d: 2020-01-01", "e: 1:30", "f: yes", 'g: "yes"', "h: ~"):
        assert spelled in edit.text


@pytest.mark.parametrize(
    ("item", "owner"),
    [
        (entry(), OWNER),
        ({"env": [{"name": "A", "value": OWNER}]}, None),
        ({"env": "x"}, None),
        ({"env": ["x", None]}, None),
        ("text", None),
        (None, None),
    ],
)
def test_owner(item: object, owner: str | None) -> None:
    assert owner_of(item) == owner
