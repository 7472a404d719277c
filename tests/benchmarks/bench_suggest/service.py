"""The real service in a process, asked as Katib asks it.

Katib has one worker for the suggestions of the whole cluster, so its calls come one after the other; that is how 100
Experiments are asked for first. A crowd of clients at once is measured, too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.bench_suggest.task import AIM, Observed, as_trials, observations
from benchmarks.search.problem import dimensions
from rankwise.katib_api import api_pb2, api_pb2_grpc
from rankwise.local.experiment import load_experiment
from rankwise.space import ParameterText, parse_space
from rankwise.suggest.convert import experiment_message, trial_message
from rankwise.suggest.naming import FALLBACK_LABEL

QUICKSTART = Path(__file__).parents[3] / "katib" / "experiments" / "quickstart.yaml"
START_SECONDS = 300.0
MAX_TRIALS = 200
CALL_SECONDS = 60.0
"""After these, Katib's controller gives up a call."""


@dataclass(frozen=True)
class Reply:
    """What came of one call.

    Attributes:
        seconds: until the answer.
        problem: why there was none, or why it is not the strategy's own; None for a good answer.
        configurations: how many.
    """

    seconds: float
    problem: str | None
    configurations: int


@dataclass(frozen=True)
class Memory:
    """Memory of a process in bytes, as Linux tells it; None where it does not.

    Attributes:
        now: resident.
        peak: the most that was.
    """

    now: int | None
    peak: int | None


class Service:
    """A running ``rankwise serve-suggestions``.

    Args:
        process: of the service.
        address: ``host:port``.
    """

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self._process, self.address = process, address

    def memory(self) -> Memory:
        try:
            lines = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii").splitlines()
        except OSError:
            return Memory(None, None)
        found = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
        return Memory(int(found["VmRSS"].split()[0]) * 1024, int(found["VmHWM"].split()[0]) * 1024)

    def cpu(self) -> float | None:
        """Seconds of processor time so far; None where they are not told."""
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()  # the name may have blanks
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def cpu_since(self, before: float | None) -> float | None:
        """Seconds of processor time since :meth:`cpu` told ``before``; None where either is not told."""
        now = self.cpu()
        return None if before is None or now is None else now - before

    def alive(self) -> bool:
        return self._process.poll() is None


@contextmanager
def running(cache: Path, log: Path, threads: int, seconds: float = START_SECONDS) -> Iterator[Service]:
    """Start the service as a pod does; wait until it says that it is ready; stop it at the end.

    Args:
        cache: ``RANKWISE_CACHE``.
        log: where its lines go.
        threads: of torch.
        seconds: time to become ready.

    Raises:
        RuntimeError: it did not.
    """
    environment = os.environ | {"RANKWISE_CACHE": str(cache), "RANKWISE_THREADS": str(threads)}
    environment |= {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "rankwise.suggest", "--address", "127.0.0.1:0", "--namespace", "bench"]
    with (
        log.open("wb") as lines,
        subprocess.Popen([*command, "--log-format", "json"], stderr=lines, env=environment) as process,
    ):
        try:
            yield Service(process, _ready(process, log, time.monotonic() + seconds))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()


def _ready(process: subprocess.Popen[bytes], log: Path, end: float) -> str:
    while True:
        whole = [line for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        said = [json.loads(line) for line in whole if line.startswith("{")]
        if any(line.get("message") == "ready" for line in said):
            return str(next(line["address"] for line in said if "address" in line))
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the service did not become ready, see {log}")
        time.sleep(0.1)


def request(
    name: str, parameters: Sequence[ParameterText], observed: Sequence[Observed], settings: dict[str, str]
) -> api_pb2.GetSuggestionsRequest:
    """What Katib sends for an Experiment with these ended trials."""
    trials = [trial_message(trial, AIM) for trial in as_trials(list(observed))]
    return api_pb2.GetSuggestionsRequest(
        experiment=experiment_message(name, parameters, AIM, "language-bo", settings, max_trials=MAX_TRIALS),
        trials=trials,
        current_request_number=1,
        total_request_number=len(trials) + 1,
    )


def quickstart_requests(experiments: int, observed: int) -> list[api_pb2.GetSuggestionsRequest]:
    """Experiments of different names over the quickstart's space, each with trials of its own."""
    found = load_experiment(QUICKSTART)
    space = parse_space(found.parameters)
    dims = dimensions(space)
    return [
        request(
            f"bench-{number:03d}",
            found.parameters,
            observations(space, dims, observed, seed=number),
            dict(found.algorithm_settings),
        )
        for number in range(experiments)
    ]


def ask(address: str, requests: Sequence[api_pb2.GetSuggestionsRequest], clients: int) -> list[Reply]:
    """Send requests, ``clients`` at a time; each has its own channel, as each Experiment has in Katib."""

    def one(message: api_pb2.GetSuggestionsRequest) -> Reply:
        began = time.perf_counter()
        with grpc.insecure_channel(address) as channel:
            stub = api_pb2_grpc.SuggestionStub(channel)
            try:
                reply = stub.GetSuggestions(message, timeout=CALL_SECONDS)
            except grpc.RpcError as error:
                return Reply(time.perf_counter() - began, f"{error.code().name}: {error.details()}", 0)
        seconds = time.perf_counter() - began
        fallbacks = [a.labels[FALLBACK_LABEL] for a in reply.parameter_assignments if FALLBACK_LABEL in a.labels]
        problem = f"fallback: {fallbacks[0]}" if fallbacks else None
        return Reply(seconds, problem, len(reply.parameter_assignments))

    if clients == 1:
        return [one(message) for message in requests]
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(one, requests))


def wait_for_vectors(address: str, message: api_pb2.GetSuggestionsRequest, seconds: float = START_SECONDS) -> Reply:
    """Ask until the service answers: it postpones while it embeds a small space. What it answered.

    Raises:
        RuntimeError: it does not, or not with its models.
    """
    end = time.monotonic() + seconds
    while True:
        (reply,) = ask(address, [message], 1)
        if reply.problem is None:
            return reply
        if not reply.problem.startswith("UNAVAILABLE") or time.monotonic() > end:
            raise RuntimeError(f"the service does not answer: {reply.problem}")
        time.sleep(1.0)
