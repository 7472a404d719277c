from __future__ import annotations

from dataclasses import replace

import pytest

from rankwise.report import words
from rankwise.report.analysis import analyse
from rankwise.report.to_markdown import terminal_table, to_markdown
from support.facts import edge_cases, hostile_facts, synthetic_facts

pytestmark = pytest.mark.usefixtures("importances_once")


def test_the_summary_has_the_final_table_and_the_best_configuration() -> None:
    facts = synthetic_facts(30)
    lines = to_markdown(facts, analyse(facts)).splitlines()
    assert lines[0] == "# quickstart"
    assert "| test split | first ten words | default | best found | gain | reading |" in lines
    (loss,) = [line for line in lines if line.startswith("| loss ↓")]
    assert loss.split(" | ")[2:5] == ["1.834 ± 0.027", "1.713 ± 0.026", "+6.6 %"]
    best = facts.best
    assert best is not None
    assert f"| rank | 8 | {best.assignments['rank']} | 4, 8, 16, 32, 64 |" in lines


@pytest.mark.parametrize("name", sorted(edge_cases()))
def test_tables_keep_their_columns_whatever_the_texts(name: str) -> None:
    facts = edge_cases()[name]
    text = to_markdown(facts, analyse(facts))
    columns = 0
    for line in text.splitlines():
        if not line.startswith("|"):
            columns = 0
            continue
        bars = line.replace("\\|", "").count("|")
        columns = columns or bars
        assert bars == columns
    assert "<" not in text
    assert "None" not in text


def test_the_terminal_table_is_aligned() -> None:
    text = terminal_table(synthetic_facts(30))
    verdict, empty, *table = text.splitlines()
    assert verdict.startswith("On 200 test examples the best configuration found is better")
    assert empty == ""
    assert table[0].split("  ")[0] == "test split"
    assert len({words.width(line) for line in table}) == 1
    assert "1.713 ± 0.026" in table[2]


def test_the_terminal_table_without_finals_compares_trials() -> None:
    facts = edge_cases()["no finals"]
    verdict, empty, *table = terminal_table(facts).splitlines()
    assert verdict == analyse(facts).verdict
    assert empty == ""
    assert table[0].split("  ")[0] == "among the trials"
    assert len({words.width(line) for line in table}) == 1
    no_default = replace(facts, default_configuration=None)
    assert terminal_table(no_default) == analyse(no_default).verdict


def test_names_cannot_steer_the_terminal() -> None:
    text = terminal_table(hostile_facts())
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2 + 2 + 3  # verdict, blank, head, rule, metric, time, memory
