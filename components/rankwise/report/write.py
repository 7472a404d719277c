"""Write a report into a folder: each file appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankwise.errors import SurroundingsError
from rankwise.report.analysis import analyse
from rankwise.report.facts import SearchFacts
from rankwise.report.to_html import to_html
from rankwise.report.to_json import to_json
from rankwise.report.to_markdown import to_markdown
from rankwise.report.to_optuna import write_database
from rankwise.strategies.goals import Constraint


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where the parts of a report are."""

    html: Path
    json: Path
    markdown: Path
    optuna: Path


def build_report(facts: SearchFacts, budget: Sequence[Constraint] = ()) -> tuple[str, str]:
    """The report as HTML and as JSON text; ``budget`` as for :func:`write_report`."""
    analysis = analyse(facts, budget)
    return to_html(facts, analysis), to_json(facts, analysis)


def write_report(facts: SearchFacts, folder: Path, budget: Sequence[Constraint] = ()) -> ReportPaths:
    """Write ``report.html``, ``report.json``, ``report.md`` and ``optuna.db``; earlier ones are replaced.

    Args:
        facts: the search, finished or not.
        folder: made when it is not there.
        budget: bounds of the reader's own, within which the best configuration is named as well.

    Raises:
        SurroundingsError: when the folder cannot be written; the files of an earlier report are then still whole.
    """
    analysis = analyse(facts, budget)
    paths = ReportPaths(*(folder / name for name in ("report.html", "report.json", "report.md", "optuna.db")))
    texts = (
        (paths.json, to_json(facts, analysis)),
        (paths.markdown, to_markdown(facts, analysis)),
        (paths.html, to_html(facts, analysis)),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts:
            with _replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        with _replacing(paths.optuna) as temporary:
            write_database(facts, temporary)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SurroundingsError(f"the report could not be written into {folder}: {reason}") from error
    return paths


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends well."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes it private; a report is there to be read
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
