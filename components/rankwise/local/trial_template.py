"""The trial template: reading it, and making a trial's manifest and command of it as Katib and the kubelet do."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.errors import InvalidInput, Problem
from rankwise.local.fields import Fields, kind_of, scalar_text, shown, suggestion
from rankwise.space import ParameterText

TEMPLATE = "spec.trialTemplate"
TRIAL_SPEC = f"{TEMPLATE}.trialSpec"
JOB_SUCCESS = 'status.conditions.#(type=="Complete")#|#(status=="True")#'
JOB_FAILURE = 'status.conditions.#(type=="Failed")#|#(status=="True")#'

_CONTAINERS = "spec.template.spec.containers"
_PLACEHOLDER = re.compile(r"\$\{trialParameters\.(.+?)\}")
_META = re.compile(r"\$\{trialSpec\.(.+?)\}")
_INDEXED = re.compile(r"(.+)\[(.+)\]")
# What looks like a placeholder once the good ones are gone: "{trialParameters.x}", "${trialParameter.x}".
_MISSPELT = re.compile(r"\$\{?\s*trial_?param\w*|\{\s*trial_?param\w*", re.IGNORECASE)
_META_KEYS = "${trialSpec.Name}, ${trialSpec.Namespace}, ${trialSpec.Kind}, ${trialSpec.APIVersion}, "
_META_KEYS += "${trialSpec.Labels[key]} or ${trialSpec.Annotations[key]}"
_LABEL_PATH = re.compile(r"metadata\.labels\['(rankwise\.dev/[^']+)'\]")
_CONTAINER_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_BAD_IN_NAMES = '{}"\\<>&'  # braces end a placeholder; the others are escaped in the JSON that Katib searches


@dataclass(frozen=True, slots=True)
class TrialParameter:
    """One ``trialParameters`` entry: ``${trialParameters.name}`` becomes the value of ``reference``."""

    name: str
    reference: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class TrialTemplate:
    """What a trial runs.

    Attributes:
        manifest: the trialSpec, with placeholders.
        primary_container: name of the container whose process is the trial.
        parameters: what the placeholders stand for.
        success_condition, failure_condition: GJSON conditions on the trial's status (for a cluster).
        retain: whether a cluster keeps the finished trial's objects.
        primary_pod_labels: labels of the pod with the primary container (for a cluster).
    """

    manifest: Mapping[str, Any]
    primary_container: str
    parameters: tuple[TrialParameter, ...]
    success_condition: str = JOB_SUCCESS
    failure_condition: str = JOB_FAILURE
    retain: bool = False
    primary_pod_labels: Mapping[str, str] | None = None

    @property
    def container(self) -> dict[str, Any]:
        """The primary container, placeholders not replaced."""
        return _primary(self.manifest, self.primary_container)

    @property
    def container_env(self) -> dict[str, str]:
        """The primary container's variables that have a value, placeholders not replaced."""
        return _environment(self.container)


@dataclass(frozen=True, slots=True)
class RenderedTrial:
    """A trial ready to run.

    Attributes:
        command: ``command`` and ``args`` of the primary container, ``$(NAME)`` of its variables written out.
        env: its variables that have a value, or that are a label of ours (:func:`label_of`). Those with another
            ``valueFrom``, and ``envFrom``, exist on a cluster only.
        workdir: its ``workingDir``.
        manifest: the whole object as Katib would create it.
    """

    command: list[str]
    env: dict[str, str]
    workdir: str | None
    manifest: dict[str, Any]


# -- rendering ---------------------------------------------------------------------------------------------------------


def render(
    template: TrialTemplate,
    trial_name: str,
    namespace: str,
    assignments: Mapping[str, str],
    labels: Mapping[str, str] | None = None,
) -> RenderedTrial:
    """Make a trial.

    Args:
        template: see :class:`TrialTemplate`.
        trial_name: becomes the object's name.
        namespace: the experiment's.
        assignments: parameter -> value, exactly for the parameters that the template refers to.
        labels: of the suggestion; Katib puts them on the pod, whose variables may read them.

    Raises:
        ValueError: the assignments name other parameters.
        InvalidInput: a value breaks the JSON that Katib pastes it into.
    """
    values: dict[str, str] = {}
    referred: set[str] = set()
    for parameter in template.parameters:
        meta = _meta_value(parameter.reference, template.manifest, trial_name, namespace)
        if meta is not None:
            values[parameter.name] = meta
            continue
        if parameter.reference not in assignments:
            raise ValueError(f"trial {trial_name!r} has no value for parameter {parameter.reference!r}")
        referred.add(parameter.reference)
        values[parameter.name] = assignments[parameter.reference]
    if unused := sorted(set(assignments) - referred):
        raise ValueError(f"trial {trial_name!r} has values for {unused}, which the template does not refer to")
    manifest = _paste(_as_json(template.manifest), values)
    if manifest is None:
        given = json.dumps(dict(assignments), ensure_ascii=False)
        raise InvalidInput([Problem(TRIAL_SPEC, given, "values that leave the template valid JSON")])
    metadata = manifest.get("metadata")
    manifest["metadata"] = {**(metadata if isinstance(metadata, dict) else {})}
    manifest["metadata"] |= {"name": trial_name, "namespace": namespace}
    container = _primary(manifest, template.primary_container)
    environment = _environment(container, labels or {})
    words = [*container.get("command", []), *(container.get("args") or [])]
    return RenderedTrial(
        command=[expand_variables(scalar_text(word), environment) for word in words],
        env=environment,
        workdir=container.get("workingDir") or None,
        manifest=manifest,
    )


