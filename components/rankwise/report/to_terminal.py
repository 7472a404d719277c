"""The trials of a search as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rankwise.report import words
from rankwise.report.facts import SearchFacts, TrialFacts
from rankwise.report.tables import best_adapter, count_sentence

ROWS = 40
"""Trials that are shown; of more, the best and the last ones."""
_LAST = 10
_LONGEST = 40


def trial_table(facts: SearchFacts) -> str:
    """Notes on the search, then the trials in the order of suggestion, the best one marked.

    Control characters are taken out, so that no text of the cluster can steer the terminal.
    """
    where = f" in namespace {facts.namespace}" if facts.namespace else ""
    lines = [words.one_line(f"{facts.experiment}{where}: {count_sentence(facts)}. {facts.message}")]
    lines += [words.one_line(f"note: {note}") for note in facts.notes]
    shown = _shown(facts)
    if shown:
        lines += ["", *_aligned([_header(facts), *(_row(facts, number, trial) for number, trial in shown)])]
    if len(shown) < len(facts.trials):
        lines.append(f"({len(shown):,} of {words.plural(len(facts.trials), 'trial')}: the best and the last ones)")
    if adapter := best_adapter(facts):
        lines += ["", words.one_line(f"best adapter: {adapter}")]
    return "\n".join(line.rstrip() for line in [*lines, ""])


def _shown(facts: SearchFacts) -> list[tuple[int, TrialFacts]]:
    numbered = list(enumerate(facts.trials, start=1))
    if len(numbered) <= ROWS:
        return numbered
    sign = 1 if facts.objective.better(0.0, 1.0) else -1
    valued = sorted((sign * t.value, number) for number, t in numbered if t.value is not None)
    last = {number for number, _ in numbered[-_LAST:]}
    best = [number for _, number in valued if number not in last][: ROWS - len(last)]
    return [(number, trial) for number, trial in numbered if number in last or number in best]


def _header(facts: SearchFacts) -> list[str]:
    return ["", "#", "trial", "state", facts.objective.metric, *(p.name for p in facts.parameters), "duration"]


def _row(facts: SearchFacts, number: int, trial: TrialFacts) -> list[str]:
    return [
        "*" if trial is facts.best else "",
        str(number),
        trial.name,
        trial.state_words,
        words.number(trial.value),
        *(trial.assignments.get(parameter.name, "–") for parameter in facts.parameters),
        words.seconds(trial.seconds),
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    table = [[words.shorten(words.one_line(cell), _LONGEST) for cell in row] for row in rows]
    widths = [max(words.width(row[column]) for row in table) for column in range(len(table[0]))]
    left = (0, 2, 3)  # mark, name, state; all else is numbers
    lines = [
        "  ".join(words.pad(cell, widths[column], right=column not in left) for column, cell in enumerate(row))
        for row in table
    ]
    lines.insert(1, "  ".join("─" * columns for columns in widths))
    return lines
