from __future__ import annotations

import pytest

from rankwise.retry import Backoff, call


class FakeWork:
    """Fails as often as it is told, then returns 42."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return 42


def temporary(error: Exception) -> bool:
    return isinstance(error, ConnectionError)


@pytest.mark.parametrize("failures", [0, 1, 4])
def test_a_call_is_repeated_until_it_succeeds(failures: int) -> None:
    work = FakeWork([ConnectionError(str(i)) for i in range(failures)])
    waits: list[float] = []
    assert call(work, is_temporary=temporary, backoff=Backoff(attempts=5), sleep=waits.append) == 42
    assert work.calls == failures + 1
    assert len(waits) == failures


def test_the_last_failure_is_raised_when_attempts_are_used_up() -> None:
    work = FakeWork([ConnectionError(str(i)) for i in range(9)])
    waits: list[float] = []
    with pytest.raises(ConnectionError, match=r"^2$"):
        call(work, is_temporary=temporary, backoff=Backoff(attempts=3), sleep=waits.append)
    assert work.calls == 3
    assert len(waits) == 2


def test_a_permanent_failure_is_raised_at_once() -> None:
    work = FakeWork([ConnectionError("a"), ValueError("for good"), ConnectionError("b")])
    waits: list[float] = []
    with pytest.raises(ValueError, match="for good"):
        call(work, is_temporary=temporary, backoff=Backoff(attempts=5), sleep=waits.append)
    assert work.calls == 2
    assert len(waits) == 1


def test_waits_grow_up_to_the_longest_with_jitter() -> None:
    backoff = Backoff(attempts=7, first=1.0, longest=8.0)
    bounds = [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    for _ in range(50):
        waits = list(backoff.waits())
        assert len(waits) == len(bounds)
        assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))
    # Two draws from a continuous distribution agree with probability 0.
    assert list(backoff.waits()) != list(backoff.waits())


def test_each_wait_is_told_with_its_reason() -> None:
    work = FakeWork([ConnectionError("a"), ConnectionError("b"), ValueError("for good")])
    waits: list[float] = []
    told: list[tuple[str, float]] = []
    with pytest.raises(ValueError, match="for good"):
        call(
            work,
            is_temporary=temporary,
            backoff=Backoff(attempts=5),
            sleep=waits.append,
            on_wait=lambda error, wait: told.append((str(error), wait)),
        )
    assert told == [("a", waits[0]), ("b", waits[1])]


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first": -1.0}, {"longest": -1.0}])
def test_values_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="backoff needs"):
        Backoff(**wrong)  # type: ignore[arg-type]
