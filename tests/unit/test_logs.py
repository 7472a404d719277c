"""One line an event, for a person or for a log store."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from rankwise.logs import configure_logging

log = logging.getLogger("rankwise.test")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    logger = logging.getLogger("rankwise")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def test_json_lines_hold_the_facts() -> None:
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    log.info("answered %d", 3, extra={"experiment": "größe\nx", "seconds": 0.25, "fallback": None})
    (line,) = stream.getvalue().splitlines()
    content = json.loads(line)
    assert content.pop("time").endswith("Z")
    assert content == {
        "level": "info",
        "logger": "rankwise.test",
        "message": "answered 3",
        "experiment": "größe\nx",
        "seconds": 0.25,
    }


def test_text_lines_hold_the_facts() -> None:
    stream = io.StringIO()
    configure_logging("text", "info", stream)
    log.warning("late", extra={"experiment": "e", "count": 2})
    assert stream.getvalue().endswith("WARNING late experiment=e count=2\n")


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_stack_trace_is_kept(form: str) -> None:
    stream = io.StringIO()
    configure_logging(form, "info", stream)
    try:
        raise KeyError("gone")
    except KeyError:
        log.exception("failed")
    assert "Traceback" in stream.getvalue()
    assert "KeyError: 'gone'" in stream.getvalue()
    if form == "json":
        assert len(stream.getvalue().splitlines()) == 1


def test_the_level_is_obeyed_and_a_second_call_does_not_double_lines() -> None:
    stream = io.StringIO()
    configure_logging("text", "info", io.StringIO())
    configure_logging("text", "warning", stream)
    log.info("quiet")
    log.warning("loud")
    assert len(stream.getvalue().splitlines()) == 1


def test_other_forms_and_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="log format must be one of"):
        configure_logging("xml")
    with pytest.raises(ValueError, match="log level must be one of"):
        configure_logging("text", "loud")
