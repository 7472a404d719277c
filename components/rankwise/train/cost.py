"""What a training costs: time, peak memory, energy; None where it cannot be measured."""

from __future__ import annotations

import contextlib
import importlib
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rankwise.artifacts import Cost

RAPL = Path("/sys/class/powercap")


class CostMeter:
    """Measures from :meth:`start` on; what an earlier process of the same trial spent is added.

    Args:
        device: where the model runs.
        rapl: folder of the CPU's energy counters.
    """

    def __init__(self, device: torch.device, rapl: Path = RAPL) -> None:
        self._device = device
        self._energy = _device_energy(device) if device.type == "cuda" else _package_energy(rapl)
        self._before = Cost(0.0, 0.0, 0.0)
        self._started = time.monotonic()
        self._energy_at_start: float | None = None

    def start(self, before: Cost | None = None) -> None:
        """Begin, after ``before`` was already spent."""
        self._before = before or Cost(0.0, 0.0, 0.0)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._energy_at_start = self._energy()
        self._started = time.monotonic()

    def read(self) -> Cost:
        """Cost so far: wall-clock seconds, bytes, joules."""
        energy, now = None, self._energy()
        if now is not None and self._energy_at_start is not None and self._before.energy_joules is not None:
            energy = self._before.energy_joules + max(0.0, now - self._energy_at_start)
        return Cost(
            seconds=(self._before.seconds or 0.0) + time.monotonic() - self._started,
            peak_memory_bytes=max(self._before.peak_memory_bytes or 0.0, _peak_memory(self._device)),
            energy_joules=energy,
        )


def _peak_memory(device: torch.device) -> float:
    """Bytes: the allocator's high-water mark of a GPU, the resident set's of the process otherwise."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _device_energy(device: torch.device) -> Callable[[], float | None]:
    """Energy counter of a GPU in joules (NVML, Volta and later)."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no NVML, or no counter: every version has its own errors
        return lambda: None

    def read() -> float | None:
        try:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3  # mJ
        except Exception:
            return None

    return read


def _package_energy(rapl: Path) -> Callable[[], float | None]:
    """Energy counters of all CPU packages in joules (RAPL): the whole machine's, not the process's alone."""
    counters = []
    for folder in sorted(rapl.glob("intel-rapl:*")):
        with contextlib.suppress(OSError, ValueError):
            # intel-rapl:0 is a package, intel-rapl:0:1 a part of it.
            if folder.name.count(":") == 1 and (folder / "name").read_text().startswith("package"):
                _read(folder / "energy_uj")  # often readable by root alone
                counters.append((folder / "energy_uj", _read(folder / "max_energy_range_uj")))
    if not counters:
        return lambda: None
    last: dict[Path, float] = {}
    total = 0.0

    def read() -> float | None:
        nonlocal total
        try:
            for path, span in counters:
                now = _read(path)
                spent = now - last.get(path, now)
                # The counter starts again from 0 after its span (minutes to hours).
                total += spent if spent >= 0 else spent + span
                last[path] = now
        except (OSError, ValueError):
            return None
        return total / 1e6  # uJ

    return read


def _read(path: Path) -> float:
    return float(path.read_text())
