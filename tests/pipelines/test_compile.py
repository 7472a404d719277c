"""The compiled pipelines: what is committed is what the source says, and compiling needs next to nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipelines.compile import FOLDER, PIPELINES, compile_into, main, stale

from rankwise import __version__
from rankwise.local.experiment import load_experiment, parse_experiment

REPOSITORY = Path(__file__).parents[2]
SETTLED = ("subset", "embed", "tune", "train", "train-2", "evaluate", "report", "register", "finish")
WITH_GPUS = {"tune_lora", "t5_summarization"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    paths = compile_into(tmp_path_factory.mktemp("compiled"))
    return {path.stem: list(yaml.safe_load_all(path.read_text())) for path in paths}


def test_what_is_committed_is_what_the_source_compiles_to() -> None:
    assert stale() == [], "make pipelines"
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(PIPELINES)


def test_a_change_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compile_into(tmp_path)
    assert main(["--check", "--output", str(tmp_path)]) == 0
    file = tmp_path / "tune_lora.yaml"
    file.write_text(file.read_text().replace("maxRetryCount: 2", "maxRetryCount: 3", 1))
    (tmp_path / "t5_summarization.yaml").unlink()
    assert main(["--check", "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "tune_lora.yaml is not what its source compiles to: make pipelines" in said
    assert "t5_summarization.yaml is not" in said


@pytest.mark.slow
def test_pipelines_compile_where_only_kfp_is_installed(tmp_path: Path) -> None:
    """Everything that a step uses in its pod is out of reach here."""
    program = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {'torch', 'numpy', 'transformers', 'peft', 'scipy', 'optuna', 'plotly',\n"
        "                                      'grpc', 'minio', 'rich', 'botorch', 'gpytorch', 'datasets'}:\n"
        "            raise ModuleNotFoundError(f'not installed here: {name}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from pipelines.compile import main\n"
        f"code = main(['--output', {str(tmp_path)!r}])\n"
        "ours = sorted(name for name in sys.modules if name.partition('.')[0] == 'rankwise')\n"
        "assert ours == ['rankwise', 'rankwise.kfp', 'rankwise.kfp.components', 'rankwise.kfp.image'], ours\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(PIPELINES)


def test_component_modules_import_the_standard_library_kfp_and_the_image_alone() -> None:
    tree = ast.parse((REPOSITORY / "components/rankwise/kfp/components.py").read_text())
    names = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    foreign = {name for name in names if name.partition(".")[0] not in {*sys.stdlib_module_names, "kfp"}}
    assert foreign == {"rankwise.kfp.image"}


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_step_runs_in_the_one_image(compiled: dict[str, list[dict[str, Any]]], name: str) -> None:
    executors = compiled[name][0]["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {f"rankwise-trainer:{__version__}"}
    # Nothing is installed when a pod starts: it may have no network.
    commands = " ".join(word for e in executors.values() for word in e["container"]["command"])
    assert "pip install" not in commands


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_settings_of_the_steps(compiled: dict[str, list[dict[str, Any]]], name: str) -> None:
    spec, platform = compiled[name]
    way = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    tasks = {**way, **{key: task for key, task in spec["root"]["dag"]["tasks"].items() if key == "finish"}}
    assert set(tasks) == set(SETTLED)
    cached = {key for key, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert cached == {"subset"}
    assert {task["retryPolicy"]["maxRetryCount"] for task in tasks.values()} == {2}
    assert tasks["finish"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert "embed" in tasks["tune"]["dependentTasks"]
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == {f"exec-{key}" for key in SETTLED}
    for key, executor in executors.items():
        assert executor["pvcMount"][0]["constant"] == "rankwise-models"
        secret = executor["secretAsEnv"][0]
        assert secret["secretName"] == "rankwise-s3"
        assert "RANKWISE_STORE" in {entry["envVar"] for entry in secret["keyToEnv"]}
        on_a_gpu = key.startswith("exec-train") and name in WITH_GPUS
        assert ("tolerations" in executor) is on_a_gpu
        assert ("nodeSelector" in executor) is on_a_gpu
    for key, executor in spec["deploymentSpec"]["executors"].items():
        accelerator = executor["container"]["resources"].get("accelerator")
        assert (accelerator is not None) is (key.startswith("exec-train") and name in WITH_GPUS)
    assert executors["exec-tune"]["fieldPathAsEnv"] == [{"name": "RANKWISE_POD", "fieldPath": "metadata.name"}]


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_the_search_finds_itself_by_the_runs_id(compiled: dict[str, list[dict[str, Any]]], name: str) -> None:
    way = compiled[name][0]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    finish = compiled[name][0]["root"]["dag"]["tasks"]["finish"]
    runs = {task["inputs"]["parameters"]["run"]["runtimeValue"]["constant"] for task in (way["tune"], finish)}
    assert runs == {"{{$.pipeline_job_uuid}}"}


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_the_experiment_is_the_committed_one_and_every_step_gets_it(
    compiled: dict[str, list[dict[str, Any]]], name: str
) -> None:
    text = compiled[name][0]["root"]["inputDefinitions"]["parameters"]["experiment"]["defaultValue"]
    experiment = parse_experiment(text)
    file = REPOSITORY / "katib" / "experiments" / f"{experiment.name}.yaml"
    assert experiment.document == load_experiment(file).document
    tasks = compiled[name][0]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    given = {key for key, task in tasks.items() if "experiment" in task["inputs"].get("parameters", {})}
    assert given == set(SETTLED) - {"register", "finish"}


@pytest.mark.slow
def test_another_registry_is_named_while_compiling(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.compile", "--output", str(tmp_path)],
        cwd=REPOSITORY, env={"PATH": "/usr/bin:/bin", "RANKWISE_IMAGE": "registry.test/team/trainer:7"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    spec = next(yaml.safe_load_all((tmp_path / "tune_lora.yaml").read_text()))
    images = {executor["container"]["image"] for executor in spec["deploymentSpec"]["executors"].values()}
    assert images == {"registry.test/team/trainer:7"}
    # The trials' image too: a cluster pulls both from there.
    text = spec["root"]["inputDefinitions"]["parameters"]["experiment"]["defaultValue"]
    pod = parse_experiment(text).document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    assert {container["image"] for container in pod["containers"]} == images
