"""Registering: what is written over HTTP, what is kept, who wins, what is said. The server is ours, the client real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise.cli import main
from rankwise.cluster.client import Cluster, api_client
from rankwise.cluster.registration import CONFLICTS, KEY, Entry, load_entry, register, unregister
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.retry import Backoff
from support.fake_kubernetes import TOKEN, FakeKubernetes, fake_kubernetes

KATIB = """\
# Written by the platform team. Do not lose this line.
apiVersion: config.kubeflow.org/v1beta1
kind: KatibConfig
init:
  controller:
    webhookPort: 8443   # not 443
runtime:
  suggestions:
    # hyperopt
    - algorithmName: random
      image: ghcr.io/kubeflow/katib/suggestion-hyperopt:v0.19.0

    - algorithmName: tpe   # also hyperopt
      image: 'ghcr.io/kubeflow/katib/suggestion-hyperopt:v0.19.0'
  # and one that stops early
  earlyStoppings:
    - algorithmName: medianstop
      image: ghcr.io/kubeflow/katib/earlystopping-medianstop:v0.19.0
"""

ENTRY: dict[str, Any] = {
    "algorithmName": "language-bo",
    "image": "rankwise-suggestion:0.1.0",
    "args": ["--address=0.0.0.0:6789", "1e3", "yes", "0o17", "1:30", "2020-01-01", "~", "# no comment", "a: b", ""],
    "env": [{"name": "RANKWISE_REGISTERED_BY", "value": "rankwise/rankwise"}],
    "resources": {"limits": {"cpu": "2", "memory": "3Gi"}},
    "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "capabilities": {"drop": ["ALL"]}},
}
ours = Entry(ENTRY, "rankwise/rankwise")


def owned_by(owner: str, **changes: Any) -> Entry:
    return Entry({**ENTRY, **changes, "env": [{"name": "RANKWISE_REGISTERED_BY", "value": owner}]}, owner)


def text_of(fake: FakeKubernetes, path: str) -> str:
    return str(fake.objects[path]["data"][KEY])


def test_everything_else_is_kept_byte_for_byte(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB, "other": "thing"}, binaryData={"b": "AA=="})
    change = register(cluster, "kubeflow", ours)
    assert change.changed
    assert change.kept_text
    text = text_of(fake, path)
    added = [line for line in text.splitlines() if line not in KATIB.splitlines()]
    assert added[0] == "    - algorithmName: language-bo"
    without = text.splitlines(keepends=True)
    start = without.index("    - algorithmName: language-bo\n")
    del without[start : start + len(added)]
    assert "".join(without) == KATIB
    assert yaml.safe_load(text)["runtime"]["suggestions"][-1] == ENTRY
    # The server holds all else as it was; only our key was sent.
    assert fake.objects[path]["data"]["other"] == "thing"
    assert fake.objects[path]["binaryData"] == {"b": "AA=="}
    assert fake.objects[path]["metadata"]["labels"] == {"kept": "yes"}
    assert [set(write.body) for write in fake.writes] == [{"metadata", "data"}]
    assert set(fake.writes[0].body["data"]) == {KEY}


def test_twice_is_once_and_the_second_time_writes_nothing(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB})
    register(cluster, "kubeflow", ours)
    once, writes = text_of(fake, path), len(fake.writes)
    assert not register(cluster, "kubeflow", ours).changed
    assert text_of(fake, path) == once
    assert len(fake.writes) == writes == 1


def test_unregister_restores_the_text_and_then_does_nothing(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB})
    assert not unregister(cluster, "kubeflow", ours).changed
    register(cluster, "kubeflow", ours)
    assert unregister(cluster, "kubeflow", ours).changed
    assert text_of(fake, path) == KATIB
    assert not unregister(cluster, "kubeflow", ours).changed
    assert len(fake.writes) == 2


def test_a_newer_entry_takes_the_place_of_every_older_one_of_ours(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB})
    register(cluster, "kubeflow", ours)
    # Somebody pasted it a second time, before all others: Katib would take the last one.
    lines = text_of(fake, path).splitlines(keepends=True)
    start = lines.index("    - algorithmName: language-bo\n")
    block = lines[start : lines.index("  # and one that stops early\n")]
    first = lines.index("    # hyperopt\n")
    fake.put_config_map("kubeflow", "katib-config", {KEY: "".join([*lines[:first], *block, *lines[first:]])})
    newer = owned_by("rankwise/rankwise", image="rankwise-suggestion:0.2.0")
    register(cluster, "kubeflow", newer)
    entries = yaml.safe_load(text_of(fake, path))["runtime"]["suggestions"]
    assert [entry["algorithmName"] for entry in entries] == ["random", "tpe", "language-bo"]
    assert entries[-1] == newer.data
    unregister(cluster, "kubeflow", newer)
    assert text_of(fake, path) == KATIB


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ("    - {algorithmName: language-bo, image: other}\n", "image other, not registered by Rankwise"),
        (
            "    - algorithmName: language-bo\n      image: other\n      env:\n"
            "        - {name: RANKWISE_REGISTERED_BY, value: team-a/rankwise}\n",
            "image other, registered by team-a/rankwise",
        ),
    ],
)
def test_an_entry_of_another_is_refused_left_alone_and_forced(
    fake: FakeKubernetes, cluster: Cluster, theirs: str, said: str
) -> None:
    text = KATIB.replace("    # hyperopt\n", f"    # hyperopt\n{theirs}")
    path = fake.put_config_map("kubeflow", "katib-config", {KEY: text})
    with pytest.raises(InvalidInput, match=f"algorithm language-bo.*{said}.*--force"):
        register(cluster, "kubeflow", ours)
    assert text_of(fake, path) == text
    left = unregister(cluster, "kubeflow", ours)
    assert not left.changed
    assert left.others == (said,)
    register(cluster, "kubeflow", ours, force=True)
    entries = yaml.safe_load(text_of(fake, path))["runtime"]["suggestions"]
    assert [entry for entry in entries if entry["algorithmName"] == "language-bo"] == [ENTRY]
    assert "# hyperopt\n" in text_of(fake, path)


def test_a_faster_writer_is_not_overwritten(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB})

    def faster(server: FakeKubernetes) -> None:
        server.before_patch = None
        theirs = KATIB.replace("algorithmName: random", "algorithmName: theirs")
        server.put_config_map("kubeflow", "katib-config", {KEY: theirs})

    fake.before_patch = faster
    waits: list[float] = []
    register(cluster, "kubeflow", ours, sleep=waits.append)
    entries = yaml.safe_load(text_of(fake, path))["runtime"]["suggestions"]
    assert [entry["algorithmName"] for entry in entries] == ["theirs", "tpe", "language-bo"]
    assert len(waits) == 1


def test_conflicts_without_end_end(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB})
    fake.before_patch = lambda server: server.put(path, server.objects[path]) or None
    waits: list[float] = []
    with pytest.raises(SurroundingsError, match=f"changed by someone else at each of {CONFLICTS.attempts} tries"):
        register(cluster, "kubeflow", ours, sleep=waits.append)
    assert len(fake.writes) == CONFLICTS.attempts
    assert len(waits) == CONFLICTS.attempts - 1
    assert text_of(fake, path) == KATIB


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("runtime: [", "line 1.*valid YAML"),
        ("a: 1\nb: &x [*x]\nruntime: {}\n", "an alias of itself"),
        ("when: 2020-13-45\nruntime: {}\n", "valid YAML"),
        ("runtime: {}\n---\nruntime: {}\n", "one document"),
        ("", "katib-config.yaml: runtime: got 'nothing'"),
        ("init: {}\n", "katib-config.yaml: runtime: got 'nothing'"),
        ("runtime: [1]\n", "runtime: got 'list'"),
        ("runtime: {suggestions: {a: b}}\n", "runtime.suggestions: got 'dict'"),
    ],
)
def test_a_configuration_that_cannot_be_understood_is_left_alone(
    fake: FakeKubernetes, cluster: Cluster, text: str, said: str
) -> None:
    fake.put_config_map("kubeflow", "katib-config", {KEY: text})
    for verb in (register, unregister):
        with pytest.raises(InvalidInput, match=said):
            verb(cluster, "kubeflow", ours)
    assert not fake.writes


def test_a_missing_config_map(fake: FakeKubernetes, cluster: Cluster) -> None:
    with pytest.raises(InvalidInput, match=r"--katib-namespace: got 'katib'.*katib-config"):
        register(cluster, "katib", ours)
    # At uninstall, a Katib that is gone has nothing to be taken out of.
    assert not unregister(cluster, "katib", ours).changed


def test_a_config_map_that_goes_away_between_reading_and_writing(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB})
    fake.before_patch = lambda server: server.objects.pop(path, None) and None
    with pytest.raises(InvalidInput, match="holds the ConfigMap katib-config"):
        register(cluster, "kubeflow", ours)


def test_a_server_without_the_expected_certificate(fake: FakeKubernetes, kubeconfig: Path) -> None:
    kubeconfig.write_text(kubeconfig.read_text().replace("http://", "https://"))
    with pytest.raises(SurroundingsError, match=r"failed \(TLS: not the certificate"):
        register(Cluster(api_client(kubeconfig)), "kubeflow", ours)


def test_a_missing_key_and_a_locked_config_map(fake: FakeKubernetes, cluster: Cluster) -> None:
    fake.put_config_map("kubeflow", "katib-config", {"suggestion": "{}"})
    with pytest.raises(InvalidInput, match=r"got 'suggestion'; allowed: a key katib-config\.yaml"):
        register(cluster, "kubeflow", ours)
    fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB}, immutable=True)
    with pytest.raises(InvalidInput, match="immutable"):
        register(cluster, "kubeflow", ours)
    assert not fake.writes


@pytest.mark.parametrize("nothing", ["runtime:\n  suggestions: []\n", "runtime:\n  suggestions:\n", "runtime: {}\n"])
def test_the_first_entry_of_all_and_the_last(fake: FakeKubernetes, cluster: Cluster, nothing: str) -> None:
    path = fake.put_config_map("kubeflow", "katib-config", {KEY: f"init:\n  flag: 1e3\n{nothing}"})
    change = register(cluster, "kubeflow", ours)
    assert not change.kept_text
    text = text_of(fake, path)
    assert yaml.safe_load(text)["runtime"]["suggestions"] == [ENTRY]
    assert "flag: 1e3\n" in text  # Go reads a number here, Python a string: the spelling must stay
    unregister(cluster, "kubeflow", ours)
    assert yaml.safe_load(text_of(fake, path)) == {"init": {"flag": "1e3"}, "runtime": {"suggestions": []}}


def test_what_readers_of_yaml_disagree_about_is_quoted(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB})
    register(cluster, "kubeflow", ours)
    lines = [line.strip() for line in text_of(fake, path).splitlines()]
    for text in ("1e3", "yes", "0o17", "1:30", "2020-01-01", "~", "# no comment", "a: b", ""):
        assert f'- "{text}"' in lines
    assert 'cpu: "2"' in lines


def test_temporary_failures_are_tried_again_and_others_are_not(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB})
    fake.faults = [503, 429]
    register(cluster, "kubeflow", ours)
    assert "language-bo" in text_of(fake, path)
    fake.faults = [500] * 9
    with pytest.raises(SurroundingsError, match=r"failed 3 times \(HTTP 500\)"):
        unregister(cluster, "kubeflow", ours)
    assert len(fake.faults) == 6
    fake.faults = [403, 200]
    with pytest.raises(SurroundingsError, match=r"refused \(HTTP 403\)") as refused:
        unregister(cluster, "kubeflow", ours)
    assert TOKEN not in str(refused.value)
    assert fake.faults == [200]


def test_a_write_whose_answer_got_lost_is_not_done_twice(fake: FakeKubernetes, cluster: Cluster) -> None:
    path = fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB})

    def write_and_lose(server: FakeKubernetes) -> None:
        # The server does what it was asked, and the client hears 409 when it asks again with the old version.
        server.before_patch = None
        body = server.seen[-1].body
        server.put(path, {**server.objects[path], "data": body["data"]})

    fake.before_patch = write_and_lose
    register(cluster, "kubeflow", ours, sleep=lambda _: None)
    assert text_of(fake, path).count("algorithmName: language-bo") == 1
    assert len(fake.writes) == 1


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with fake_kubernetes() as gone:
        kubeconfig = gone.kubeconfig(tmp_path)
    cluster = Cluster(api_client(kubeconfig), Backoff(attempts=2, first=0, longest=0))
    with pytest.raises(SurroundingsError, match="failed 2 times"):
        register(cluster, "kubeflow", ours)


# ---------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def entry_file(tmp_path: Path) -> Path:
    path = tmp_path / "entry.yaml"
    path.write_text(yaml.safe_dump(ENTRY))
    return path


def run(verb: str, entry: Path, kubeconfig: Path, *more: str) -> int:
    return main([verb, str(entry), "--kubeconfig", str(kubeconfig), *more])


def test_check_register_label_unregister(
    fake: FakeKubernetes, kubeconfig: Path, entry_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fake.put_config_map("katib", "katib-config", {KEY: KATIB})
    space = fake.put_namespace("rankwise", {"pod-security.kubernetes.io/enforce": "restricted"})
    katib = "--katib-namespace=katib"
    assert run("register", entry_file, kubeconfig, katib, "--check") == 1
    out = capsys.readouterr().out
    assert "+    - algorithmName: language-bo\n" in out
    assert "not registered like this" in out
    assert not fake.writes
    assert run("register", entry_file, kubeconfig, katib, "--label-namespace=rankwise") == 0
    assert "namespace rankwise: label set" in capsys.readouterr().out
    assert fake.objects[space]["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted",
        "katib.kubeflow.org/metrics-collector-injection": "enabled",
    }
    writes = len(fake.writes)
    assert run("register", entry_file, kubeconfig, katib, "--label-namespace=rankwise") == 0
    assert "label was there" in capsys.readouterr().out
    assert run("register", entry_file, kubeconfig, katib, "--check") == 0
    assert capsys.readouterr().out == "language-bo of rankwise/rankwise in katib/katib-config: nothing to do\n"
    assert len(fake.writes) == writes
    assert run("unregister", entry_file, kubeconfig, katib) == 0
    assert text_of(fake, path) == KATIB


def test_exit_codes_and_messages(
    fake: FakeKubernetes, kubeconfig: Path, entry_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("register", entry_file, kubeconfig) == 2
    assert "--katib-namespace: got 'kubeflow'" in capsys.readouterr().err
    fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB})
    assert run("register", entry_file, kubeconfig, "--label-namespace=nowhere") == 2
    assert "--label-namespace: got 'nowhere'" in capsys.readouterr().err
    fake.faults = [401]
    assert run("unregister", entry_file, kubeconfig) == 3
    err = capsys.readouterr().err
    assert "refused (HTTP 401)" in err
    assert TOKEN not in err
    assert run("register", entry_file, kubeconfig, "--context=other") == 2
    assert "has the context 'other'" in capsys.readouterr().err


def test_a_broken_kubeconfig_is_not_quoted(
    entry_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.write_text(f"users: [{{token: {TOKEN}")
    assert run("register", entry_file, broken) == 2
    err = capsys.readouterr().err
    assert f"--kubeconfig: got '{broken}'" in err
    assert TOKEN not in err


def test_a_pod_uses_its_own_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from kubernetes.config import incluster_config

    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "ca.crt").write_text("certificate")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    for name, value in (("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("KUBERNETES_SERVICE_PORT", "443")):
        monkeypatch.setenv(name, value)
    inside = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    settings = pytest.importorskip("kubernetes").client.Configuration
    made: list[Any] = []
    monkeypatch.setattr(
        "kubernetes.client.ApiClient", lambda configuration: made.append(configuration) or configuration
    )
    api_client(environment=inside)
    assert isinstance(made[0], settings)
    assert made[0].host == "https://10.0.0.1:443"
    # A kubeconfig that is named goes before the pod's account.
    with fake_kubernetes() as fake:
        api_client(environment={**inside, "KUBECONFIG": str(fake.kubeconfig(tmp_path))})
        assert made[1].host == fake.address


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nodeSelector": {}}, "nodeSelector: got 'a field that Katib would ignore'"),
        ({"algorithmName": "Language_BO"}, "algorithmName: got 'Language_BO'"),
        ({"image": " "}, "image: got ' '"),
        ({"ports": [{"containerPort": 6789}]}, r"ports\[0\]"),
        ({"ports": [{"name": "suggestion-api", "containerPort": 1}]}, r"ports\[0\]"),
        ({"env": []}, "env: got 'no owner'.*RANKWISE_REGISTERED_BY"),
    ],
)
def test_an_entry_that_katib_would_not_take_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "entry.yaml"
    path.write_text(yaml.safe_dump({**ENTRY, **change}))
    with pytest.raises(InvalidInput, match=said):
        load_entry(path)


@pytest.mark.parametrize("text", ["- a", "a: [", ""])
def test_a_file_that_is_no_entry(tmp_path: Path, text: str) -> None:
    path = tmp_path / "entry.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="one mapping"):
        load_entry(path)
    with pytest.raises(InvalidInput, match="a file that can be read"):
        load_entry(tmp_path / "missing.yaml")


def test_the_verbs_import_nothing_heavy() -> None:
    program = (
        "import sys, rankwise.cluster.register_command, rankwise.cluster.unregister_command, "
        "rankwise.cluster.store_command as last\n"
        "heavy = {'torch', 'transformers', 'botorch', 'numpy', 'grpc', 'rankwise.local'} & set(sys.modules)\n"
        "assert last and 'kubernetes' in sys.modules and not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_check_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANKWISE_STORE", str(tmp_path / "store"))
    assert main(["check-store"]) == 0
    assert "written, read and deleted" in capsys.readouterr().out
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    monkeypatch.delenv("RANKWISE_STORE")
    assert main(["check-store"]) == 2
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(["check-store", str(blocked / "below")]) == 3


def test_two_algorithms_are_registered_and_taken_out_together_or_not_at_all(
    fake: FakeKubernetes, kubeconfig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fake.put_config_map("kubeflow", "katib-config", {KEY: KATIB})
    files = []
    for name in ("language-bo", "rankwise-pbt"):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump({**ENTRY, "algorithmName": name}))

    def both(verb: str, *more: str) -> int:
        return main([verb, *map(str, files), "--kubeconfig", str(kubeconfig), *more])

    assert both("register", "--check") == 1
    assert not fake.writes
    assert both("register") == 0
    assert both("register", "--check") == 0
    names = [entry["algorithmName"] for entry in yaml.safe_load(text_of(fake, path))["runtime"]["suggestions"]]
    assert names == ["random", "tpe", "language-bo", "rankwise-pbt"]
    # The second one is still named: the first one stays as well.
    experiment = fake.put_experiment("team", "search", "rankwise-pbt")
    capsys.readouterr()
    writes = len(fake.writes)
    assert both("unregister") == 2
    assert "algorithm rankwise-pbt: got 'named by Experiment team/search'" in capsys.readouterr().err
    assert len(fake.writes) == writes
    del fake.objects[experiment]
    assert both("unregister") == 0
    assert text_of(fake, path) == KATIB
    # Somebody else's entry of the second name: the first one is not registered either.
    theirs = KATIB.replace("algorithmName: tpe ", "algorithmName: rankwise-pbt ")
    fake.put_config_map("kubeflow", "katib-config", {KEY: theirs})
    assert both("register") == 2
    assert text_of(fake, path) == theirs


def test_every_mistake_of_all_files_is_told(
    tmp_path: Path, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "good.yaml"
    good.write_text(yaml.safe_dump(ENTRY))
    assert main(["register", str(good), str(tmp_path / "none.yaml"), str(good), "--kubeconfig", str(kubeconfig)]) == 2
    said = capsys.readouterr().err
    assert "none.yaml" in said
    assert "algorithmName: got 'language-bo'; allowed: an algorithm that no other file names" in said
