"""Make the virtual environment of the outside peers, or say why it cannot be made.

    python -m benchmarks.search.install         (from tests/; about 1 GB, minutes)

``.venv-peers`` at the repository's root holds what ``requirements-peers.txt`` lists, and a path file that lends it this
environment's PyTorch: a second one would be another 3 GB. What is made already stays. Never fails: peers that cannot be
had are reported by the benchmark as not installed here.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.search.outside import PYTHON

REQUIREMENTS = Path(__file__).with_name("requirements-peers.txt")


def stamp() -> str:
    """What an environment was made from."""
    content = REQUIREMENTS.read_bytes() + sysconfig.get_path("purelib").encode()
    return hashlib.sha256(content).hexdigest()


def install(folder: Path) -> str | None:
    """Make the environment, unless it is there.

    Returns:
        Why it could not be made; None when it is there.
    """
    done = folder / ".made-from"
    if done.exists() and done.read_text(encoding="utf-8") == stamp():
        return None
    python = folder / "bin" / "python"
    pip = (str(python), "-m", "pip")
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [
            *pip,
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--require-hashes",
            "-r",
            str(REQUIREMENTS),
        ],
    )
    for command in commands:
        result = subprocess.run(command, check=False, capture_output=True, text=True)
        if result.returncode:
            said = (result.stderr or result.stdout).strip().splitlines()
            return said[-1] if said else f"{command[0]} ended with code {result.returncode}"
    own = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # Appended to the search path: the environment's own NumPy and SciPy come first.
    (Path(own) / "lent-by-the-project.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    done.write_text(stamp(), encoding="utf-8")
    return None


def main() -> int:
    """Make it and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=PYTHON.parents[1], help="default: .venv-peers")
    folder = parser.parse_args().folder
    reason = install(folder)
    print(f"the peers' environment is {'ready' if reason is None else f'not to be had here: {reason}'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
