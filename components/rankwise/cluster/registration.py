"""Registering the algorithm with Katib: read-modify-write of the ConfigMap that lists Katib's algorithms.

Katib reads its algorithms from one YAML text, key ``katib-config.yaml`` of ConfigMap ``katib-config``. No patch can
add a list's item within a text, so the text is read, changed and written back on the condition that nobody changed the
ConfigMap since (its resourceVersion); when somebody did, it is all done again.

An entry is ours when it names an owner (:data:`OWNER_VARIABLE`). Entries of other owners are never touched unasked.
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rankwise.cluster.client import Cluster, Conflict, Expired, Forbidden, NotThere
from rankwise.cluster.registration_document import OWNER_VARIABLE, Document, owner_of
from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.retry import Backoff, call

CONFIG_MAP = "katib-config"
KEY = "katib-config.yaml"
INJECTION_LABEL = ("katib.kubeflow.org/metrics-collector-injection", "enabled")
"""Katib's webhook adds the metrics collector to the pods of namespaces with this label, and to no others."""
CONFLICTS = Backoff(attempts=8, first=0.1, longest=2.0)
"""Writers of this ConfigMap are few and quick: eight losses in a row mean that something writes it in a loop."""

EXPERIMENTS = "/apis/kubeflow.org/v1beta1/experiments"
"""Experiments of all namespaces."""
LISTINGS = Backoff(attempts=3, first=0.1, longest=1.0)
"""Reading a list anew, when the API server has forgotten where it was to go on."""
_NAMED = 10  # Experiments in a message: enough to find them, and still one sentence

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_CONTAINER_FIELDS = {
    *("args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "name", "ports"),
    *("readinessProbe", "resizePolicy", "resources", "restartPolicy", "restartPolicyRules", "securityContext"),
    *("startupProbe", "stdin", "stdinOnce", "terminationMessagePath", "terminationMessagePolicy", "tty"),
    *("volumeDevices", "volumeMounts", "workingDir"),
}
ENTRY_FIELDS = _CONTAINER_FIELDS | {
    "algorithmName",
    "serviceAccountName",
    "volumeMountPath",
    "persistentVolumeClaimSpec",
    "persistentVolumeSpec",
    "persistentVolumeLabels",
}
"""Fields of Katib's type ``SuggestionConfig`` (pkg/apis/config/v1beta1/types.go): a container and six more. Katib
ignores any other without a word."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is registered.

    Attributes:
        data: the entry as Katib reads it.
        owner: ``namespace/release`` that it belongs to.
    """

    data: Mapping[str, Any]
    owner: str

    @property
    def algorithm(self) -> str:
        """The algorithm's name."""
        return str(self.data["algorithmName"])


@dataclass(frozen=True, slots=True)
class Change:
    """What was done, or would be.

    Attributes:
        before: the text of Katib's configuration.
        after: the new text; equal to ``before`` when there was nothing to do.
        kept_text: whether all text that is not ours was kept byte for byte.
        others: owners of entries of the same name that were left alone (unregister only).
        experiments: ``namespace/name`` of the Experiments that name an algorithm which Katib does not know any more;
            None when the account may not list them (unregister only).
    """

    before: str
    after: str
    kept_text: bool = True
    others: tuple[str, ...] = ()
    experiments: tuple[str, ...] | None = ()

    @property
    def changed(self) -> bool:
        """Whether anything is different."""
        return self.before != self.after

    def diff(self, namespace: str) -> str:
        """The change as a unified diff; empty when there is none."""
        before, after = (text.splitlines(keepends=True) for text in (self.before, self.after))
        name = f"{namespace}/{CONFIG_MAP}/{KEY}"
        lines = difflib.unified_diff(before, after, name, f"{name} (registered)")
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def load_entry(path: Path) -> Entry:
    """Read an entry from a file: one mapping, as katib/registration/language-bo.yaml holds it.

    Raises:
        InvalidInput: with every mistake.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput([Problem(str(path), error.strerror or "", "a file that can be read")]) from error
    except (yaml.YAMLError, ValueError):
        raise InvalidInput([Problem(str(path), "no YAML", "one mapping in YAML")]) from None
    if not isinstance(data, dict):
        raise InvalidInput([Problem(str(path), type(data).__name__, "one mapping: the entry of one algorithm")])
    problems = [
        Problem(
            f"{path}: {field}", "a field that Katib would ignore", "the fields of a container and of SuggestionConfig"
        )
        for field in data
        if field not in ENTRY_FIELDS
    ]
    name, image, owner = data.get("algorithmName"), data.get("image"), owner_of(data)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        problems.append(Problem(f"{path}: algorithmName", str(name), "a DNS label: lower-case letters, digits, dashes"))
    if not isinstance(image, str) or not image.strip():
        problems.append(Problem(f"{path}: image", str(image), "the image of the suggestion service"))
    ports = data.get("ports")
    for index, port in enumerate(ports if isinstance(ports, list) else []):
        if isinstance(port, dict) and (port.get("containerPort") == 6789 or port.get("name") == "suggestion-api"):
            allowed = "ports other than 6789 and suggestion-api: Katib adds that one itself and refuses ours"
            problems.append(Problem(f"{path}: ports[{index}]", str(port), allowed))
    if not owner:
        problems.append(Problem(f"{path}: env", "no owner", f"a variable {OWNER_VARIABLE} with namespace/release"))
    if problems:
        raise InvalidInput(problems)
    return Entry(data, str(owner))


def register(
    cluster: Cluster,
    namespace: str,
    entry: Entry,
    *,
    force: bool = False,
    dry_run: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Change:
    """Put the entry into Katib's configuration, or make the one that is there equal to it.

    Args:
        cluster: where.
        namespace: Katib's namespace.
        entry: what to register.
        force: replace entries of the same name that are not ours.
        dry_run: change nothing.
        sleep: waits between the tries after a conflict.

    Raises:
        InvalidInput: the ConfigMap is missing or cannot be understood, or holds an entry of the same name that is not
            ours.
        SurroundingsError: the API server failed, refused, or others wrote the ConfigMap at each of our tries.
    """

    def edit(text: str) -> Change:
        document = Document(text, f"ConfigMap {namespace}/{CONFIG_MAP}, {KEY}")
        ours = document.named(entry.algorithm)
        present = [document.entries[index] for index in ours]
        if present == [entry.data]:
            return Change(text, text)
        foreign = sorted({_described(item) for item in present if owner_of(item) != entry.owner})
        if foreign and not force:
            allowed = f"no such entry, or one that {entry.owner} registered (--force replaces it)"
            raise InvalidInput([Problem(f"algorithm {entry.algorithm}", "; ".join(foreign), allowed)])
        done = document.replace(ours, entry.data)
        return Change(text, done.text, done.kept_text)

    return _read_modify_write(cluster, namespace, edit, dry_run=dry_run, sleep=sleep)


def unregister(
    cluster: Cluster,
    namespace: str,
    entry: Entry,
    *,
    force: bool = False,
    dry_run: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Change:
    """Take our entry out of Katib's configuration; entries of the same name with another owner stay.

    There being nothing to take out, or no Katib at all any more, is success: this may be done again at any time.

    Katib's webhook refuses every change of an Experiment whose algorithm it does not know, the removal of Katib's own
    finalizer included: such an Experiment, ended or not, can never be deleted, nor can its namespace. So the entry
    stays while an Experiment names it. One that is made between the look and the write is not seen.

    Args:
        cluster: where.
        namespace: Katib's namespace.
        entry: what to take out.
        force: take it out although Experiments name it.
        dry_run: change nothing.
        sleep: waits between the tries after a conflict.

    Raises:
        InvalidInput: the ConfigMap cannot be understood, or Experiments name the algorithm.
        SurroundingsError: the API server failed, refused, or others wrote the ConfigMap at each of our tries.
    """

    def edit(text: str) -> Change:
        document = Document(text, f"ConfigMap {namespace}/{CONFIG_MAP}, {KEY}")
        named = document.named(entry.algorithm)
        ours = [index for index in named if owner_of(document.entries[index]) == entry.owner]
        others = tuple(_described(document.entries[index]) for index in named if index not in ours)
        if not ours:
            return Change(text, text, others=others)
        # With another's entry of the name left, Katib goes on knowing the algorithm.
        experiments = () if others else _experiments_naming(cluster, entry.algorithm, sleep)
        if experiments and not force:
            allowed = (
                "an algorithm that no Experiment names, ended or not, since Katib lets none of them be deleted once "
                "it is gone: delete them first (kubectl delete experiment NAME --namespace=NAMESPACE), or --force"
            )
            raise InvalidInput([Problem(f"algorithm {entry.algorithm}", f"named by {listed(experiments)}", allowed)])
        done = document.replace(ours, None)
        return Change(text, done.text, done.kept_text, others, experiments)

    try:
        return _read_modify_write(cluster, namespace, edit, dry_run=dry_run, sleep=sleep)
    except _NoKatib:
        return Change("", "")


def listed(experiments: Sequence[str]) -> str:
    """Experiments for a message: the first few by name, and how many more."""
    more = len(experiments) - _NAMED
    names = ", ".join(experiments[:_NAMED])
    return f"Experiment{'s' * (len(experiments) > 1)} {names}{f' and {more} more' if more > 0 else ''}"


def label_namespace(cluster: Cluster, name: str) -> bool:
    """Let Katib collect metrics in a namespace; return whether its label had to be set.

    Raises:
        InvalidInput: there is no such namespace.
        SurroundingsError: the API server failed or refused.
    """
    label, value = INJECTION_LABEL
    path = f"/api/v1/namespaces/{name}"
    try:
        labels = cluster.get(path)["metadata"].get("labels") or {}
        if labels.get(label) == value:
            return False
        cluster.patch(path, {"metadata": {"labels": {label: value}}})
    except NotThere:
        raise InvalidInput([Problem("--label-namespace", name, "a namespace that exists")]) from None
    return True


class _NoKatib(InvalidInput):
    """The ConfigMap is not there."""


def _experiments_naming(cluster: Cluster, algorithm: str, sleep: Callable[[float], None]) -> tuple[str, ...] | None:
    """``namespace/name`` of every Experiment with this algorithm, sorted; None when the account may not list them."""

    def once() -> set[str]:
        return {
            f"{item['metadata']['namespace']}/{item['metadata']['name']}"
            for item in cluster.items(EXPERIMENTS)
            if ((item.get("spec") or {}).get("algorithm") or {}).get("algorithmName") == algorithm
        }

    try:
        found = call(once, is_temporary=lambda error: isinstance(error, Expired), backoff=LISTINGS, sleep=sleep)
    except NotThere:
        return ()  # Katib's kinds went away before its configuration did
    except Forbidden:
        return None
    return tuple(sorted(found))


def _described(entry: object) -> str:
    image = entry.get("image") if isinstance(entry, dict) else None
    owner = owner_of(entry)
    return f"image {image}, {f'registered by {owner}' if owner else 'not registered by Rankwise'}"


def _read_modify_write(
    cluster: Cluster,
    namespace: str,
    edit: Callable[[str], Change],
    *,
    dry_run: bool,
    sleep: Callable[[float], None],
) -> Change:
    path = f"/api/v1/namespaces/{namespace}/configmaps/{CONFIG_MAP}"

    def once() -> Change:
        found = cluster.get(path)
        data = found.get("data") or {}
        if KEY not in data:
            allowed = f"a key {KEY}, as Katib 0.16 and later have it"
            raise InvalidInput([Problem(f"ConfigMap {namespace}/{CONFIG_MAP}", ", ".join(data) or "no keys", allowed)])
        change = edit(data[KEY])
        if change.changed and not dry_run:
            if found.get("immutable"):
                allowed = "a ConfigMap that may be changed"
                raise InvalidInput([Problem(f"ConfigMap {namespace}/{CONFIG_MAP}", "immutable: true", allowed)])
            version = found["metadata"]["resourceVersion"]
            # Only our key is sent: whatever else the object holds stays as the server has it.
            cluster.patch(path, {"metadata": {"resourceVersion": version}, "data": {KEY: change.after}})
        return change

    try:
        return call(once, is_temporary=lambda error: isinstance(error, Conflict), backoff=CONFLICTS, sleep=sleep)
    except NotThere:
        allowed = f"Katib's namespace: it holds the ConfigMap {CONFIG_MAP}"
        raise _NoKatib([Problem("--katib-namespace", namespace, allowed)]) from None
    except Conflict:
        raise SurroundingsError(
            f"ConfigMap {namespace}/{CONFIG_MAP} was changed by someone else at each of {CONFLICTS.attempts} tries; "
            "nothing of ours was written"
        ) from None
