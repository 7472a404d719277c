"""The floors hold, and the check that says so can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def lint_imports(checkout: Path) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys; sys.path.insert(0, 'components'); from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports(no_cache=True))"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package and its lint configuration."""
    shutil.copytree(
        REPOSITORY / "components", tmp_path / "components", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def test_floors_hold(checkout: Path) -> None:
    result = lint_imports(checkout)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("space/trial.py", "import rankwise.strategies"),
        ("strategies/sobol.py", "import rankwise.suggest"),
        ("surrogate/acquisition.py", "import rankwise.data"),
        ("strategies/sobol.py", "import grpc"),
        ("train/loop.py", "from rankwise.katib_api import api_pb2"),
    ],
)
def test_a_planted_import_is_reported(checkout: Path, module: str, planted: str) -> None:
    target = checkout / "components" / "rankwise" / module
    target.write_text(target.read_text() + f"\n{planted}\n")
    result = lint_imports(checkout)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout


def test_python_files_stay_readable_in_one_sitting() -> None:
    too_long = {
        str(path.relative_to(REPOSITORY)): lines
        for folder in ("components", "tests", "pipelines")
        for path in (REPOSITORY / folder).rglob("*.py")
        if "katib_api" not in path.parts and (lines := len(path.read_text().splitlines())) > 500
    }
    assert not too_long
