"""Every mistake in a search space is found, with its place, and all at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.errors import InvalidInput
from rankwise.space import ParameterText, SearchSpace, parse_space
from rankwise.space.parsing import parse_parameters
from support.spaces import untimed


def problems(*texts: ParameterText) -> list[tuple[str, str]]:
    """(path below spec.parameters, value) of every problem."""
    with pytest.raises(InvalidInput, match="allowed: ") as caught:
        parse_space(texts)
    return [(p.path.removeprefix("spec.parameters"), p.value) for p in caught.value.problems]


def message(text: ParameterText) -> str:
    with pytest.raises(InvalidInput, match="allowed: ") as caught:
        parse_space([text])
    (problem,) = caught.value.problems
    return problem.allowed


D = "[0].feasibleSpace."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ParameterText("", "int", "1", "2"), [("[0].name", "")]),
        (ParameterText("  ", "int", "1", "2"), [("[0].name", "  ")]),
        (ParameterText("x", "float", "1", "2"), [("[0].parameterType", "float")]),
        (ParameterText("x", "", "1", "2"), [("[0].parameterType", "")]),
        (ParameterText("x", "Int", "1", "2"), [("[0].parameterType", "Int")]),
        (ParameterText("x", "int", "1", "2", distribution="loguniform"), [(D + "distribution", "loguniform")]),
        (ParameterText("x", "int", "", "2"), [(D + "min", "")]),
        (ParameterText("x", "int", "1", ""), [(D + "max", "")]),
        (ParameterText("x", "double"), [(D + "min", ""), (D + "max", "")]),
        (ParameterText("x", "double", "one", "2"), [(D + "min", "one")]),
        (ParameterText("x", "double", "nan", "2"), [(D + "min", "nan")]),
        (ParameterText("x", "double", "0", "inf"), [(D + "max", "inf")]),
        (ParameterText("x", "double", "0", "1e400"), [(D + "max", "1e400")]),
        (ParameterText("x", "double", "0", "1e-400"), [(D + "max", "1e-400")]),
        (ParameterText("x", "double", "0", "1_0"), [(D + "max", "1_0")]),
        (ParameterText("x", "double", "0", " 1"), [(D + "max", " 1")]),
        (ParameterText("x", "double", "0", "1" * 1001), [(D + "max", "1" * 1001)]),
        (ParameterText("x", "double", "2", "1"), [(D + "max", "1")]),
        (ParameterText("x", "int", "1.5", "2"), [(D + "min", "1.5")]),
        (ParameterText("x", "int", "1", "2.5"), [(D + "max", "2.5")]),
        (ParameterText("x", "int", "1", "9", "0.5"), [(D + "step", "0.5")]),
        (ParameterText("x", "int", "1", "9", "0"), [(D + "step", "0")]),
        (ParameterText("x", "double", "1", "9", "-1"), [(D + "step", "-1")]),
        (ParameterText("x", "double", "1", "9", "8.1"), [(D + "step", "8.1")]),
        (ParameterText("x", "double", "1", "9", "many"), [(D + "step", "many")]),
        (ParameterText("x", "double", "1", "9", "1e-30"), [(D + "step", "1e-30")]),
        (ParameterText("x", "int", "1", "9", list=("1", "2")), [(D + "list", "[1, 2]")]),
        (ParameterText("x", "discrete", min="1", list=("1",)), [(D + "min", "1")]),
        (ParameterText("x", "categorical", max="1", list=("1",)), [(D + "max", "1")]),
        (ParameterText("x", "categorical", step="1", list=("1",)), [(D + "step", "1")]),
        (ParameterText("x", "categorical"), [(D + "list", "")]),
        (ParameterText("x", "discrete"), [(D + "list", "")]),
        (ParameterText("x", "categorical", list=("a", "b", "a")), [(D + "list[2]", "a")]),
        (ParameterText("x", "discrete", list=("1", "2", "1.0")), [(D + "list[2]", "1.0")]),
        (ParameterText("x", "discrete", list=("0", "-0")), [(D + "list[1]", "-0")]),
        (ParameterText("x", "discrete", list=("1", "b", "nan")), [(D + "list[1]", "b"), (D + "list[2]", "nan")]),
        (ParameterText("x", "double", "0", "1", distribution="logUniform"), [(D + "min", "0")]),
        (ParameterText("x", "int", "-1", "1", distribution="logNormal"), [(D + "min", "-1")]),
        (ParameterText("x", "discrete", list=("0", "1"), distribution="logNormal"), [(D + "list[0]", "0")]),
        (
            ParameterText("x", "categorical", list=("a",), distribution="logUniform"),
            [(D + "distribution", "logUniform")],
        ),
        (ParameterText("x", "categorical", list=("a",), distribution="normal"), [(D + "distribution", "normal")]),
    ],
    ids=str,
)
def test_each_mistake_has_its_place(text: ParameterText, expected: list[tuple[str, str]]) -> None:
    assert problems(text) == expected


def test_a_space_needs_parameters() -> None:
    assert problems() == [("", "")]


def test_names_are_unique() -> None:
    one = ParameterText("x", "int", "1", "2")
    assert problems(one, one, ParameterText("y", "int", "1", "2"), one) == [("[1].name", "x"), ("[3].name", "x")]


def test_more_parameters_than_sobol_has_dimensions() -> None:
    assert problems(*(ParameterText(f"p{i}", "int", "1", "2") for i in range(21_202))) == [("", "21202 parameters")]


def test_all_mistakes_come_at_once() -> None:
    found = problems(
        ParameterText("", "int", "1.5", "x", "-1", ("1",), "flat"),
        ParameterText("a", "categorical", "1", "2", "3", ("x", "x"), "normal"),
        ParameterText("a", "what", distribution="ever"),
        ParameterText("fine", "int", "1", "2"),
        ParameterText("b", "double", "-1", "-2", "0", distribution="logUniform"),
    )
    assert sorted(found) == sorted(
        [
            ("[0].name", ""),
            ("[0].feasibleSpace.min", "1.5"),
            ("[0].feasibleSpace.max", "x"),
            ("[0].feasibleSpace.step", "-1"),
            ("[0].feasibleSpace.list", "[1]"),
            ("[0].feasibleSpace.distribution", "flat"),
            ("[1].feasibleSpace.min", "1"),
            ("[1].feasibleSpace.max", "2"),
            ("[1].feasibleSpace.step", "3"),
            ("[1].feasibleSpace.list[1]", "x"),
            ("[1].feasibleSpace.distribution", "normal"),
            ("[2].name", "a"),
            ("[2].parameterType", "what"),
            ("[2].feasibleSpace.distribution", "ever"),
            ("[4].feasibleSpace.min", "-1"),
            ("[4].feasibleSpace.max", "-2"),
            ("[4].feasibleSpace.step", "0"),
        ]
    )


def test_the_path_is_the_callers() -> None:
    with pytest.raises(
        InvalidInput, match=r"^request\.parameters\[0\]\.feasibleSpace\.min: got 'x'; allowed: a finite"
    ):
        parse_space([ParameterText("x", "double", "x", "1")], path="request.parameters")


def test_sentences_say_what_is_allowed() -> None:
    assert message(ParameterText("x", "real", "1", "2")) == "one of double, int, discrete, categorical"
    assert "logUniform" in message(ParameterText("x", "int", "1", "2", distribution="log"))
    assert message(ParameterText("x", "int", "3", "2")) == "a number not below min, 3"
    assert message(ParameterText("x", "double", "1", "2.5", "9")) == "at most max − min, 1.5"


def test_what_katib_writes_is_accepted() -> None:
    space = parse_space(
        [
            # The webhook fills "uniform" for categories too.
            ParameterText("a", "categorical", list=("x", "y"), distribution="uniform"),
            ParameterText("b", "int", "1.0", "9.0"),
            ParameterText("c", "double", "1E-5", "+.5"),
            ParameterText("d", "discrete", list=("1e-3", "0.5", "-2")),
        ]
    )
    assert space.parameters[1].values == tuple("123456789")
    assert space.parameters[3].values == ("-2", "1e-3", "0.5")
    assert (space.parameters[2].low, space.parameters[2].high) == (1e-5, 0.5)


raw = st.one_of(
    st.sampled_from(
        ("", "0", "1", "-1", "2.5", "1e-4", "1e300", "nan", "inf", "0e999999999", "9" * 400, "a", "uniform")
    ),
    st.text(max_size=6),
)


@untimed
@given(
    st.lists(
        st.builds(
            ParameterText,
            name=raw,
            type=st.one_of(raw, st.sampled_from(("int", "double", "discrete", "categorical"))),
            min=raw,
            max=raw,
            step=raw,
            list=st.lists(raw, max_size=3).map(tuple),
            distribution=st.one_of(raw, st.sampled_from(("logUniform", "normal", "logNormal"))),
        ),
        max_size=3,
    )
)
def test_any_text_gives_a_space_or_problems(texts: list[ParameterText]) -> None:
    parsed, found = parse_parameters(texts, "spec.parameters")
    assert all(problem.path.startswith("spec.parameters") and problem.allowed for problem in found)
    if not found:
        assert len(parsed) == len(texts)
        space = SearchSpace(parsed)
        assert space.contains(space.decode([[0.5] * space.dimension])[0])
