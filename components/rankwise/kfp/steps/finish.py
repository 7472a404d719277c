"""The end of a run, whatever it was: no search is left behind that nobody waits for."""

from __future__ import annotations

from rankwise.kfp.launcher import KatibLauncher
from rankwise.local.experiment import parse_experiment


def finish(text: str, run: str, *, namespace: str = "") -> None:
    """Delete the Experiment of a run if that still runs.

    A launcher that was told to end does so itself. One that was killed (out of memory, a lost node with no retries
    left) could not. An Experiment that has ended stays. How the run ended is not asked: versions of Kubeflow Pipelines
    differ in what they tell an exit handler, and when one runs nobody waits for the Experiment any more.

    Args:
        text: the Experiment.
        run: id of the run.
        namespace: of the Experiment; "" takes the pod's own.

    Raises:
        InvalidInput: the Experiment cannot be read.
        SurroundingsError: there is no cluster.
    """
    from rankwise.cluster.client import api_client
    from rankwise.kfp.kubernetes_api import KubernetesKatib, own_namespace

    document = parse_experiment(text).document
    with api_client() as api:
        KatibLauncher(KubernetesKatib(api, namespace or own_namespace())).stop(document, run)
