"""Population-based training on one machine: each process gets its parent, over a stop and a failure."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise.artifacts import Manifest
from rankwise.local.engine import RunResult
from rankwise.local.records import Condition
from rankwise.report.facts import facts_from_json, facts_to_json
from rankwise.report.write import write_report
from rankwise.settings import Settings
from rankwise.strategies.lineage import GENERATION_LABEL, MEMBER_LABEL, PARENT_LABEL
from rankwise.suggest.server import serve
from rankwise.suggest.wiring import wire
from support.encoders import FakeEncoder
from support.local_runs import change, experiment, go
from support.tiny_models import tiny_llama, write_examples

BODY = """
parent = os.environ["RANKWISE_PARENT"]
states = os.path.join(os.environ["RANKWISE_STORE"], "states")
os.makedirs(states, exist_ok=True)
begun = json.load(open(os.path.join(states, parent))) if parent else 10.0
if kind == "b" and not parent:
    sys.exit(1)
value = begun - 1 / (1 + abs(x - 3))
json.dump(value, open(os.path.join(states, os.environ["RANKWISE_TRIAL"]), "w"))
open("parent", "w").write(parent)
print(f"loss={value!r}")
"""
"""Learns best at x = 3, on top of what its parent had learned; a first training of kind b fails."""
READS_PARENT = {
    "name": "RANKWISE_PARENT",
    "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{PARENT_LABEL}']"}},
}


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    with serve("127.0.0.1:0", wire(Settings(cache=tmp_path / "vectors"), FakeEncoder()).strategies) as server:
        yield server.address


def population(folder: Path, generations: int, **spec: Any) -> Path:
    """Four members, one trial at a time: so the order does not depend on the clock."""
    algorithm = {
        "algorithmName": "rankwise-pbt",
        "algorithmSettings": [
            {"name": "population", "value": "4"},
            {"name": "initial_design", "value": "sobol"},
            {"name": "resample_probability", "value": "0"},
        ],
    }
    file = experiment(folder, BODY, algorithm=algorithm, maxTrialCount=4 * generations, **spec)
    document = yaml.safe_load(file.read_text())
    (container,) = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"]
    container["env"] = [READS_PARENT]
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file


def lineage(result: RunResult) -> list[tuple[str, str, str, str, Condition]]:
    return [
        (t.name, t.labels[MEMBER_LABEL], t.labels[GENERATION_LABEL], t.labels.get(PARENT_LABEL, ""), t.condition)
        for t in result.trials
    ]


def test_a_search_hands_its_trials_on_and_a_stop_changes_nothing(tmp_path: Path, endpoint: str) -> None:
    result = go(population(tmp_path / "one", 4), tmp_path / "one" / "run", endpoint)
    found = lineage(result)
    conditions = {name: condition for name, *_, condition in found}
    failed = [name for name, *_, condition in found if condition is Condition.FAILED]
    assert failed, "no member was lost: the test shows less than it should"
    assert [(member, generation) for _, member, generation, *_ in found] == [
        (str(member), str(generation)) for generation in range(4) for member in range(4)
    ]
    for name, _, generation, parent, condition in found:
        # What the label says is what the process read; lost members have parents, too.
        assert (parent == "") == (generation == "0")
        if condition is Condition.SUCCEEDED:
            assert (tmp_path / "one" / "run" / "trials" / name / "parent").read_text() == parent
        assert parent == "" or conditions[parent] is Condition.SUCCEEDED
    # Four generations of at most 1 each: nobody begins anew on the way.
    assert result.best_value is not None
    assert 6.0 <= result.best_value < 8.0
    # Stopped after every generation, by a lower maxTrialCount, and continued by another engine: the same search.
    file = population(tmp_path / "two", 1)
    for generations in (1, 2, 3, 4):
        change(file, maxTrialCount=4 * generations)
        again = go(file, tmp_path / "two" / "run", endpoint)
    assert lineage(again) == found


def test_the_report_of_a_population(tmp_path: Path, endpoint: str) -> None:
    result = go(population(tmp_path, 2), tmp_path / "run", endpoint)
    assert facts_from_json(facts_to_json(result.facts)) == result.facts
    written = write_report(result.facts, tmp_path / "report")
    assert "rankwise-pbt" in written.html.read_text()


@pytest.mark.slow
def test_real_trainings_go_on_from_each_other(tmp_path: Path, endpoint: str) -> None:
    """The trainer itself, on a tiny random model: each generation's manifest tells whom it began with."""
    model, data = tiny_llama(tmp_path / "llama"), write_examples(tmp_path / "examples.jsonl")
    parameters = [
        {
            "name": "learning_rate",
            "parameterType": "double",
            "feasibleSpace": {"min": "0.0001", "max": "0.1", "distribution": "logUniform"},
        },
        {"name": "rank", "parameterType": "discrete", "feasibleSpace": {"list": ["2", "4"]}},
    ]
    settings = [{"name": "population", "value": "2"}, {"name": "initial_design", "value": "sobol"}]
    file = experiment(
        tmp_path,
        algorithm={"algorithmName": "rankwise-pbt", "algorithmSettings": settings},
        maxTrialCount=6,
        parameters=parameters,
    )
    document = yaml.safe_load(file.read_text())
    template = document["spec"]["trialTemplate"]
    template["trialParameters"] = [
        {"name": "rate", "reference": "learning_rate"},
        {"name": "rank", "reference": "rank"},
    ]
    (container,) = template["trialSpec"]["spec"]["template"]["spec"]["containers"]
    container["command"] = [
        sys.executable, "-m", "rankwise.train", f"--model={model}", f"--data={data}", "--device=cpu",
        "--precision=fp32", "--validation=12", "--test=8", "--max-target-tokens=12", "--steps=3", "--threads=1",
        "--schedule=constant", "--keep-state=final",
    ]  # fmt: skip
    container["args"] = ["--learning-rate=${trialParameters.rate}", "--rank=${trialParameters.rank}"]
    container["env"] = [READS_PARENT]
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    result = go(file, tmp_path / "run", endpoint)
    assert [trial.condition for trial in result.trials] == [Condition.SUCCEEDED] * 6
    ranks = {trial.name: trial.assignments["rank"] for trial in result.trials}
    for trial in result.trials:
        path = tmp_path / "run" / "store" / "experiments" / "tiny" / "trials" / trial.name / "manifest.json"
        manifest = Manifest.from_json(path.read_bytes())
        generation, parent = int(trial.labels[GENERATION_LABEL]), trial.labels.get(PARENT_LABEL)
        if generation == 0:
            assert manifest.lineage is None
            continue
        assert manifest.lineage is not None
        assert (manifest.lineage.parent, manifest.lineage.steps) == (parent, 3 * generation)
        assert json.loads(path.read_text())["configuration"]["parent"] == parent
        assert ranks[trial.name] == ranks[manifest.lineage.parent]
