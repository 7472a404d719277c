from __future__ import annotations

import json
from pathlib import Path

import pytest

import rankwise.report.write as writing
from rankwise.errors import SurroundingsError
from rankwise.report.facts import facts_from_json
from rankwise.report.write import build_report, write_report
from support.facts import synthetic_facts

pytestmark = pytest.mark.usefixtures("importances_once")


def test_a_report_is_four_files_and_nothing_else(tmp_path: Path) -> None:
    facts = synthetic_facts(12)
    folder = tmp_path / "new" / "run"
    paths = write_report(facts, folder)
    assert sorted(folder.iterdir()) == sorted([paths.html, paths.json, paths.markdown, paths.optuna])
    assert facts_from_json(paths.json.read_text(encoding="utf-8")) == facts
    assert paths.html.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert paths.markdown.read_text(encoding="utf-8").startswith("# quickstart")
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o644"}


def test_a_later_report_replaces_an_earlier_one(tmp_path: Path) -> None:
    write_report(synthetic_facts(3, finals=False), tmp_path)
    paths = write_report(synthetic_facts(5), tmp_path)
    assert len(json.loads(paths.json.read_text(encoding="utf-8"))["facts"]["trials"]) == 5
    assert len(list(tmp_path.iterdir())) == 4


def test_a_failure_leaves_the_earlier_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_report(synthetic_facts(3), tmp_path)
    before = paths.optuna.read_bytes()

    def fail(facts: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "write_database", fail)
    with pytest.raises(SurroundingsError, match=r"could not be written into .*: No space left on device"):
        write_report(synthetic_facts(5), tmp_path)
    assert paths.optuna.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        SurroundingsError, match=r"the report could not be written into .*: (Not a directory|File exists)"
    ):
        write_report(synthetic_facts(2), tmp_path / "file" / "run")


def test_build_report_gives_page_and_json() -> None:
    page, text = build_report(synthetic_facts(3))
    assert page.startswith("<!DOCTYPE html>")
    assert set(json.loads(text)) == {"facts", "analysis"}
