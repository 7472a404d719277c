"""What a trial says: metric lines for a collector, progress for a person.

A collector reads everything the process prints (Katib merges stdout and stderr) and takes each ``name=value`` for a
metric. So progress never holds an equals sign, and metric lines hold nothing else.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from rankwise.errors import SurroundingsError

log = logging.getLogger(__name__)


class _NoEquals(logging.Formatter):
    """``time LEVEL message`` without a single equals sign, whatever a message quotes."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, tz=UTC).strftime("%H:%M:%S")
        text = f"{moment} {record.levelname.lower()}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text.replace("=", " is ")


def start_progress() -> None:
    """Send the package's log lines to standard error. Called by ``main`` alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_NoEquals())
    logger = logging.getLogger("rankwise")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class MetricLines:
    """Writes metrics as Katib's collectors read them.

    Args:
        form: ``text``: one ``name=value`` a line; ``json``: one object a line, values as texts, with a timestamp.
        path: file to append to; standard output when None.
    """

    def __init__(self, form: str, path: str | None) -> None:
        self._form = form
        self._path = None if path is None else Path(path)

    def write(self, metrics: Mapping[str, float]) -> None:
        """Report one evaluation.

        Raises:
            SurroundingsError: the file cannot be written.
        """
        if not metrics:
            return
        # repr gives the shortest text that reads back as the same number, e.g. 0.25 or 1e-05: the filter takes both.
        texts = {name: repr(float(value)) for name, value in metrics.items()}
        if self._form == "json":
            stamp = datetime.now(tz=UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
            lines = json.dumps({"timestamp": stamp} | texts) + "\n"
        else:
            lines = "".join(f"{name}={text}\n" for name, text in texts.items())
        if self._path is None:
            sys.stdout.write(lines)
            sys.stdout.flush()
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(lines)
        except OSError as error:
            raise SurroundingsError(f"could not write metrics to {self._path}: {error.strerror or error}") from error
