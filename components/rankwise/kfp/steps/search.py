"""The search of a run, on a cluster by Katib or on this machine by our own engine, and what it leaves behind."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rankwise.artifacts.store import Store, open_store
from rankwise.errors import InvalidInput, Problem
from rankwise.kfp import experiments
from rankwise.kfp.launcher import (
    Deleted,
    ExperimentFailed,
    KatibLauncher,
    Launched,
    LaunchOptions,
    TooLate,
    experiment_name,
)
from rankwise.kfp.steps.data import pinned
from rankwise.local.experiment import Experiment
from rankwise.report.facts import SearchFacts, facts_from_dict, facts_to_dict

KATIB, LOCAL = "katib", "local"
ENGINES = (KATIB, LOCAL)
STORE_VARIABLE = "RANKWISE_STORE"


@dataclass(frozen=True, slots=True)
class SearchPaths:
    """Where the parts of a search's result go: see :func:`write_search`."""

    best: Path
    trials: Path
    search: Path
    report: Path
    summary: Path


@dataclass(frozen=True, slots=True)
class Best:
    """The best trial of a search, as the steps after it read it.

    Attributes:
        experiment, namespace: where it was found; namespace "" on one machine.
        trial: its name.
        assignments: parameter -> value in Katib's text form.
        metric: the objective.
        value: its value on validation.
        data: reference of the data that the trials read.
    """

    experiment: str
    namespace: str
    trial: str
    assignments: Mapping[str, str]
    metric: str
    value: float
    data: str

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = {name: getattr(self, name) for name in self.__slots__}
        path.write_text(json.dumps(fields | {"assignments": dict(self.assignments)}, indent=1), encoding="utf-8")


