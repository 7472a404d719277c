from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.lora_runs import design
from benchmarks.lora_runs.build import MICRO, SEQUENCES, groups
from benchmarks.lora_runs.table import VALUES, Run, search_space
from benchmarks.lora_runs.tasks import TASKS

from .test_table import RUN

TASK = TASKS["minilm-section"]


def results(count: int) -> list[Run]:
    """Runs of the part sobol whose loss grows with the distance from rank 16, rate 1e-3."""
    found = []
    for point in design.sobol(TASK, count):
        values = point.values
        off = abs(np.log(float(values["learning_rate"]) / 1e-3)) + abs(np.log(int(values["rank"]) / 16))
        found.append(replace(RUN, config=values, loss=1 + float(off), position=point.position))
    return found


def test_any_first_part_of_sobol_is_the_design_of_that_size_and_tasks_differ() -> None:
    whole = design.sobol(TASK)
    assert len(whole) == 192
    assert design.sobol(TASK, 40) == whole[:40]
    assert len({point.config for point in whole}) == 192
    assert design.sobol(TASKS["minilm-pos"], 40) != whole[:40]
    space = search_space()
    assert all(space.contains(point.values) for point in whole)
    # a power of two of Sobol points fills each half of each axis alike, up to the few equal points that were replaced
    units = space.encode([point.values for point in design.sobol(TASK, 64)])
    assert np.all(np.abs((units < 0.5).mean(0) - 0.5) < 0.15)


def test_dense_lies_around_the_best_runs_and_leaves_out_what_is_known() -> None:
    runs = results(96)
    points = design.dense(TASK, runs)
    assert 40 <= len(points) <= 48
    assert {point.part for point in points} == {"dense"}
    assert not {point.config for point in points} & {tuple(run.config.items()) for run in runs}
    rates = [name for name in VALUES["learning_rate"] if any(p.values["learning_rate"] == name for p in points)]
    assert len(rates) == 4
    assert "1e-3" in rates
    assert len({(p.values["alpha_ratio"], p.values["dropout"]) for p in points}) == 1


@pytest.mark.parametrize("rate", ["1e-5", "5e-2"])
def test_dense_stays_inside_the_list_of_rates(rate: str) -> None:
    runs = [replace(RUN, config=RUN.config | {"learning_rate": rate}, position=i) for i in range(8)]
    assert len({point.values["learning_rate"] for point in design.dense(TASK, runs)}) == 4


def test_repeat_goes_from_the_best_to_the_worst_run() -> None:
    runs = results(64)
    points = design.repeat(TASK, runs)
    assert len(points) == 48
    assert Counter(point.seed for point in points) == {1: 12, 2: 12, 3: 12, 4: 12}
    losses = sorted(run.loss for run in runs if run.loss is not None)
    by_config = {tuple(run.config.items()): run.loss for run in runs}
    chosen = [by_config[point.config] for point in points[:12]]
    assert chosen == sorted(chosen)
    assert (chosen[0], chosen[-1]) == (losses[0], losses[-1])


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 8 runs of the part sobol with a loss, has 7"):
        design.dense(TASK, results(7))
    with pytest.raises(ValueError, match="needs 12 runs of the part sobol with a loss, has 11"):
        design.repeat(TASK, [*results(11), replace(RUN, part="dense")])


def test_fidelity_has_the_same_configurations_at_every_size() -> None:
    points = design.fidelity(TASK)
    assert Counter(point.examples for point in points) == {51: 32, 256: 32, 1280: 32, 5120: 32}
    assert Counter(point.examples for point in points[:32]) == {51: 8, 256: 8, 1280: 8, 5120: 8}
    assert [p.config for p in points if p.examples == 5120] == [p.config for p in design.sobol(TASK, 32)]
    assert len({point.position for point in points[:32]}) == 8


@pytest.mark.parametrize("encoder", [True, False])
def test_groups_hold_every_point_once_and_keep_to_their_limits(encoder: bool) -> None:
    points = [*design.sobol(TASK, 70), *design.fidelity(TASK)]
    made = list(groups(points, encoder))
    assert Counter(point for _, group in made for point in group) == Counter(points)
    for micro, group in made:
        assert len({point.examples for point in group}) == 1
        assert micro * len(group) <= SEQUENCES[encoder]
        assert micro == min(min(int(point.values["batch_size"]) for point in group), MICRO[encoder])
