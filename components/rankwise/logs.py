"""Logging of the long-running programs: one line an event, as text for a person or as JSON for a log store.

Facts of an event are passed as ``extra={...}``; both forms print them. What a whole piece of work is about (the
experiment, its namespace) is said once, with :func:`about`, and stands in every line of that work, whichever floor
writes it. Nothing here runs at import.

Secrets are taken out of every line, its facts and its stack trace: values of the environment's variables whose names
speak of a secret, passwords in URLs, and whatever follows such a name (``secret_key=…``, ``token: got '…'``).
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

HIDDEN = "***"
_SHORTEST_SECRET = 6
"""Shorter values of variables are not searched for: they would be found within ordinary words."""

# What every record has; whatever else a record carries was passed as ``extra``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# Words of a name, such as AWS_SECRET_ACCESS_KEY, s3-password or hfToken. "tokens" (a number of them) is none.
_SPEAKS_OF_SECRET = re.compile(
    r"secret|passw(?:or)?d|passphrase|credential|token(?!s|iz)|(?:api|access|private|account)[-_]?key|authorization",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"(?P<name>(?:" + _SPEAKS_OF_SECRET.pattern + r")[\w\-]{0,80})"
    r"(?P<between>[\"']?\s*(?:=>|[:=])\s*(?:got\s+)?(?:(?:basic|bearer)\s+)?)"
    r"(?P<value>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s,;&)\]}]+)",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.\-]*://)[^\s/'\"]+@", re.IGNORECASE)

_about: ContextVar[Mapping[str, object]] = ContextVar("about", default={})  # noqa: B039 - never changed


@contextmanager
def about(**facts: object) -> Iterator[None]:
    """Facts of every line that is written within, in this thread (:func:`contextvars.copy_context` for another)."""
    token = _about.set({**_about.get(), **facts})
    try:
        yield
    finally:
        _about.reset(token)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    own = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {name: value for name, value in {**_about.get(), **own}.items() if value is not None}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Redaction:
    """Takes secrets out of texts.

    Args:
        environment: variables; the values of those whose names speak of a secret are hidden wherever they occur.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        values = {
            value
            for name, value in environment.items()
            if _SPEAKS_OF_SECRET.search(name) and len(value) >= _SHORTEST_SECRET and not value.startswith("/")
        }
        # The longest first: one may be the beginning of another.
        self._values = sorted(values, key=lambda value: (-len(value), value))

    def text(self, text: str) -> str:
        """The text without secrets."""
        for value in self._values:
            text = text.replace(value, HIDDEN)
        text = _IN_URL.sub(rf"\g<scheme>{HIDDEN}@", text)
        return _NAMED.sub(_hide_named, text)

    def value(self, value: object, name: str = "") -> object:
        """A fact's value without secrets; containers are copied."""
        if isinstance(value, bool | int | float) or value is None:
            return value
        if name and _SPEAKS_OF_SECRET.search(name):
            return HIDDEN
        if isinstance(value, Mapping):
            return {str(key): self.value(item, str(key)) for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return [self.value(item) for item in value]
        return self.text(str(value))


def hide_named(text: str) -> str:
    """A text for somebody else's eyes, without passwords in URLs and what follows a name that speaks of a secret."""
    return Redaction({}).text(text)


def _hide_named(match: re.Match[str]) -> str:
    value = match["value"]
    quote = value[0] if value[0] in "'\"" else ""
    return f"{match['name']}{match['between']}{quote}{HIDDEN}{quote}"


class _Redacting(logging.Formatter):
    """What both forms share: their parts without secrets."""

    def __init__(self, redaction: Redaction | None = None) -> None:
        super().__init__()
        self._redaction = redaction or Redaction({})

    def parts(self, record: logging.LogRecord) -> tuple[str, dict[str, object], str | None]:
        """Message, facts, stack trace."""
        facts = {name: self._redaction.value(value, name) for name, value in _facts(record).items()}
        trace = self._redaction.text(self.formatException(record.exc_info)) if record.exc_info else None
        return self._redaction.text(record.getMessage()), facts, trace


class JsonFormatter(_Redacting):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, the event's facts, the stack trace."""

    def format(self, record: logging.LogRecord) -> str:
        message, facts, trace = self.parts(record)
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        for name, value in facts.items():
            line.setdefault(name, value)
        if trace is not None:
            line["exception"] = trace
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(_Redacting):
    """``time LEVEL message name=value …``; a stack trace follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        message, facts, trace = self.parts(record)
        line = f"{_time(record)} {record.levelname:<7} {message}" + "".join(f" {k}={v}" for k, v in facts.items())
        return line if trace is None else f"{line}\n{trace}"


def configure_logging(
    form: str = "text",
    level: str = "info",
    stream: TextIO | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Send the package's log lines to ``stream``; called once, by a program's ``main``, never by a library call.

    Args:
        form: one of :data:`FORMATS`.
        level: one of :data:`LEVELS`.
        stream: standard error when None.
        environment: where secrets are; ``os.environ`` when None.

    Raises:
        ValueError: for another form or level.
    """
    if form not in FORMATS:
        raise ValueError(f"log format must be one of {FORMATS}, got {form!r}")
    if level not in LEVELS:
        raise ValueError(f"log level must be one of {LEVELS}, got {level!r}")
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    redaction = Redaction(os.environ if environment is None else environment)
    handler.setFormatter(JsonFormatter(redaction) if form == "json" else TextFormatter(redaction))
    logger = logging.getLogger("rankwise")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def take_over_the_rest() -> None:
    """Write what else would reach standard error in the same form: other packages' warnings and uncaught errors.

    For a program that is nothing but a service; called once, after :func:`configure_logging`.
    """
    ours = logging.getLogger("rankwise")
    root = logging.getLogger()
    root.handlers[:] = list(ours.handlers)
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    uncaught = logging.getLogger("rankwise.uncaught")

    def in_main(kind: type[BaseException], error: BaseException, trace: object) -> None:  # noqa: ARG001
        uncaught.critical("the program ends by an error", exc_info=error)

    def in_thread(arguments: threading.ExceptHookArgs) -> None:
        name = arguments.thread.name if arguments.thread else None
        uncaught.error("a thread ended by an error", exc_info=arguments.exc_value, extra={"thread_name": name})

    sys.excepthook = in_main
    threading.excepthook = in_thread
