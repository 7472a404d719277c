"""Tables, picture and JSON of searches whose figures are known."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.search import tasks
from benchmarks.search.figures import Group, group_of, is_ours
from benchmarks.search.picture import WIDTH, apart, draw, pictured
from benchmarks.search.problem import Pool
from benchmarks.search.results import Results, Search
from benchmarks.search.summary import seconds, write
from support.spaces import untimed

from .conftest import toy_pool

TRIALS = 30
POOLS = {name: toy_pool(name=name) for name in ("easy", "hard", "other")}
ROLES = {"easy": "reported", "hard": "reported", "other": "development"}


def searched(optimizer: str, task: str, seed: int, regrets: list[float], pool: Pool | None = None) -> Search:
    """A search with the given normalized regrets (one for each trial)."""
    table = pool or POOLS[task]
    values = tuple(table.best + regret * (table.median - table.best) for regret in regrets)
    count = len(values)
    return Search(
        *(task, optimizer, seed, TRIALS, table.fingerprint, tuple(range(count)), values),
        *((0.25,) * count, (0.05,) * count),
    )


def level(regret: float, seed: int = 0) -> list[float]:
    """1, from the tenth trial on twice the regret, from the last on the regret; a little more for later seeds."""
    return [1.0] * 9 + [regret * 2 + seed * 0.001] * 20 + [regret + seed * 0.001]


def some_searches() -> list[Search]:
    levels = {"language-bo@pool": 0.05, "optuna-tpe": 0.2, "botorch-gp@pool": 0.1, "random": 0.3}
    made = [
        searched(name, task, seed, level(regret + (0.3 if (name, task) == ("optuna-tpe", "hard") else 0), seed))
        for name, regret in levels.items()
        for task in ("easy", "hard")
        for seed in range(4)
    ]
    made += [searched("peft-default", task, 0, [0.8]) for task in ("easy", "hard")]
    return [*made, searched("sobol", "easy", 0, level(0.2))]


@pytest.fixture
def group() -> Group:
    pools = {name: POOLS[name] for name in ("easy", "hard")}
    return group_of("reported", pools, some_searches(), TRIALS)


def test_rows_are_means_over_tasks_best_first(group: Group) -> None:
    assert [row.optimizer for row in group.rows] == [
        *("language-bo@pool", "botorch-gp@pool", "random", "optuna-tpe", "peft-default")
    ]
    tpe = group.rows[3]
    # Regrets 0.2 and 0.5 and seeds 0 to 3: 0.35 + 0.0015.
    assert tpe.curve.value[29] == pytest.approx(0.3515, abs=1e-12)
    assert tpe.tasks["hard"].value[29] == pytest.approx(0.5015, abs=1e-12)
    assert tpe.curve.low[29] <= tpe.curve.value[29] <= tpe.curve.high[29]
    assert (tpe.seeds, tpe.seconds, tpe.distance, tpe.failed) == (4, 0.05, pytest.approx(0.25), 0.0)
    assert group.rows[4].curve.value == (0.8,) * TRIALS  # one trial
    assert {row.optimizer: row.ranks[30] for row in group.rows} == {
        "language-bo@pool": 1.0,
        "botorch-gp@pool": 2.0,
        "random": 3.5,
        "optuna-tpe": 3.5,
        "peft-default": 5.0,
    }


def test_what_is_not_on_every_task_is_named(group: Group) -> None:
    assert group.incomplete == {"sobol": 1}


def test_ours_is_compared_with_the_best_peer_that_searches(group: Group) -> None:
    assert group.best_peer == {10: "botorch-gp@pool", 30: "botorch-gp@pool"}
    assert list(group.ratios) == [("language-bo@pool", 10), ("language-bo@pool", 30)]
    assert group.ratios["language-bo@pool", 30].value == pytest.approx(0.0515 / 0.1015, abs=1e-12)


def test_worse_than_random_is_found_by_task_with_a_paired_interval(group: Group) -> None:
    assert {(w.optimizer, w.task, w.trial) for w in group.worse} == {("optuna-tpe", "hard", t) for t in (10, 30)}
    (worse,) = [w for w in group.worse if w.trial == 30]
    # By 0.2 with every seed: no doubt.
    assert [worse.difference.value, worse.difference.low] == pytest.approx([0.2, 0.2], abs=1e-12)
    assert worse.certain


def test_a_difference_that_may_be_chance_is_not_certain() -> None:
    pools = {"easy": POOLS["easy"]}
    made = [searched("random", "easy", seed, [0.5] * 30) for seed in range(8)]
    made += [searched("sobol", "easy", seed, [0.9 if seed < 5 else 0.1] * 30) for seed in range(8)]
    group = group_of("reported", pools, made, TRIALS)
    (at_10, at_30) = group.worse
    assert at_10.difference == at_30.difference
    assert at_10.difference.value == pytest.approx(0.1)
    assert not at_10.certain


def test_a_group_needs_an_optimizer_with_all_tasks() -> None:
    with pytest.raises(ValueError, match="no optimizer has searches on all tasks"):
        group_of("reported", POOLS, [searched("random", "easy", 0, level(0.3))], TRIALS)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, str]:
    results = Results(tmp_path)
    results.append("environment", {"python": "3.11"})
    results.append("environment", {"python": "3.11"})
    for found in [*some_searches(), searched("random", "other", 0, level(0.3))]:
        results.append("search", found)
    results.append("search", searched("random", "easy", 9, level(0.3), toy_pool(every=2)))
    results.append("unavailable", {"optimizer": "hebo", "reason": "its virtual environment is missing"})
    results.append("failed", {"optimizer": "smac", "task": "easy", "seed": 0, "reason": "x"})
    return tmp_path, write(results, POOLS, ROLES, TRIALS)


def test_the_text_has_every_optimizer_and_says_what_is_missing(written: tuple[Path, str]) -> None:
    folder, text = written
    assert text == (folder / "summary.md").read_text()
    reported, development = text.index("Tasks that nothing was chosen on"), text.index("parameters were chosen on\n")
    assert reported < development
    table = text[reported:development]
    assert "Tasks (2): easy, hard." in table
    assert "| **language-bo@pool** | 1.000 [1.000, 1.000] |" in table
    assert "| optuna-tpe | 1.000 [1.000, 1.000] |" in table
    assert "Not on every task yet, so not in the table: sobol (searches: 1)." in table
    assert "language-bo@pool after 30 trials: 0.507 [" in table
    assert "- language-bo@pool: on no task" in table
    assert "hard @30 by 0.200 [0.200, 0.200] (not chance)" in table
    assert "- hebo: not installed here (its virtual environment is missing)" in text
    assert "- smac: searches that broke off: 1" in text
    assert "Searches of other versions of the tables, left out: 1." in text
    for line in text.splitlines():  # every row of a table has its header's columns
        if line.startswith("| "):
            assert line.endswith(" |")


def test_the_json_has_all_figures(written: tuple[Path, str]) -> None:
    folder, _ = written
    facts = json.loads((folder / "figures.json").read_text())
    assert [group["name"] for group in facts["groups"]] == ["reported", "development"]
    assert facts["unavailable"] == {"hebo": "its virtual environment is missing"}
    assert facts["broken"] == {"smac": 1}
    assert facts["environment"] == [{"python": "3.11"}]
    first = facts["groups"][0]["rows"][0]
    assert first["optimizer"] == "language-bo@pool"
    assert len(first["curve"]["value"]) == TRIALS
    assert set(first["uncapped"]) == {"1", "5", "10", "20", "30"}
    assert {ratio["trial"] for ratio in facts["groups"][0]["ratios"]} == {10, 30}


def test_the_picture_names_every_line_within_its_bounds(written: tuple[Path, str], group: Group) -> None:
    folder, _ = written
    root = ET.fromstring((folder / "regret-reported.svg").read_text())
    space = "{http://www.w3.org/2000/svg}"
    height = float(root.attrib["height"])
    said = [node.text for node in root.iter(f"{space}text")]
    for name in (
        "language-bo@pool",
        "optuna-tpe",
        "botorch-gp@pool",
        "random",
        "peft-default (1 trial)",
        "easy",
        "hard",
    ):
        assert name in said
    for node in root.iter(f"{space}polyline"):
        for point in node.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= WIDTH
            assert 0 <= y <= height
    assert len(list(root.iter(f"{space}polygon"))) == 4  # a band for each but the rule


def test_no_two_lines_look_alike(group: Group) -> None:
    lines = pictured(group)
    assert len({(line.colour, line.dash) for line in lines}) == len(lines) == 5
    assert [is_ours(line.row.optimizer) for line in lines] == [True, False, False, False, False]
    assert [line.row.optimizer for line in pictured(group, ["random", "optuna-tpe"])] == ["random", "optuna-tpe"]
    with pytest.raises(ValueError, match="'smac' has no searches on all tasks"):
        pictured(group, ["smac"])


def test_a_regret_of_0_is_drawn_at_the_bottom() -> None:
    group = group_of("reported", {"easy": POOLS["easy"]}, [searched("random", "easy", 0, [0.0] * 30)], TRIALS)
    assert "nan" not in draw(group, pictured(group))
    ET.fromstring(draw(group, pictured(group)))


@untimed
@given(st.lists(st.floats(0, 300), max_size=9).map(sorted))
def test_labels_keep_their_order_and_distance(wanted: list[float]) -> None:
    places = apart(wanted, 17.0, 0.0, 300.0)
    assert len(places) == len(wanted)
    assert all(0 <= place <= 300 + 1e-9 for place in places)  # 9 labels take 8 × 17 = 136 of 300
    assert (np.diff(places) >= 17 - 1e-9).all()


def test_labels_that_have_room_stay_where_they_belong() -> None:
    assert apart([10.0, 100.0, 200.0], 17.0, 0.0, 300.0) == [10.0, 100.0, 200.0]


@pytest.mark.parametrize(
    ("value", "said"), [(0.0002, "< 1 ms"), (0.0123, "12 ms"), (0.5, "0.50 s"), (9.876, "9.88 s"), (12.3, "12 s")]
)
def test_times_are_readable(value: float, said: str) -> None:
    assert seconds(value) == said


def test_a_task_is_of_one_list_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not set(tasks.DEVELOPMENT_TASKS) & set(tasks.REPORTED_TASKS)
    monkeypatch.setattr(tasks, "TASKS", ("a", "b", "c"))
    assert tasks.shipped() == ("a", "b", "c") or tasks.DEVELOPMENT_TASKS or tasks.REPORTED_TASKS
    monkeypatch.setattr(tasks, "DEVELOPMENT_TASKS", ("b",))
    monkeypatch.setattr(tasks, "REPORTED_TASKS", ("a", "gone"))
    assert tasks.shipped() == ("b", "a")
    assert [tasks.role(task) for task in "abc"] == ["reported", "development", "unlisted"]
