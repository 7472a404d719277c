"""Unregistering while Experiments name the algorithm: what is asked, what is refused, what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise.cli import main
from rankwise.cluster.client import Cluster
from rankwise.cluster.registration import EXPERIMENTS, KEY, LISTINGS, Entry, register, unregister
from rankwise.errors import InvalidInput, SurroundingsError
from support.fake_kubernetes import TOKEN, FakeKubernetes

KATIB = """\
runtime:
  suggestions:
    - algorithmName: random
      image: ghcr.io/kubeflow/katib/suggestion-hyperopt:v0.19.0
"""

ENTRY: dict[str, Any] = {
    "algorithmName": "language-bo",
    "image": "rankwise-suggestion:0.1.0",
    "env": [{"name": "RANKWISE_REGISTERED_BY", "value": "rankwise/rankwise"}],
}
ours = Entry(ENTRY, "rankwise/rankwise")


def text_of(fake: FakeKubernetes, path: str) -> str:
    return str(fake.objects[path]["data"][KEY])


def registered_with_experiments(fake: FakeKubernetes, cluster: Cluster, count: int) -> str:
    """The registered ConfigMap's path; the Experiments of ours lie among as many of another algorithm."""
    path = fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB})
    register(cluster, "kubeflow", ours)
    for number in range(count):
        fake.put_experiment(f"team-{number % 2}", f"search-{number:03}", "language-bo")
        fake.put_experiment(f"team-{number % 2}", f"other-{number:03}", "random")
    return path


def test_unregister_is_refused_while_experiments_name_the_algorithm(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = registered_with_experiments(fake, cluster, 2)
    before, writes = text_of(fake, path), len(fake.writes)
    with pytest.raises(InvalidInput) as refused:
        unregister(cluster, "kubeflow", ours)
    said = str(refused.value)
    assert "algorithm language-bo: got 'named by Experiments team-0/search-000, team-1/search-001'" in said
    assert "kubectl delete experiment NAME --namespace=NAMESPACE" in said
    assert "--force" in said
    assert "other-" not in said
    assert "\n" not in said
    assert (text_of(fake, path), len(fake.writes)) == (before, writes)
    # Somebody deletes them, as the message says.
    for number in range(2):
        del fake.objects[fake.put_experiment(f"team-{number}", f"search-{number:03}", "language-bo")]
    assert unregister(cluster, "kubeflow", ours).experiments == ()
    assert text_of(fake, path) == KATIB


def test_every_page_of_the_list_is_read_and_ten_are_named(fake: FakeKubernetes, cluster: Cluster) -> None:
    registered_with_experiments(fake, cluster, 130)  # 260 in the list
    fake.seen.clear()
    with pytest.raises(InvalidInput, match=r"team-0/search-018 and 120 more'"):
        unregister(cluster, "kubeflow", ours)
    pages = [request.query for request in fake.seen if request.path == EXPERIMENTS]
    assert [set(page) for page in pages] == [{"limit"}, {"limit", "continue"}, {"limit", "continue"}]


def test_only_the_last_page_has_one_of_ours(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = registered_with_experiments(fake, cluster, 0)
    for number in range(250):
        fake.put_experiment("a", f"other-{number:03}", "random")
    fake.put_experiment("z", "last", "language-bo")
    with pytest.raises(InvalidInput, match="named by Experiment z/last'"):
        unregister(cluster, "kubeflow", ours)
    # A list that took too long is read again from its start; what is not all of it counts for nothing.
    fake.expiring = 2
    with pytest.raises(InvalidInput, match="named by Experiment z/last'"):
        unregister(cluster, "kubeflow", ours, sleep=lambda _: None)
    fake.expiring = 99
    with pytest.raises(SurroundingsError, match="the list changed faster than it could be read"):
        unregister(cluster, "kubeflow", ours, sleep=lambda _: None)
    assert fake.expiring == 99 - LISTINGS.attempts
    assert "language-bo" in text_of(fake, path)


def test_force_unregisters_all_the_same(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = registered_with_experiments(fake, cluster, 2)
    change = unregister(cluster, "kubeflow", ours, force=True)
    assert change.experiments == ("team-0/search-000", "team-1/search-001")
    assert text_of(fake, path) == KATIB


def test_an_account_that_may_not_list_experiments_goes_on(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = registered_with_experiments(fake, cluster, 1)
    fake.forbidden.add(EXPERIMENTS)
    assert unregister(cluster, "kubeflow", ours).experiments is None
    assert text_of(fake, path) == KATIB


def test_a_server_that_fails_to_list_leaves_the_entry(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = registered_with_experiments(fake, cluster, 1)
    before = fake.objects[path]

    def answer(*request: Any) -> tuple[int, dict[str, Any]]:
        return (500, {}) if EXPERIMENTS in request[1] else (200, before)

    fake.answer = answer  # type: ignore[method-assign]
    with pytest.raises(SurroundingsError, match=r"experiments.*failed 3 times \(HTTP 500\)"):
        unregister(cluster, "kubeflow", ours)
    assert fake.objects[path] == before


def test_experiments_matter_only_while_katib_would_lose_the_algorithm(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = registered_with_experiments(fake, cluster, 1)
    theirs = "    - {algorithmName: language-bo, image: other}\n"
    beside = text_of(fake, path).replace("suggestions:\n", f"suggestions:\n{theirs}")
    fake.put_config_map("kubeflow", "katib-config", {KEY: beside})
    assert unregister(cluster, "kubeflow", ours).changed
    # And with nothing of ours to take out, the look would only be in the way.
    fake.seen.clear()
    assert not unregister(cluster, "kubeflow", ours).changed
    fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB})
    assert not unregister(cluster, "kubeflow", ours).changed
    assert EXPERIMENTS not in {request.path for request in fake.seen}


def test_unregister_says_what_experiments_it_leaves_behind(
    fake: FakeKubernetes,
    cluster: Cluster,
    kubeconfig: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = registered_with_experiments(fake, cluster, 1)
    entry = tmp_path / "entry.yaml"
    entry.write_text(yaml.safe_dump(ENTRY))

    def run(*more: str) -> int:
        return main(["unregister", str(entry), "--kubeconfig", str(kubeconfig), *more])

    assert run() == 2
    said = capsys.readouterr()
    assert "team-0/search-000" in said.err
    assert said.out == ""
    assert run("--force") == 0
    said = capsys.readouterr()
    assert "warning: language-bo is still named by Experiment team-0/search-000: Katib lets none" in said.err
    assert "taken out" in said.out
    # The installer has no rights on the whole cluster.
    register(cluster, "kubeflow", ours)
    fake.forbidden.add(EXPERIMENTS)
    assert run() == 0
    said = capsys.readouterr()
    assert "warning: not allowed to list" in said.err
    assert "could not be checked" in said.err
    assert TOKEN not in said.err
    assert text_of(fake, path) == KATIB
    # Katib's kinds are gone, its configuration is not.
    register(cluster, "kubeflow", ours)
    fake.forbidden.clear()
    fake.kinds.clear()
    assert run() == 0
    assert capsys.readouterr().err == ""
    assert text_of(fake, path) == KATIB
