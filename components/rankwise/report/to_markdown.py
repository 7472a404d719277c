"""A short summary as Markdown, and the same table as plain text for a terminal."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from rankwise.report import words
from rankwise.report.analysis import Analysis, analyse, best_value
from rankwise.report.facts import SearchFacts
from rankwise.report.goal_tables import (
    BOUND_HEADER,
    bound_rows,
    bound_words,
    cost_words,
    front_table,
    is_constrained_or_weighed,
    pick_words,
)
from rankwise.report.tables import (
    TRIAL_NOTE,
    best_adapter,
    configuration_rows,
    count_sentence,
    facts_rows,
    final_rows,
    landscape_words,
    proxy_sentence,
    trial_rows,
)
from rankwise.strategies.goals import Constraint

_LONGEST = 48
"""Characters of a cell in a terminal."""
_FRONT_ROWS = 12
"""Configurations of the front in a terminal, the best ones."""
_EXAMPLES = 3
"""Test examples in the summary; the page has all that were kept."""
_EXAMPLE_LENGTH = 400


def _cell(text: str) -> str:
    """A text that cannot leave its place in a Markdown table, nor become a link, an image or HTML."""
    line = words.one_line(text)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#!~])", r"\\\1", line)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [
        "| " + " | ".join(cells if index == 1 else [_cell(c) for c in cells]) + " |"
        for index, cells in enumerate(lines)
    ]


def _final_table(facts: SearchFacts, analysis: Analysis) -> tuple[list[str], list[list[str]]]:
    lead = facts.finals.lead
    header = ["test split", *([lead.description] if lead else []), "default", "best found", "gain", "reading"]
    rows = [
        [row.label, *([row.lead] if lead else []), row.default, row.best, row.gain, row.reading]
        for row in final_rows(facts, analysis)
    ]
    return header, rows


def to_markdown(facts: SearchFacts, analysis: Analysis) -> str:
    """The summary: verdict, final table, best configuration, cost, how it was made."""
    lines = [
        f"# {_cell(facts.experiment)}",
        "",
        _cell(analysis.verdict),
        "",
        _cell(count_sentence(facts)) + "." + (f" {_cell(facts.message)}" if facts.message else ""),
        "",
        *[f"- {_cell(note)}" for note in facts.notes],
        *([""] if facts.notes else []),
    ]
    header, rows = _final_table(facts, analysis)
    if rows:
        lines += ["## Default against best", "", *_table(header, rows), ""]
        lines += ["± is the standard error over the test examples.", ""]
    if among := trial_rows(facts, analysis):
        lines += ["## Default against best among the trials, on validation", ""]
        cells = [[row.label, row.default, row.best, row.gain] for row in among]
        lines += [*_table(["validation split", "default", "best found", "gain"], cells), "", TRIAL_NOTE, ""]
    if facts.best is not None:
        value = f"{facts.objective.metric} {best_value(facts, analysis.seeded)} on validation"
        lines += ["## Best configuration", "", f"Trial {_cell(facts.best.name)}, {_cell(value)}.", ""]
        if adapter := best_adapter(facts):
            lines += [f"Adapter: {_cell(adapter)}", ""]
        lines += [*_table(["parameter", "default", "best", "allowed"], configuration_rows(facts)), ""]
    lines += _goals(facts, analysis)
    if analysis.importances.shares:
        shares = [(name, words.percent(share)) for name, share in analysis.importances.shares.items()]
        lines += [f"## Importance ({analysis.importances.evaluator})", "", *_table(["parameter", "share"], shares), ""]
    if said := landscape_words(facts):
        lines += ["## The search as the language model sees it", ""]
        lines += ["The picture is in [report.html](report.html#landscape).", ""] if facts.landscape else []
        lines += [_cell(" ".join(said)), ""]
    lines += ["## Cost", "", _cell(proxy_sentence(facts, analysis)), ""]
    lines += _examples(analysis)
    lines += ["## How it was made", "", *_table(["what", "value"], facts_rows(facts)), ""]
    return "\n".join(lines)


def _goals(facts: SearchFacts, analysis: Analysis) -> list[str]:
    """Costs, bounds and front."""
    lines: list[str] = []
    bounds = bound_rows(analysis)
    if is_constrained_or_weighed(analysis):
        lines += ["## What the search was for", ""]
        lines += [_cell(said) + "\n" for said in (cost_words(facts, analysis), bound_words(analysis)) if said]
        lines += [*_table(BOUND_HEADER, bounds), ""] if bounds else []
    front, picked = front_table(facts, analysis), pick_words(facts, analysis)
    if front.rows or picked:
        lines += ["## What quality costs", ""]
        lines += [_cell(picked), ""] if picked else []
        lines += [*_table(front.header, front.rows), ""] if front.rows else []
    return lines


def _examples(analysis: Analysis) -> list[str]:
    """The first test examples with both predictions, side by side."""
    rows = [
        [
            _shortened(text) if text is not None else "–"
            for text in (example.source, example.target, example.default, example.best)
        ]
        for example in analysis.examples[:_EXAMPLES]
    ]
    return ["## Examples", "", *_table(["source", "reference", "default", "best found"], rows), ""] if rows else []


def _shortened(text: str) -> str:
    line = words.one_line(text)
    return line if len(line) <= _EXAMPLE_LENGTH else line[: _EXAMPLE_LENGTH - 1] + "…"


def terminal_table(facts: SearchFacts, budget: Sequence[Constraint] = ()) -> str:
    """The verdict and the tables of final runs, bounds and front as plain text, for the end of ``rankwise run``.

    Of tables that have no rows nothing is said, and of the front only where costs were asked for. Control
    characters in names are taken out, so that no name can steer the terminal.
    """
    analysis = analyse(facts, budget)
    header, rows = _final_table(facts, analysis)
    # The reading is a sentence: it would make the table too wide, and the verdict above says the main one.
    tables = [([line[:-1] for line in [header, *rows]], {0})] if rows else []
    if among := trial_rows(facts, analysis):
        cells = [[row.label, row.default, row.best, row.gain] for row in among]
        tables = [([["among the trials", "default", "best found", "gain"], *cells], {0})]
    if bounds := bound_rows(analysis):
        tables.append(([BOUND_HEADER, *bounds], {0, 3, 4}))
    front = front_table(facts, analysis)
    asked = bool(facts.aims.goals.traded or budget) or is_constrained_or_weighed(analysis)
    if asked and front.rows:
        tables.append(([front.header, *front.rows[:_FRONT_ROWS]], {1, len(front.header) - 1}))
    lines = [words.one_line(analysis.verdict)]
    for table, left in tables:
        lines += ["", *_aligned(table, left)]
    if said := pick_words(facts, analysis):
        lines += ["", words.one_line(said)]
    return "\n".join(lines)


def _aligned(table: Sequence[Sequence[str]], left: Collection[int]) -> list[str]:
    """Lines of a table; the columns ``left`` are aligned to the left, all others to the right."""
    texts = [[words.shorten(words.one_line(cell), _LONGEST) for cell in row] for row in table]
    widths = [max(words.width(row[column]) for row in texts) for column in range(len(texts[0]))]
    lines = [
        "  ".join(words.pad(cell, widths[i], right=i not in left) for i, cell in enumerate(row)).rstrip()
        for row in texts
    ]
    lines.insert(1, "  ".join("─" * columns for columns in widths))
    return lines
