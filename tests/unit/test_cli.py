"""The command line: verbs, exit codes, messages. One case is a process of its own, as a user has it.

The others call ``main``: a process loads the libraries anew, for seconds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rankwise import __version__
from rankwise.cli import VERBS, main
from rankwise.local.document import dump

REPOSITORY = Path(__file__).parents[2]
QUICKSTART = REPOSITORY / "katib" / "experiments" / "quickstart.yaml"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"rankwise {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_names_every_verb(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(arguments)
    out = capsys.readouterr().out
    assert [verb for verb in VERBS if f"  {verb} " not in out] == []


def test_an_unknown_verb_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["tune"])
    assert "'tune'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_of_a_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    out = capsys.readouterr().out
    assert out.startswith(f"usage: rankwise {verb}")
    assert len(out.splitlines()) > 5


def test_help_of_a_trial_needs_no_torch() -> None:
    program = (
        "import sys, rankwise.cli\n"
        "try:\n    rankwise.cli.main(['train', '--help'])\n"
        "except SystemExit:\n    assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_validate_accepts_the_experiments_that_we_ship(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["validate", *map(str, sorted((REPOSITORY / "katib" / "experiments").glob("*.yaml")))])
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    assert f"{QUICKSTART}: valid; 5 parameters, 1,440 configurations\n" in shown.out


def test_a_process_ends_with_the_verbs_code_and_its_words_on_stderr(tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"
    result = subprocess.run(
        [sys.executable, "-m", "rankwise.cli", "validate", str(file)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"{file}: got 'No such file or directory'; allowed: a file that can be read\n"


def test_validate_names_every_mistake_of_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = yaml.safe_load(QUICKSTART.read_text())
    document["spec"]["parameters"][0]["parameterType"] = "integer"
    document["spec"]["parallelTrialCount"] = 0
    first = tmp_path / "first.yaml"
    first.write_text(dump(document))
    document = yaml.safe_load(QUICKSTART.read_text())
    document["spec"]["algorithm"]["algorithmSettings"] = [
        {"name": "initial_point", "value": "3"},
        {"name": "acquisition", "value": "best"},
    ]
    second = tmp_path / "second.yaml"
    second.write_text(dump(document))
    code = main(["validate", str(first), str(second), str(tmp_path / "none.yaml")])
    shown = capsys.readouterr()
    assert (code, shown.out) == (2, "")
    lines = shown.err.splitlines()
    for path, place, given in [
        (first, "spec.parameters[0].parameterType", "'integer'"),
        (first, "spec.parallelTrialCount", "'0'"),
        (second, "initial_point", "did you mean initial_points?"),
        (second, "acquisition", "'best'"),
        (tmp_path / "none.yaml", "", "'No such file or directory'"),
    ]:
        found = [line for line in lines if line.startswith(f"{path}: ") and place in line and given in line]
        assert found, f"{path} {place} in {shown.err}"


def test_wrong_surroundings_are_wrong_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANKWISE_THREADS", "two")
    assert main(["validate", str(QUICKSTART)]) == 2
    shown = capsys.readouterr().err
    assert "RANKWISE_THREADS: got 'two'; allowed: a whole number greater than 0" in shown
    assert "Traceback" not in shown


def test_report_of_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "allowed: a run folder, one that holds experiment.yaml and journal.sqlite" in capsys.readouterr().err


def test_embed_is_for_the_algorithm_that_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sobol.yaml"
    document = yaml.safe_load(QUICKSTART.read_text())
    document["spec"]["algorithm"] = {"algorithmName": "sobol"}
    file.write_text(dump(document))
    assert main(["embed", str(file)]) == 2
    assert "got 'sobol'; allowed: language-bo" in capsys.readouterr().err
