"""The compiled pipeline on Kubeflow Pipelines' own backend, its search under Katib, its artifacts in S3 servers.

``make cluster-pipelines`` brings the backend; without it these tests are skipped.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import PIPELINES, has_pipelines
from kfp import compiler
from kube import ROOT, Object, Search, condition, counts, find, formula_search, kubectl, small_search, trainer
from pipeline_runs import BUCKET, Run, artifacts, until
from results import assignments, manifest_of, metric, state_of, store_of
from search_alone import search_alone

from rankwise.artifacts.store import Store
from rankwise.kfp.launcher import RUN_LABEL, experiment_name

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
COMPILED = ROOT / "pipelines" / "compiled" / "quickstart.yaml"
STEPS = {"subset", "embed", "tune", "train", "train-2", "evaluate", "report", "register", "finish"}
TRIALS = 3


@pytest.fixture(scope="module")
def backend(release: str) -> str:
    """The namespace of Kubeflow Pipelines and of its runs, prepared as README.md says."""
    del release
    if not has_pipelines():
        pytest.skip("no Kubeflow Pipelines in the cluster: make cluster-pipelines")
    kubectl("-n", PIPELINES, "apply", "-f", ROOT / "pipelines" / "rbac.yaml")
    return PIPELINES


def whole_search() -> Object:
    """The quickstart with trainings of seconds, in the search and after it."""
    experiment = small_search("whole", trials=TRIALS, parallel=2)
    finals = ["--subset=32", "--evaluate=test", "--metrics=loss,rouge1,rougeL", "--generate-samples=4"]
    experiment["metadata"]["annotations"]["rankwise.dev/final-arguments"] = json.dumps(finals)
    return experiment


@dataclass(frozen=True, slots=True)
class Whole:
    """A run of the compiled pipeline that ended."""

    run: Run
    state: str
    search: Search

    def artifact(self, step: str, name: str) -> bytes:
        """One of the step's artifacts, from KFP's store."""
        prefix = f"v2/artifacts/rankwise-quickstart/{self.run.id}/{step}/"
        with artifacts() as store:
            keys = [str(item.object_name) for item in store.list_objects(BUCKET, prefix, recursive=True)]
            [key] = [key for key in keys if key.endswith(f"/{name}")]
            return store.get_object(BUCKET, key).read()


@pytest.fixture(scope="module")
def whole(backend: str) -> Iterator[Whole]:
    """pipelines/compiled/quickstart.yaml as it is committed, with a small Experiment as its argument."""
    run = Run.start(COMPILED, "whole", experiment=json.dumps(whole_search()), model_name="cluster-test")
    state = run.wait(2000)
    yield Whole(run, state, Search(experiment_name("whole", run.id, "language-bo"), backend))
    run.delete()
    kubectl("-n", PIPELINES, "delete", "experiments", f"--selector={RUN_LABEL}", seconds=150)


def test_the_committed_pipeline_succeeds_step_by_step(whole: Whole) -> None:
    assert whole.state == "SUCCEEDED", whole.run.describe()
    steps = whole.run.steps()
    assert set(steps) >= STEPS, sorted(steps)
    assert {steps[name]["phase"] for name in STEPS} == {"Succeeded"}
    # Each at the first attempt; `subset` is taken from the cache where an earlier run had the same input.
    pods = {name: len(whole.run.pods(name)) for name in STEPS}
    assert pods == {**dict.fromkeys(STEPS, 1), "subset": pods["subset"]}
    assert pods["subset"] in {0, 1}
    for name in sorted(STEPS, key=lambda step: steps[step]["startedAt"]):
        print(name, steps[name]["startedAt"], steps[name]["finishedAt"])


def test_its_search_was_katibs(whole: Whole) -> None:
    experiment = whole.search.experiment()
    assert condition(experiment, "Succeeded") is not None
    assert counts(experiment)["trialsSucceeded"] == TRIALS
    # The trials read what the step `subset` had prepared.
    data = [word for word in trainer(experiment)["command"] if word.startswith("--data=")]
    assert data[-1].startswith("--data=s3://")
    optimal = experiment["status"]["currentOptimalTrial"]
    best = json.loads(whole.artifact("tune", "best"))
    assert best["experiment"] == whole.search.name
    assert best["trial"] == optimal["bestTrialName"]
    assert best["assignments"] == assignments(optimal)
    rows = list(csv.DictReader(io.StringIO(whole.artifact("tune", "trials").decode())))
    measured = {trial["metadata"]["name"]: float(metric(trial, "loss")["latest"]) for trial in whole.search.trials()}
    assert {row["trial"]: float(row["loss"]) for row in rows} == measured
    with store_of(PIPELINES) as store:
        manifest = manifest_of(store, whole.search, best["trial"])
        assert manifest.metrics["loss"] == measured[best["trial"]] == best["value"]


def test_its_reports_and_its_model_are_where_the_ui_looks(whole: Whole) -> None:
    best = json.loads(whole.artifact("tune", "best"))
    for step, name in (("tune", "report"), ("report", "page")):
        page = whole.artifact(step, name).decode()
        assert page.startswith("<!DOCTYPE html>")
        assert best["trial"] in page
    with store_of(PIPELINES) as store:
        version = registered(store, "cluster-test", whole.search.name)
        assert {"adapter_config.json", "adapter_model.safetensors"} <= set(version)


def registered(store: Store, model: str, version: str) -> dict[str, str]:
    """File name -> key of a registered version."""
    prefix = f"models/{model}/versions/{version}/"
    return {key.rpartition("/")[2]: key for key in store.list(prefix)}


# ------------------------------------------------------------------------------------------ faults, quick trials


@pytest.fixture(scope="module")
def package(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline of one step, compiled."""
    del backend
    path = tmp_path_factory.mktemp("pipeline") / "search.yaml"
    compiler.Compiler().compile(search_alone, str(path))
    return path


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    """Runs that a test starts; they and their Experiments are deleted after it."""
    started: list[Run] = []
    yield started
    for run in started:
        run.delete()
    kubectl("-n", PIPELINES, "delete", "experiments", f"--selector={RUN_LABEL}", seconds=150)


