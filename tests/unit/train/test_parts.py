"""Cost, metric lines, progress lines, memory errors, SIGTERM."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
from datetime import datetime
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankwise.artifacts import Cost
from rankwise.errors import SurroundingsError
from rankwise.train.cost import CostMeter
from rankwise.train.interruption import Interrupted, Interruption
from rankwise.train.memory import is_out_of_memory
from rankwise.train.report import MetricLines, start_progress

# Katib's default filter (its source, v0.19: pkg/metricscollector/v1beta1/common/const.go).
KATIB = re.compile(r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)")
CPU = torch.device("cpu")


# ----------------------------------------------------------------------------------------------------------- cost


def fake_rapl(folder: Path, *values: int) -> list[Path]:
    """Counters as Linux shows them: packages, a part of one, and another kind of zone."""
    counters = []
    names = [(f"intel-rapl:{i}", f"package-{i}") for i in range(len(values))]
    for name, label in [*names, ("intel-rapl:0:0", "core"), ("intel-rapl:9", "psys")]:
        zone = folder / name
        zone.mkdir(parents=True)
        (zone / "name").write_text(label + "\n")
        (zone / "max_energy_range_uj").write_text("1000000\n")
        (zone / "energy_uj").write_text("5\n")
        counters.append(zone / "energy_uj")
    for counter, value in zip(counters, values, strict=False):
        counter.write_text(f"{value}\n")
    return counters


def test_energy_is_the_packages_joules_and_knows_that_counters_wrap(tmp_path: Path) -> None:
    counters = fake_rapl(tmp_path, 900_000, 100_000)
    meter = CostMeter(CPU, tmp_path)
    meter.start()
    counters[0].write_text("950000")
    counters[1].write_text("100000")
    assert meter.read().energy_joules == pytest.approx(0.05)
    counters[0].write_text("50000")  # 50 mJ to the end of its span and 50 mJ from 0
    counters[1].write_text("300000")
    counters[2].write_text("999999")
    assert meter.read().energy_joules == pytest.approx(0.05 + 0.1 + 0.2)


def test_energy_is_null_where_it_cannot_be_measured(tmp_path: Path) -> None:
    meter = CostMeter(CPU, tmp_path / "absent")
    meter.start()
    assert meter.read().energy_joules is None
    counters = fake_rapl(tmp_path, 1000)
    meter = CostMeter(CPU, tmp_path)
    meter.start()
    counters[0].unlink()
    assert meter.read().energy_joules is None


def test_an_earlier_processes_cost_is_added(tmp_path: Path) -> None:
    counters = fake_rapl(tmp_path, 0)
    meter = CostMeter(CPU, tmp_path)
    meter.start(Cost(100.0, 2.0**50, 7.0))
    counters[0].write_text("500000")
    cost = meter.read()
    assert cost.seconds is not None
    assert cost.seconds >= 100.0
    assert cost.peak_memory_bytes == 2.0**50
    assert cost.energy_joules == pytest.approx(7.5)
    meter.start(Cost(1.0, None, None))  # unknown before: unknown in all
    assert meter.read().energy_joules is None


def test_peak_memory_is_that_of_the_process(tmp_path: Path) -> None:
    meter = CostMeter(CPU, tmp_path)
    meter.start()
    before = meter.read().peak_memory_bytes
    status = Path("/proc/self/status").read_text()
    kilobytes = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))  # type: ignore[union-attr]
    assert before is not None
    assert before == pytest.approx(kilobytes * 1024, rel=0.02)  # read at two moments


# ---------------------------------------------------------------------------------------------------------- lines


@given(st.dictionaries(st.sampled_from(["loss", "rougeL", "test_loss"]), st.floats(-1e300, 1e300), min_size=1))
def test_katib_reads_exactly_what_is_written(metrics: dict[str, float]) -> None:
    import contextlib

    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        MetricLines("text", None).write(metrics)
    found = [(m[1], float(m[2])) for m in KATIB.finditer(stream.getvalue())]
    assert found == list(metrics.items())


def test_json_lines_hold_texts_and_a_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.json"
    lines = MetricLines("json", str(path))
    lines.write({"loss": 1.5, "rougeL": 1e-05})
    lines.write({})
    lines.write({"loss": 1.25})
    first, second = map(json.loads, path.read_text().splitlines())
    assert datetime.fromisoformat(first.pop("timestamp")).tzinfo is not None
    assert first == {"loss": "1.5", "rougeL": "1e-05"}
    assert second["loss"] == "1.25"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SurroundingsError, match="could not write metrics to"):
        MetricLines("text", str(tmp_path / "file" / "metrics")).write({"loss": 1.0})


def test_progress_never_looks_like_a_metric(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("rankwise")
    before = (logger.handlers[:], logger.level, logger.propagate)
    try:
        start_progress()
        logging.getLogger("rankwise.train.x").info("loss=1.0 at step %d, error: rank = 8", 3)
        try:
            raise ValueError("loss=2")
        except ValueError:
            logger.exception("a library said so")
    finally:
        logger.handlers[:], logger.level, logger.propagate = before
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "at step 3" in shown.err
    assert "ValueError" in shown.err
    assert KATIB.findall(shown.err) == []


# --------------------------------------------------------------------------------------------- memory and signals


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_failures(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_a_real_allocation_that_cannot_be_served_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError, match="allocate") as caught:
        torch.empty(2**60, dtype=torch.int8)
    assert is_out_of_memory(caught.value)


def test_sigterm_is_granted_at_the_next_check_and_the_handler_goes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        interruption.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            interruption.check()
        # A second one would end the process at once.
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == before
