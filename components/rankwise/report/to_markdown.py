"""A short summary as Markdown, and the same table as plain text for a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rankwise.report import words
from rankwise.report.analysis import Analysis, analyse
from rankwise.report.facts import SearchFacts
from rankwise.report.tables import (
    best_adapter,
    configuration_rows,
    count_sentence,
    facts_rows,
    final_rows,
    landscape_words,
    proxy_sentence,
)

_LONGEST = 48
"""Characters of a cell in a terminal."""


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
    if facts.best is not None:
        lines += ["## Best configuration", "", f"Trial {_cell(facts.best.name)}.", ""]
        if adapter := best_adapter(facts):
            lines += [f"Adapter: {_cell(adapter)}", ""]
        lines += [*_table(["parameter", "default", "best", "allowed"], configuration_rows(facts)), ""]
    if analysis.importances.shares:
        shares = [(name, words.percent(share)) for name, share in analysis.importances.shares.items()]
        lines += [f"## Importance ({analysis.importances.evaluator})", "", *_table(["parameter", "share"], shares), ""]
    if said := landscape_words(facts):
        lines += ["## The search as the language model sees it", ""]
        lines += ["The picture is in [report.html](report.html#landscape).", ""] if facts.landscape else []
        lines += [_cell(" ".join(said)), ""]
    lines += ["## Cost", "", _cell(proxy_sentence(facts, analysis)), ""]
    lines += ["## How it was made", "", *_table(["what", "value"], facts_rows(facts)), ""]
    return "\n".join(lines)


def terminal_table(facts: SearchFacts) -> str:
    """The verdict and the final table as plain text, for the end of ``rankwise run``.

    Without final runs: the verdict alone. Control characters in names are taken out, so that no name can steer the
    terminal.
    """
    analysis = analyse(facts)
    verdict = words.one_line(analysis.verdict)
    header, rows = _final_table(facts, analysis)
    if not rows:
        return verdict
    # The reading is a sentence: it would make the table too wide, and the verdict above says the main one.
    table = [[words.shorten(words.one_line(cell), _LONGEST) for cell in line[:-1]] for line in [header, *rows]]
    widths = [max(words.width(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [
        "  ".join(words.pad(cell, widths[column], right=column > 0) for column, cell in enumerate(line)).rstrip()
        for line in table
    ]
    lines.insert(1, "  ".join("─" * columns for columns in widths))
    return "\n".join([verdict, "", *lines])
