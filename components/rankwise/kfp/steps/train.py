"""A training after the search: the best or the default configuration, on what the Experiment's annotation says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rankwise.artifacts.manifest import Manifest, Outcome, trial_key
from rankwise.artifacts.store import Store
from rankwise.errors import InvalidInput, Problem, TrialError
from rankwise.kfp import experiments
from rankwise.kfp.cancellation import Cancelled
from rankwise.kfp.steps.data import pinned
from rankwise.kfp.steps.search import read_best, trials_store
from rankwise.local.experiment import parse_experiment
from rankwise.local.finals import final_name
from rankwise.local.processes import environment_of
from rankwise.train.place import ADAPTER, MANIFEST, PER_EXAMPLE

_GRACE = 25.0
"""Seconds that a training is given for its checkpoint after SIGTERM, where the step has so long: a pod has 30, a
cancelled run less (:mod:`rankwise.kfp.cancellation`)."""


def train(text: str, role: str, *, best: Path, data: Path, engine: str, folder: Path, model: Path) -> Manifest:
    """Train one configuration and measure it on the test split.

    Everything goes to the trials' store first, under ``<experiment>-final-<role>``: a repeated attempt finds a
    finished training there and repeats nothing, or goes on from its checkpoint.

    Args:
        text: the Experiment.
        role: ``best`` or ``default``.
        best: the artifact of the search.
        data: prepared data.
        engine: ``katib`` or ``local``: where the store is.
        folder: see :func:`rankwise.kfp.steps.search.trials_store`.
        model: folder for the adapter, the manifest and the values per test example.

    Raises:
        InvalidInput: the Experiment or the role is wrong.
        TrialError: the training failed.
        SurroundingsError: the store failed.
    """
    if role not in experiments.ROLES:
        raise InvalidInput([Problem("role", role, f"one of {', '.join(experiments.ROLES)}")])
    experiment = parse_experiment(text)  # its settings were checked before the search
    found = read_best(best)
    is_best = role == experiments.BEST
    assignments = found.assignments if is_best else experiments.default_configuration(experiment)
    store = trials_store(engine, folder)
    name = final_name(replace(experiment, name=found.experiment), role)
    namespace = found.namespace or None
    arguments = experiments.final_arguments(experiment, assignments, pinned(store, data))
    arguments += [f"--experiment={found.experiment}", f"--trial={name}"]
    arguments += [f"--namespace={namespace}"] if namespace else []
    code = run_training(arguments, environment_of(experiment.container_env, {"RANKWISE_STORE": store.uri}))
    if code != 0:
        raise TrialError(f"the training of the {role} configuration ended with exit code {code}: see its output above")
    return collect(store, trial_key(found.experiment, name, namespace=namespace), model)


def run_training(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """``rankwise train`` in a process of its own, whose output is ours; SIGTERM is passed on.

    Returns:
        its exit code.

    Raises:
        Cancelled: we were cancelled; the training has written its checkpoint, or used up its time for that.
    """
    child = subprocess.Popen([sys.executable, "-m", "rankwise.train", *arguments], env=dict(environment))
    try:
        return child.wait()
    except Cancelled:
        child.terminate()
        try:
            child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise


def collect(store: Store, prefix: str, model: Path) -> Manifest:
    """Copy a training's result out of the store; the copy's manifest names files beside it.

    Raises:
        TrialError: the training left no adapter.
        NotFound, SurroundingsError: the store failed.
    """
    manifest = Manifest.from_json(store.get_bytes(f"{prefix}/{MANIFEST}"))
    if manifest.outcome not in (Outcome.SUCCEEDED, Outcome.EARLY_STOPPED) or "adapter" not in manifest.artifacts:
        raise TrialError(f"the training ended as {manifest.outcome.value}, without an adapter")
    model.mkdir(parents=True, exist_ok=True)
    artifacts = {"adapter": ADAPTER}
    store.get_folder(manifest.artifacts["adapter"], model / ADAPTER)
    if "per_example" in manifest.artifacts:
        store.get_file(manifest.artifacts["per_example"], model / PER_EXAMPLE)
        artifacts["per_example"] = PER_EXAMPLE
    copied = replace(manifest, artifacts=artifacts)
    (model / MANIFEST).write_text(copied.to_json(), encoding="utf-8")
    return copied
