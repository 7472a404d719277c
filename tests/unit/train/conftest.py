from __future__ import annotations

from pathlib import Path

import pytest

from support.tiny_models import tiny_llama, tiny_t5, write_examples


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_t5(tmp_path_factory.mktemp("models") / "t5")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_examples(tmp_path_factory.mktemp("data") / "examples.jsonl")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    names = ("STORE", "NAMESPACE", "EXPERIMENT", "TRIAL", "PARENT", "THREADS", "TEMPLATE", "LOG_FORMAT")
    for name in (*(f"RANKWISE_{name}" for name in names), "KATIB_TRIAL_NAME"):
        monkeypatch.delenv(name, raising=False)
