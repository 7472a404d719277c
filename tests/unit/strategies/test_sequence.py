"""Sequences of different points."""

from __future__ import annotations

import pytest

from rankwise.space import ParameterText, parse_space
from rankwise.strategies import sequence
from rankwise.strategies.sequence import (
    PointSequence,
    RandomSequence,
    SobolSequence,
    continue_sequence,
    repeat_least_tried,
)

INFINITE = parse_space((ParameterText("x", "double", "0", "1"), ParameterText("y", "double", "0", "1")))
GRID = parse_space((ParameterText("x", "int", "1", "10"), ParameterText("y", "int", "1", "5")))
# Nearly all of the mass lies on a few of the values.
NARROW = parse_space((ParameterText("x", "int", "1", "100000000", distribution="logNormal"),))


@pytest.fixture(params=[SobolSequence, RandomSequence])
def kind(request: pytest.FixtureRequest) -> type[PointSequence]:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("space", [INFINITE, GRID], ids=["infinite", "grid"])
def test_longer_sequences_begin_with_shorter_ones(kind: type[PointSequence], space: object) -> None:
    long = kind(space, 3).first(40)  # type: ignore[arg-type]
    assert len({key for key, _ in long}) == 40
    assert kind(space, 3).first(7) == long[:7]  # type: ignore[arg-type]
    grown = kind(space, 3)  # type: ignore[arg-type]
    assert [grown.first(n) for n in (1, 5, 33, 40)] == [long[:n] for n in (1, 5, 33, 40)]
    assert kind(space, 4).first(7) != long[:7]  # type: ignore[arg-type]


def test_a_finite_space_is_met_as_a_whole(kind: type[PointSequence], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kind(GRID, 0).first(1000)
    assert len({key for key, _ in whole}) == 50
    # Even where the stream is cut short, and in the same order as far as it goes.
    monkeypatch.setattr(sequence, "MAX_DRAWS", 32)
    cut = kind(GRID, 0).first(1000)
    assert len({key for key, _ in cut}) == 50
    assert cut[:10] == whole[:10]


def test_a_space_too_big_to_enumerate_is_filled_up(kind: type[PointSequence], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "MAX_DRAWS", 32)
    monkeypatch.setattr(sequence, "_ENUMERABLE", 10)
    points = kind(GRID, 0).first(50)
    assert len({key for key, _ in points}) == 50


def test_a_narrow_distribution(kind: type[PointSequence]) -> None:
    assert len({key for key, _ in kind(NARROW, 0).first(30)}) == 30


def test_values_that_hardly_differ_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "MAX_DRAWS", 256)
    # Three neighbouring doubles at most lie between the bounds.
    space = parse_space((ParameterText("x", "double", "1", "1.0000000000000004"),))
    assert 1 <= len(SobolSequence(space, 0).first(20)) <= 3


def test_a_sequence_goes_on_at_its_position_and_leaves_out_what_was_tried() -> None:
    points = SobolSequence(GRID, 1).first(50)
    tried = {points[4][0]}
    chosen = continue_sequence(SobolSequence(GRID, 1), 3, 4, tried)
    assert chosen == [points[3], points[5], points[6], points[7]]
    # At the end, those before the position that nobody tried are given.
    assert continue_sequence(SobolSequence(GRID, 1), 49, 3, tried) == [points[49], points[0], points[1]]
    assert len(continue_sequence(SobolSequence(GRID, 1), 0, 99, tried)) == 49


def test_the_least_tried_are_repeated_first() -> None:
    points = SobolSequence(GRID, 1).first(3)
    tried = {points[0][0]: 2, points[1][0]: 1, points[2][0]: 1}
    repeated = repeat_least_tried(points, tried, 4)
    assert repeated == [points[1][1], points[2][1], points[0][1], points[1][1]]
