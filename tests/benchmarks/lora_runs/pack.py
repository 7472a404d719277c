"""Pack the builder's lines into the table that is shipped, and say what it holds.

    python -m benchmarks.lora_runs.pack RUNS.jsonl ...      (from tests/; writes data/TASK.csv.gz and CARD.md's counts)

Of the part sobol the first points without a gap are kept, so that the table holds a Sobol design; what the builder has
done beyond a gap is left out and said.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lora_runs.build import identity, read_lines
from benchmarks.lora_runs.table import DATA, PARTS, Run, dump, load

CARD = DATA.parent / "CARD.md"
_BEGIN, _END = "<!-- counts, by pack.py -->", "<!-- end of counts -->"


def keep(runs: Sequence[Run]) -> list[Run]:
    """Runs of the table: all but those of the part sobol behind the first position that is missing."""
    done = {run.position for run in runs if run.part == "sobol"}
    first_gap = next(position for position in range(len(done) + 1) if position not in done)
    return [run for run in runs if run.part != "sobol" or run.position < first_gap]


def pack(paths: Sequence[Path], folder: Path = DATA) -> list[str]:
    """Write the tables of all runs of some files; return what was left out, a sentence each.

    Raises:
        ValueError: there are no runs.
    """
    runs = [run for path in paths for run in read_lines(path)]
    if not runs:
        raise ValueError("there are no runs")
    said = []
    for task in sorted({run.task for run in runs}):
        own = list({identity(task, run): run for run in runs if run.task == task}.values())
        kept = keep(own)
        (folder / f"{task}.csv.gz").write_bytes(dump(kept))
        if len(own) > len(kept):
            said.append(f"{task}: {len(own) - len(kept)} runs behind a gap in sobol left out")
    return said


def counts(folder: Path = DATA) -> str:
    """What the shipped tables hold, as a Markdown table."""
    lines = [
        f"| task | {' | '.join(PARTS)} | diverged | core seconds | sha256 of the file |",
        "|---|" + "--:|" * 6 + "---|",
    ]
    for path in sorted(folder.glob("*.csv.gz")):
        runs = load(path.name.removesuffix(".csv.gz"), path)
        parts = Counter(run.part for run in runs)
        cells = [runs[0].task, *(parts[part] for part in PARTS), sum(run.status == "diverged" for run in runs)]
        cells += [f"{sum(run.seconds for run in runs):,.0f}", f"`{hashlib.sha256(path.read_bytes()).hexdigest()}`"]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def with_counts(card: str, table: str) -> str:
    """The card with the table between its two marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, first, rest = card.partition(_BEGIN)
    _, second, after = rest.partition(_END)
    if not (first and second):
        raise ValueError(f"the card lacks {_BEGIN} or {_END}")
    return f"{before}{_BEGIN}\n{table}\n{_END}{after}"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="+", type=Path, help="files that the builder wrote")
    DATA.mkdir(exist_ok=True)
    for sentence in pack(parser.parse_args(argv).lines):
        print(sentence)
    table = counts()
    CARD.write_text(with_counts(CARD.read_text(encoding="utf-8"), table), encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
