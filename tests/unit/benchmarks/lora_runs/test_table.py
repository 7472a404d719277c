from __future__ import annotations

import gzip
import json
import math
import random
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.lora_runs.pack import CARD, counts, pack, with_counts
from benchmarks.lora_runs.table import COLUMNS, TASKS, VALUES, Run, dump, load, search_space

RUN = Run(
    task="a",
    config={"rank": "8", "alpha_ratio": "2", "dropout": "0.05", "batch_size": "16", "learning_rate": "5e-4"},
    examples=512,
    fraction=0.1,
    seed=0,
    status="ok",
    loss=1.25,
    loss_se=0.0625,
    test_loss=1.5,
    test_loss_se=0.125,
    accuracy=0.5,
    test_accuracy=0.25,
    epochs=1,
    steps=32,
    train_loss_first=3.0,
    train_loss_last=1.5,
    seconds=4.5,
    part="sobol",
    position=7,
)
LOST = replace(
    RUN,
    **dict.fromkeys(
        ("loss", "loss_se", "test_loss", "test_loss_se", "accuracy", "test_accuracy", "train_loss_last"), None
    ),
    status="diverged",
    position=8,
)


def test_what_was_written_is_read_and_the_bytes_depend_on_the_runs_alone(tmp_path: Path) -> None:
    runs = [RUN, LOST, replace(RUN, part="repeat", seed=3), replace(RUN, part="fidelity", examples=51)]
    content = dump(runs)
    random.Random(0).shuffle(runs)
    assert dump(runs) == content
    path = tmp_path / "a.csv.gz"
    path.write_bytes(content)
    assert load("a", path) == (
        RUN,
        LOST,
        replace(RUN, part="repeat", seed=3),
        replace(RUN, part="fidelity", examples=51),
    )


def test_the_space_has_the_values_of_the_table() -> None:
    space = search_space()
    assert space.size == math.prod(len(values) for values in VALUES.values()) == 13_475
    assert space.contains(RUN.config)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",5e-4,", ",4e-4,", "line 2: learning_rate is '4e-4'"),
        (",ok,", ",fine,", "status 'fine'"),
        (",ok,", ",diverged,", "a loss exactly if it is ok"),
        (",1.25,", ",nan,", "nan is not finite"),
        ("part,", "piece,", "columns"),
    ],
)
def test_a_damaged_table_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = gzip.decompress(dump([RUN])).decode()
    assert old in text
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(text.replace(old, new, 1).encode()))
    with pytest.raises(ValueError, match=message):
        load("a", path)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown task 'no-such'"):
        load("no-such")


@pytest.mark.parametrize("task", TASKS)
def test_shipped_tables(task: str) -> None:
    runs = load(task)
    space = search_space()
    assert all(space.contains(run.config) for run in runs)
    # a run is known by its configuration, its data and its seed, within the parts that a search reads and beside them
    pool = [space.key(run.config) for run in runs if run.part in ("sobol", "dense")]
    assert len(pool) == len(set(pool)) >= 32
    positions = sorted(run.position for run in runs if run.part == "sobol")
    assert positions == list(range(len(positions)))  # the first points of the sequence, none left out
    assert {run.seed for run in runs if run.part in ("sobol", "dense", "fidelity")} == {0}
    sizes = {run.examples for run in runs if run.part != "fidelity"}
    assert len(sizes) == 1
    losses = sorted(run.loss if run.loss is not None else math.inf for run in runs if run.part == "sobol")
    errors = sorted(run.loss_se for run in runs if run.loss_se is not None)
    # it is worth a search: the best run is better than the median by more than the noise of a validation set
    assert losses[len(losses) // 2] - losses[0] > 2 * errors[len(errors) // 2]


def test_the_card_says_what_the_columns_are_and_counts_the_shipped_runs() -> None:
    card = CARD.read_text(encoding="utf-8")
    assert [name for name in COLUMNS if f"`{name}`" not in card] == []
    assert with_counts(card, counts()) == card
    with pytest.raises(ValueError, match="the card lacks"):
        with_counts(card.replace("<!-- end", "<!-- "), "")


def test_packing_keeps_the_first_points_without_a_gap(tmp_path: Path) -> None:
    runs = [replace(RUN, position=i, config=RUN.config | {"rank": VALUES["rank"][i]}) for i in (2, 0, 1, 4)]
    runs.append(replace(RUN, part="fidelity", position=9, examples=51))
    path = tmp_path / "runs.jsonl"
    path.write_text("".join(json.dumps(asdict(run)) + "\n" for run in runs), encoding="utf-8")
    assert pack([path, path], tmp_path) == ["a: 1 runs behind a gap in sobol left out"]
    assert "| a | 3 | 0 | 0 | 1 | 0 | 18 | `" in counts(tmp_path)
    assert [(run.part, run.position) for run in load("a", tmp_path / "a.csv.gz")] == [
        *(("sobol", 0), ("sobol", 1), ("sobol", 2)),
        ("fidelity", 9),
    ]
    path.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="there are no runs"):
        pack([path], tmp_path)
