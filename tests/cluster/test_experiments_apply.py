"""What users apply: accepted by the API server and Katib's webhooks; and Experiments that are refused, with reasons."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import katib_config, start
from kube import (
    EXPERIMENTS,
    LABEL,
    ROOT,
    CommandFailed,
    Object,
    Search,
    apply,
    condition,
    counts,
    find,
    formula_search,
    get,
    kubectl,
    load_experiment,
    wait,
)
from results import rankwise

pytestmark = pytest.mark.timeout(600)
FILES = sorted(EXPERIMENTS.glob("*.yaml"))
GPU = ("lora-7b", "t5-summarization")
TEMPLATES = ROOT / "katib" / "trial-templates" / "trial-templates.yaml"
ENTRY = ROOT / "katib" / "registration" / "language-bo.yaml"
TRAIN_JOB_LABELS = {
    "jobset.sigs.k8s.io/replicatedjob-name": "node",
    "batch.kubernetes.io/job-completion-index": "0",
}


def dry_run(document: Object | Path, namespace: str) -> str:
    """Ask the API server, admission webhooks included, without storing anything."""
    command = ("-n", namespace, "create", "--dry-run=server", "--output=yaml")
    if isinstance(document, Path):
        return kubectl(*command, "--filename", document)
    return kubectl(*command, "--filename=-", stdin=json.dumps(document))


def by_template(path: str, name: str) -> Object:
    """The quickstart's search with a template of the ConfigMap, as the ConfigMap's own comments say."""
    document = load_experiment("quickstart.yaml", name, maxTrialCount=1, parallelTrialCount=1, maxFailedTrialCount=1)
    template = document["spec"]["trialTemplate"]
    del template["trialSpec"]
    template["configMap"] = {
        "configMapName": "rankwise-trial-templates",
        "configMapNamespace": "rankwise",
        "templatePath": path,
    }
    if path == "trainJob":
        template["primaryContainerName"] = "node"
        template["primaryPodLabels"] = TRAIN_JOB_LABELS
    return document


def pending_for_a_gpu(search: Search) -> Object | None:
    """A trial's pod that the scheduler can place nowhere because no node has a GPU."""
    for pod in find("pods", search.namespace, f"{LABEL}={search.name},katib.kubeflow.org/trial"):
        for one in pod.get("status", {}).get("conditions", []):
            if one["type"] == "PodScheduled" and "Insufficient nvidia.com/gpu" in one.get("message", ""):
                assert (pod["status"]["phase"], one["reason"]) == ("Pending", "Unschedulable")
                return pod
    return None


def jobs(search: Search) -> list[Object]:
    """The Jobs of a search's trials; they bear the trials' names and no label of Katib's."""
    names = {trial["metadata"]["name"] for trial in search.trials()}
    return [job for job in find("jobs", search.namespace) if job["metadata"]["name"] in names]


# ---------------------------------------------------------------------------------------------------- accepted


