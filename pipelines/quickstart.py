"""The same way on a cluster without GPUs: SmolLM2 and the quickstart's Experiment, to see a whole run."""

# No `from __future__ import annotations`: kfp reads the annotations as objects.

from kfp import dsl

from pipelines.assembly import Cluster, Machine, on_cluster, one_line

CLUSTER = Cluster(
    small=Machine(cpu="200m", cpu_limit="2", memory="3Gi"),
    trainer=Machine(cpu="500m", cpu_limit="2", memory="4Gi"),
)


@dsl.pipeline(
    name="rankwise-quickstart",
    description="Search LoRA hyperparameters of SmolLM2-135M on CPUs, train the best, compare, register it.",
)
def quickstart(
    experiment: str = one_line("quickstart.yaml"),
    model_name: str = "quickstart",
    promote: str = "if-better",
    hours: float = 4.0,
) -> None:
    """The pipeline; its arguments are those of pipelines/tune_lora.py."""
    on_cluster(CLUSTER, experiment=experiment, model_name=model_name, promote=promote, hours=hours)
