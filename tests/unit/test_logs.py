"""One line an event, for a person or for a log store."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from rankwise.logs import Redaction, about, configure_logging, hide_named, take_over_the_rest

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


def test_what_a_work_is_about_stands_in_every_line_of_it() -> None:
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    with about(experiment="outer", namespace="a"):
        with about(experiment="inner"):
            log.info("one")
            log.info("two", extra={"experiment": "its own"})
        log.info("three")
    log.info("four")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line.get("experiment"), line.get("namespace")) for line in lines] == [
        ("inner", "a"),
        ("its own", "a"),
        ("outer", "a"),
        (None, None),
    ]


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("s3://key:word@host/b and http://u:p@q@h", "s3://***@host/b and http://***@h"),
        ("aws_secret_access_key=abc rest", "aws_secret_access_key=*** rest"),
        ("settings.my-token: got 'it\\'s'; allowed", "settings.my-token: got '***'; allowed"),
        ('{"password": "a b", "rank": "8"}', '{"password": "***", "rank": "8"}'),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("PASSPHRASE => x, y", "PASSPHRASE => ***, y"),
        (
            "max_tokens=512, tokenizer: fast, https://host/path@x",
            "max_tokens=512, tokenizer: fast, https://host/path@x",
        ),
        ("the secret of success; an access key is missing", "the secret of success; an access key is missing"),
    ],
)
def test_what_is_named_like_a_secret_is_hidden(said: str, written: str) -> None:
    assert hide_named(said) == written


def test_values_of_variables_that_are_named_like_secrets_are_hidden_wherever_they_stand() -> None:
    redaction = Redaction(
        {
            "AWS_SECRET_ACCESS_KEY": "abcdefgh",
            "S3_PASSWORD": "abcdefghij",
            "HF_TOKEN": "short",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token",
            "HOME": "/home/me",
        }
    )
    assert (
        redaction.text("xabcdefghijy abcdefgh short /var/run/token /home/me")
        == "x***y *** short /var/run/token /home/me"
    )
    assert redaction.value({"a": ["abcdefgh", 1, None, True], "api_key": "x"}) == {
        "a": ["***", 1, None, True],
        "api_key": "***",
    }


def test_a_long_word_does_not_take_long() -> None:
    text = "A" * 200_000 + "=" + "token" * 2_000
    with_deadline = threading.Thread(target=hide_named, args=(text,), daemon=True)
    with_deadline.start()
    with_deadline.join(20)
    assert not with_deadline.is_alive()


def test_warnings_and_uncaught_errors_are_lines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            take_over_the_rest()
            warnings.warn("old", UserWarning, stacklevel=1)
        logging.getLogger("another.package").warning("careful")
        logging.getLogger("another.package").info("not needed")
        thread = threading.Thread(target=lambda: 1 / 0, name="divides")
        thread.start()
        thread.join()
        try:
            raise RuntimeError("password=abc")
        except RuntimeError as error:
            sys.excepthook(RuntimeError, error, error.__traceback__)
    finally:
        logging.captureWarnings(False)
        root.handlers[:], root.level = before
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["logger"] for line in lines] == [
        "py.warnings",
        "another.package",
        "rankwise.uncaught",
        "rankwise.uncaught",
    ]
    assert lines[2]["thread_name"] == "divides"
    assert "ZeroDivisionError" in lines[2]["exception"]
    assert "RuntimeError: password=***" in lines[3]["exception"]
