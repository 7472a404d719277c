"""The trials of a search as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rankwise.report import words
from rankwise.report.facts import SearchFacts, TrialFacts
from rankwise.report.goal_tables import KEEPS
from rankwise.report.goals import analyse_goals
from rankwise.report.seeded import SeededConfiguration, seeded_configurations
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
        seeded = seeded_configurations(facts)
        keeps = analyse_goals(facts).keeps if facts.aims.goals.constraints else None
        best = facts.best
        rows = [_row(facts, number, trial, best, seeded, keeps) for number, trial in shown]
        lines += ["", *_aligned([_header(facts, seeded, keeps), *rows])]
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
    found = facts.best
    shown = {number for number, trial in numbered if trial is found} | last
    shown |= set([number for _, number in valued if number not in shown][: ROWS - len(shown)])
    return [(number, trial) for number, trial in numbered if number in shown]


Seeded = Sequence[SeededConfiguration]
Keeps = Mapping[str, bool] | None


def _header(facts: SearchFacts, seeded: Seeded, keeps: Keeps) -> list[str]:
    return [
        *("", "#", "trial", "state", facts.objective.metric),
        *(["mean over seeds", "seeds"] if seeded else []),
        *(["bounds"] if keeps is not None else []),
        *(p.name for p in facts.parameters),
        "duration",
    ]


def _row(
    facts: SearchFacts, number: int, trial: TrialFacts, best: TrialFacts | None, seeded: Seeded, keeps: Keeps
) -> list[str]:
    group = next((one for one in seeded if trial.name in one.trials), None)
    return [
        "*" if trial is best else "",
        str(number),
        trial.name,
        trial.state_words,
        words.number(trial.value),
        *([group.text, str(group.trainings)] if group else []),
        *([] if keeps is None else [KEEPS[keeps.get(trial.name)] if trial.value is not None else "–"]),
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