def launch(runs: list[Run], package: Path, experiment: Object) -> tuple[Run, Search]:
    """Start the search; its run, and its Experiment once it is there."""
    run = Run.start(package, experiment["metadata"]["name"], experiment=json.dumps(experiment))
    runs.append(run)
    name = experiment_name(experiment["metadata"]["name"], run.id, experiment["spec"]["algorithm"]["algorithmName"])
    search = Search(name, PIPELINES)
    until("the Experiment", lambda: name in experiments(), 400)
    return run, search


def experiments() -> set[str]:
    """Names of the Experiments that there are."""
    return {one["metadata"]["name"] for one in find("experiments", PIPELINES)}


KILL = """
import os, signal
for pid in filter(str.isdigit, os.listdir("/proc")):
    if b"kfp.dsl.executor_main" in open(f"/proc/{pid}/cmdline", "rb").read() and int(pid) != os.getpid():
        os.kill(int(pid), signal.SIGKILL)
"""


def test_a_killed_launcher_goes_on_with_the_experiment_of_its_first_attempt(runs: list[Run], package: Path) -> None:
    run, search = launch(runs, package, formula_search("killed", trials=4, seconds=8))
    first = search.experiment()["metadata"]["uid"]
    until("two trials", lambda: len(search.trials()) >= 2, 300)
    pod = run.running_pod("tune")
    # As when it needs too much memory.
    kubectl("-n", PIPELINES, "exec", pod, "--container=main", "--", "python", "-c", KILL)
    assert run.wait(900) == "SUCCEEDED", run.describe()
    assert len(run.pods("tune")) == 2
    experiment = search.experiment()
    assert experiment["metadata"]["uid"] == first
    assert counts(experiment)["trialsSucceeded"] == 4
    assert len(find("experiments", PIPELINES, f"{RUN_LABEL}={run.id}")) == 1


