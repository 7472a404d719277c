"""Faults of the suggestion service: it is killed at random moments; two searches share a name; two run at once."""

from __future__ import annotations

import os
import random
import time
from functools import partial

from conftest import Cluster, start
from faults import NARROW, check_books, check_own_choices, check_service, ended, figures, kill_service, narrow
from kube import Search, condition, formula_search, wait

OTHER = {
    "rank": ("2", "64"),
    "alpha_ratio": ("0.5", "4", "8"),
    "dropout": ("0", "0.1"),
    "learning_rate": ("2e-5", "5e-5", "1e-2", "3e-2"),
    "batch_size": ("16",),
}
"""48 configurations, none of which is one of NARROW."""


def test_a_service_that_is_killed_at_random_moments_suggests_what_an_undisturbed_one_suggests(
    cluster: Cluster, searches: list[Search]
) -> None:
    """In namespace team-b; the undisturbed search has the same name and runs at the same time, in team-a."""
    seed = int(os.environ.get("RANKWISE_TEST_SEED", random.SystemRandom().randrange(10**6)))
    print(f"RANKWISE_TEST_SEED={seed}")
    generator = random.Random(seed)
    number, kills = 8, 4
    document = narrow(formula_search("fault-killed", trials=number))
    quiet = start(searches, document, "team-a")
    disturbed = start(searches, document, "team-b")
    wait("the pod of the service", disturbed.suggestion_pods, 60)
    before: dict[str, object] = {}
    killed = 0
    for i, moment in enumerate(sorted(generator.sample(range(number), kills))):
        # Processes of another cluster's nodes cannot be killed from here.
        how = "process" if cluster.own and i % 2 else "pod"
        pause = generator.uniform(0, 4)
        wait(f"suggestion {moment}", partial(_has, disturbed, moment), 120)
        time.sleep(pause)
        before |= ended(disturbed)
        done = kill_service(disturbed, how)
        killed += done
        print(f"{how} killed {pause:.1f} s after {moment} suggestions: {done}")
    assert killed >= kills - 1
    for search in (quiet, disturbed):
        assert condition(search.wait(240), "Succeeded")
    calm = check_books(quiet, {}, trialsSucceeded=number)
    trials = check_books(disturbed, before, trialsSucceeded=number)
    # None was replaced by a fallback, in neither search.
    check_own_choices(calm + trials)
    assert disturbed.suggestions() == quiet.suggestions()
    assert len({tuple(sorted(one.items())) for one in quiet.suggestions()}) == number
    # Katib keeps metrics by a trial's name alone, whatever its namespace.
    assert not set(disturbed.names()) & set(quiet.names())
    assert [trial["status"]["observation"] for trial in trials] == [trial["status"]["observation"] for trial in calm]
    # Katib sends the trials of both namespaces to both services (its issue 2578); those of the other were left out.
    told = figures(quiet)
    assert told["rankwise_foreign_trials_total"] > 0
    assert told["rankwise_trials/succeeded"] == number - 1
    assert told["rankwise_trials/pending"] == 0
    check_service(quiet)


def _has(search: Search, suggestions: int) -> bool:
    return len(search.names()) >= suggestions


def test_two_experiments_at_once_both_end_and_keep_to_their_own_spaces(searches: list[Search]) -> None:
    number = 5
    first = start(searches, narrow(formula_search("fault-first", trials=number, parallel=2)))
    second = start(searches, narrow(formula_search("fault-second", trials=number, parallel=2), OTHER))
    for search, space in ((first, NARROW), (second, OTHER)):
        assert condition(search.wait(180), "Succeeded")
        check_own_choices(check_books(search, {}, trialsSucceeded=number))
        for suggestion in search.suggestions():
            assert set(suggestion) == set(space)
            assert all(value in space[name] for name, value in suggestion.items())
        assert len({tuple(sorted(one.items())) for one in search.suggestions()}) == number
        told = figures(search)
        assert told["rankwise_foreign_trials_total"] == 0
        # Katib asks again when a conflict made it discard an answer: more answers than trials, but never other ones.
        assert told["rankwise_suggestions_total"] >= number
        check_service(search)
