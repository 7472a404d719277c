"""The data of a run: read once, written down, and put where every trial finds the same rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rankwise.artifacts.store import Store
from rankwise.data import Example, load_examples, split, subset
from rankwise.errors import InvalidInput, Problem
from rankwise.kfp import experiments
from rankwise.kfp.lineage import sha256_of
from rankwise.settings import Settings

_SHOWN = 5
_CUT = 200  # characters of an example that the summary shows


@dataclass(frozen=True, slots=True)
class Prepared:
    """What there is.

    Attributes:
        sha256: hash of all examples, :attr:`rankwise.data.LoadedData.sha256`.
        train, validation, test: examples of the splits.
        proxy: examples of the training split that a trial is trained on.
        seeds: purpose -> seed.
        reference: as the Experiment names the data.
    """

    sha256: str
    train: int
    validation: int
    test: int
    proxy: int
    seeds: dict[str, int]
    reference: str


def prepare(text: str, data: Path, proxy: Path, summary: Path) -> Prepared:
    """Read the data of an Experiment's trials, and write down what they get.

    Args:
        text: the Experiment.
        data: where all examples go, as JSON lines with ``source`` and ``target``: in their order, so that the same
            seed splits them as it splits the original.
        proxy: where the examples go that trials are trained on.
        summary: where a page in Markdown goes.

    Raises:
        InvalidInput: the Experiment or the data are wrong.
        SurroundingsError: the data could not be read.
    """
    config = experiments.trial_config(experiments.read(text, ours_alone=False))
    loaded = load_examples(
        config.data,
        source_field=config.source_field,
        target_field=config.target_field,
        cache=Settings.from_environment().cache,
    )
    parts = split(len(loaded.examples), config.validation, config.test, config.split_seed)
    if not parts.test:
        raise InvalidInput([Problem("--test", str(config.test), "a test split: the result is measured on it")])
    chosen = [loaded.examples[i] for i in subset(parts.train, config.subset, config.subset_seed)]
    _write(data, loaded.examples)
    _write(proxy, chosen)
    prepared = Prepared(
        sha256=loaded.sha256,
        train=len(parts.train),
        validation=len(parts.validation),
        test=len(parts.test),
        proxy=len(chosen),
        seeds={"split": config.split_seed, "subset": config.subset_seed},
        reference=config.data,
    )
    summary.parent.mkdir(parents=True, exist_ok=True)
    summary.write_text(_page(prepared, chosen), encoding="utf-8")
    return prepared


def _write(path: Path, examples: Iterable[Example]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        for example in examples:
            out.write(json.dumps({"source": example.source, "target": example.target}, ensure_ascii=False) + "\n")


def _page(prepared: Prepared, chosen: list[Example]) -> str:
    rows = (
        ("train", prepared.train),
        ("validation", prepared.validation),
        ("test", prepared.test),
        ("proxy, what a trial is trained on", prepared.proxy),
    )
    lines = [
        "# Data",
        "",
        f"`{prepared.reference}`, sha256 `{prepared.sha256}`",
        "",
        "| split | examples |",
        "|---|---|",
    ]
    lines += [f"| {name} | {count:,} |" for name, count in rows]
    lines += ["", "Some examples of the proxy:", ""]
    for example in chosen[:_SHOWN]:
        # As code blocks: nothing in a text can become a link, an image or HTML.
        lines += [f"    {_line(example.source)}", f"    → {_line(example.target)}", ""]
    return "\n".join(lines)


def _line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _CUT else f"{line[: _CUT - 1]}…"


def pinned(store: Store, data: Path) -> str:
    """Put prepared data into the trials' store, once; return the reference that a trial's ``--data`` takes.

    The key is the file's hash: what is there is what is wanted, and a retried step changes nothing.

    Raises:
        SurroundingsError: the store failed.
    """
    key = f"datasets/{sha256_of(data)}.jsonl"
    if not store.exists(key):
        store.put_file(key, data)
    place = urlsplit(store.uri)
    folder = unquote(place.path) if place.scheme == "file" else store.uri
    return f"{folder}/{key}"
