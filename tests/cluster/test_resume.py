"""Searches that go on: ``maxTrialCount`` raised while they run and after they ended, for each of Katib's policies.

What a formula gives in place of a training is the same at each repetition, so that a search that was resumed can be
compared with one that was never disturbed: with the same ``random_state`` their suggestions must be equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from kube import CommandFailed, Object, Search, apply, condition, counts, find, formula_search, get, kubectl, wait
from results import service_answers, service_counts, state_of

# Minutes: not part of `make cluster-test-quick`.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FIRST, LAST = 4, 6
VALUES = {
    "rank": ["2", "8", "32"],
    "alpha_ratio": ["1", "4"],
    "dropout": ["0", "0.1"],
    "learning_rate": ["2e-5", "1e-4", "1e-3", "1e-2"],
    "batch_size": ["4", "16"],
}
POINTS = 96


def experiment(name: str, trials: int, policy: str, seconds: float) -> Object:
    """A search in a space of 96 points, which is embedded within seconds."""
    settings = [("random_state", "7"), ("initial_points", "2")]
    document = formula_search(name, trials=trials, seconds=seconds, settings=settings, resumePolicy=policy)
    for parameter in document["spec"]["parameters"]:
        parameter["feasibleSpace"] = {"list": VALUES[parameter["name"]]}
    return document


def raise_to(search: Search, trials: int) -> None:
    patch = json.dumps({"spec": {"maxTrialCount": trials}})
    kubectl("-n", search.namespace, "patch", "experiment", search.name, "--type=merge", f"--patch={patch}")


def service(search: Search, kind: str) -> list[str]:
    """uids of the objects of the search's suggestion service that are not being deleted."""
    found = [thing for thing in find(kind, search.namespace) if "deletionTimestamp" not in thing["metadata"]]
    name = f"{search.name}-language-bo"
    return [thing["metadata"]["uid"] for thing in found if thing["metadata"]["name"] == name]


@dataclass(frozen=True, slots=True)
class Before:
    """The searches when all of them had ended for the first time."""

    reference: Search
    never: Search
    long: Search
    volume: Search
    long_pods: list[Object]

    def all(self) -> tuple[Search, ...]:
        return (self.reference, self.never, self.long, self.volume)


@pytest.fixture(scope="module")
def before(release: str) -> Iterator[Before]:
    """Four searches side by side: each waits for the cluster most of the time."""
    names = ("resume-reference", "resume-never", "resume-long", "resume-volume")
    reference, never, long, volume = (Search(name, release) for name in names)
    try:
        apply(
            experiment(reference.name, LAST, "Never", 0.2),
            experiment(never.name, 2, "Never", 6),
            experiment(long.name, FIRST, "LongRunning", 0.2),
            experiment(volume.name, FIRST, "FromVolume", 0.2),
            namespace=release,
        )
        # The least of the allowed ways to go on: before the end, which every policy permits.
        wait("a trial", lambda: never.trials(), 240)
        raise_to(never, 3)
        for search in (reference, never, long, volume):
            ended = search.wait(420)
            assert condition(ended, "Succeeded") is not None, search.describe()
        yield Before(reference, never, long, volume, long.suggestion_pods())
    finally:
        for search in (reference, never, long, volume):
            search.delete()


@pytest.fixture(scope="module")
def counted(before: Before) -> dict[str, float]:
    """Both searches that can be resumed are, up to their second end; counts of the service that began with a volume."""
    wait("the service's end", lambda: not service(before.volume, "deployments"), 60)
    for search in (before.long, before.volume):
        raise_to(search, LAST)
    wait("a suggestion of the new service", lambda: len(before.volume.suggestions()) > FIRST, 240, every=0.2)
    [pod] = before.volume.suggestion_pods()
    counts_of_new = service_counts(pod)
    for search in (before.long, before.volume):
        wait("the second end", lambda search=search: counts(search.experiment())["trialsSucceeded"] == LAST, 240)
        assert condition(search.wait(30), "Succeeded") is not None
    return counts_of_new


def test_never_formula_goes_on_when_raised_while_it_runs(before: Before) -> None:
    status = before.never.experiment()
    assert counts(status)["trials"] == counts(status)["trialsSucceeded"] == 3
    assert before.never.suggestions() == before.reference.suggestions()[:3]


def test_never_formula_is_not_resumed_after_its_end(before: Before) -> None:
    wait("the service's end", lambda: not service(before.never, "deployments"), 60)
    assert service(before.never, "services") == []
    with pytest.raises(CommandFailed, match=r"can be restarted if it is in succeeded state by reaching max trials"):
        raise_to(before.never, 4)
    assert before.never.experiment()["spec"]["maxTrialCount"] == 3
    assert condition(before.never.suggestion(), "Succeeded") is not None


def test_no_policy_allows_fewer_trials_than_there_are(before: Before) -> None:
    with pytest.raises(CommandFailed, match=r"must be greater than status\.trials count"):
        raise_to(before.long, FIRST - 1)


def test_long_running_formula_keeps_its_service_and_goes_on_as_if_undisturbed(
    before: Before, counted: dict[str, float]
) -> None:
    assert counted
    assert len(service(before.long, "deployments")) == len(service(before.long, "services")) == 1
    assert [pod["metadata"]["uid"] for pod in before.long.suggestion_pods()] == [
        pod["metadata"]["uid"] for pod in before.long_pods
    ]
    assert before.long.suggestions() == before.reference.suggestions()
    [pod] = before.long.suggestion_pods()
    # Katib asks again when a conflict made it discard an answer, so a step may be there more than once.
    answers = sorted({(answer["issued"], answer.get("succeeded", 0)) for answer in service_answers(pod)})
    assert answers == [(number, number) for number in range(LAST)]


def test_from_volume_formula_finds_its_vectors_again_and_goes_on_as_if_undisturbed(
    before: Before, counted: dict[str, float]
) -> None:
    assert before.volume.suggestions() == before.reference.suggestions()
    # Every vector of the space came from the volume, none was computed again.
    assert counted["rankwise_embedding_cache_hits_total"] >= POINTS
    assert counted["rankwise_embedding_cache_misses_total"] == 0
    # At least once: Katib asks again when a conflict made it discard the answer.
    assert counted["rankwise_suggestions_total"] >= 1
    wait("the service's end", lambda: not service(before.volume, "deployments"), 60)
    claim = get("pvc", "resume-volume-language-bo", before.volume.namespace)
    assert claim["status"]["phase"] == "Bound"
    assert claim["metadata"]["ownerReferences"][0]["kind"] == "Suggestion"


def test_no_formula_search_tried_a_point_twice(before: Before, counted: dict[str, float]) -> None:
    assert counted
    for search in before.all():
        trials = search.trials()
        points = [tuple(sorted(point.items())) for point in search.suggestions()]
        assert len(points) == len(set(points)) == len(trials)
        assert {state_of(trial) for trial in trials} == {"Succeeded"}
        best = search.experiment()["status"]["currentOptimalTrial"]["bestTrialName"]
        assert best in {trial["metadata"]["name"] for trial in trials}
