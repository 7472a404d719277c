"""What Katib's StdOut and File collectors would have read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rankwise.local.collector import (
    Follower,
    MetricsSource,
    UnreadableMetrics,
    collect,
    compile_filters,
    parse_json_line,
    parse_text_line,
    summarize,
    timestamp_key,
)
from rankwise.local.records import UNAVAILABLE, MetricSummary, Report

DEFAULT = compile_filters(())


def text(line: str, metrics: tuple[str, ...] = ("loss", "rouge-L")) -> list[tuple[str, str, str]]:
    return [(r.metric, r.value, r.timestamp) for r in parse_text_line(line, metrics, DEFAULT)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("loss=0.41", [("loss", "0.41", "")]),
        ("loss = 0.41", [("loss", "0.41", "")]),
        ("loss=-1e-3", [("loss", "-1e-3", "")]),
        ("loss=+.5", [("loss", "+.5", "")]),
        ("loss=1.", [("loss", "1", "")]),  # Katib's expression wants digits after the point
        ("loss=nan", [("loss", "", "")]),  # katib issue 2723
        ("loss=inf", [("loss", "", "")]),
        ("loss=", [("loss", "", "")]),
        ("loss=1.5\r", [("loss", "1.5", "")]),
        ("epoch 3: rouge-L=0.2, loss=0.7", [("rouge-L", "0.2", ""), ("loss", "0.7", "")]),
        ("2024-01-31T10:00:00.123456789Z loss=0.3", [("loss", "0.3", "2024-01-31T10:00:00.123456789Z")]),
        ("2024-01-31T10:00:00+02:00 loss=0.3", [("loss", "0.3", "2024-01-31T10:00:00+02:00")]),
        ("2024-02-31T10:00:00Z loss=0.3", [("loss", "0.3", "")]),  # there is no such day
        ("2024-01-31 loss=0.3", [("loss", "0.3", "")]),
        ("val_loss=0.3", []),  # another metric
        ("loss: 0.3", []),
        ("accuracy=0.3", []),
        ("löss=1 loss=2", [("loss", "2", "")]),
        ("", []),
    ],
)
def test_text_lines(line: str, expected: list[tuple[str, str, str]]) -> None:
    assert text(line) == expected


def test_custom_filters_are_tried_one_after_the_other() -> None:
    filters = compile_filters((r"\{metric: ([\w|-]+), value: ((-?\d+)(\.\d+)?)\}", r"(\w+) is (\d+)"))
    line = "loss is 3 {metric: loss, value: -4.5} loss is 7"
    values = [report.value for report in parse_text_line(line, ("loss",), filters)]
    assert values == ["-4.5", "3", "7"]


def test_a_filter_with_one_group_finds_nothing() -> None:
    assert parse_text_line("loss=1", ("loss",), compile_filters((r"(loss)",))) == []


def independent_default_parser(line: str, metric: str) -> list[str]:
    """Scans by hand for what the default filter means, for names of [a-z_-] and one metric."""
    values = []
    position = 0
    while position < len(line):
        start = position
        while position < len(line) and (line[position].isalnum() or line[position] in "_-|"):
            position += 1
        name_end = position
        if name_end == start:
            position += 1
            continue
        after = name_end
        while after < len(line) and line[after] in " \t":
            after += 1
        if after == len(line) or line[after] != "=":
            continue
        after += 1
        while after < len(line) and line[after] in " \t":
            after += 1
        number = scan_number(line[after:])
        position = after + len(number)
        if line[start:name_end] == metric:
            values.append(number)
    return values


def scan_number(rest: str) -> str:
    """The longest prefix of the form sign, digits, point with digits, exponent; each part may be missing."""
    end = 1 if rest[:1] in ("+", "-") else 0
    while rest[end : end + 1].isdigit():
        end += 1
    if rest[end : end + 1] == "." and rest[end + 1 : end + 2].isdigit():
        end += 2
        while rest[end : end + 1].isdigit():
            end += 1
    exponent = end
    if rest[exponent : exponent + 1] in ("e", "E"):
        digits = exponent + 1 + (rest[exponent + 1 : exponent + 2] in ("+", "-"))
        if rest[digits : digits + 1].isdigit():
            end = digits
            while rest[end : end + 1].isdigit():
                end += 1
    return rest[:end]


@given(st.text(alphabet="los= 1.e-+|x\t", max_size=40))
@example("loss=loss=1")
@example("loss = -loss=3e5e5")
@example("xloss=1 loss =\t2.5e+")
def test_default_filter_agrees_with_an_independent_parser(line: str) -> None:
    expected = independent_default_parser(line, "loss") if "loss" in line else []
    assert [report.value for report in parse_text_line(line, ("loss",), DEFAULT)] == expected


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["loss", "rouge-L", "a|b"]))
def test_every_number_that_python_prints_is_read_back(number: float, name: str) -> None:
    (report,) = parse_text_line(f"step 3 {name}={number!r}", (name,), DEFAULT)
    assert float(report.value) == number


def test_json_lines() -> None:
    line = json.dumps({"timestamp": "2024-01-31T10:00:00.5Z", "loss": "0.5", "rouge-L": "0.1", "epoch": 3, "x": "1"})
    assert parse_json_line(line, ("loss", "rouge-L")) == [
        Report("loss", "0.5", "2024-01-31T10:00:00.5Z"),
        Report("rouge-L", "0.1", "2024-01-31T10:00:00.5Z"),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1706695200", "2024-01-31T10:00:00Z"),
        ("1706695200.25", "2024-01-31T10:00:00.25Z"),
        ('"soon"', ""),
        ("true", ""),
    ],
)
def test_json_timestamps(value: str, expected: str) -> None:
    (report,) = parse_json_line(f'{{"timestamp": {value}, "loss": "1"}}', ("loss",))
    assert report.timestamp == expected


def test_json_numbers_are_not_seen() -> None:
    """Katib reads string values only; a trial that prints numbers must fail here as it would on a cluster."""
    assert parse_json_line('{"loss": 0.5}', ("loss",)) == []
    assert parse_json_line("", ("loss",)) == []
    assert parse_json_line("null", ("loss",)) == []


@pytest.mark.parametrize("line", ["loss=1", "[1]", "3", '{"loss": NaN}', '{"loss": "1"'])
def test_json_that_is_no_object_is_refused(line: str) -> None:
    with pytest.raises(UnreadableMetrics, match=r"not (a )?JSON"):
        parse_json_line(line, ("loss",))


@given(st.integers(0, 4_000_000_000), st.integers(0, 999_999_999), st.integers(-14 * 60, 14 * 60))
def test_timestamps_are_points_in_time(seconds: int, nanoseconds: int, offset: int) -> None:
    import datetime as dt

    zone = dt.timezone(dt.timedelta(minutes=offset))
    local = dt.datetime.fromtimestamp(seconds, zone).replace(tzinfo=None)
    sign = "-" if offset < 0 else "+"
    written = f"{local.isoformat()}.{nanoseconds:09d}{sign}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"
    assert timestamp_key(written) == (seconds, nanoseconds)


VALUES = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True).map(repr), st.sampled_from(["", UNAVAILABLE, "1e400", "abc"])
)


@given(st.lists(st.tuples(st.sampled_from(["loss", "other", "foreign"]), VALUES), max_size=12))
def test_summaries_against_their_definition(pairs: list[tuple[str, str]]) -> None:
    reports = [Report(name, value) for name, value in pairs]
    for summary in summarize(reports, ("loss", "other")):
        values = [value for name, value in pairs if name == summary.name]
        numbers = [float(v) for v in values if v not in ("", UNAVAILABLE, "abc") and math.isfinite(float(v))]
        assert summary.latest == (values[-1] if values else UNAVAILABLE)
        assert (summary.min == UNAVAILABLE) == (not numbers)
        if numbers:
            assert (float(summary.min), float(summary.max)) == (min(numbers), max(numbers))
            assert summary.value("min") == min(numbers)
            assert summary.value("max") == max(numbers)
        else:
            assert summary.extract("min") == summary.extract("max") == summary.latest
            assert summary.value("min") is None


def test_latest_is_the_latest_by_time() -> None:
    reports = [
        Report("loss", "1", "2024-01-01T00:00:00Z"),
        Report("loss", "2", "2024-01-01T02:00:00+01:00"),  # 01:00 UTC
        Report("loss", "3", "2024-01-01T00:59:59.999999999Z"),
        Report("loss", "4", ""),  # without a time: older than all
    ]
    assert summarize(reports, ("loss",)) == (MetricSummary("loss", "2", "1", "4"),)


def test_of_equal_times_the_last_counts() -> None:
    reports = [Report("loss", value, "2024-01-01T00:00:00Z") for value in "123"]
    assert summarize(reports, ("loss",))[0].latest == "3"


def source(path: Path, form: str = "TEXT") -> MetricsSource:
    return MetricsSource(path, form, (), ("loss",))


def test_follower_sees_each_complete_line_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    follower = Follower(source(path))
    assert follower.new_reports() == []
    seen = []
    with path.open("a", encoding="utf-8") as file:
        for piece in ["loss=1\nlo", "ss=2", "5\n", "", "noise\nloss=3\nloss=4"]:
            file.write(piece)
            file.flush()
            seen.append([report.value for report in follower.new_reports()])
    assert seen == [["1"], [], ["25"], [], ["3"]]
    path.write_text("loss=9\n", encoding="utf-8")  # begun anew
    assert [report.value for report in follower.new_reports()] == ["9"]


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 7))
def test_follower_and_collect_agree_however_the_file_grows(values: list[int], size: int) -> None:
    import tempfile

    content = "".join(f"loss={value}\n" for value in values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        follower = Follower(source(path))
        seen = []
        for start in range(0, len(content), size):
            with path.open("a", encoding="utf-8") as file:
                file.write(content[start : start + size])
            seen += follower.new_reports()
        assert seen == collect(source(path))
        assert [int(report.value) for report in seen] == values


def test_a_json_line_cut_off_at_the_end_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"loss": "1"}\n{"loss": "2', encoding="utf-8")
    assert [report.value for report in collect(source(path, "JSON"))] == ["1"]
    path.write_text('{"loss": "1\n{"loss": "2"}\n', encoding="utf-8")
    with pytest.raises(UnreadableMetrics, match="not JSON"):
        collect(source(path, "JSON"))


def test_a_file_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert collect(source(tmp_path / "none")) == []


def test_bytes_that_are_no_utf8_do_not_hide_metrics(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\xff\xfe\nloss=1\n")
    assert [report.value for report in collect(source(path))] == ["1"]
