"""Peers of another virtual environment, talked to by :mod:`benchmarks.search.peer_worker`.

SMAC3, HEBO and OptunaHub are not in the project's lock (HEBO needs a NumPy below 1.25). ``python -m
benchmarks.search.install`` makes an environment for them; where it cannot, they are reported as not installed.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np

from benchmarks.machine import end
from benchmarks.search.problem import Array, Told, View

WORKER = Path(__file__).with_name("peer_worker.py")
NAMES = ("smac", "hebo", "optuna-auto")
PYTHON = Path(__file__).parents[3] / ".venv-peers" / "bin" / "python"
"""The environment's Python, as ``make bench-search`` makes it."""


class NotInstalled(Exception):
    """A peer that cannot be had here; says why."""


class Worker:
    """One process that runs peers, one after the other.

    Args:
        python: the environment's Python.

    Raises:
        NotInstalled: there is none.
    """

    def __init__(self, python: Path = PYTHON) -> None:
        if not python.exists():
            raise NotInstalled("its virtual environment is missing")
        self._process = subprocess.Popen(
            [str(python), str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        end(self._process)

    def call(self, **message: object) -> dict[str, object]:
        """One question, one answer.

        Raises:
            RuntimeError: the peer failed, or its process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"the peers' process ended with code {self._process.wait()}")
        answer: dict[str, object] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(str(answer["error"]))
        return answer

    def probe(self, peer: str) -> dict[str, str]:
        """Versions of a peer's packages, after one suggestion of it on a toy problem.

        Raises:
            NotInstalled: it cannot be used.
        """
        try:
            versions = self.call(do="probe", peer=peer)["versions"]
        except RuntimeError as error:
            raise NotInstalled(str(error)) from None
        assert isinstance(versions, dict)
        return versions


class Outside:
    """A peer behind ask and tell.

    Args:
        view: the task.
        peer: one of :data:`NAMES`.
        settings: of the peer.
        worker: where it runs; it forgets what ran there before.
    """

    def __init__(self, view: View, peer: str, settings: Mapping[str, str], worker: Worker) -> None:
        self._worker = worker
        self._dimensions = view.dimensions
        worker.call(
            do="start",
            peer=peer,
            seed=view.seed,
            budget=view.budget,
            settings=dict(settings),
            dimensions=[{"name": d.name, "low": d.low, "high": d.high, "log": d.log} for d in view.dimensions],
        )

    def ask(self) -> Array:
        values = self._worker.call(do="ask")["values"]
        assert isinstance(values, dict)
        return np.array([dim.position(values[dim.name]) for dim in self._dimensions])

    def tell(self, trial: Told) -> None:
        values = {dim.name: float(trial.config[dim.name]) for dim in self._dimensions}
        self._worker.call(do="tell", values=values, value=trial.value)
