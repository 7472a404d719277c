"""What a benchmark runs on, and the processes that it starts. Loads nothing else: a process's memory is its own."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from pathlib import Path


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def end(process: subprocess.Popen[str]) -> None:
    """End a process that is spoken to through pipes; without effect on one that has ended."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):  # what was still to be written
                stream.close()
