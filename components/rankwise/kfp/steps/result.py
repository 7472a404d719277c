"""After the trainings: compare on the test split, report, register the adapter, say how the run ended."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from rankwise.artifacts.local import LocalStore
from rankwise.artifacts.manifest import Manifest
from rankwise.artifacts.store import NotFound, Store, check_key
from rankwise.errors import InvalidInput, Problem
from rankwise.kfp import experiments
from rankwise.kfp.steps.search import Best, read_best, read_search, write_pages
from rankwise.local.experiment import parse_experiment
from rankwise.local.run_facts import final_run, lead_baseline
from rankwise.report.analysis import Analysis, analyse
from rankwise.report.codec import decode, encode
from rankwise.report.facts import FinalRun, Finals, SearchFacts
from rankwise.report.to_markdown import to_markdown
from rankwise.train.place import ADAPTER, MANIFEST

PROMOTIONS = ("if-better", "always", "never")
BETTER = "better"
PRODUCTION = "production.json"


def read_manifest(model: Path) -> Manifest:
    """The manifest of a trained model's folder.

    Raises:
        InvalidInput: there is none.
    """
    try:
        return Manifest.from_json((model / MANIFEST).read_bytes())
    except OSError:
        allowed = "the artifact of the step `train`, with its manifest"
        raise InvalidInput([Problem("model", str(model.name), allowed)]) from None


def evaluate(
    text: str, *, best: Path, search: Path, best_model: Path, default_model: Path, finals: Path, summary: Path
) -> Analysis:
    """Compare both trained configurations on the test split, example by example.

    The trainings measured themselves, on the same examples in the same order; here it is decided what the difference
    is worth (:mod:`rankwise.report.compare`).

    Args:
        text: the Experiment.
        best, search: artifacts of the search.
        best_model, default_model: artifacts of the trainings.
        finals: where the final runs go, for the report.
        summary: where a page in Markdown goes.

    Raises:
        InvalidInput: the two were measured on different data, or not on a test split.
    """
    experiment = parse_experiment(text)
    assignments = {"best": read_best(best).assignments, "default": experiments.default_configuration(experiment)}
    folders = {"best": best_model, "default": default_model}
    manifests = {role: read_manifest(folder) for role, folder in folders.items()}
    _check_comparable(manifests["best"], manifests["default"])
    runs: dict[str, FinalRun] = {
        role: final_run(assignments[role], manifest, LocalStore(folders[role])) for role, manifest in manifests.items()
    }
    lead = lead_baseline([manifests["best"]], LocalStore(best_model))
    found = Finals(default=runs["default"], best=runs["best"], lead=lead)
    facts = replace(read_search(search), finals=found)
    analysis = analyse(facts)
    for path in (finals, summary):
        path.parent.mkdir(parents=True, exist_ok=True)
    finals.write_text(json.dumps(encode(found), ensure_ascii=False, allow_nan=False), encoding="utf-8")
    summary.write_text(to_markdown(facts, analysis), encoding="utf-8")
    return analysis


def _check_comparable(best: Manifest, default: Manifest) -> None:
    problems = []
    for name, manifest in (("best", best), ("default", default)):
        if manifest.test_metrics is None:
            problems.append(Problem(name, "no test metrics", "a training with --evaluate=test"))
    if (best.data.sha256, best.data.seed, best.data.test) != (
        default.data.sha256,
        default.data.seed,
        default.data.test,
    ):
        allowed = "the data and the test split of the best one: otherwise the difference means nothing"
        problems.append(Problem("default", f"data {default.data.sha256[:12]}", allowed))
    if problems:
        raise InvalidInput(problems)


def with_finals(facts: SearchFacts, finals: Path) -> SearchFacts:
    """The search's facts with the final runs that :func:`evaluate` wrote.

    Raises:
        InvalidInput: the file is something else.
    """
    return replace(facts, finals=decode(Finals, json.loads(finals.read_text(encoding="utf-8")), "finals"))


def report(text: str, *, search: Path, finals: Path, page: Path, summary: Path) -> None:
    """The whole report: search, final runs, the embedding space where the model is at hand.

    Raises:
        InvalidInput: an artifact is something else.
        SurroundingsError: the disk failed.
    """
    write_pages(with_finals(read_search(search), finals), parse_experiment(text), page, summary)


# ------------------------------------------------------------------------------------------------- registering


@dataclass(frozen=True, slots=True)
class Registered:
    """A registered adapter.

    Attributes:
        uri: folder of the version: ``adapter/``, ``manifest.json``, ``registered.json``.
        version: its name.
        in_production: whether ``models/<name>/production.json`` names it now.
        why: the decision in a sentence.
    """

    uri: str
    version: str
    in_production: bool
    why: str


def register(
    store: Store, name: str, model: Path, best: Best, *, run: str, headline: str, verdict: str, promote: str
) -> Registered:
    """Put the best adapter into the store as a version of a model, and into production where it has earned that.

    ::

        models/<name>/versions/<experiment>/   adapter/, manifest.json, registered.json
        models/<name>/production.json          which version is in production: one object, replaced at once

    A repeated call changes nothing.

    Args:
        store: where models are.
        name: of the model.
        model: artifact of the training.
        best: of the search; its Experiment names the version.
        run: id of the run.
        headline: of the comparison with the default configuration, ``better`` among others.
        verdict: the same in a sentence.
        promote: ``if-better``, ``always`` or ``never``.

    Raises:
        InvalidInput: the name or ``promote`` is wrong.
        SurroundingsError: the store failed.
    """
    problems = []
    if promote not in PROMOTIONS:
        problems.append(Problem("promote", promote, f"one of {', '.join(PROMOTIONS)}"))
    if "/" in name or not name:
        problems.append(Problem("name", name, "a name without slashes"))
    if problems:
        raise InvalidInput(problems)
    prefix = check_key(f"models/{name}/versions/{best.experiment}", "name")
    manifest = read_manifest(model)
    adapter = f"{prefix}/{ADAPTER}"
    entry = {
        "schema_version": 1,
        "model": name,
        "version": best.experiment,
        "adapter": adapter,
        "base_model": manifest.model.reference,
        "base_revision": manifest.model.revision,
        "experiment": best.experiment,
        "namespace": best.namespace,
        "trial": best.trial,
        "run": run,
        "test_metrics": dict(manifest.test_metrics or {}),
        "verdict": verdict,
    }
    text = json.dumps(entry, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    # The entry is written last: a version without it is one whose upload was interrupted.
    if not _holds(store, f"{prefix}/registered.json", text):
        store.put_folder(adapter, model / ADAPTER)
        store.put_bytes(f"{prefix}/{MANIFEST}", replace(manifest, artifacts={"adapter": adapter}).to_json().encode())
        store.put_bytes(f"{prefix}/registered.json", text.encode())
    promoted, why = _decision(promote, headline, verdict)
    if promoted:
        store.put_bytes(f"models/{name}/{PRODUCTION}", text.encode())
    return Registered(f"{store.uri}/{prefix}", best.experiment, promoted, why)


def _decision(promote: str, headline: str, verdict: str) -> tuple[bool, str]:
    if promote == "if-better":
        word = "in production" if headline == BETTER else "registered, not in production"
        return headline == BETTER, f"{word}: {verdict}"
    return promote == "always", f"{'in production' if promote == 'always' else 'registered'}, as promote={promote} says"


def _holds(store: Store, key: str, text: str) -> bool:
    try:
        return store.get_bytes(key) == text.encode()
    except NotFound:
        return False
