"""Who may do what, to the letter; and that rights on others' objects last only as long as a hook."""

from __future__ import annotations

import pytest

from chart.rendering import NAMESPACE, SCENARIOS, Manifest, key, of_kind, one, pods, render, scenario

ON_SUCCESS = "before-hook-creation,hook-succeeded"


def rules(manifests: list[Manifest]) -> dict[tuple[str, str | None, str], list[Manifest]]:
    return {key(role): role["rules"] for role in of_kind(manifests, "Role", "ClusterRole")}


KATIB_CONFIG = [
    {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["katib-config"], "verbs": ["get", "patch"]}
]
TRIALS = [
    {"apiGroups": ["kubeflow.org"], "resources": ["trials"], "verbs": ["get"]},
    {"apiGroups": ["kubeflow.org"], "resources": ["trials/status"], "verbs": ["patch"]},
]

EXPERIMENTS = [{"apiGroups": ["kubeflow.org"], "resources": ["experiments"], "verbs": ["list"]}]


def labels_of(*names: str) -> list[Manifest]:
    return [{"apiGroups": [""], "resources": ["namespaces"], "resourceNames": list(names), "verbs": ["get", "patch"]}]


def test_the_rules_of_the_defaults() -> None:
    assert rules(scenario("defaults")) == {
        ("Role", "kubeflow", "rankwise-register-rankwise"): KATIB_CONFIG,
        ("ClusterRole", None, "rankwise-label-rankwise"): labels_of("rankwise"),
        ("ClusterRole", None, "rankwise-experiments-rankwise"): EXPERIMENTS,
        ("Role", "rankwise", "rankwise-suggestion"): TRIALS,
    }


def test_the_rules_of_several_namespaces() -> None:
    assert rules(scenario("gpu")) == {
        ("Role", "kubeflow", "rankwise-register-rankwise"): KATIB_CONFIG,
        ("ClusterRole", None, "rankwise-label-rankwise"): labels_of("rankwise", "team-a", "team-b"),
        ("ClusterRole", None, "rankwise-experiments-rankwise"): EXPERIMENTS,
        **{("Role", name, "rankwise-suggestion"): TRIALS for name in ("rankwise", "team-a", "team-b")},
    }


def test_no_cluster_wide_right_and_none_on_trials_where_they_are_turned_off() -> None:
    assert rules(scenario("restricted-namespace")) == {("Role", "kubeflow", "rankwise-register-rankwise"): KATIB_CONFIG}
    assert rules(scenario("only-accounts")) == {("Role", "rankwise", "rankwise-suggestion"): TRIALS}
    assert (
        rules(render({"katib": {"namespace": "katib"}}, namespace="elsewhere"))[
            ("Role", "katib", "rankwise-register-elsewhere")
        ]
        == KATIB_CONFIG
    )


@pytest.mark.parametrize("name", SCENARIOS)
def test_bindings_bind_a_role_of_ours_to_an_account_of_ours(name: str) -> None:
    manifests = scenario(name)
    roles, accounts = set(rules(manifests)), {key(m) for m in of_kind(manifests, "ServiceAccount")}
    bound = set()
    for binding in of_kind(manifests, "RoleBinding", "ClusterRoleBinding"):
        role = (binding["roleRef"]["kind"], binding["metadata"].get("namespace"), binding["roleRef"]["name"])
        assert role in roles, key(binding)
        assert binding["roleRef"]["apiGroup"] == "rbac.authorization.k8s.io"
        bound.add(role)
        assert len(binding["subjects"]) == 1
        subject = binding["subjects"][0]
        assert (subject["kind"], subject["namespace"], subject["name"]) in accounts, key(binding)
        wanted = "rankwise-suggestion" if role[2] == "rankwise-suggestion" else "rankwise-register"
        assert subject["name"] == wanted
    assert bound == roles


