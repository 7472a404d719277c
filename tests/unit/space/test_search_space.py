"""Spaces as a whole: points, enumeration, Sobol points, candidates."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rankwise.space import ParameterText, SearchSpace, parse_space
from rankwise.space.search_space import ENUMERATION_LIMIT
from support.spaces import lora_space, lora_texts, spaces, untimed


def positions(dimension: int, most: int = 20) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float64, st.tuples(st.integers(0, most), st.just(dimension)), elements=st.floats(0, 1))


def infinite_space() -> SearchSpace:
    return parse_space(
        [
            ParameterText("lr", "double", "1e-5", "1e-1", distribution="logUniform"),
            ParameterText("dropout", "double", "0", "0.5", distribution="normal"),
            ParameterText("steps", "int", "1", "1000000000", distribution="logUniform"),
            ParameterText("kind", "categorical", list=("a", "b")),
        ]
    )


@untimed
@given(spaces(), st.data())
def test_any_position_decodes_to_a_contained_point_and_back(space: SearchSpace, data: st.DataObject) -> None:
    units = data.draw(positions(space.dimension))
    points = space.decode(units)
    assert len(points) == len(units)
    assert all(space.contains(point) for point in points)
    encoded = space.encode(points)
    assert encoded.shape == units.shape
    assert np.all((encoded >= 0) & (encoded <= 1))
    assert space.decode(encoded) == points


@untimed
@given(spaces(), st.data())
def test_points_in_bulk_are_the_points_one_by_one(space: SearchSpace, data: st.DataObject) -> None:
    units = data.draw(positions(space.dimension))
    points = space.decode(units)
    candidates = space.at(units)
    assert list(candidates) == points == [candidates.assignments(i) for i in range(len(candidates))]
    assert candidates.keys == [space.key(point) for point in points]
    np.testing.assert_array_equal(candidates.units, space.encode(points))
    for j, parameter in enumerate(space.parameters):
        assert candidates.column(j) == [point[parameter.name] for point in points]
        if parameter.values is None:
            assert set(candidates.indices[:, j]) <= {-1}
        else:
            assert [parameter.values[k] for k in candidates.indices[:, j]] == candidates.column(j)


@untimed
@given(spaces())
def test_enumeration_yields_every_point_once(space: SearchSpace) -> None:
    assume(space.size is not None and space.size <= 2000)
    candidates = space.enumerate()
    points = list(candidates)
    assert len(candidates) == len(points) == len(set(candidates.keys)) == space.size
    assert all(space.contains(point) for point in points)
    grids = [parameter.values or () for parameter in space.parameters]
    assert [tuple(point.values()) for point in points] == list(itertools.product(*grids))
    np.testing.assert_array_equal(candidates.units, space.encode(points))


def test_the_lora_space_has_45360_points() -> None:
    space = lora_space()
    assert space.size == 9 * 9 * 7 * 8 * 10 == 45_360
    candidates = space.enumerate()
    assert candidates.units.shape == (45_360, 5)
    assert len(set(candidates.keys)) == 45_360
    assert candidates.assignments(0) == {
        "lora_rank": "1",
        "lora_alpha": "4",
        "batch_size": "4",
        "target_modules": "a",
        "learning_rate": "0.0001",
    }
    assert candidates.assignments(-1) == dict(zip(space.names, ("9", "36", "256", "h", "0.001"), strict=True))
    with pytest.raises(IndexError, match="point 45360 of 45360"):
        candidates.assignments(45_360)


@pytest.mark.parametrize(
    "texts",
    [
        [ParameterText("x", "double", "0", "1")],
        [ParameterText("x", "int", "1", str(ENUMERATION_LIMIT // 100)), ParameterText("y", "int", "1", "101")],
    ],
    ids=["infinite", "too many"],
)
def test_what_is_too_large_is_not_enumerated(texts: list[ParameterText]) -> None:
    with pytest.raises(ValueError, match="cannot be enumerated; at most 4194304 points"):
        parse_space(texts).enumerate()


def test_containment_needs_exactly_our_names() -> None:
    space = lora_space()
    point = space.enumerate().assignments(100)
    assert space.contains(point)
    assert not space.contains({**point, "other": "1"})
    assert not space.contains({name: value for name, value in point.items() if name != "lora_rank"})
    assert not space.contains({("renamed" if name == "lora_rank" else name): v for name, v in point.items()})
    assert not space.contains({**point, "lora_rank": "10"})
    with pytest.raises(ValueError, match=r"assignments must name \['batch_size'"):
        space.key({**point, "other": "1"})
    with pytest.raises(ValueError, match="assignments must name"):
        space.encode([{}])
    with pytest.raises(ValueError, match=r"'10' is no value of parameter 'lora_rank': a whole number from 1 to 9"):
        space.encode([{**point, "lora_rank": "10"}])


def test_one_point_in_two_spellings_has_one_key() -> None:
    space = lora_space()
    point = {"lora_rank": "8", "lora_alpha": "16", "batch_size": "32", "target_modules": "a"}
    a, b = ({**point, "learning_rate": text} for text in ("3e-4", "0.0003"))
    assert space.key(a) == space.key(b)
    np.testing.assert_array_equal(space.encode([a]), space.encode([b]))
    assert space.key(a) != space.key({**point, "learning_rate": "4e-4"})


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (np.zeros(5), r"units must have shape \(n, 5\), got \(5,\)"),
        (np.zeros((2, 4)), r"units must have shape \(n, 5\), got \(2, 4\)"),
        (np.full((1, 5), math.nan), r"units must lie in \[0, 1\]"),
        (np.full((1, 5), 1.01), r"units must lie in \[0, 1\]"),
        (np.full((1, 5), -0.01), r"units must lie in \[0, 1\]"),
    ],
)
def test_what_is_no_matrix_of_positions_is_refused(units: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lora_space().decode(units)
    with pytest.raises(ValueError, match=message):
        lora_space().at(units)


def test_no_points() -> None:
    space = lora_space()
    assert space.decode(np.empty((0, 5))) == []
    assert space.encode([]).shape == (0, 5)
    assert list(space.sobol(0, seed=1)) == []


# -- Sobol and candidates ----------------------------------------------------------------------------------------------


@settings(untimed, max_examples=30)
@given(spaces(), st.integers(0, 2**63), st.integers(0, 40), st.integers(0, 40))
def test_sobol_points_are_a_function_of_the_seed(space: SearchSpace, seed: int, n: int, skip: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scipy warns of numbers that are no power of two
        points = space.sobol(n, seed, skip)
    assert len(points) == n
    assert all(space.contains(point) for point in points)
    assert points.keys == space.sobol(n, seed, skip).keys
    assert points.keys == space.sobol(skip + n + 1, seed).keys[skip : skip + n]


def test_seeds_give_different_points_and_negative_counts_are_refused() -> None:
    space = infinite_space()
    assert space.sobol(8, seed=1).keys != space.sobol(8, seed=2).keys
    with pytest.raises(ValueError, match="n and skip must be at least 0, got -1 and 0"):
        space.sobol(-1, seed=1)
    with pytest.raises(ValueError, match="n and skip must be at least 0, got 1 and -1"):
        space.sobol(1, seed=1, skip=-1)


def test_sobol_points_are_spread_more_evenly_than_chance() -> None:
    # One of 64 points of a scrambled Sobol sequence lies in each 64th of every axis.
    space = parse_space([ParameterText(f"p{i}", "double", "0", "1") for i in range(6)])
    units = space.sobol(64, seed=3).units
    for j in range(6):
        assert sorted(np.floor(units[:, j] * 64).astype(int)) == list(range(64))


def test_sobol_in_many_dimensions() -> None:
    space = parse_space([ParameterText(f"p{i}", "int", "1", "3") for i in range(300)])
    assert space.sobol(3, seed=0).units.shape == (3, 300)


@settings(untimed, max_examples=50)
@given(spaces(), st.integers(1, 300), st.integers(0, 2**32))
def test_candidates_are_different_and_as_many_as_there_can_be(space: SearchSpace, limit: int, seed: int) -> None:
    candidates = space.candidates(limit, seed)
    assert len(candidates) == len(set(candidates.keys)) <= limit
    assert all(space.contains(point) for point in candidates)
    if space.size is not None:
        assert len(candidates) == min(limit, space.size)
    assert candidates.keys == space.candidates(limit, seed).keys


def test_a_small_space_is_enumerated() -> None:
    space = lora_space()
    assert space.candidates(45_360, seed=1).keys == space.enumerate().keys
    fewer = space.candidates(45_359, seed=1)
    assert len(set(fewer.keys)) == 45_359


def test_a_narrow_distribution_still_fills_the_candidates() -> None:
    # The ends of a normal grid are met once in 300 draws a parameter: a sequence alone would not find enough.
    space = parse_space([ParameterText(f"p{i}", "int", "1", "7", distribution="normal") for i in range(6)])
    assert space.size == 7**6
    candidates = space.candidates(20_000, seed=5)
    assert len(set(candidates.keys)) == 20_000


def test_candidates_of_an_infinite_space() -> None:
    candidates = infinite_space().candidates(1000, seed=4)
    assert len(set(candidates.keys)) == 1000
    for j in range(4):
        low, high = candidates.units[:, j].min(), candidates.units[:, j].max()
        # 1000 Sobol points come nearer than 1/512 to both ends. The 1 of the int has a bin of log(2) out of
        # log(1e9 * sqrt(2)), so its centre is at 0.0164; the categories' centres are at 1/4 and 3/4.
        expected = {2: (0.0164, 1.0), 3: (0.25, 0.75)}.get(j, (0.0, 1.0))
        assert (low, high) == pytest.approx(expected, abs=1 / 512)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        infinite_space().candidates(0, seed=4)


def test_an_infinite_space_whose_values_hardly_differ_yields_fewer() -> None:
    space = parse_space([ParameterText("x", "double", "1000000000000000", "1000000000000001")])
    assert space.size is None
    assert 1 <= len(space.candidates(100, seed=0)) < 100


def test_take_and_without() -> None:
    candidates = lora_space().enumerate()
    taken = candidates.take([5, 3, 5])
    assert list(taken) == [candidates.assignments(i) for i in (5, 3, 5)]
    assert taken.first_occurrences() == [0, 1]
    rest = taken.without({candidates.keys[5]})
    assert rest.keys == [candidates.keys[3]]
    assert len(candidates.without([])) == 45_360
    with pytest.raises(ValueError, match="read-only"):
        candidates.units[0, 0] = 0.5


# -- identity ----------------------------------------------------------------------------------------------------------


def test_spaces_are_equal_by_content() -> None:
    a, b = lora_space(), lora_space()
    assert a == b
    assert hash(a) == hash(b)
    assert a.fingerprint == b.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", a.fingerprint)
    assert {a: 1}[b] == 1


def test_spelling_does_not_change_the_fingerprint_and_content_does() -> None:
    def fingerprint(**changes: object) -> str:
        given = {"name": "x", "type": "double", "min": "3e-4", "max": "1", "step": "", "distribution": "uniform"}
        return parse_space([ParameterText(**{**given, **changes})]).fingerprint  # type: ignore[arg-type]

    same = fingerprint()
    assert same == fingerprint(min="0.0003", max="1.0", distribution="")
    others = [
        fingerprint(name="y"),
        fingerprint(min="3.1e-4"),
        fingerprint(max="2"),
        fingerprint(step="0.1"),
        fingerprint(distribution="logUniform"),
    ]
    assert len({same, *others}) == 6
    assert parse_space(lora_texts()).fingerprint != parse_space(lora_texts()[::-1]).fingerprint


def test_importing_spaces_stays_light() -> None:
    code = "import sys, rankwise.space; print(sorted(m for m in ('torch', 'scipy.stats', 'grpc') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
