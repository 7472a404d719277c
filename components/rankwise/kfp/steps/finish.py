"""The end of a run, whatever it was: no search is left behind that nobody waits for."""

from __future__ import annotations

import logging

from rankwise.kfp.launcher import KatibLauncher
from rankwise.local.experiment import parse_experiment

log = logging.getLogger(__name__)

SUCCEEDED = "SUCCEEDED"


def finish(text: str, run: str, state: str, said: str, *, namespace: str = "") -> None:
    """Tell how the run ended; where it did not succeed, delete its Experiment if that still runs.

    A launcher that was told to end does so itself. One that was killed (out of memory, a lost node with no retries
    left) could not. An Experiment that has ended stays.

    Args:
        text: the Experiment.
        run: id of the run.
        state: KFP's word for the run's state.
        said: KFP's message; "" for none.
        namespace: of the Experiment; "" takes the pod's own.

    Raises:
        InvalidInput: the Experiment cannot be read.
        SurroundingsError: there is no cluster.
    """
    log.info("the run ended: %s%s", state, f" ({said})" if said else "")
    if state == SUCCEEDED:
        return
    from rankwise.cluster.client import api_client
    from rankwise.kfp.kubernetes_api import KubernetesKatib, own_namespace

    document = parse_experiment(text).document
    with api_client() as api:
        KatibLauncher(KubernetesKatib(api, namespace or own_namespace())).stop(document, run)
