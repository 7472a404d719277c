from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.data import parse_size, split, subset
from rankwise.errors import InvalidInput

seeds = st.integers(0, 2**32)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500", 500),
        ("0", 0),
        ("1", 1),
        ("0.1", 0.1),
        ("1.0", 1.0),
        ("0.0", 0.0),
        (" 7 ", 7),
        ("1e-2", 0.01),
        ("1.", 1.0),
    ],
)
def test_a_size_is_a_number_or_a_fraction(text: str, size: float) -> None:
    found = parse_size(text)
    assert found == size
    assert type(found) is type(size)


@pytest.mark.parametrize("text", ["", "-1", "-0.1", "1.5", "nan", "inf", "all", "10%", "١٢"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"--subset: got .*a whole number of examples, or a fraction"):
        parse_size(text, "--subset")


def sizes(n: int) -> st.SearchStrategy[float]:
    return st.integers(0, n // 3) | st.floats(0.0, 0.3)


@given(n=st.integers(10, 400), data=st.data(), seed=seeds)
def test_a_split_is_disjoint_and_complete(n: int, data: st.DataObject, seed: int) -> None:
    validation, test = data.draw(sizes(n)), data.draw(sizes(n))
    made = split(n, validation, test, seed)
    assert sorted(made.train + made.validation + made.test) == list(range(n))
    assert made.train
    for part, size in ((made.validation, validation), (made.test, test)):
        assert list(part) == sorted(part)
        if isinstance(size, int):
            assert len(part) == size
        else:
            # Rounded to the nearest, but a fraction above 0 means at least one.
            assert abs(len(part) - size * n) <= 0.5 or (len(part) == 1 and 0 < size * n < 1)
    assert split(n, validation, test, seed) == made


@given(n=st.integers(10, 400), data=st.data(), seed=seeds)
def test_the_test_set_does_not_depend_on_the_validation_size(n: int, data: st.DataObject, seed: int) -> None:
    test = data.draw(sizes(n))
    one, two = split(n, data.draw(sizes(n)), test, seed), split(n, data.draw(sizes(n)), test, seed)
    assert one.test == two.test
    smaller, larger = sorted((one.validation, two.validation), key=len)
    assert set(smaller) <= set(larger)


@given(n=st.integers(1, 400), data=st.data(), seed=seeds)
def test_subsets_of_one_seed_are_nested(n: int, data: st.DataObject, seed: int) -> None:
    indices = data.draw(st.permutations(range(5, 5 + n)))
    size = st.integers(1, n) | st.floats(0.001, 1.0)
    smaller, larger = sorted((subset(indices, data.draw(size), seed), subset(indices, data.draw(size), seed)), key=len)
    assert set(smaller) <= set(larger) <= set(indices)
    assert len(set(larger)) == len(larger)
    # In the order of what it was drawn from.
    assert [indices.index(i) for i in larger] == sorted(indices.index(i) for i in larger)
    assert subset(indices, 1.0, seed) == subset(indices, n, seed) == tuple(indices)


def test_the_numbers_are_the_same_on_every_machine() -> None:
    """Frozen: another order would silently change every published split."""
    made = split(12, 3, 0.25, seed=7)
    assert (made.test, made.validation) == ((6, 7, 10), (0, 8, 11))
    assert subset(range(100), 5, seed=7) == (0, 9, 11, 12, 63)


def test_seeds_matter_and_the_two_purposes_are_independent() -> None:
    tests = {split(1000, 0, 10, seed).test for seed in range(20)}
    assert len(tests) == 20
    assert len({subset(range(1000), 10, seed) for seed in range(20)}) == 20
    assert all(split(1000, 0, 10, seed).test != subset(range(1000), 10, seed) for seed in range(20))


def test_a_subset_is_drawn_evenly() -> None:
    """Each of 50 positions is in a subset of 10 with probability 0.2.

    Over 2,000 seeds the count of a position is binomial with mean 400 and standard deviation sqrt(2000 * 0.2 * 0.8)
    = 17.9; 5 standard deviations for 50 positions: a false alarm for about 3e-5 of choices of the (fixed) seeds.
    """
    counts = [0] * 50
    for seed in range(2000):
        for position in subset(range(50), 10, seed):
            counts[position] += 1
    assert sum(counts) == 20_000
    assert all(abs(count - 400) <= 5 * 17.9 for count in counts)


@pytest.mark.parametrize(
    ("validation", "test", "seed", "paths"),
    [
        (-1, 0, 0, ["validation"]),
        (11, 0, 0, ["validation"]),
        (1.5, -0.1, -3, ["validation", "test", "split-seed"]),
        (float("nan"), 0, 0, ["validation"]),
        (5, 5, 0, ["validation"]),
        (0.5, 0.5, 0, ["validation"]),
        (1.0, 0, 0, ["validation"]),
    ],
)
def test_a_split_that_cannot_be(validation: float, test: float, seed: int, paths: list[str]) -> None:
    with pytest.raises(InvalidInput, match="allowed:") as raised:
        split(10, validation, test, seed)
    assert [problem.path for problem in raised.value.problems] == paths


@pytest.mark.parametrize(
    ("n", "size", "seed", "paths"),
    [
        (10, 0, 0, ["subset"]),
        (10, 0.0, 0, ["subset"]),
        (10, 11, 0, ["subset"]),
        (10, 1.1, -1, ["split-seed", "subset"]),
        (0, 1.0, 0, ["subset"]),
    ],
)
def test_a_subset_that_cannot_be(n: int, size: float, seed: int, paths: list[str]) -> None:
    with pytest.raises(InvalidInput, match="allowed:") as raised:
        subset(range(n), size, seed)
    assert [problem.path for problem in raised.value.problems] == [p.replace("split-", "subset-") for p in paths]