@pytest.mark.parametrize("name", SCENARIOS)
def test_rights_outside_the_namespace_last_as_long_as_a_hook(name: str) -> None:
    manifests = scenario(name)
    own = {NAMESPACE, *SCENARIOS[name].get("experimentNamespaces", [])}
    for manifest in of_kind(manifests, "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
        if manifest["metadata"].get("namespace") in own:
            continue
        notes = manifest["metadata"]["annotations"]
        purpose = manifest["metadata"]["name"].removesuffix(f"-{NAMESPACE}")
        assert (notes["helm.sh/hook"], manifest["kind"].startswith("Cluster")) == {
            "rankwise-register": ("post-install,post-upgrade,post-rollback,pre-delete,test", False),
            "rankwise-label": ("post-install,post-upgrade,post-rollback", True),
            "rankwise-experiments": ("pre-delete", True),
        }[purpose]
        assert notes["helm.sh/hook-delete-policy"] == ON_SUCCESS
        # Before the Jobs, which have weight 0.
        assert int(notes["helm.sh/hook-weight"]) < 0
    # Nothing else is made outside either.
    outside = {m["kind"] for m in manifests if m["metadata"].get("namespace") not in own}
    assert outside <= {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def test_what_hooks_need_exists_when_they_run_and_nothing_of_them_remains() -> None:
    manifests = scenario("everything")
    jobs = {m["metadata"]["name"]: m for m in of_kind(manifests, "Job") if "annotations" in m["metadata"]}
    assert set(jobs) == {"rankwise-register", "rankwise-unregister", "rankwise-test"}
    events = {name: job["metadata"]["annotations"]["helm.sh/hook"] for name, job in jobs.items()}
    assert events == {
        "rankwise-register": "post-install,post-upgrade,post-rollback",
        "rankwise-unregister": "pre-delete",
        "rankwise-test": "test",
    }
    for job in jobs.values():
        notes, spec = job["metadata"]["annotations"], job["spec"]
        assert notes["helm.sh/hook-delete-policy"] == ON_SUCCESS
        assert notes["helm.sh/hook-weight"] == "0"
        printed = notes["helm.sh/hook-output-log-policy"].split(",")
        assert "hook-failed" in printed
        # A warning of the one that takes the entry out has to be seen, though it succeeds.
        assert ("hook-succeeded" in printed) is (job["metadata"]["name"] != "rankwise-register")
        # A Job that failed stays to be looked at, and goes away by itself.
        assert spec["ttlSecondsAfterFinished"] == 600
        assert spec["activeDeadlineSeconds"] < 300  # Helm's own patience
        assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2]
        assert spec["template"]["spec"]["restartPolicy"] == "Never"
        assert spec["template"]["spec"]["serviceAccountName"] == "rankwise-register"
    # What the Jobs read and are is no hook: made before post-install, deleted after pre-delete.
    for kind, name in (("ConfigMap", "rankwise-registration"), ("ServiceAccount", "rankwise-register")):
        assert "annotations" not in one(manifests, kind, name)["metadata"]


def test_commands_of_the_hooks() -> None:
    manifests = scenario("everything")

    def command(name: str) -> list[str]:
        container = one(manifests, "Job", name)["spec"]["template"]["spec"]["containers"][0]
        return [*container["command"], *container["args"]]

    entries = [f"/etc/rankwise/{name}.yaml" for name in ("language-bo", "optuna-tpe", "rankwise-pbt")]
    katib = "--katib-namespace=kubeflow"
    labels = [f"--label-namespace={name}" for name in ("rankwise", "team-a", "1234")]
    assert command("rankwise-register") == ["rankwise", "register", *entries, katib, "--force", *labels]
    assert command("rankwise-unregister") == ["rankwise", "unregister", *entries, katib]
    assert command("rankwise-test") == ["rankwise", "register", *entries, "--check", katib]
    stores = one(manifests, "Job", "rankwise-test")["spec"]["template"]["spec"]["containers"][1:]
    assert [container["command"] for container in stores] == [["rankwise", "check-store"]]


def test_the_commands_of_the_chart_are_ours() -> None:
    """A flag that the verb does not have would show only in a cluster."""
    from rankwise.cli import VERBS
    from rankwise.cluster.register_command import main as register
    from rankwise.cluster.unregister_command import main as unregister
    from rankwise.errors import InvalidInput

    used = set()
    for name in SCENARIOS:
        for _, template in pods(scenario(name)):
            for container in template["spec"]["containers"]:
                program, *rest = (
                    [*container["command"], *container["args"]] if "args" in container else container["command"]
                )
                if program != "rankwise":
                    assert program == "weed"
                    continue
                used.add(rest[0])
                verb = {"register": register, "unregister": unregister}.get(rest[0])
                if verb is not None:
                    # The arguments are taken; the file is what is missing here.
                    with pytest.raises(InvalidInput, match=r"language-bo\.yaml"):
                        verb(rest[1:])
    assert used == {"register", "unregister", "check-store", "prepare-model", "serve-suggestions"}
    assert used <= set(VERBS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_tokens_only_where_something_asks_the_api_server(name: str) -> None:
    manifests = scenario(name)
    early_stopping = SCENARIOS[name].get("suggestion", {}).get("earlyStopping", True)
    for account in of_kind(manifests, "ServiceAccount"):
        expected = account["metadata"]["name"] == "rankwise-suggestion" and early_stopping
        assert account["automountServiceAccountToken"] is expected, key(account)
    for owner, template in pods(manifests):
        if owner["kind"] == "Deployment":  # Katib's: the account decides
            continue
        spec = template["spec"]
        expected = spec["serviceAccountName"] == "rankwise-register"
        assert spec["automountServiceAccountToken"] is expected, key(owner)
