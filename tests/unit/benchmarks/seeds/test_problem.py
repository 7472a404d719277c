"""The table with simulated seeds: what is real in it stays, and the noise has the measured size."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.lora_runs.table import load
from benchmarks.seeds.problem import SEED, TASK, Table, World, load_table, table_of


@pytest.fixture(scope="module")
def table() -> Table:
    return load_table()


def test_true_means_are_the_measured_losses(table: Table) -> None:
    measured: dict[tuple[str, ...], list[float]] = {}
    for run in load(TASK):
        assert run.loss is not None
        measured.setdefault(tuple(run.config.values()), []).append(run.loss)
    assert len(table.configs) == len(measured) == 96
    for config, mean in zip(table.configs, table.means.tolist(), strict=True):
        assert mean == pytest.approx(np.mean(measured[tuple(config.values())]), rel=1e-12)


def test_deviations_are_those_of_the_repeated_configurations(table: Table) -> None:
    groups: dict[tuple[str, ...], list[float]] = {}
    for run in load(TASK):
        groups.setdefault(tuple(run.config.values()), []).append(run.loss or 0.0)
    repeated = {key: values for key, values in groups.items() if len(values) > 1}
    assert len(repeated) == 12
    found = dict(zip((tuple(config.values()) for config in table.configs), table.deviations.tolist(), strict=True))
    for key, values in repeated.items():
        assert found[key] == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    spread = [float(np.std(values, ddof=1)) for values in repeated.values()]
    assert min(spread) - 1e-12 <= table.deviations.min()
    assert table.deviations.max() <= max(spread) + 1e-12


def test_a_table_without_repeats_tells_no_noise() -> None:
    with pytest.raises(ValueError, match="0 configurations have several seeds"):
        table_of(run for run in load(TASK) if run.part == "sobol")


def test_a_training_gives_the_same_value_every_time_and_noise_scales(table: Table) -> None:
    quiet, one, five = (World(table, 3, multiple, 3) for multiple in (0.0, 1.0, 5.0))
    assert len(one.pool) == 3 * 77
    points = list(one.pool)
    values = np.array([one.train(point) for point in points])
    assert values.tolist() == [World(table, 3, 1.0, 3).train(point) for point in points]
    true = np.array([quiet.train(point) for point in points])
    np.testing.assert_allclose([five.train(point) for point in points] - true, 5 * (values - true), atol=1e-12)
    deviations = {tuple(c.values()): d for c, d in zip(table.configs, table.deviations.tolist(), strict=True)}
    z = (values - true) / [deviations[tuple(t for n, t in p.items() if n != SEED)] for p in points]
    # 231 standard normal numbers: mean within 4/√231 = 0.26, variance within 4·√(2/231) = 0.37.
    assert abs(z.mean()) < 0.26
    assert abs(z.var() - 1) < 0.37


def test_regret_is_zero_at_the_best_that_can_be_seen(table: Table) -> None:
    world = World(table, 1, 1.0, 2)
    regrets = [world.regret(point) for point in world.pool]
    assert min(regrets) == 0.0
    assert world.best >= table.means.min()
    others = {World(table, number, 1.0, 2).best for number in range(12)}
    assert len(others) > 1  # another search does not see another part
