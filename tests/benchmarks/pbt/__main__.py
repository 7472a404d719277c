"""Run the race and write its results.

    cd tests && OMP_NUM_THREADS=1 python -m benchmarks.pbt --seeds 6

Needs WordNet in the folder of :mod:`benchmarks.lora_runs.sources` (``python -m benchmarks.lora_runs.sources`` fetches
it). Each outcome is written when it is there; the same command goes on with what is missing. Six seeds take about 15
minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch

from benchmarks.lora_runs.build import Builder
from benchmarks.lora_runs.models import PackedBert
from benchmarks.lora_runs.sources import default_folder
from benchmarks.lora_runs.tasks import TASKS
from benchmarks.machine import processor
from benchmarks.pbt.race import METHODS, Outcome, Setting, Task, run
from benchmarks.pbt.summary import markdown

TASK, TRAIN, VALIDATION = "minilm3-word", 2048, 256
RESULTS = Path(__file__).parent / "results"


def read(path: Path) -> list[Outcome]:
    """Outcomes of an earlier run."""
    if not path.exists():
        return []
    return [Outcome(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))["outcomes"]]


def write(folder: Path, outcomes: Sequence[Outcome], setting: Setting, seconds: float) -> None:
    """The outcomes as JSON; ``seconds`` of the processor for these."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "task": TASK,
        "train": TRAIN,
        "validation": VALIDATION,
        "setting": asdict(setting),
        "processor": processor(),
        "torch": torch.__version__,
        "processor_seconds": round(seconds),
    }
    document = {**about, "outcomes": [asdict(outcome) for outcome in outcomes]}
    part = folder / "outcomes.json.part"
    part.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(folder / "outcomes.json")


def summarize(folder: Path) -> str:
    """Write what follows from the outcomes in a folder; the text."""
    document = json.loads((folder / "outcomes.json").read_text(encoding="utf-8"))
    text = markdown([Outcome(**entry) for entry in document.pop("outcomes")], document)
    (folder / "summary.md").write_text(text, encoding="utf-8")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6, help="searches of each method (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (%(default)s)")
    parser.add_argument("--sources", type=Path, default=default_folder(), help="folder (%(default)s)")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    setting, path = Setting(), arguments.out / "outcomes.json"
    outcomes = read(path)
    spent = json.loads(path.read_text(encoding="utf-8"))["processor_seconds"] if outcomes else 0.0
    done = {(outcome.method, outcome.seed) for outcome in outcomes}
    missing = [(m, seed) for seed in range(arguments.seeds) for m in METHODS if (m, seed) not in done]
    if missing:
        builder = Builder(TASKS[TASK], arguments.sources)
        task = Task(
            cast("PackedBert", builder.model),
            builder.items(TRAIN),
            builder.held["validation"][:VALIDATION],
            builder.held["test"],
            len(builder.sets.classes),
        )
    for method, seed in missing:
        began = time.process_time()
        outcome = run(method, task, setting, seed)
        spent += time.process_time() - began
        outcomes.append(outcome)
        write(arguments.out, outcomes, setting, spent)
        print(f"seed {seed}, {method}: {outcome.loss:.4f} (test {outcome.test_loss:.4f})", file=sys.stderr)
    print(summarize(arguments.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