def expand_variables(text: str, environment: Mapping[str, str]) -> str:
    """``$(NAME)`` replaced by the variable's value, ``$$`` by ``$``, as the kubelet does; unknown names stay."""

    def replaced(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else environment.get(name, match.group(0))

    return re.sub(r"\$(?:\$|\(([^)]*)\))", replaced, text)


def _as_json(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, ensure_ascii=False)


def _paste(template: str, values: Mapping[str, str]) -> dict[str, Any] | None:
    """The template with raw values in place of the placeholders; None when the result is no JSON object.

    Every placeholder is replaced once; one that a value brings along stays.
    """
    pasted = _PLACEHOLDER.sub(lambda match: values.get(match.group(1), match.group(0)), template)
    try:
        manifest = json.loads(pasted)
    except ValueError:
        return None
    return manifest if isinstance(manifest, dict) else None


def _meta_value(reference: str, manifest: Mapping[str, Any], trial_name: str, namespace: str) -> str | None:
    """What a reference to the trial's own metadata stands for; None when it refers to a parameter.

    Raises:
        ValueError: it refers to metadata that does not exist.
    """
    match = _META.search(reference)
    if match is None:
        return None
    key = match.group(1)
    simple = {
        "Name": trial_name,
        "Namespace": namespace,
        "Kind": str(manifest.get("kind", "")),
        "APIVersion": str(manifest.get("apiVersion", "")),
    }
    if key in simple:
        return simple[key]
    indexed = _INDEXED.fullmatch(key)
    if indexed is not None and indexed.group(1) in ("Labels", "Annotations"):
        metadata = manifest.get("metadata")
        entries = metadata.get(indexed.group(1).lower()) if isinstance(metadata, dict) else None
        if isinstance(entries, dict) and indexed.group(2) in entries:
            return scalar_text(entries[indexed.group(2)])
    raise ValueError(f"{reference!r} refers to metadata that the trialSpec does not have")


def _containers(manifest: Mapping[str, Any]) -> list[Any] | None:
    value: Any = manifest
    for key in _CONTAINERS.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, list) else None


