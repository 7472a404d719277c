"""The parts of the image builds that need no buildah: what is borrowed from the host, and when a build is due."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

CLUSTER_TESTS = Path(__file__).parents[2] / "cluster"


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(CLUSTER_TESTS))
    return importlib.import_module("harness.images")


class BuildahStub:
    """Keeps the commands that would be run and makes the files that they would leave."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str | Path], **_: object) -> str:
        words = [str(word) for word in command]
        self.commands.append(words)
        if "images" in words:
            return "0123456789ab\n"  # the storage holds the base
        if "push" in words:
            Path(words[-1].split(":", 2)[1]).write_text(words[-2])
        return ""

    def verbs(self) -> list[str]:
        """bud and push, in order."""
        return [next(word for word in words if word in {"bud", "push", "images"}) for words in self.commands]


@pytest.fixture
def buildah(images: ModuleType, monkeypatch: pytest.MonkeyPatch) -> BuildahStub:
    stub = BuildahStub()
    monkeypatch.setattr(images, "_run", stub)
    return stub


def test_pip_in_a_build_downloads_from_where_the_host_does(images: ModuleType, tmp_path: Path) -> None:
    system, user = tmp_path / "system.conf", tmp_path / "user.conf"
    system.write_text("[global]\nindex-url = https://one.test/simple\ncert = /host/only.pem\nretries = 2\n")
    user.write_text("[install]\nindex-url = https://two.test/simple\n")
    environment = {"PIP_DEFAULT_TIMEOUT": "90", "PIP_FIND_LINKS": "/host/wheels", "PIP_TRUSTED_HOST": "two.test"}

    text = images.pip_configuration(environment, [system, user, tmp_path / "none.conf"])

    assert text.splitlines() == [
        "[global]",
        "cert = /etc/ssl/certs/ca-certificates.crt",
        "index-url = https://two.test/simple",
        "trusted-host = two.test",
        "timeout = 90",
        "retries = 2",
    ]


def test_an_image_is_built_again_only_when_something_of_it_changed(
    images: ModuleType, buildah: BuildahStub, tmp_path: Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_text("1")
    cache, said = tmp_path / "cache", list[str]()

    def build(text: str = "FROM {base}\nCOPY file /\n") -> Path:
        return images.build_simple(cache, "localhost/small:1", text, context, say=said.append)

    first = build()
    assert buildah.verbs() == ["images", "bud", "push"]
    assert first.read_text() == "localhost/small:1"
    assert build() == first
    assert buildah.verbs() == ["images", "bud", "push"]

    (context / "file").write_text("2")
    second = build()
    assert second != first
    assert not first.exists(), "older archives are removed"
    assert build("FROM {base}\n") != second
    assert buildah.verbs() == ["images", "bud", "push"] * 3
    assert said == ["building localhost/small:1"] * 3


def test_archives_of_other_images_stay(images: ModuleType, buildah: BuildahStub, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    archives = [
        images.build_simple(tmp_path, f"localhost/{name}:1", text, context, say=lambda line: None)
        for name, text in (("small", "FROM scratch"), ("small-too", "FROM scratch"), ("small", "FROM {base}"))
    ]
    assert [archive.exists() for archive in archives] == [False, True, True]


def test_both_images_are_built_once_from_one_state_of_the_checkout(
    images: ModuleType, buildah: BuildahStub, tmp_path: Path
) -> None:
    key = images.build_images(tmp_path, say=lambda line: None)

    builds = [words for words in buildah.commands if "bud" in words]
    tags = [words[words.index("--tag") + 1] for words in builds if "--tag" in words and "images" in " ".join(words)]
    assert set(images.IMAGES) <= set(tags)
    ours = [words for words in builds if any(image in words for image in images.IMAGES)]
    assert all(f"BASE_IMAGE={images.BASE_IMAGE}" in words and "TORCH=pypi-cpu" in words for words in ours)
    assert images.build_images(tmp_path, say=lambda line: None) == key
    assert len([words for words in buildah.commands if "bud" in words]) == len(builds)


def test_a_failed_build_says_what_buildah_said(images: ModuleType) -> None:
    with pytest.raises(images.HarnessError, match=r"(?s)ended with exit code 7:.*the last words"):
        images._run(["sh", "-c", "echo the last words >&2; exit 7"])
    with pytest.raises(images.HarnessError, match="no-such-program not found"):
        images._run(["no-such-program"])
