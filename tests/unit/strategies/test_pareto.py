"""Fronts and hypervolumes against definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rankwise.strategies.pareto import depth, hypervolume, hypervolumes, pareto_front, reference_point
from support.spaces import untimed


def points(columns: int = 2, low: float = 0.0) -> st.SearchStrategy[np.ndarray]:
    # Few different values: ties and equal points shall occur.
    return arrays.arrays(
        np.float64, st.tuples(st.integers(0, 9), st.just(columns)), elements=st.integers(int(low), 6).map(float)
    )


@given(P=st.one_of(points(2), points(3)))
def test_the_front_is_what_nothing_dominates(P: np.ndarray) -> None:  # noqa: N803
    expected = [not any((other <= point).all() and (other < point).any() for other in P) for point in P]
    front = pareto_front(P)
    assert front.tolist() == expected
    shuffled = np.random.default_rng(len(P)).permutation(len(P))
    assert pareto_front(P[shuffled]).tolist() == front[shuffled].tolist()


@given(points(3))
def test_depth_peels_fronts(P: np.ndarray) -> None:  # noqa: N803
    levels = depth(P)
    assert (levels[pareto_front(P)] == 0).all()
    for level in range(1, int(levels.max(initial=0)) + 1):
        rest = P[levels >= level]
        assert pareto_front(rest).tolist() == (levels[levels >= level] == level).tolist()


def test_what_is_not_known_is_on_no_front() -> None:
    P = np.array([[1.0, np.nan], [2.0, 2.0], [np.nan, 0.0], [3.0, 3.0]])  # noqa: N806
    assert pareto_front(P).tolist() == [False, True, False, False]
    assert depth(P).tolist() == [4, 0, 4, 1]
    # The front is one point; all known points extend over 1, a tenth of which is added.
    np.testing.assert_allclose(reference_point(P), [2.1, 2.1])


def swept(P: np.ndarray, reference: np.ndarray) -> float:  # noqa: N803
    """Area below a staircase: the definition for two metrics."""
    area, height = 0.0, reference[1]
    for x, y in sorted(P.tolist()):
        if x < reference[0] and y < height:
            area += (reference[0] - x) * (height - y)
            height = y
    return area


@untimed
@given(points(2))
def test_the_hypervolume_is_the_area_of_the_staircase(P: np.ndarray) -> None:  # noqa: N803
    reference = np.array([5.0, 4.5])
    # Sums of nine products of numbers below 6: rounding stays below 1e-12.
    assert hypervolume(P, reference) == pytest.approx(swept(P, reference), abs=1e-12)


def test_three_metrics() -> None:
    P = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])  # noqa: N806
    # Boxes of 2·1·1 and 1·2·2 with 1·1·1 in common.
    assert hypervolume(P, np.array([2.0, 2.0, 2.0])) == pytest.approx(5.0)


@untimed
@given(points(2))
def test_the_hypervolume_of_a_history_grows_to_that_of_all(P: np.ndarray) -> None:  # noqa: N803
    found = hypervolumes(P)
    assert found.shape == (len(P),)
    assert (np.diff(found) >= 0).all()
    if len(P):
        assert found[-1] == pytest.approx(hypervolume(P, reference_point(P)))
        assert found[-1] > 0, "the ends of the front lie within the reference"
    given_reference = hypervolumes(P, np.array([9.0, 9.0]))
    expected = [swept(P[: i + 1], np.array([9.0, 9.0])) for i in range(len(P))]
    np.testing.assert_allclose(given_reference, expected, atol=1e-12)


@given(points(2))
def test_the_reference_is_worse_than_the_whole_front(P: np.ndarray) -> None:  # noqa: N803
    reference = reference_point(P)
    assert (P[pareto_front(P)] < reference).all()
    # One diverged training does not move it, unless it is all there is.
    if len(P) > 1 and (P[pareto_front(P)].max(0) > P[pareto_front(P)].min(0)).all():
        np.testing.assert_array_equal(reference_point(np.concatenate([P, [[1e6, 1e6]]])), reference)


def test_huge_values_and_none() -> None:
    assert np.isfinite(reference_point(np.array([[1e308, -1e308], [-1e308, 1e308]]))).all()
    assert reference_point(np.zeros((0, 2))).tolist() == [1.0, 1.0]
    assert hypervolumes(np.zeros((0, 2))).tolist() == []
    assert hypervolumes(np.full((2, 2), np.nan)).tolist() == [0.0, 0.0]
