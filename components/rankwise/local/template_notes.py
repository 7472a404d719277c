"""What a trial template means elsewhere: what one machine leaves out of it, and what Katib's shell makes of it.

None of it is a mistake: the same file runs in both places, and whoever runs it should know where they differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rankwise.local.fields import scalar_text
from rankwise.local.trial_template import TrialTemplate, label_of

# Set by the engine itself, or without a meaning on one machine.
_ENGINE_SETS = frozenset(
    {
        "RANKWISE_NAMESPACE",
        "RANKWISE_EXPERIMENT",
        "RANKWISE_TRIAL",
        "RANKWISE_STORE",
        "RANKWISE_CACHE",
        "RANKWISE_THREADS",
    }
)
# The images' cache, which is RANKWISE_CACHE on one machine, and a folder that every machine has.
_OWN_MOUNTS = ("/var/cache/rankwise", "/tmp")  # noqa: S108 - a mount path, nothing is written there
_PLACEHOLDERS = re.compile(r"\$\{trialParameters\.[^}]*\}|\$\([A-Za-z_][\w.-]*\)")
_READ_BY_SHELL = re.compile(r"[^\w@%+=:,./{}-]", re.ASCII)


def machine_notes(template: TrialTemplate) -> list[str]:
    """What of a template matters for the result and cannot be honoured by ``rankwise run``, a sentence each.

    Image, resources, security context, service account and labels of the pod say how a cluster runs it, not what: they
    are left out without a word.
    """
    pod = template.manifest.get("spec", {}).get("template", {}).get("spec", {})
    container = template.container
    notes = []
    others = [
        scalar_text(other.get("name"))
        for key in ("initContainers", "containers")
        for other in _mappings(pod, key)
        if other is not container
    ]
    if others:
        notes.append(f"one machine runs the container {template.primary_container} alone, without {_listed(others)}")
    names = [
        entry["name"] for entry in _mappings(container, "env") if entry.get("valueFrom") and label_of(entry) is None
    ]
    missing = [name for name in names if name not in _ENGINE_SETS]
    if missing:
        notes.append(f"one machine does not set {_listed(missing)}: set it in the environment where it is needed")
    sources = [
        scalar_text(source.get("name"))
        for entry in _mappings(container, "envFrom")
        for source in entry.values()
        if isinstance(source, dict) and not source.get("optional")
    ]
    if sources:
        notes.append(f"one machine reads no variables from {_listed(sources)}: set them in the environment")
    mounts = [scalar_text(mount.get("mountPath")) for mount in _mappings(container, "volumeMounts")]
    if foreign := [path for path in mounts if path.rstrip("/") not in _OWN_MOUNTS]:
        notes.append(f"one machine mounts nothing at {_listed(foreign)}: its own folder is used there")
    resources = container.get("resources")
    limits = resources.get("limits") if isinstance(resources, dict) else None
    devices = [name for name in limits if "/" in name] if isinstance(limits, dict) else []
    if devices:
        notes.append(f"one machine reserves no {_listed(devices)}: trials side by side share its devices")
    return notes


def cluster_notes(template: TrialTemplate) -> list[str]:
    """Words of the command that Katib's shell would take apart.

    Katib joins the words with blanks and hands them to ``sh -c`` without quotes, so that the output can be collected.
    A command that is a script for ``sh -c`` itself is handed over as it is.
    """
    words = [scalar_text(word) for key in ("command", "args") for word in template.container.get(key) or []]
    if words[:2] in (["sh", "-c"], ["bash", "-c"]) and len(words) == 3:
        return []
    return [
        f"a cluster hands {word!r} to a shell without quotes, which reads more than one plain word in it; "
        "let the value come from a variable of the container"
        for word in words
        if _READ_BY_SHELL.search(_PLACEHOLDERS.sub("x", word)) or not word
    ]


def early_stopping_notes(template: TrialTemplate) -> list[str]:
    """What Katib 0.19 needs for early stopping beside ``spec.earlyStopping``.

    Its controller deletes a stopped trial's Job before it has read the trial's metrics, unless it is to be retained;
    the trial then never ends, and with it the Experiment. Seen on a cluster (tests/cluster/test_early_stopping.py).
    """
    if template.retain:
        return []
    return ["early stopping on a cluster needs spec.trialTemplate.retain: true, or the Experiment may never end"]


def _mappings(of: Mapping[str, Any], key: str) -> Iterator[dict[str, Any]]:
    found = of.get(key)
    yield from (item for item in (found if isinstance(found, list) else []) if isinstance(item, dict))


def _listed(names: list[str]) -> str:
    return ", ".join(names)
