"""Facts from what trials leave behind (manifests) and from a checked search space: the same for a run and a cluster."""

from __future__ import annotations

from collections.abc import Iterable

from rankwise.artifacts.manifest import Manifest, trial_key
from rankwise.artifacts.store import NotFound, Store
from rankwise.errors import InvalidInput
from rankwise.report.facts import CostFacts, DataFacts, EnvironmentFacts, MetricReport, ModelFacts, ParameterFacts
from rankwise.space.parameter import Parameter


def read_manifest(
    store: Store, experiment: str, trial: str, namespace: str | None = None
) -> tuple[Manifest | None, str]:
    """A trial's manifest and "", or None and why there is none ("" when the trial wrote none).

    Raises:
        SurroundingsError: the store failed after bounded retries.
    """
    try:
        key = trial_key(experiment, trial, "manifest.json", namespace=namespace)
        return Manifest.from_json(store.get_bytes(key)), ""
    except NotFound:
        return None, ""
    except InvalidInput as error:
        return None, f"its manifest cannot be read: {error}"


def cost_facts(manifest: Manifest | None) -> CostFacts:
    """What the training cost."""
    if manifest is None:
        return CostFacts()
    cost = manifest.cost
    return CostFacts(cost.seconds, cost.peak_memory_bytes, cost.energy_joules, cost.seconds_per_epoch)


def subset_share(manifest: Manifest | None) -> float | None:
    """Share of the training data that the trial was trained on, in (0, 1]; None when unknown."""
    if manifest is None or not 0 < manifest.data.subset <= manifest.data.train:
        return None
    return manifest.data.subset / manifest.data.train


def curve(manifest: Manifest) -> tuple[MetricReport, ...]:
    """The metrics at each evaluation, by optimizer step; what was not finite is left out."""
    entries = (({k: v for k, v in entry.items() if v is not None}) for entry in manifest.history)
    return tuple(
        MetricReport({k: v for k, v in entry.items() if k != "step"}, int(entry["step"]))
        for entry in entries
        if len(entry) > 1
    )


def parameter_facts(parameter: Parameter) -> ParameterFacts:
    """A checked parameter as facts."""
    listed = parameter.type.value in ("discrete", "categorical")
    numeric = parameter.type.value != "categorical"
    return ParameterFacts(
        name=parameter.name,
        type=parameter.type.value,
        distribution=parameter.distribution.value,
        low=_number(parameter.low) if numeric else None,
        high=_number(parameter.high) if numeric else None,
        step=_number(parameter.step) if numeric and not listed else None,
        values=parameter.values if listed else None,
    )


def _number(value: object) -> float | None:
    return None if value is None else float(str(value))


def environment_facts(manifests: Iterable[Manifest]) -> EnvironmentFacts:
    """Versions, model, data and seeds that the manifests tell; the last one decides where they differ.

    The first manifest's seeds stand for all: the trials of a search share them unless a seed is searched for.
    """
    versions: dict[str, str] = {}
    model: ModelFacts | None = None
    data: dict[str, DataFacts] = {}
    seeds: dict[str, int] = {}
    for manifest in manifests:
        code = manifest.code
        versions |= {"rankwise": code.rankwise, "python": code.python}
        versions |= {"torch": code.torch, "transformers": code.transformers, "peft": code.peft}
        if code.git_commit is not None:
            versions["git commit"] = code.git_commit + (" (changed)" if code.dirty else "")
        model = ModelFacts(manifest.model.reference, manifest.model.revision, manifest.model.layers)
        source = manifest.data
        data[source.reference] = DataFacts(
            source.reference, source.sha256, source.train, source.validation, source.test
        )
        seeds = {**manifest.seeds, **seeds}
    return EnvironmentFacts(versions=versions, model=model, data=tuple(data.values()), seeds=seeds)
