"""``python -m pipelines.compile``: write the pipelines as YAML that the UI takes (``--check``: compare instead)."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kfp import compiler

from pipelines.quickstart import quickstart
from pipelines.t5_summarization import t5_summarization
from pipelines.tune_lora import tune_lora

FOLDER = Path(__file__).parent / "compiled"
PIPELINES: dict[str, Callable[..., Any]] = {
    "quickstart": quickstart,
    "tune_lora": tune_lora,
    "t5_summarization": t5_summarization,
}


def compile_into(folder: Path) -> list[Path]:
    """Compile every pipeline; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, pipeline in PIPELINES.items():
        path = folder / f"{name}.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        written.append(path)
    return written


def stale(folder: Path = FOLDER) -> list[str]:
    """Names of committed files that are not what the source compiles to."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = compile_into(Path(scratch))
        return [
            path.name
            for path in fresh
            if not (folder / path.name).is_file() or (folder / path.name).read_bytes() != path.read_bytes()
        ]


def main(argv: Sequence[str] | None = None) -> int:
    """Compile, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed files; write nothing")
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="DIR", help="folder (%(default)s)")
    arguments = parser.parse_args(argv)
    if not arguments.check:
        for path in compile_into(arguments.output):
            print(path)
        return 0
    names = stale(arguments.output)
    for name in names:
        print(f"{name} is not what its source compiles to: make pipelines", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
