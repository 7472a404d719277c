"""The pool problem: places, the nearest untried configuration, and what stays hidden."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.search.problem import Dimension, Pool, Told, View, dimensions, measured_of, play, positions, view_of
from rankwise.space import ParameterText, parse_space
from support.spaces import untimed

from .conftest import toy_pool, toy_space, toy_value

POINT = st.lists(st.floats(0, 1), min_size=3, max_size=3).map(np.array)


class Scripted:
    """Proposes a given list."""

    def __init__(self, proposals: list[np.ndarray]) -> None:
        self.proposals = list(proposals)
        self.told: list[Told] = []

    def ask(self) -> np.ndarray:
        return self.proposals[len(self.told)]

    def tell(self, trial: Told) -> None:
        self.told.append(trial)


@dataclass(frozen=True)
class FakeRun:
    config: dict[str, str]
    loss: float | None
    status: str = "ok"
    part: str = "sobol"
    seed: int = 0
    examples: int = 100


def test_bounds_are_at_0_and_1_and_the_middle_of_a_log_scale_is_the_geometric_mean() -> None:
    places = positions(
        dimensions(toy_space()),
        [
            {"rank": "2", "dropout": "0", "learning_rate": "1e-4"},
            {"rank": "16", "dropout": "0.2", "learning_rate": "1e-1"},
            {"rank": "4", "dropout": "0.1", "learning_rate": "1e-3"},
        ],
    )
    np.testing.assert_allclose(places, [[0, 0, 0], [1, 1, 1], [1 / 3, 1 / 2, 1 / 3]], atol=1e-12)


@untimed
@given(st.booleans(), st.floats(1e-6, 1.0), st.floats(1.5, 1e4), st.floats(0, 1))
def test_values_and_positions_are_inverse(log: bool, low: float, ratio: float, position: float) -> None:
    dim = Dimension("x", low, low * ratio, log)
    value = dim.value(position)
    assert dim.low <= value <= dim.high
    # Linear: value − low loses the digits of low, an error of 1e-16·low/(high − low) ≤ 2e-16 at ratio 1.5. Log: each
    # logarithm (below 14 in size) has an error of 2e-15, divided by log(1.5) = 0.4. 1e-12 is far above both.
    assert dim.position(value) == pytest.approx(position, abs=1e-12)


def test_values_beyond_the_bounds_are_moved_to_them() -> None:
    dim = Dimension("x", 1.0, 10.0, True)
    assert (dim.position(0.5), dim.position(20.0)) == (0.0, 1.0)


def test_categories_have_no_place() -> None:
    space = parse_space([ParameterText("kind", "categorical", list=("a", "b"))])
    with pytest.raises(ValueError, match="'kind' is not a range of numbers"):
        dimensions(space)


@untimed
@given(st.lists(POINT, min_size=1, max_size=20), st.integers(0, 5))
def test_each_trial_is_a_nearest_one_of_those_not_tried(proposals: list[np.ndarray], seed: int) -> None:
    pool = toy_pool(every=2)
    optimizer = Scripted(proposals)
    steps = play(pool, optimizer, len(proposals), seed)
    untried = set(range(len(pool)))
    for proposal, step, told in zip(proposals, steps, optimizer.told, strict=True):
        distances = {i: float(np.linalg.norm(pool.positions[i] - proposal)) for i in untried}
        # Distances that differ by less than the ninth decimal count as equal.
        assert distances[step.index] <= min(distances.values()) + 1e-9
        assert step.distance == pytest.approx(distances[step.index], abs=1e-12)
        assert told.config == pool.configs[step.index]
        np.testing.assert_array_equal(told.position, pool.positions[step.index])
        assert told.value == step.value == toy_value(told.config)
        untried.remove(step.index)


def test_a_measured_configuration_is_found_itself(pool: Pool) -> None:
    steps = play(pool, Scripted(list(pool.positions)), len(pool), 0)
    assert [step.index for step in steps] == list(range(len(pool)))
    assert max(step.distance for step in steps) == 0


def test_the_seed_decides_between_equally_near_ones() -> None:
    # Between two neighbours of each axis: eight configurations are equally near.
    middle = [np.array([1 / 6, 1 / 4, 1 / 6])]
    taken = {seed: play(toy_pool(), Scripted(middle), 1, seed)[0].index for seed in range(40)}
    assert taken[3] == play(toy_pool(), Scripted(middle), 1, 3)[0].index
    # Of 40 fair draws among 8, fewer than 3 different ones come with probability below 28 · (1/4)^40.
    assert len(set(taken.values())) >= 3


def test_only_the_values_of_tried_configurations_are_revealed_each_once(pool: Pool) -> None:
    steps = play(pool, Scripted([np.zeros(3)] * 7), 7, 0)
    assert dict(pool.revealed) == {step.index: 1 for step in steps}
    assert len(steps) == 7


def test_a_search_ends_with_its_pool() -> None:
    pool = toy_pool(every=12)
    assert len(play(pool, Scripted([np.zeros(3)] * 9), 9, 0)) == len(pool) == 4


@pytest.mark.parametrize("proposal", [np.zeros(2), np.array([0.0, 0.0, 1.1]), np.array([0.0, np.nan, 0.0])])
def test_a_proposal_that_is_no_point_is_refused(pool: Pool, proposal: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be a point of the unit cube"):
        play(pool, Scripted([proposal]), 1, 0)


def test_a_view_has_no_values(pool: Pool) -> None:
    assert {field.name for field in fields(View)} == {
        *("task", "space", "dimensions", "seed", "budget", "configs", "positions")
    }
    assert view_of(pool, 0, 5).configs == ()
    assert view_of(pool, 0, 5, "pool").configs == pool.configs
    assert not pool.revealed
    with pytest.raises(ValueError, match="mode 'all' is none of nearest, pool"):
        view_of(pool, 0, 5, "all")


def test_the_pools_figures_leave_failures_out(pool: Pool) -> None:
    values = [value for config in pool.configs if (value := toy_value(config)) is not None]
    assert pool.failed == 3
    assert (pool.best, pool.median, pool.worst) == (min(values), float(np.median(values)), max(values))


def test_the_fingerprint_is_of_configurations_and_values_in_whatever_order(pool: Pool) -> None:
    measured = [(config, toy_value(config)) for config in pool.configs]
    assert Pool("other name", pool.space, measured[::-1]).fingerprint == pool.fingerprint
    changed = [(config, 9.0 if i == 5 else value) for i, (config, value) in enumerate(measured)]
    assert Pool("toy", pool.space, changed).fingerprint != pool.fingerprint
    failed = [(config, None if i == 5 else value) for i, (config, value) in enumerate(measured)]
    assert Pool("toy", pool.space, failed).fingerprint != pool.fingerprint


def test_a_pool_refuses_what_it_cannot_be() -> None:
    space = toy_space()
    first, second, *_ = space.enumerate()
    with pytest.raises(ValueError, match="a configuration comes twice"):
        Pool("t", space, [(first, 1.0), (second, 2.0), ({**first, "rank": "2.0"}, 1.0)])
    with pytest.raises(ValueError, match="at least two values"):
        Pool("t", space, [(first, 1.0), (second, None)])
    with pytest.raises(ValueError, match="all of them finite"):
        Pool("t", space, [(first, 1.0), (second, float("inf"))])


def test_a_tables_pool_is_its_sobol_and_dense_parts_with_seed_0() -> None:
    space = toy_space()
    a, b, c, d, *_ = space.enumerate()
    runs = [
        FakeRun(a, 1.0),
        FakeRun(b, 2.0, part="dense"),
        FakeRun(a, 5.0, part="dense"),  # measured already
        FakeRun(c, None, status="diverged"),
        FakeRun(d, float("nan")),
        FakeRun(a, 1.1, part="repeat", seed=1),
        FakeRun(b, 2.1, seed=2),
        FakeRun(a, 0.5, part="fidelity", examples=1000),
    ]
    assert measured_of("t", space, runs) == [(a, 1.0), (b, 2.0), (c, None), (d, None)]


def test_a_pool_is_of_one_number_of_examples() -> None:
    a, b, *_ = toy_space().enumerate()
    with pytest.raises(ValueError, match="different numbers of examples"):
        measured_of("t", toy_space(), [FakeRun(a, 1.0), FakeRun(b, 1.0, examples=200)])


def test_each_seed_hides_another_part_of_a_table_and_the_same_from_everybody() -> None:
    whole = toy_pool()
    measured = [(config, whole.reveal(i)) for i, config in enumerate(whole.configs)]
    pool = Pool("toy", whole.space, measured, hidden=0.2)
    seen = {seed: pool.seen_by(seed) for seed in range(4)}
    for part in seen.values():
        assert len(part) == round(0.8 * len(pool))
        assert {tuple(c.items()) for c in part.configs} < {tuple(c.items()) for c in pool.configs}
        assert part.best >= pool.best
    assert seen[0].fingerprint == pool.seen_by(0).fingerprint
    assert len({part.fingerprint for part in seen.values()}) == 4
    assert whole.seen_by(3) is whole
    assert pool.fingerprint != whole.fingerprint, "searches of the whole table are other searches"
