"""What a trial says: metric lines for a collector, progress for a person or a log store.

A collector reads everything the process prints (Katib merges stdout and stderr into one file) and takes each
``name=value`` for a metric. So only metric lines hold an equals sign, and they hold nothing but a time and one metric:
progress, warnings, traces and whatever a library prints go through :func:`only_metrics_with_equals`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from rankwise.errors import SurroundingsError
from rankwise.logs import JsonFormatter, Redaction

log = logging.getLogger(__name__)

_IN_PLACE_OF_EQUALS = " is "


class _WithoutEquals:
    """A text stream to which nothing writes an equals sign."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(text.replace("=", _IN_PLACE_OF_EQUALS))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def only_metrics_with_equals() -> Iterator[TextIO]:
    """Context in which only what is written to the stream that it gives (stdout) can look like a metric."""
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _WithoutEquals(out), _WithoutEquals(err)
    try:
        yield out
    finally:
        sys.stdout, sys.stderr = out, err


class _Text(logging.Formatter):
    """``time LEVEL message`` without a single equals sign, whatever a message quotes, and without secrets."""

    def __init__(self) -> None:
        super().__init__()
        self._redaction = Redaction(os.environ)

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, tz=UTC).strftime("%H:%M:%S")
        text = f"{moment} {record.levelname.lower()}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return self._redaction.text(text).replace("=", _IN_PLACE_OF_EQUALS)


class _Json(JsonFormatter):
    """The services' log lines with the trial's names; an equals sign is written as JSON's escape, so nothing is lost.

    Args:
        names: facts that every line has.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        super().__init__(Redaction(os.environ))
        self._names = dict(names)

    def format(self, record: logging.LogRecord) -> str:
        for name, value in self._names.items():
            record.__dict__.setdefault(name, value)
        return super().format(record).replace("=", "\\u003d")


def start_progress(form: str = "text", names: Mapping[str, str] | None = None) -> None:
    """Send the package's log lines to standard error. Called by ``main`` alone.

    Args:
        form: ``text`` or ``json``.
        names: of namespace, experiment and trial, for JSON lines.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(names or {}) if form == "json" else _Text())
    logger = logging.getLogger("rankwise")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class MetricLines:
    """Writes metrics as Katib's collectors read them.

    Args:
        form: ``text``: ``time name=value`` a line; ``json``: one object a line, values as texts, with a timestamp.
            Without its time a metric's latest value would be any one: Katib orders by time what it has stored.
        path: file to append to; ``stream`` when None.
        stream: standard output when None.
    """

    def __init__(self, form: str, path: str | None, stream: TextIO | None = None) -> None:
        self._form = form
        self._path = None if path is None else Path(path)
        self._stream = stream

    def write(self, metrics: Mapping[str, float]) -> None:
        """Report one evaluation.

        Raises:
            SurroundingsError: the file cannot be written.
        """
        if not metrics:
            return
        # repr gives the shortest text that reads back as the same number, e.g. 0.25 or 1e-05: the filter takes both.
        texts = {name: repr(float(value)) for name, value in metrics.items()}
        stamp = datetime.now(tz=UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        if self._form == "json":
            lines = json.dumps({"timestamp": stamp} | texts) + "\n"
        else:
            lines = "".join(f"{stamp} {name}={text}\n" for name, text in texts.items())
        if self._path is None:
            stream = sys.stdout if self._stream is None else self._stream
            stream.write(lines)
            stream.flush()
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(lines)
        except OSError as error:
            raise SurroundingsError(f"could not write metrics to {self._path}: {error.strerror or error}") from error
