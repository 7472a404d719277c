"""Which tables the benchmark searches: those on which our method's parameters were chosen, and those it reports.

A task belongs to one of the lists only. Tables that are in neither are searched only by name (``--tasks``).
"""

from __future__ import annotations

from functools import cache

from benchmarks.lora_runs.table import TASKS, load, search_space
from benchmarks.search.problem import Pool, measured_of
from benchmarks.search.surrogate import stretched

HIDDEN = 0.2
"""Part of a table that each seed hides."""

STRETCHED = "~"
"""Between the name of a table and the regression that stretches it."""

DEVELOPMENT_TASKS: tuple[str, ...] = (
    "minilm-section",
    "minilm-supersense",
    "minilm3-section",
    "minilm3-supersense",
)
"""Parameters of our method may be chosen on these; their results are shown apart and prove nothing. The shallower model
on the same text is too much like the deeper one to be kept for the report."""

REPORTED_TASKS: tuple[str, ...] = (
    "minilm-pos",
    "minilm3-pos",
    "minilm-role",
    "minilm3-role",
    "minilm-word",
    "minilm3-word",
    "smollm2-summary",
    "smollm2-gloss",
    "smollm2-answer",
)
"""Nothing is chosen on these."""


def shipped() -> tuple[str, ...]:
    """The listed tasks whose tables are here, development tasks first; all tables where no list names one."""
    listed = tuple(task for task in (*DEVELOPMENT_TASKS, *REPORTED_TASKS) if task in TASKS)
    return listed or TASKS


def role(task: str) -> str:
    """``development``, ``reported`` or ``unlisted``; ``-stretched`` is added for a stretched table."""
    task, at, _ = task.partition(STRETCHED)
    if at:
        return f"{role(task)}-stretched"
    if task in DEVELOPMENT_TASKS:
        return "development"
    return "reported" if task in REPORTED_TASKS else "unlisted"


@cache
def pool(task: str) -> Pool:
    """The pool of a shipped table, or of one that a regression stretches over its space.

    Args:
        task: name of a table; ``NAME~gp`` and ``NAME~forest`` are stretched (:mod:`benchmarks.search.surrogate`).

    Raises:
        ValueError: there is no such table, or it makes no pool.
    """
    name, stretched_by, kind = task.partition(STRETCHED)
    space = search_space()
    measured = measured_of(name, space, load(name))
    return stretched(task, space, measured, kind, HIDDEN) if stretched_by else Pool(name, space, measured, HIDDEN)
