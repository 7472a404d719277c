"""Statistics and how they are told."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bench_suggest.rounds import Cell, Sample
from benchmarks.bench_suggest.table import (
    COLUMNS,
    embedding_rows,
    markdown,
    number,
    peak,
    ratios,
    spread,
    suggestion_rows,
    tail,
    write_json,
)

MIB = 2**20


def sample(wall: float, cpu: float = 1.0, peak_mib: int = 100, **details: float) -> Sample:
    return Sample(wall, cpu, peak_mib * MIB, details=details)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234, "0.0123"), (2.5, "2.50"), (45.678, "45.7"), (123.4, "123"), (98765.0, "98765")],
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(1e-6, 1e9))
def test_a_number_is_told_to_one_part_in_two_hundred(value: float) -> None:
    # Three digits that count are right to half of the third: at worst 0.005 of 1.00.
    assert float(number(value)) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("values", "text"),
    [([], "–"), ([2.0], "2.00"), ([3.0, 1.0, 2.0], "2.00 (1.00–3.00)"), ([1.0, 2.0], "1.50 (1.00–2.00)")],
)
def test_a_spread_is_the_median_with_the_least_and_the_greatest(values: list[float], text: str) -> None:
    assert spread(values) == text


def test_ratios_are_those_of_one_round() -> None:
    mine = {0: sample(4.0, 6.0), 1: sample(9.0, 9.0), 2: sample(1.0)}
    other = {1: sample(3.0, 1.0), 0: sample(2.0, 3.0)}
    assert ratios(mine, other, "wall") == [2.0, 3.0]
    assert ratios(mine, other, "cpu") == [2.0, 9.0]


def cells() -> list[Cell]:
    return [
        Cell("mine", 10, {0: sample(4.0, 2.0, 300), 1: sample(6.0, 2.0, 900)}),
        Cell("late", 10, reason="not measured (over 5 s)"),
        Cell("plain", 10, {0: sample(2.0, 1.0), 1: sample(2.0, 0.5)}),
    ]


def test_a_row_for_each_cell() -> None:
    mine, late, plain = suggestion_rows(cells(), {"mine": "Ours"}, "plain")
    assert mine == ["10", "Ours", "5.00 (4.00–6.00)", "2.00 (2.00–2.00)", "2.50 (2.00–3.00)", "3.00 (2.00–4.00)", "300"]
    assert late == ["10", "late", "not measured (over 5 s)", "–", "–", "–", "–"]
    assert plain == ["10", "plain", "2.00 (2.00–2.00)", "0.750 (0.500–1.00)", "1", "1", "100"]


def test_without_the_reference_there_are_no_ratios() -> None:
    (row,) = suggestion_rows(cells()[:1], {}, "plain")
    assert row[4:6] == ["–", "–"]


def test_the_peak_is_the_first_rounds() -> None:
    # A process keeps what it had: in a later round it has had more observations before.
    assert peak(Cell("a", 1, {1: sample(1.0, 1.0, 900), 0: sample(1.0, 1.0, 300)})) == 300 * MIB


def test_embedding_is_extrapolated_and_says_so() -> None:
    rounds = {0: sample(2.0, 1.0, 500, texts=100, of=1000), 1: sample(4.0, 1.0, 700, texts=100, of=1000)}
    done, late = embedding_rows([Cell("a", 0, rounds), Cell("b", 0, reason="not measured (over 5 s)")], {"a": "A"})
    assert "**extrapolated** to 1000 from 100 texts, 2 times" in done[1]
    assert done[2:] == ["30.0 (20.0–40.0)", "10.0 (10.0–10.0)", "–", "–", "700"]
    assert late[2] == "not measured (over 5 s)"


def test_the_tail_of_known_seconds() -> None:
    # 0, 1, …, 100: the q-th quantile of 101 equally spaced numbers is 100 q.
    assert tail([float(x) for x in reversed(range(101))]) == (50.0, pytest.approx(95.0), 100.0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_the_tail_is_in_order(seconds: list[float]) -> None:
    median, p95, most = tail(seconds)
    # Interpolation rounds: one part in 10¹² of the greatest number is far more than it can lose.
    slack = 1e-12 * max(seconds)
    assert min(seconds) - slack <= median <= p95 + slack <= most + 2 * slack


def test_a_table_has_its_columns_in_every_line() -> None:
    lines = markdown(COLUMNS, suggestion_rows(cells(), {"mine": "a|b"}, "plain")).splitlines()
    assert len(lines) == 2 + 3
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(COLUMNS) + 1}
    assert "a\\|b" in lines[2]


def test_all_samples_are_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a.json"
    found = Cell("a", 1, {0: sample(1.0, math.nan, loss=math.inf)})
    write_json(path, {"cells": [found], "path": tmp_path, "pair": (1, 2.5), "number": np.float64(0.5)})
    read = json.loads(path.read_text(encoding="utf-8"))
    assert read["pair"] == [1, 2.5]
    assert read["number"] == 0.5
    assert read["path"] == str(tmp_path)
    (cell,) = read["cells"]
    assert cell["samples"]["0"]["wall"] == 1.0
    assert cell["samples"]["0"]["cpu"] is None
    assert cell["samples"]["0"]["details"] == {"loss": None}
