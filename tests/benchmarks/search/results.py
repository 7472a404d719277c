"""The file of a benchmark's searches: one line of JSON for each, appended when it has ended.

    {"kind": "search", "task": …, "optimizer": …, "seed": …, "budget": …, "pool": fingerprint of the table's pool,
     "trials": [index in the pool, …], "values": [loss or null, …], "distances": [...], "seconds": [...], "notes": {}}
    {"kind": "unavailable", "optimizer": …, "reason": …}          not installed here
    {"kind": "failed", "optimizer": …, "task": …, "seed": …, "reason": …}     an optimizer that broke off
    {"kind": "environment", …}                                    versions and machine of what follows

A search that a kill cut off leaves no line, or a torn one, which reading skips: it is made again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "searches.jsonl"


@dataclass(frozen=True)
class Search:
    """One search, as it is stored. Attributes as in the module's docstring."""

    task: str
    optimizer: str
    seed: int
    budget: int
    pool: str
    trials: tuple[int, ...]
    values: tuple[float | None, ...]
    distances: tuple[float, ...]
    seconds: tuple[float, ...]
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        """What must be equal for a search to be the same one."""
        return self.task, self.optimizer, self.seed, self.budget, self.pool


class Results:
    """The lines of a folder.

    Args:
        folder: made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines, in the order in which they were written."""
        if not self.path.exists():
            return []
        found = []
        for row in self.path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(row))
            except ValueError:  # torn by a kill
                continue
        return found

    def searches(self) -> list[Search]:
        """All searches; of equal ones the last."""
        known: dict[object, Search] = {}
        for line in self.lines():
            if line["kind"] == "search":
                facts = {name: line[name] for name in Search.__dataclass_fields__}
                lists = {name: tuple(facts[name]) for name in ("trials", "values", "distances", "seconds")}
                search = Search(**{**facts, **lists})
                known[search.key] = search
        return list(known.values())

    def unavailable(self) -> dict[str, str]:
        """Optimizers that could not be had, with the last reason. One that was had later is not among them."""
        found: dict[str, str] = {}
        for line in self.lines():
            if line["kind"] == "unavailable":
                found[line["optimizer"]] = line["reason"]
            elif line["kind"] == "search":
                found.pop(line["optimizer"], None)
        return found

    def broken(self) -> dict[str, int]:
        """Optimizers that broke off a search which was not made since, with how many."""
        open_ones: dict[tuple[str, str, int], None] = {}
        for line in self.lines():
            if line["kind"] in ("failed", "search"):
                place = (line["optimizer"], line["task"], line["seed"])
                if line["kind"] == "failed":
                    open_ones[place] = None
                else:
                    open_ones.pop(place, None)
        return dict(Counter(optimizer for optimizer, _, _ in open_ones))

    def append(self, kind: str, facts: Mapping[str, Any] | Search) -> None:
        """Add a line; it is on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        row = {"kind": kind, **(asdict(facts) if isinstance(facts, Search) else facts)}
        text = json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n"
        with self.path.open("ab+") as stream:
            end = stream.seek(0, os.SEEK_END)
            if end:
                stream.seek(end - 1)
                if stream.read(1) != b"\n":  # a torn line stays a line of its own
                    text = "\n" + text
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())


def missing(
    wanted: Iterable[tuple[str, str, int, int, str]], done: Iterable[Search]
) -> list[tuple[str, str, int, int, str]]:
    """The keys (:attr:`Search.key`) of searches that have not been made, in their order."""
    have = {search.key for search in done}
    return [key for key in wanted if key not in have]