def _primary(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    for container in _containers(manifest) or []:
        if isinstance(container, dict) and container.get("name") == name:
            return container
    raise ValueError(f"the trialSpec has no container {name!r}")


def label_of(entry: Mapping[str, Any]) -> str | None:
    """The label of ours (``rankwise.dev/…``) that a container's variable reads through the downward API; else None.

    These are what a suggestion tells its trial beyond the parameters. Katib puts them on the pod.
    """
    source = entry.get("valueFrom")
    reference = source.get("fieldRef") if isinstance(source, dict) else None
    path = reference.get("fieldPath") if isinstance(reference, dict) else None
    match = _LABEL_PATH.fullmatch(path) if isinstance(path, str) else None
    return None if match is None else match.group(1)


def _environment(container: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> dict[str, str]:
    environment: dict[str, str] = {}
    for entry in container.get("env") or []:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            continue
        if not entry.get("valueFrom"):
            # A variable may use those before it.
            environment[entry["name"]] = expand_variables(scalar_text(entry.get("value")), environment)
        elif labels is not None and (label := label_of(entry)) is not None:
            environment[entry["name"]] = labels.get(label, "")  # as the kubelet does for a label that is not there
    return environment


# -- reading -----------------------------------------------------------------------------------------------------------

_TEMPLATE_KEYS = (
    "retain",
    "trialSpec",
    "configMap",
    "trialParameters",
    "primaryPodLabels",
    "primaryContainerName",
    "successCondition",
    "failureCondition",
)


def read_template(spec: Fields, parameters: Sequence[ParameterText]) -> TrialTemplate | None:
    """Read ``spec.trialTemplate``; problems go to the fields' list, None when it cannot be made."""
    problems = spec.problems
    before = len(problems)
    if not spec.has("trialTemplate"):
        spec.problem("trialTemplate", None, "what a trial runs: trialSpec, trialParameters, primaryContainerName")
        return None
    fields = spec.below("trialTemplate", _TEMPLATE_KEYS)
    if fields.has("configMap"):
        fields.problem("configMap", fields.values["configMap"], "nothing: write the template into trialSpec")
    manifest = fields.values.get("trialSpec")
    primary = fields.text("primaryContainerName", required="the name of the container that trains")
    if primary and not _CONTAINER_NAME.fullmatch(primary):
        fields.problem("primaryContainerName", primary, "lower case letters, digits and -, first and last no -")
    names = {parameter.name for parameter in parameters}
    trial_parameters = _read_trial_parameters(fields, names, manifest if isinstance(manifest, dict) else {})
    if isinstance(manifest, dict):
        _check_manifest(manifest, primary, problems)
        _check_placeholders(fields, manifest, trial_parameters)
        _check_values(manifest, trial_parameters, parameters, problems)
    elif not fields.has("configMap"):
        fields.problem("trialSpec", manifest, f"a mapping: the trial's manifest, not {kind_of(manifest)}")
    needed = isinstance(manifest, dict) and manifest.get("kind") != "Job"
    conditions = [
        fields.text(key, "" if needed else default, required="a GJSON condition on the trial's status")
        for key, default in (("successCondition", JOB_SUCCESS), ("failureCondition", JOB_FAILURE))
    ]
    retain = fields.boolean("retain", default=False)
    labels = fields.text_mapping("primaryPodLabels")
    if len(problems) > before or not isinstance(manifest, dict):
        return None
    return TrialTemplate(manifest, primary, trial_parameters, conditions[0], conditions[1], retain, labels or None)


def _read_trial_parameters(
    fields: Fields, names: Collection[str], manifest: Mapping[str, Any]
) -> tuple[TrialParameter, ...]:
    entries: list[TrialParameter] = []
    for item in fields.each("trialParameters", ("name", "reference", "description")):
        name = item.text("name", required="a name that a placeholder has")
        reference = item.text("reference", required="the name of a parameter")
        if any(character in name for character in _BAD_IN_NAMES):
            item.problem("name", name, f"a name without any of {' '.join(_BAD_IN_NAMES)}")
        elif name and name in (entry.name for entry in entries):
            item.problem("name", name, "a name that no other trialParameter has")
        if reference and reference in (entry.reference for entry in entries):
            item.problem("reference", reference, "a reference that no other trialParameter has")
        elif reference:
            _check_reference(item, reference, names, manifest)
        entries.append(TrialParameter(name, reference, item.text("description")))
    missing = sorted(set(names) - {entry.reference for entry in entries} - {""})
    for name in missing:
        fields.problem("trialParameters", name, f"an entry whose reference is the parameter {name!r}")
    if not entries and not missing:
        fields.problem("trialParameters", None, "one entry for each parameter")
    return tuple(entries)


def _check_reference(item: Fields, reference: str, names: Collection[str], manifest: Mapping[str, Any]) -> None:
    if "${" not in reference:
        if names and reference not in names:  # without any parameter, that is the mistake
            allowed = f"a parameter of spec.parameters{suggestion(reference, names)}"
            item.problem("reference", reference, allowed)
        return
    if _META.fullmatch(reference) is None:
        item.problem("reference", reference, f"a parameter's name, or {_META_KEYS}")
        return
    try:
        _meta_value(reference, manifest, "trial", "namespace")
    except ValueError:
        item.problem("reference", reference, f"{_META_KEYS}; the key must stand in the trialSpec's metadata")


def _check_manifest(manifest: dict[str, Any], primary: str, problems: list[Problem]) -> None:
    """The parts of the trialSpec that Katib and we need."""
    for key, example in (("apiVersion", "batch/v1"), ("kind", "Job")):
        value = manifest.get(key)
        if not isinstance(value, str) or not value:
            allowed = f"a text, for example {example}"
            problems.append(Problem(f"{TRIAL_SPEC}.{key}", shown(value), allowed))
    metadata = manifest.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        problems.append(Problem(f"{TRIAL_SPEC}.metadata", shown(metadata), "a mapping"))
    for key in ("name", "namespace"):
        if isinstance(metadata, dict) and metadata.get(key):
            allowed = "nothing: Katib sets the trial's name and namespace"
            problems.append(Problem(f"{TRIAL_SPEC}.metadata.{key}", shown(metadata[key]), allowed))
    containers = _containers(manifest)
    here = f"{TRIAL_SPEC}.{_CONTAINERS}"
    if not containers:
        problems.append(Problem(here, shown(containers), "a list with the container that trains"))
        return
    names = []
    for i, container in enumerate(containers):
        if not isinstance(container, dict):
            problems.append(Problem(f"{here}[{i}]", shown(container), f"a mapping, not {kind_of(container)}"))
            continue
        names.append(scalar_text(container.get("name")))
        if primary and container.get("name") == primary:
            _check_container(container, f"{here}[{i}]", problems)
    if primary and primary not in names:
        allowed = f"a container of the trialSpec: {', '.join(names)}{suggestion(primary, names)}"
        problems.append(Problem(f"{TEMPLATE}.primaryContainerName", primary, allowed))


def _check_container(container: dict[str, Any], path: str, problems: list[Problem]) -> None:
    for key in ("command", "args"):
        words = container.get(key)
        if words is None and key == "args":
            continue
        if not isinstance(words, list) or not words:
            # Katib would look into the image's registry for the entry point; no such look-up happens here.
            allowed = "a list of texts" if key == "args" else "the command as a list of texts (no image is looked into)"
            if words != [] or key == "command":
                problems.append(Problem(f"{path}.{key}", shown(words), allowed))
            continue
        for i, word in enumerate(words):
            if not isinstance(word, str):
                problems.append(Problem(f"{path}.{key}[{i}]", shown(word), "a text; put it into quotes"))
    directory = container.get("workingDir")
    if directory is not None and not isinstance(directory, str):
        problems.append(Problem(f"{path}.workingDir", shown(directory), "a text"))
    entries = container.get("env")
    if entries is not None and not isinstance(entries, list):
        problems.append(Problem(f"{path}.env", shown(entries), f"a list, not {kind_of(entries)}"))
        return
    seen: set[str] = set()
    for i, entry in enumerate(entries or []):
        variable = Fields(entry, f"{path}.env[{i}]", ("name", "value", "valueFrom"), problems)
        name = variable.text("name", required="a variable's name")
        variable.text("value")
        if name and ("=" in name or "\0" in name):
            variable.problem("name", name, "a variable's name, without =")
        if name in seen:
            variable.problem("name", name, "a variable that is set once")
        seen.add(name)


def _strings(value: object, path: str) -> Iterator[tuple[str, str]]:
    """(path, text) of every text in a value, keys too."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _strings(item, f"{path}[{i}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{path}.{key}", key
            yield from _strings(item, f"{path}.{key}")


def _check_placeholders(fields: Fields, manifest: dict[str, Any], parameters: Sequence[TrialParameter]) -> None:
    names = [parameter.name for parameter in parameters]
    used: set[str] = set()
    for path, text in _strings(manifest, TRIAL_SPEC):
        for match in _PLACEHOLDER.finditer(text):
            used.add(match.group(1))
            if match.group(1) not in names:
                allowed = f"the name of a trialParameter{suggestion(match.group(1), names)}"
                fields.problems.append(Problem(path, match.group(0), allowed))
        rest = _PLACEHOLDER.sub("", text)
        if misspelt := _MISSPELT.search(rest):
            fields.problems.append(Problem(path, misspelt.group(0), "placeholders of the form ${trialParameters.NAME}"))
        if meta := _META.search(rest):
            allowed = "only placeholders of trialParameters; let a trialParameter refer to it"
            fields.problems.append(Problem(path, meta.group(0), allowed))
    for i, name in enumerate(names):
        if name and name not in used and not any(character in name for character in _BAD_IN_NAMES):
            allowed = f"a name that the trialSpec uses as ${{trialParameters.{name}}}"
            fields.problem(f"trialParameters[{i}].name", name, allowed)


def _check_values(
    manifest: dict[str, Any],
    trial_parameters: Sequence[TrialParameter],
    parameters: Sequence[ParameterText],
    problems: list[Problem],
) -> None:
    """Katib pastes values raw into JSON: a quotation mark in a category would break every trial that draws it."""
    template = _as_json(manifest)
    names = {parameter.reference: parameter.name for parameter in trial_parameters}
    for i, parameter in enumerate(parameters):
        if parameter.name not in names:
            continue
        for k, value in enumerate(parameter.list):
            if _paste(template, {names[parameter.name]: value}) is None:
                place = f"spec.parameters[{i}].feasibleSpace.list[{k}]"
                problems.append(Problem(place, value, "a text that leaves the trialSpec valid JSON: no quotes"))
