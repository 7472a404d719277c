"""The step `tune` with Katib, and `finish`: from the Experiment's text to the artifacts, on a fake cluster."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from rankwise.cluster import client
from rankwise.kfp import kubernetes_api
from rankwise.kfp.launcher import Deleted, ExperimentFailed, experiment_name
from rankwise.kfp.steps import search
from rankwise.kfp.steps.finish import finish
from rankwise.kfp.steps.telling import telling
from support import cluster_objects as objects
from support.fake_katib import DELETED, FakeKatib, counts, failed, succeeded

REPOSITORY = Path(__file__).parents[3]
RUN = "run-1"
NAME = experiment_name("quickstart", RUN, "sobol")
POINT = {"rank": "16", "alpha_ratio": "2", "dropout": "0", "learning_rate": "1e-3", "batch_size": "8"}


def text(**settings: str) -> str:
    document = yaml.safe_load((REPOSITORY / "katib/experiments/quickstart.yaml").read_text(encoding="utf-8"))
    # No language model: the report has no picture to make then.
    told = [{"name": name, "value": value} for name, value in settings.items()]
    # Settings that sobol does not know are those of an algorithm that is not ours, with a name as long as its own.
    document["spec"]["algorithm"] = {"algorithmName": "other" if told else "sobol", "algorithmSettings": told}
    return json.dumps(document)


@pytest.fixture
def katib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeKatib:
    """What the steps find in place of a cluster; the trials' store is a folder."""
    fake = FakeKatib()
    losses = {"t-1": "2.5", "t-2": "2.25"}
    fake.trials = [
        objects.trial(
            index, metrics=[objects.metric("loss", loss)], name=name, experiment=NAME, uid="", assignments=POINT
        )
        for index, (name, loss) in enumerate(losses.items())
    ]

    @contextlib.contextmanager
    def no_client() -> Iterator[None]:
        yield None

    def made(_: object, namespace: str) -> FakeKatib:
        fake.namespace = namespace
        return fake

    monkeypatch.setattr(client, "api_client", no_client)
    monkeypatch.setattr(kubernetes_api, "KubernetesKatib", made)
    monkeypatch.setenv("NAMESPACE", "team")
    monkeypatch.setenv("RANKWISE_STORE", str(tmp_path / "store"))
    return fake


def go(tmp_path: Path, settings: Mapping[str, str] | None = None, **more: object) -> search.Best:
    paths = search.SearchPaths(**{name: tmp_path / "out" / name for name in search.SearchPaths.__slots__})
    data = tmp_path / "data"
    data.write_text('{"source": "long", "target": "short"}\n', encoding="utf-8")
    best, _ = search.search(text(**(settings or {})), RUN, engine="katib", data=data, paths=paths, **more)  # type: ignore[arg-type]
    return best


@pytest.mark.slow
def test_from_the_text_to_the_artifacts(katib: FakeKatib, tmp_path: Path) -> None:
    katib.script = [[counts(1, running=1), succeeded("t-2")]]
    best = go(tmp_path)
    assert (best.experiment, best.namespace, best.trial, best.value) == (NAME, "team", "t-2", 2.25)
    assert dict(best.assignments) == POINT
    # The trials read the data from the store, where a training after the search finds them too.
    pod = katib.experiments[NAME]["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    assert f"--data={best.data}" in pod["containers"][0]["command"]
    assert Path(best.data).is_relative_to(tmp_path / "store" / "datasets")
    assert Path(best.data).read_bytes() == (tmp_path / "data").read_bytes()
    out = tmp_path / "out"
    assert search.read_best(out / "best") == best
    facts = search.read_search(out / "search")
    assert facts.default_configuration is not None, "the report compares with it"
    with (out / "trials").open(encoding="utf-8", newline="") as file:
        assert [(row["trial"], row["loss"]) for row in csv.DictReader(file)] == [("t-1", "2.5"), ("t-2", "2.25")]
    assert "t-2" in (out / "report").read_text(encoding="utf-8")
    assert "t-2" in (out / "summary").read_text(encoding="utf-8")


def test_a_failed_search_leaves_no_result(katib: FakeKatib, tmp_path: Path) -> None:
    katib.script = [[failed(["t-1"])]]
    with pytest.raises(ExperimentFailed, match="failed"):
        go(tmp_path)
    assert not (tmp_path / "out").exists()


def test_what_is_trained_after_the_search_keeps_its_bounds(katib: FakeKatib, tmp_path: Path) -> None:
    katib.script = [[counts(1, running=1), succeeded("t-2")]]
    best = go(tmp_path, {"constraints": "loss>=2.4"})
    assert (best.trial, best.value) == ("t-1", 2.5)


def test_where_no_trial_keeps_the_bounds_nothing_is_trained_after_the_search(katib: FakeKatib, tmp_path: Path) -> None:
    katib.script = [[counts(1, running=1), succeeded("t-2")]]
    with pytest.raises(ExperimentFailed, match=r"no trial of Experiment .* keeps its bounds"):
        go(tmp_path, {"constraints": "loss<=2"})
    assert not (tmp_path / "out").exists()


def test_a_cancelled_step_deletes_its_experiment_and_ends_as_the_shell_says(katib: FakeKatib, tmp_path: Path) -> None:
    katib.script = [[counts(1), lambda _: os.kill(os.getpid(), signal.SIGTERM)]]
    with pytest.raises(SystemExit) as ended, telling("tune"):
        go(tmp_path)
    assert ended.value.code == 128 + signal.SIGTERM
    assert katib.experiments == {}


def test_the_exit_handler_deletes_what_a_killed_launcher_left(katib: FakeKatib, tmp_path: Path) -> None:
    katib.script = [[counts(1), RuntimeError("as by SIGKILL")]]
    with pytest.raises(RuntimeError, match="SIGKILL"):
        go(tmp_path)
    assert list(katib.experiments) == [NAME]
    finish(text(), "another-run")
    assert list(katib.experiments) == [NAME], "another run's"
    finish(text(), RUN)
    assert katib.experiments == {}
    finish(text(), RUN)  # twice is once


def test_the_exit_handler_keeps_an_experiment_that_has_ended(katib: FakeKatib, tmp_path: Path) -> None:
    katib.script = [[succeeded("t-2")]]
    go(tmp_path)
    finish(text(), RUN)
    assert list(katib.experiments) == [NAME]


def test_what_was_deleted_to_stop_it_is_not_made_again_by_a_retry(katib: FakeKatib, tmp_path: Path) -> None:
    katib.script = [[counts(1), DELETED], [succeeded("t-2")]]
    with pytest.raises(Deleted, match="was deleted while it ran"):
        go(tmp_path)
    with pytest.raises(ExperimentFailed, match="was deleted while it ran; to search again, start a new run"):
        go(tmp_path)
    assert katib.experiments == {}