def test_a_deleted_pod_leaves_the_search_and_a_retried_run_goes_on_with_it(runs: list[Run], package: Path) -> None:
    """KFP's retries are for pods that fail; a step whose pod is deleted fails the run. The search is not lost by it."""
    run, search = launch(runs, package, formula_search("deleted", trials=4, seconds=8))
    first = search.experiment()["metadata"]["uid"]
    until("a trial", search.trials, 300)
    kubectl("-n", PIPELINES, "delete", "pod", run.running_pod("tune"))
    assert run.wait(900) == "FAILED", run.describe()
    assert search.experiment()["metadata"]["uid"] == first
    run.retry()
    until("the run to go on", lambda: run.state() == "RUNNING", 120)
    assert run.wait(600) == "SUCCEEDED", run.describe()
    experiment = search.experiment()
    assert experiment["metadata"]["uid"] == first
    assert counts(experiment)["trialsSucceeded"] == 4


def test_failed_trials_are_in_the_table_and_the_run_succeeds(runs: list[Run], package: Path) -> None:
    document = formula_search("some-fail", trials=5, seconds=3)
    command = trainer(document)["command"]
    # The search's first suggestions differ in their ranks; these end with an error.
    fails = 'import sys\nif float(sys.argv[1]) > 12: sys.exit("no such rank")\nimport math'
    command[-1] = command[-1].replace("import math", fails)
    run, search = launch(runs, package, document)
    assert run.wait(900) == "SUCCEEDED", run.describe()
    states = {state_of(trial) for trial in search.trials()}
    assert states == {"Succeeded", "Failed"}


def test_a_failed_experiment_fails_the_run_with_the_trials_own_words(runs: list[Run], package: Path) -> None:
    document = formula_search("all-fail", trials=4, seconds=3)
    document["spec"]["maxFailedTrialCount"] = 1
    document["spec"]["trialTemplate"]["retain"] = True
    command = trainer(document)["command"]
    command[-1] = command[-1].replace("import math", 'import sys; sys.exit("the disk is full of owls")\nimport math')
    run, search = launch(runs, package, document)
    assert run.wait(1200) == "FAILED", run.describe()
    pods = run.pods("tune")
    said = run.log(pods[0]["metadata"]["name"])
    assert "the disk is full of owls" in said
    assert search.name in said
    # Repeating a step that failed with its Experiment finds that Experiment, and makes no other.
    assert len(find("experiments", PIPELINES, f"{RUN_LABEL}={run.id}")) == 1


def test_a_cancelled_run_leaves_no_running_search(runs: list[Run], package: Path) -> None:
    run, search = launch(runs, package, formula_search("cancelled", trials=40, seconds=8))
    until("a trial", search.trials, 300)
    run.running_pod("tune")
    run.cancel()
    assert run.wait(300, "CANCELED", "FAILED") in {"CANCELED", "FAILED"}
    until("the Experiment to be deleted", lambda: search.name not in experiments(), 120)


def test_a_run_whose_trainings_had_no_store_goes_on_where_it_failed(backend: str, runs: list[Run]) -> None:
    """The S3 server is away while the trainings after the search want it, for longer than they repeat themselves."""
    document = whole_search()
    document["metadata"]["name"] = "no-store"
    run = Run.start(COMPILED, "no-store", experiment=json.dumps(document), model_name="no-store")
    runs.append(run)
    search = Search(experiment_name("no-store", run.id, "language-bo"), backend)
    until("the search", lambda: run.steps().get("tune", {}).get("phase") == "Succeeded", 900)
    found = search.experiment()["metadata"]["uid"]
    kubectl("-n", "rankwise", "scale", "statefulset", "rankwise-s3", "--replicas=0")
    try:
        assert run.wait(1500) == "FAILED", run.describe()
        said = run.log(run.pods("train")[0]["metadata"]["name"])
        assert "does not answer" in said
    finally:
        kubectl("-n", "rankwise", "scale", "statefulset", "rankwise-s3", "--replicas=1")
        kubectl("-n", "rankwise", "rollout", "status", "statefulset", "rankwise-s3", "--timeout=120s")
    run.retry()
    until("the run to go on", lambda: run.state() == "RUNNING", 120)
    assert run.wait(1200) == "SUCCEEDED", run.describe()
    assert search.experiment()["metadata"]["uid"] == found
    assert len(run.pods("tune")) == 1
