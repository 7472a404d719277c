from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0.0, "0"), (1.0, "1"), (0.123456, "0.1235"), (-0.5, "−0.5"), (1234.0, "1,234"),
        (12345.6, "12,346"), (0.0001, "1e−4"), (3.21e-4, "3.21e−4"), (1.5e12, "1.5e12"), (99.99, "99.99"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.31234, 0.01412, "0.312 ± 0.014"), (12.34, 1.26, "12.3 ± 1.3"), (1.0, None, "1"), (0.5, 0.0, "0.5 ± 0"),
        (1234.5, 150.0, "1,234 ± 150"), (-0.002, 0.0013, "−0.0020 ± 0.0013"), (1.0, 1e-12, "1 ± 1e−12"),
    ],
)  # fmt: skip
def test_errors_set_the_digits(value: float, error: float | None, text: str) -> None:
    assert words.with_error(value, error) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.84, "0.84 s"),
        (12.34, "12.3 s"),
        (245.0, "4 min 05 s"),
        (7620.0, "2 h 07 min"),
        (3599.9, "1 h 00 min"),
    ],
)
def test_durations(value: float | None, text: str) -> None:
    assert words.seconds(value) == text


def test_other_units() -> None:
    assert words.memory(1.25 * 2**30) == "1.25 GiB"
    assert words.memory(1010.0 * 2**20) == "1010 MiB"
    assert words.memory(5 * 2**40) == "5 TiB"
    assert [words.energy(value) for value in (840.0, 12500.0, 3.1e6)] == ["840 J", "12.5 kJ", "3.1 MJ"]
    assert (words.percent(0.0853), words.percent(-0.5, signed=True), words.percent(2.5)) == (
        "8.5 %",
        "−50.0 %",
        "250 %",
    )
    assert (words.plural(1, "trial"), words.plural(1200, "trial")) == ("1 trial", "1,200 trials")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_has_a_short_text(value: float) -> None:
    assert 1 <= len(words.number(value)) <= 16


@given(st.text(), st.integers(3, 40))
def test_shortened_texts_keep_both_ends(text: str, length: int) -> None:
    short = words.shorten(text, length)
    assert len(short) == min(len(text), length)
    if len(text) > length:
        assert short[0] == text[0]
        assert short[-1] == text[-1]


@given(st.text())
def test_one_line_leaves_nothing_that_steers_a_terminal(text: str) -> None:
    line = words.one_line(text)
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in line)
    assert line == line.strip()


def test_a_text_cannot_turn_the_sentence_around_it() -> None:
    assert words.straight("a\u202eb\u2066c\u2069\u202c") == "abc"
    assert words.one_line("a\u202eb\nc") == "ab c"
    assert words.straight("שלום") == "שלום"


def test_wide_characters_take_two_columns() -> None:
    assert (words.width("漢字"), words.width("é"), words.width("abc")) == (4, 1, 3)
    assert words.pad("漢", 4) == "漢  "
    assert words.pad("a", 3, right=True) == "  a"


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("seconds", 75.0, "75 s"), ("seconds_per_epoch", 600.0, "10 min 00 s"), ("peak_memory_bytes", 2.0**31, "2 GiB"),
        ("energy_joules", 1500.0, "1.5 kJ"), ("rougeL", 0.25, "0.25"), ("secondsmall", 75.0, "75"),
        ("seconds", None, "–"),
    ],
)  # fmt: skip
def test_a_metrics_name_tells_its_unit(metric: str, value: float | None, text: str) -> None:
    assert words.amount(metric, value) == text
