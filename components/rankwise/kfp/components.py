"""The components: typed steps for anybody's pipeline.

At module level only the standard library and kfp are imported, and this package's image and version; what a step does
is imported within it, in its pod. kfp copies a function's source into the compiled pipeline, so that a function uses
nothing of this module but its own arguments.

Artifacts carry their manifest (:mod:`rankwise.kfp.lineage`) as metadata. Steps end with the exit codes of the command
line: 2 wrong input (each mistake on a line), 3 the surroundings failed, 4 the search or the training failed.
"""

# No `from __future__ import annotations`: kfp reads the annotations as objects.
from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Model, Output

from rankwise.kfp.image import IMAGE

__all__ = ["embed", "evaluate", "finish", "register", "report", "subset", "train", "tune"]


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def subset(experiment: str, data: Output[Dataset], proxy: Output[Dataset], summary: Output[Markdown]) -> None:
    """Read the data that an Experiment's trials name; write all of it, and the part that a trial is trained on.

    Args:
        experiment: a Katib Experiment (YAML) whose trials run `rankwise train`.
        data: all examples as JSON lines, in the order of the source.
        proxy: the examples that a trial is trained on.
        summary: sizes, hash and some examples.
    """
    from pathlib import Path

    from rankwise.kfp.lineage import manifest
    from rankwise.kfp.steps.data import prepare
    from rankwise.kfp.steps.telling import telling

    with telling("subset"):
        done = prepare(experiment, Path(data.path), Path(proxy.path), Path(summary.path))
        sizes = {"train": done.train, "validation": done.validation, "test": done.test, "proxy": done.proxy}
        # No run among them: the step is cached, and it would be another run's.
        origin: dict[str, str | int | float] = {"data_sha256": done.sha256, "source": done.reference, **sizes}
        for artifact in (data, proxy, summary):
            artifact.metadata.update(manifest("subset", Path(artifact.path), origin, done.seeds))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def embed(experiment: str, run: str, metrics: Output[Metrics], vectors: Output[Artifact]) -> None:
    """Bring the search's language model and the vectors of its configurations into the cache ($RANKWISE_CACHE).

    A search on one machine reads that cache. On a cluster Katib's suggestion pod has one of its own; there the step
    finds a wrong setting before a GPU is asked for, and serves the report's picture where the cache is a volume.

    Args:
        experiment: a Katib Experiment (YAML).
        run: id of the pipeline's run, for the manifest.
        metrics: configurations, how many were embedded, seconds.
        vectors: the same with the model's identity, as JSON.
    """
    import json
    from pathlib import Path

    from rankwise.kfp.lineage import manifest
    from rankwise.kfp.steps.telling import telling
    from rankwise.kfp.steps.vectors import embed as embed_space

    with telling("embed"):
        done = embed_space(experiment)
        Path(vectors.path).parent.mkdir(parents=True, exist_ok=True)
        Path(vectors.path).write_text(json.dumps(done, indent=1), encoding="utf-8")
        vectors.metadata.update(manifest("embed", Path(vectors.path), {"run": run, **done}))
        for name, value in done.items():
            if not isinstance(value, str):
                metrics.log_metric(name, value)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def tune(
    experiment: str,
    run: str,
    best: Output[Artifact],
    trials: Output[Dataset],
    search: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[HTML],
    summary: Output[Markdown],
    # Not Optional[…]: backends hand inputs over by instance schema, and kfp then instantiates the annotation itself.
    data: Input[Dataset] = None,
    engine: str = "katib",
    namespace: str = "",
    hours: float = 0.0,
    delete_on_cancel: bool = True,
    folder: str = "runs",
) -> NamedTuple("Outputs", [("experiment_name", str), ("trial", str)]):  # type: ignore[valid-type]
    """Run a Katib Experiment and wait for its end; a repeated attempt goes on with the Experiment of the first.

    Usable on its own: without `data` the trials' command stays as it is and may be any program.

    Args:
        experiment: a Katib Experiment (YAML). Its name becomes the beginning of the launched one's.
        run: id of the pipeline's run, the same in every attempt: `dsl.PIPELINE_JOB_ID_PLACEHOLDER`.
        best: the best trial: name, assignments, value (JSON).
        trials: a row a trial (CSV).
        search: everything that is known of the search (JSON), for the steps `evaluate` and `report`.
        metrics: best value, trials by their end, hours.
        report: the report of the search.
        summary: the same, short.
        data: what `subset` wrote; the trials then read it from the store ($RANKWISE_STORE).
        engine: `katib`, or `local` for a search in this very container or on this machine.
        namespace: of the Experiment; empty: the step's own.
        hours: after which the search is given up and its Experiment deleted; 0: never.
        delete_on_cancel: whether the Experiment is deleted when the run is cancelled or out of time.
        folder: for `local`: where run folders are.

    Returns:
        experiment_name: name of the Experiment.
        trial: name of the best trial.
    """
    from pathlib import Path

    from rankwise.kfp.lineage import manifest
    from rankwise.kfp.steps import search as steps
    from rankwise.kfp.steps.telling import telling

    with telling("tune"):
        outputs = {"best": best, "trials": trials, "search": search, "report": report, "summary": summary}
        found, facts = steps.search(
            experiment,
            run,
            engine=engine,
            data=None if data is None else Path(data.path),
            paths=steps.SearchPaths(**{name: Path(artifact.path) for name, artifact in outputs.items()}),
            namespace=namespace,
            hours=hours,
            delete_on_cancel=delete_on_cancel,
            folder=Path(folder),
        )
        origin = {
            "run": run,
            "experiment": found.experiment,
            "namespace": found.namespace,
            "trial": found.trial,
            "data_sha256": "" if data is None else str(data.metadata.get("data_sha256", "")),
        }
        for artifact in outputs.values():
            artifact.metadata.update(manifest("tune", Path(artifact.path), origin, facts.environment.seeds))
        for name, value in steps.search_metrics(facts).items():
            metrics.log_metric(name, value)
    return (found.experiment, found.trial)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    experiment: str,
    run: str,
    role: str,
    best: Input[Artifact],
    data: Input[Dataset],
    model: Output[Model],
    metrics: Output[Metrics],
    engine: str = "katib",
    folder: str = "runs",
) -> None:
    """Train one configuration as the Experiment's annotation `rankwise.dev/final-arguments` says.

    A repeated attempt goes on from the checkpoint in the store, or finds the training finished.

    Args:
        experiment: the Katib Experiment (YAML).
        run: id of the pipeline's run, for the manifest.
        role: `best`, or `default` for the annotation `rankwise.dev/default-configuration`.
        best: the artifact of `tune`.
        data: the artifact of `subset`.
        model: folder with the adapter, its manifest and values per test example.
        metrics: on validation, and as `test_NAME` on the test split.
        engine: as for `tune`.
        folder: as for `tune`.
    """
    from pathlib import Path

    from rankwise.kfp.lineage import manifest
    from rankwise.kfp.steps.search import read_best
    from rankwise.kfp.steps.telling import telling
    from rankwise.kfp.steps.train import train as train_configuration

    with telling(f"train {role}"):
        done = train_configuration(
            experiment,
            role,
            best=Path(best.path),
            data=Path(data.path),
            engine=engine,
            folder=Path(folder),
            model=Path(model.path),
        )
        found = read_best(Path(best.path))
        origin = {
            "run": run,
            "experiment": found.experiment,
            "namespace": found.namespace,
            "trial": found.trial if role == "best" else "",
            "role": role,
            "data_sha256": done.data.sha256,
            "base_model": done.model.reference,
            "base_revision": done.model.revision,
            "git_commit": done.code.git_commit or "",
        }
        model.metadata.update(manifest("train", Path(model.path), origin, done.seeds))
        tested = {f"test_{name}": value for name, value in (done.test_metrics or {}).items()}
        for name, value in {**done.metrics, **tested}.items():
            metrics.log_metric(name, value)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    experiment: str,
    run: str,
    best: Input[Artifact],
    search: Input[Artifact],
    best_model: Input[Model],
    default_model: Input[Model],
    finals: Output[Artifact],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> NamedTuple("Outputs", [("headline", str), ("verdict", str)]):  # type: ignore[valid-type]
    """Compare the best configuration with the default on the test split, example by example.

    Args:
        experiment: the Katib Experiment (YAML).
        run: id of the pipeline's run, for the manifests.
        best: the artifact of `tune`.
        search: the artifact of `tune`.
        best_model: the artifact of `train`, role `best`.
        default_model: the artifact of `train`, role `default`.
        finals: both trainings as the report reads them (JSON).
        metrics: of both on the test split, and their differences.
        summary: the comparison as a table.

    Returns:
        headline: `better`, `worse`, `no difference` or `unknown`.
        verdict: the same in a sentence.
    """
    from pathlib import Path

    from rankwise.kfp.lineage import manifest
    from rankwise.kfp.steps import result
    from rankwise.kfp.steps.search import read_best
    from rankwise.kfp.steps.telling import telling

    with telling("evaluate"):
        analysis = result.evaluate(
            experiment,
            best=Path(best.path),
            search=Path(search.path),
            best_model=Path(best_model.path),
            default_model=Path(default_model.path),
            finals=Path(finals.path),
            summary=Path(summary.path),
        )
        found = read_best(Path(best.path))
        data = result.read_manifest(Path(best_model.path)).data
        origin = {
            "run": run,
            "experiment": found.experiment,
            "namespace": found.namespace,
            "trial": found.trial,
            "data_sha256": data.sha256,
        }
        for artifact in (finals, summary):
            artifact.metadata.update(manifest("evaluate", Path(artifact.path), origin, {"split": data.seed}))
        for one in analysis.comparisons:
            metrics.log_metric(f"default_{one.metric}", one.reference)
            metrics.log_metric(f"best_{one.metric}", one.value)
            metrics.log_metric(f"difference_{one.metric}", one.difference)
            if one.standard_error is not None:
                metrics.log_metric(f"difference_{one.metric}_standard_error", one.standard_error)
    return (analysis.headline, analysis.verdict)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def report(
    experiment: str,
    run: str,
    search: Input[Artifact],
    finals: Input[Artifact],
    page: Output[HTML],
    summary: Output[Markdown],
) -> None:
    """The whole report: the search, the comparison on the test split, the picture of the embedding space.

    Args:
        experiment: the Katib Experiment (YAML).
        run: id of the pipeline's run, for the manifests.
        search: the artifact of `tune`.
        finals: the artifact of `evaluate`.
        page: one HTML page that needs nothing else.
        summary: the same, short.
    """
    from pathlib import Path

    from rankwise.kfp.lineage import manifest
    from rankwise.kfp.steps import result
    from rankwise.kfp.steps.telling import telling

    with telling("report"):
        paths = {"page": Path(page.path), "summary": Path(summary.path)}
        result.report(experiment, search=Path(search.path), finals=Path(finals.path), **paths)
        keys = ("experiment", "namespace", "trial", "data_sha256")
        origin = {"run": run, **{key: str(search.metadata.get(key, "")) for key in keys}}
        for artifact in (page, summary):
            artifact.metadata.update(manifest("report", Path(artifact.path), origin))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(
    run: str,
    name: str,
    best: Input[Artifact],
    model: Input[Model],
    registered: Output[Model],
    headline: str = "better",
    verdict: str = "",
    promote: str = "if-better",
    engine: str = "katib",
    folder: str = "runs",
) -> NamedTuple("Outputs", [("uri", str), ("in_production", bool)]):  # type: ignore[valid-type]
    """Put the adapter into the store as a version of a model, and into production where it has earned that.

    Args:
        run: id of the pipeline's run.
        name: of the model.
        best: the artifact of `tune`; its Experiment names the version.
        model: the artifact of `train`, role `best`.
        registered: the adapter's folder.
        headline: of `evaluate`.
        verdict: of `evaluate`.
        promote: `if-better`, `always` or `never`: whether models/NAME/production.json names this version then.
        engine: as for `tune`.
        folder: as for `tune`.

    Returns:
        uri: folder of the version in the store.
        in_production: whether it is in production now.
    """
    import shutil
    from pathlib import Path

    from rankwise.kfp.lineage import manifest
    from rankwise.kfp.steps import result
    from rankwise.kfp.steps.search import read_best, trials_store
    from rankwise.kfp.steps.telling import telling

    with telling("register"):
        found = read_best(Path(best.path))
        done = result.register(
            trials_store(engine, Path(folder)),
            name,
            Path(model.path),
            found,
            run=run,
            headline=headline,
            verdict=verdict,
            promote=promote,
        )
        print(f"{done.uri}: {done.why}")
        shutil.copytree(Path(model.path) / "adapter", Path(registered.path), dirs_exist_ok=True)
        trained = result.read_manifest(Path(model.path))
        origin = {
            "run": run,
            "experiment": found.experiment,
            "namespace": found.namespace,
            "trial": found.trial,
            "data_sha256": trained.data.sha256,
            "model": name,
            "version": done.version,
            "store": done.uri,
            "in_production": str(done.in_production),
        }
        registered.metadata.update(manifest("register", Path(registered.path), origin, trained.seeds))
    return (done.uri, done.in_production)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finish(experiment: str, run: str, namespace: str = "") -> None:
    """For `dsl.ExitHandler`: delete the run's Experiment if that still runs without it.

    Args:
        experiment: the Katib Experiment (YAML).
        run: id of the pipeline's run.
        namespace: as for `tune`.
    """
    from rankwise.kfp.steps.finish import finish as finish_run
    from rankwise.kfp.steps.telling import telling

    with telling("finish"):
        finish_run(experiment, run, namespace=namespace)
