"""Which tables the benchmark searches: those on which our method's parameters were chosen, and those it reports.

A task belongs to one of the lists only. Tables that are in neither are searched only by name (``--tasks``).
"""

from __future__ import annotations

from benchmarks.lora_runs.table import TASKS, load, search_space
from benchmarks.search.problem import Pool, pool_of

DEVELOPMENT_TASKS: tuple[str, ...] = ()
"""Parameters of our method were chosen on these; their results are shown apart and prove nothing."""

REPORTED_TASKS: tuple[str, ...] = ()
"""Nothing was chosen on these."""


def shipped() -> tuple[str, ...]:
    """The listed tasks whose tables are here, development tasks first; all tables where no list names one."""
    listed = tuple(task for task in (*DEVELOPMENT_TASKS, *REPORTED_TASKS) if task in TASKS)
    return listed or TASKS


def role(task: str) -> str:
    """``development``, ``reported`` or ``unlisted``."""
    if task in DEVELOPMENT_TASKS:
        return "development"
    return "reported" if task in REPORTED_TASKS else "unlisted"


def pool(task: str) -> Pool:
    """The pool of a shipped table.

    Raises:
        ValueError: there is no such table, or it makes no pool.
    """
    return pool_of(task, search_space(), load(task))