def test_these_files_are_there() -> None:
    assert [path.stem for path in FILES] == [*GPU[:1], "pbt", "quickstart", *GPU[1:]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_katibs_webhooks_accept_an_experiment_as_it_is(release: str, path: Path) -> None:
    stored = yaml.safe_load(dry_run(path, release))
    # The defaulting webhook did run: it fills in what the file leaves out.
    assert stored["spec"]["resumePolicy"] == "Never"
    given = yaml.safe_load(path.read_text())
    assert stored["spec"]["objective"] == given["spec"]["objective"]
    assert stored["spec"]["trialTemplate"]["trialSpec"] == given["spec"]["trialTemplate"]["trialSpec"]


def test_katibs_webhooks_do_refuse_in_a_dry_run(release: str) -> None:
    document = load_experiment("quickstart.yaml", "apply-refused")
    document["spec"]["trialTemplate"]["trialParameters"].pop()
    with pytest.raises(CommandFailed, match=r"trialParameters\.batchSize.*not found in spec\.trialParameters"):
        dry_run(document, release)


@pytest.fixture(scope="module")
def templates(release: str) -> Iterator[dict[str, Any]]:
    """The ConfigMap with the trial templates, in the cluster."""
    kubectl("-n", release, "apply", "-f", TEMPLATES)
    yield {name: yaml.safe_load(text) for name, text in yaml.safe_load(TEMPLATES.read_text())["data"].items()}
    kubectl("-n", release, "delete", "-f", TEMPLATES)


@pytest.mark.parametrize("name", ["jobCpu", "jobGpu", "trainJob"])
def test_katibs_webhooks_accept_an_experiment_with_a_template(
    release: str, templates: dict[str, Any], name: str
) -> None:
    assert list(templates) == ["jobCpu", "jobGpu", "trainJob"]
    dry_run(by_template(name, "apply-template"), release)
    wrong = by_template(name, "apply-template")
    wrong["spec"]["trialTemplate"]["configMap"]["configMapName"] = "apply-nothing"
    with pytest.raises(CommandFailed, match='"apply-nothing" not found'):
        dry_run(wrong, release)


@pytest.mark.parametrize("name", ["jobCpu", "jobGpu"])
def test_a_templates_pod_is_allowed_where_pods_must_be_restricted(
    cluster: object, release: str, templates: dict[str, Any], name: str
) -> None:
    assert cluster
    namespace = f"apply-restricted-{name.lower()}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}, namespace=release
    )
    try:
        wait("its account", lambda: kubectl("-n", namespace, "get", "serviceaccounts", "-o", "name"), 30)
        job = templates[name]
        pod = copy.deepcopy(job["spec"]["template"])
        pod |= {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trial"}}
        # The chart's account is not in this namespace.
        del pod["spec"]["serviceAccountName"]
        dry_run(pod, namespace)
        pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        with pytest.raises(CommandFailed, match="violates PodSecurity"):
            dry_run(pod, namespace)
        dry_run({**job, "metadata": {"name": "trial"}}, namespace)
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


def test_gpu_experiments_are_created_and_their_trials_wait_for_a_gpu(release: str) -> None:
    started = [Search(name, release) for name in GPU]
    try:
        for search in started:
            kubectl("-n", release, "apply", "-f", EXPERIMENTS / f"{search.name}.yaml")
        for search in started:
            pod = wait(
                f"a pod of {search.name}",
                lambda search=search: pending_for_a_gpu(search),
                300,
                every=1,
            )
            [trainer] = [one for one in pod["spec"]["containers"] if one["name"] == "trainer"]
            assert trainer["resources"]["limits"]["nvidia.com/gpu"] == "1"
            # Katib's collector wraps the command, so every value has been put into it.
            words = " ".join(trainer["args"])
            assert "rankwise train" in words
            assert "${" not in words
            trials = search.trials()
            assert 1 <= len(trials) <= search.experiment()["spec"]["parallelTrialCount"]
            assert not condition(search.experiment(), "Failed")
            assert jobs(search)
    finally:
        for search in started:
            search.delete()


def test_the_gpu_template_of_the_config_map_makes_the_same_trial(
    release: str, templates: dict[str, Any], searches: list[Search]
) -> None:
    search = start(searches, by_template("jobGpu", "apply-job-gpu"))
    assert search.namespace == release
    wait("its pod", lambda: pending_for_a_gpu(search), 300, every=1)
    [job] = jobs(search)
    template = templates["jobGpu"]["spec"]["template"]["spec"]
    pod = job["spec"]["template"]["spec"]
    assert pod["securityContext"] == template["securityContext"]
    assert pod["containers"][0]["image"] == template["containers"][0]["image"]
    given = [word for word in template["containers"][0]["command"] if "${" not in word]
    assert [word for word in pod["containers"][0]["command"] if word in given] == given


# ------------------------------------------------------------------------------------------------ registration


def registered() -> Object:
    entries = yaml.safe_load(katib_config())["runtime"]["suggestions"]
    [entry] = [one for one in entries if one["algorithmName"] == "language-bo"]
    return dict(entry)


def test_the_registration_entry_is_what_stands_in_katib_config(release: str) -> None:
    entry = yaml.safe_load(ENTRY.read_text())
    # The values of the CPU demonstration differ in the size of the cache.
    entry["persistentVolumeClaimSpec"]["resources"]["requests"]["storage"] = "500Mi"
    assert registered() == entry
    assert {"name": "RANKWISE_REGISTERED_BY", "value": f"{release}/rankwise"} in entry["env"]


def test_the_command_tells_what_the_entry_would_change(release: str) -> None:
    assert release
    with pytest.raises(CommandFailed, match="exit code 1") as error:
        rankwise("register", "--check", ENTRY)
    said = str(error.value)
    assert "not registered like this" in said
    changed = [line.split() for line in said.splitlines() if line.startswith(("+ ", "- "))]
    assert changed == [["-", "storage:", '"500Mi"'], ["+", "storage:", '"1Gi"']]
    assert registered()["persistentVolumeClaimSpec"]["resources"]["requests"]["storage"] == "500Mi"


# ----------------------------------------------------------------------------------------------------- refused

_SPACE = {
    "rank": ("int", {"min": "8", "max": "4"}),
    "alpha_ratio": ("discrete", {"list": ["1", "two"]}),
    "dropout": ("unknown", {"list": ["0"]}),
    "learning_rate": ("double", {"min": "0", "max": "1", "distribution": "logUniform"}),
    "batch_size": ("discrete", {"list": ["4", "4.0"]}),
}
_SPACE_SENTENCES = (
    "spec.algorithm.algorithmSettings.initial_points: got 'none'; allowed: a whole number from 1 to 10000",
    "spec.parameters[0].feasibleSpace.max: got '4'; allowed: a number not below min, 8",
    "spec.parameters[1].feasibleSpace.list[1]: got 'two'; allowed: a finite number",
    "spec.parameters[2].parameterType: got 'unknown (0)'; allowed: one of double, int, discrete, categorical",
    "spec.parameters[3].feasibleSpace.min: got '0'; allowed: a number greater than 0: the distribution is logUniform",
    "spec.parameters[4].feasibleSpace.list[1]: got '4.0'; allowed: a number that is not in the list already",
)
_SETTINGS = (("surrogate", "magic"), ("fitsteps", "5"), ("ucb_beta", "-1"))
_SETTINGS_SENTENCES = (
    "spec.algorithm.algorithmSettings.surrogate: got 'magic'; allowed: one of mixture, language, numeric",
    "spec.algorithm.algorithmSettings.fitsteps: got '5'; allowed: only the options",
    "(did you mean fit_steps?)",
    "spec.algorithm.algorithmSettings.ucb_beta: got '-1'; allowed:",
)


def test_an_invalid_experiment_fails_with_every_mistake_in_our_words_and_makes_no_trial(
    searches: list[Search],
) -> None:
    space = formula_search("apply-bad-space", trials=2, settings=[("initial_points", "none")])
    for parameter in space["spec"]["parameters"]:
        parameter["parameterType"], parameter["feasibleSpace"] = _SPACE[parameter["name"]]
    settings = formula_search("apply-bad-settings", trials=2, settings=_SETTINGS)
    cases = [(start(searches, space), _SPACE_SENTENCES), (start(searches, settings), _SETTINGS_SENTENCES)]
    for search, sentences in cases:
        experiment = search.wait(240)
        failed = condition(experiment, "Failed")
        assert failed is not None, search.describe()
        # Katib tells the reason in the Suggestion; in the Experiment it says where to look.
        assert failed["message"] == "Suggestion has failed"
        reason = condition(search.suggestion(), "Failed")
        assert reason is not None
        for sentence in sentences:
            assert sentence in reason["message"]
        assert reason["message"].startswith("Validation failed")
        assert search.trials() == []
        assert counts(experiment)["trials"] == 0
        assert search.suggestions() == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"algorithm": {"algorithmName": "language-b0"}}, r"unable to get Suggestion config data for algorithm"),
        ({"parallelTrialCount": 9}, r"should be less than or equal to spec\.maxTrialCount"),
        ({"parameters": []}, r"spec\.parameters or spec\.nasConfig must be specified"),
        (
            {"parameters": [{"name": "rank", "parameterType": "tensor", "feasibleSpace": {"list": ["1"]}}]},
            r"parameterType: tensor is not supported",
        ),
    ],
)
def test_what_katibs_own_webhook_refuses_never_reaches_us(release: str, change: Object, sentence: str) -> None:
    document = formula_search("apply-webhook", trials=2)
    document["spec"] |= change
    with pytest.raises(CommandFailed, match=sentence):
        apply(document, namespace=release)
    with pytest.raises(CommandFailed, match="NotFound"):
        get("experiment", "apply-webhook", release)


def test_an_experiment_in_a_namespace_without_the_label_is_refused(cluster: object) -> None:
    assert cluster
    with pytest.raises(CommandFailed, match="the namespace lacks label"):
        apply(formula_search("apply-unlabelled", trials=1), namespace="default")
