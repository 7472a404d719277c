"""Experiments of tiny commands, and a suggestion service for them, to test the local engine end to end.

The fake service speaks the real API over a real socket. Its suggestions are a function of the place in the search
alone, so that two runs of one Experiment can be compared.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import yaml

from rankwise.katib_api import api_pb2, api_pb2_grpc
from rankwise.local.engine import EngineOptions, RunResult, run
from rankwise.local.interruption import Interruption
from rankwise.retry import Backoff
from rankwise.settings import Settings

SCRIPT = """
import json, os, signal, sys, time
flags = dict(argument.lstrip("-").split("=", 1) for argument in sys.argv[1:])
x, kind = float(flags["x"]), flags.get("kind", "a")
open("starts", "a").write("start\\n")
steps = int(flags.get("steps", "1"))
{body}
"""
"""A trial's script; ``{body}`` decides what it does with x, kind and flags."""

LOSS = "print(f\"loss={(x - 3) ** 2 + (0.5 if kind == 'b' else 0)!r}\")"


def experiment(
    folder: Path,
    body: str = LOSS,
    *,
    name: str = "tiny",
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> Path:
    """Write an Experiment whose trials run :data:`SCRIPT` with ``body``; ``spec`` replaces or adds fields."""
    script = folder / "trial.py"
    folder.mkdir(parents=True, exist_ok=True)
    script.write_text(SCRIPT.format(body=body), encoding="utf-8")
    document = {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "sobol"},
            "parallelTrialCount": 1,
            "maxTrialCount": 4,
            "parameters": [
                {"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "8", "step": "0.25"}},
                {"name": "kind", "parameterType": "categorical", "feasibleSpace": {"list": ["a", "b"]}},
            ],
            "trialTemplate": {
                "primaryContainerName": "trial",
                "trialParameters": [{"name": "x", "reference": "x"}, {"name": "kind", "reference": "kind"}],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {
                        "template": {
                            "spec": {
                                "restartPolicy": "Never",
                                "containers": [
                                    {
                                        "name": "trial",
                                        "image": "none",
                                        # -S -E: no site packages, so that a trial starts in some 10 ms.
                                        "command": ["python", "-S", "-E", str(script)],
                                        "args": ["--x=${trialParameters.x}", "--kind=${trialParameters.kind}"],
                                    }
                                ],
                            }
                        }
                    },
                },
            },
            **spec,
        },
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return file


def change(file: Path, **spec: Any) -> None:
    """Change fields of an Experiment file's spec."""
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    document["spec"] |= spec
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


Answer = Callable[[Any, int], dict[str, str]]


def scattered(request: Any, position: int) -> dict[str, str]:
    """A configuration that depends on the place in the search only."""
    digest = hashlib.sha256(f"{request.experiment.name}/{position}".encode()).digest()
    return {"x": str(digest[0] % 33 * 0.25), "kind": "ab"[digest[1] % 2]}


def listed(*points: tuple[float, str]) -> Answer:
    """The given configurations, one after the other."""
    return lambda _request, position: {"x": str(points[position][0]), "kind": points[position][1]}


class FakeSuggestions(api_pb2_grpc.SuggestionServicer):  # type: ignore[misc]
    """Answers from a function of the place in the search and writes down what it was asked."""

    def __init__(self, answer: Answer = scattered) -> None:
        self.answer = answer
        self.requests: list[Any] = []
        self.validated: list[Any] = []
        self.refuse: tuple[grpc.StatusCode, str] | None = None
        self.fail: list[grpc.StatusCode] = []
        self.change_reply: Callable[[Any], None] = lambda _reply: None

    def ValidateAlgorithmSettings(self, request: Any, context: Any) -> Any:  # noqa: N802 — the API's name
        self.validated.append(request)
        if self.refuse is not None:
            context.abort(*self.refuse)
        return api_pb2.ValidateAlgorithmSettingsReply()

    def GetSuggestions(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        if self.fail:
            context.abort(self.fail.pop(0), "made up")
        issued = request.total_request_number - request.current_request_number
        reply = api_pb2.GetSuggestionsReply(
            algorithm=api_pb2.AlgorithmSpec(
                algorithm_settings=[api_pb2.AlgorithmSetting(name="seen", value=str(request.total_request_number))]
            )
        )
        for offset in range(request.current_request_number):
            entry = reply.parameter_assignments.add()
            for key, value in self.answer(request, issued + offset).items():
                entry.assignments.add(name=key, value=value)
        self.change_reply(reply)
        return reply


@contextmanager
def serving(service: FakeSuggestions) -> Iterator[str]:
    """The fake service over a real socket; gives its ``host:port``."""
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    api_pb2_grpc.add_SuggestionServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def engine_command(file: Path, folder: Path, endpoint: str | None = None) -> list[str]:
    """Command line of an engine as a process of its own."""
    command = [sys.executable, "-m", "rankwise.cli", "run", str(file), "--folder", str(folder), "--no-report"]
    return command + (["--suggestion-endpoint", endpoint] if endpoint else [])


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """What the journal holds, read as any sqlite program would read it."""
    with sqlite3.connect(f"file:{folder / 'journal.sqlite'}?mode=ro", uri=True) as db:
        result = db.execute(query).fetchall()
    db.close()
    return result


def search_rows(folder: Path) -> list[tuple[str, dict[str, str], str]]:
    """Name, assignments and condition of each trial of the search, in order."""
    query = "SELECT name, assignments, condition FROM trials WHERE kind='search' ORDER BY position"
    return [(name, json.loads(assignments), condition) for name, assignments, condition in rows(folder, query)]


def status(folder: Path) -> dict[str, Any]:
    """``status`` of the run's Experiment."""
    document: dict[str, Any] = yaml.safe_load((folder / "experiment.yaml").read_text(encoding="utf-8"))
    state: dict[str, Any] = document["status"]
    return state


def names(trials: Sequence[Any]) -> list[str]:
    """Names of messages or records."""
    return [trial.name for trial in trials]


def go(file: Path, folder: Path, endpoint: str, interruption: Interruption | None = None) -> RunResult:
    return run(
        file,
        folder,
        endpoint=endpoint,
        settings=Settings(cache=folder.parent / "cache"),
        interruption=interruption,
        options=EngineOptions(poll=0.01, grace=5.0, backoff=Backoff(attempts=3, first=0.01, longest=0.01)),
    )


def loss(assignments: dict[str, str]) -> float:
    return (float(assignments["x"]) - 3) ** 2 + (0.5 if assignments["kind"] == "b" else 0)
