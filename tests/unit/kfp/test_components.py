"""The components' faces: what a pipeline's author sees, and that nothing is promised that a step does not know."""

from __future__ import annotations

import inspect

import pytest
from kfp.dsl import Artifact
from kfp.dsl.executor import create_artifact_instance
from kfp.dsl.types.type_annotations import is_Input_Output_artifact_annotation, maybe_strip_optional_from_annotation

from rankwise.kfp import components
from rankwise.kfp.image import IMAGE

ARTIFACTS = {
    "subset": {"data": "Dataset", "proxy": "Dataset", "summary": "Markdown"},
    "embed": {"metrics": "Metrics", "vectors": "Artifact"},
    "tune": {
        "best": "Artifact",
        "trials": "Dataset",
        "search": "Artifact",
        "metrics": "Metrics",
        "report": "HTML",
        "summary": "Markdown",
    },
    "train": {"model": "Model", "metrics": "Metrics"},
    "evaluate": {"finals": "Artifact", "metrics": "Metrics", "summary": "Markdown"},
    "report": {"page": "HTML", "summary": "Markdown"},
    "register": {"registered": "Model"},
    "finish": {},
}


def test_these_are_all() -> None:
    assert sorted(components.__all__) == sorted(ARTIFACTS)


@pytest.mark.parametrize("name", sorted(ARTIFACTS))
def test_outputs_are_typed(name: str) -> None:
    spec = getattr(components, name).component_spec
    found = {
        key: str(output.type).partition("@")[0].removeprefix("system.")
        for key, output in (spec.outputs or {}).items()
        if "@" in str(output.type)
    }
    assert found == ARTIFACTS[name]
    assert spec.implementation.container.image == IMAGE


@pytest.mark.parametrize("name", sorted(ARTIFACTS))
def test_every_argument_is_explained(name: str) -> None:
    function = getattr(components, name).python_func
    text = inspect.getdoc(function) or ""
    for argument in inspect.signature(function).parameters:
        assert f"    {argument}: " in text, argument


def test_the_launcher_works_on_its_own() -> None:
    inputs = components.tune.component_spec.inputs
    needed = {name for name, given in inputs.items() if not given.optional}
    assert needed == {"experiment", "run"}
    assert inputs["engine"].default == "katib"


@pytest.mark.parametrize("name", sorted(ARTIFACTS))
def test_artifacts_are_made_of_what_a_backend_hands_over_without_their_class(name: str) -> None:
    """As KFP 2.14's driver does: an annotation that kfp cannot instantiate ends the step before its first line."""
    function = getattr(components, name).python_func
    for parameter, annotation in function.__annotations__.items():
        if is_Input_Output_artifact_annotation(maybe_strip_optional_from_annotation(annotation)):
            made = create_artifact_instance({"uri": "minio://bucket/key", "type": {}}, annotation)
            assert isinstance(made, Artifact), parameter
