"""Work in a line, with a limit of time."""

from __future__ import annotations

import threading

import pytest

from rankwise.suggest.workers import TimeLimitReached, Workers


def test_the_result_comes_back() -> None:
    assert Workers(1).run(lambda: 7, seconds=30) == 7


def test_the_error_comes_back() -> None:
    def fail() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        Workers(1).run(fail, seconds=30)


def test_a_timeout_error_of_the_work_itself_is_not_taken_for_the_limit() -> None:
    def fail() -> None:
        raise TimeoutError("a socket's")

    with pytest.raises(TimeoutError, match="a socket's"):
        Workers(1).run(fail, seconds=30)


def test_who_waits_too_long_goes_away_and_the_next_is_served() -> None:
    workers, release = Workers(1), threading.Event()
    with pytest.raises(TimeLimitReached, match=r"not done after 0\.1 s"):
        workers.run(lambda: release.wait(60), seconds=0.1)
    assert workers.busy
    ran: list[int] = []
    with pytest.raises(TimeLimitReached, match="not done"):
        workers.run(lambda: ran.append(1), seconds=0.1)  # stands in the line behind it
    release.set()
    assert workers.run(lambda: "next", seconds=30) == "next"
    assert ran == []  # nobody waited for it any more, so it was not done
    workers.close()


def test_no_more_than_the_given_number_run_at_the_same_time() -> None:
    workers, lock = Workers(2), threading.Lock()
    both = threading.Barrier(2)  # breaks (and fails the test) unless two run side by side
    now, most = 0, 0

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        both.wait(30)
        with lock:
            now -= 1

    threads = [threading.Thread(target=workers.run, args=(work, 60)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not both.broken
    assert most == 2


def test_a_number_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        Workers(0)