def read_best(path: Path) -> Best:
    """Read what :meth:`Best.write` wrote.

    Raises:
        InvalidInput: it is something else.
    """
    try:
        return Best(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InvalidInput([Problem("best", type(error).__name__, "the artifact `best` of the step `tune`")]) from None


def read_search(path: Path) -> SearchFacts:
    """Read the facts that :func:`write_search` wrote.

    Raises:
        InvalidInput: with every mistake.
    """
    return facts_from_dict(json.loads(path.read_text(encoding="utf-8")))


def trials_store(engine: str, folder: Path, environment: Mapping[str, str] | None = None) -> Store:
    """The store of a run's trials: ``RANKWISE_STORE``, and on one machine without it ``<folder>/store``.

    Raises:
        InvalidInput: a cluster's trials have no store, or the URI is wrong.
    """
    env = os.environ if environment is None else environment
    uri = env.get(STORE_VARIABLE, "")
    if not uri and engine == KATIB:
        allowed = "s3://bucket/prefix, with S3_ENDPOINT and keys: trials and steps share data and adapters there"
        raise InvalidInput([Problem(STORE_VARIABLE, uri, allowed)])
    return open_store(uri or str(folder.absolute() / "store"), env)


def search(
    text: str,
    run: str,
    *,
    engine: str,
    data: Path | None,
    paths: SearchPaths,
    namespace: str = "",
    hours: float = 0.0,
    delete_on_cancel: bool = True,
    folder: Path = Path("runs"),
) -> tuple[Best, SearchFacts]:
    """Search, or go on with the search of an earlier attempt, and write down what came out.

    Args:
        text: the Experiment.
        run: id of the run, the same in every attempt.
        engine: ``katib`` or ``local``.
        data: prepared data (:func:`rankwise.kfp.steps.data.prepare`) that the trials read; None leaves the trials'
            command as it is, so that it may be any program.
        paths: where the result goes.
        namespace: of the Experiment on a cluster; "" takes the pod's own.
        hours: after which the search is given up, however many attempts there were; 0 for never.
        delete_on_cancel: see :class:`rankwise.kfp.launcher.LaunchOptions`.
        folder: on one machine: run folders, and the store where ``RANKWISE_STORE`` names none.

    Raises:
        InvalidInput: the Experiment is wrong: every mistake.
        ExperimentFailed, TooLate: see :meth:`rankwise.kfp.launcher.KatibLauncher.launch`.
        SurroundingsError: the cluster, the store or the disk failed.
    """
    _check(engine, hours)
    experiment = experiments.read(text, ours_alone=engine == LOCAL)
    reference = None if data is None else pinned(trials_store(engine, folder), data)
    document = experiments.search_document(experiment, reference, finals=engine == KATIB)
    if engine == KATIB:
        options = LaunchOptions(timeout=hours * 3600 or None, delete_on_cancel=delete_on_cancel)
        facts = _on_cluster(document, experiment, run, namespace, options)
    else:
        facts = _on_this_machine(document, experiment, run, folder)
    # The Experiment was launched without its annotations on one machine; the report compares with the default.
    facts = replace(facts, default_configuration=experiment.default_configuration)
    best = facts.best
    if best is None or best.value is None:
        if any(trial.value is not None for trial in facts.trials):
            said = "keeps its bounds, or has what it weighs"
        else:
            said = "has a value of its objective"
        raise ExperimentFailed(f"no trial of Experiment {facts.experiment} {said}")
    found = Best(
        experiment=facts.experiment,
        namespace=facts.namespace,
        trial=best.name,
        assignments=dict(best.assignments),
        metric=facts.objective.metric,
        value=best.value,
        data=reference or "",
    )
    found.write(paths.best)
    write_search(facts, experiment, paths)
    return found, facts


def _check(engine: str, hours: float) -> None:
    problems = []
    if engine not in ENGINES:
        problems.append(Problem("engine", engine, f"one of {', '.join(ENGINES)}"))
    if not 0 <= hours < float("inf"):
        problems.append(Problem("hours", repr(hours), "a number from 0; 0 waits for as long as it takes"))
    if problems:
        raise InvalidInput(problems)


def _on_cluster(
    document: dict[str, object], experiment: Experiment, run: str, namespace: str, options: LaunchOptions
) -> SearchFacts:
    # The client takes a second to load; a search on one machine needs none.
    from rankwise.cluster.client import api_client
    from rankwise.cluster.facts import search_facts
    from rankwise.kfp.kubernetes_api import KubernetesKatib, own_namespace

    uri = os.environ.get(STORE_VARIABLE) or None
    store = None if uri is None else open_store(uri, os.environ)
    name = experiment_name(experiment.name, run, experiment.algorithm_name)
    with api_client() as api:
        katib = KubernetesKatib(api, namespace or own_namespace())
        given_up = f"pipeline-runs/{katib.namespace}/{name}/given-up.txt"
        launched = launch_once(KatibLauncher(katib, options), document, run, store, given_up)
    return search_facts(launched.snapshot, uri)


def launch_once(
    launcher: KatibLauncher, document: Mapping[str, object], run: str, store: Store | None, key: str
) -> Launched:
    """Launch, unless an earlier attempt of the run gave up.

    Kubeflow Pipelines repeats a failed step whatever failed. An Experiment that was out of time, or that somebody
    deleted to stop it, must not be made again by that: the store remembers it.

    Args:
        launcher: of the namespace.
        document, run: as for :meth:`KatibLauncher.launch`, which this raises what it raises.
        store: of the run; without one nothing is remembered.
        key: where in it.
    """
    if store is not None and store.exists(key):
        raise ExperimentFailed(store.get_bytes(key).decode())
    try:
        return launcher.launch(document, run)
    except (TooLate, Deleted) as error:
        if store is not None:
            store.put_bytes(key, f"{error}; to search again, start a new run".encode())
        raise


def _on_this_machine(document: dict[str, object], experiment: Experiment, run: str, folder: Path) -> SearchFacts:
    from rankwise.local.command import exit_code
    from rankwise.local.engine import run as run_engine
    from rankwise.local.progress import choose_output

    name = experiment_name(experiment.name, run, experiment.algorithm_name)
    document["metadata"] = {**experiment.document["metadata"], "name": name} | _kept(document)
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    # JSON is YAML, and quotes "2e-5", which PyYAML takes for a text and Kubernetes for a number.
    file = place / "launched.json"
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    result = run_engine(file, place, output=choose_output(sys.stdout))
    if exit_code(result) != 0:
        raise ExperimentFailed(f"{result.verdict.message}; the trials' outputs are in {place / 'trials'}")
    return result.facts


def _kept(document: Mapping[str, object]) -> dict[str, object]:
    metadata = document.get("metadata")
    return {"annotations": metadata["annotations"]} if isinstance(metadata, dict) and "annotations" in metadata else {}


# ------------------------------------------------------------------------------------------------- what it leaves


def write_search(facts: SearchFacts, experiment: Experiment, paths: SearchPaths) -> None:
    """Write the table of trials (CSV), the facts (JSON), the report (HTML) and its summary (Markdown).

    Raises:
        SurroundingsError: the disk failed.
    """
    for path in (paths.trials, paths.search):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_trials(facts, paths.trials)
    paths.search.write_text(json.dumps(facts_to_dict(facts), ensure_ascii=False, allow_nan=False), encoding="utf-8")
    write_pages(facts, experiment, paths.report, paths.summary)


def write_trials(facts: SearchFacts, path: Path) -> None:
    """A row a trial: name, how it ended, objective, what it took, then parameters and metrics under their names."""
    metrics = sorted({name for trial in facts.trials for name in trial.metrics} - {facts.objective.metric})
    parameters = [parameter.name for parameter in facts.parameters]
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        head = ["trial", "ended", facts.objective.metric, "wall_seconds"]
        writer.writerow(head + [f"parameter.{name}" for name in parameters] + [f"metric.{name}" for name in metrics])
        for trial in facts.trials:
            row = [trial.name, trial.state_words, trial.value, trial.seconds]
            row += [trial.assignments.get(name, "") for name in parameters]
            writer.writerow(row + [trial.metrics.get(name) for name in metrics])


def write_pages(facts: SearchFacts, experiment: Experiment, page: Path, summary: Path) -> None:
    """The report as one HTML page and as Markdown.

    Raises:
        SurroundingsError: the disk failed.
    """
    # plotly and Optuna take seconds to load.
    import shutil
    import tempfile

    from rankwise.local.landscape import with_landscape
    from rankwise.report.write import write_report

    with tempfile.TemporaryDirectory(prefix="rankwise-report-") as scratch:
        written = write_report(with_landscape(facts, experiment.space), Path(scratch))
        for source, target in ((written.html, page), (written.markdown, summary)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def search_metrics(facts: SearchFacts) -> dict[str, float]:
    """Numbers of a search for the UI's table: the best objective, trials by their end, hours."""
    found: dict[str, float] = {"trials": float(len(facts.trials))}
    if facts.best is not None and facts.best.value is not None:
        found[f"best_{facts.objective.metric}"] = facts.best.value
    for trial in facts.trials:
        name = f"trials_{trial.state.value}"
        found[name] = found.get(name, 0.0) + 1.0
    if facts.started is not None and facts.completed is not None:
        found["hours"] = (facts.completed - facts.started).total_seconds() / 3600
    return found
