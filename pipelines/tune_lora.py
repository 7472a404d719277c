"""From a data set to the adapter in production: a 7B causal model, the whole way.

The Experiment is the file katib/experiments/lora-7b.yaml as it was when the pipeline was compiled; a run may pass
another one. What the run's pods need in their namespace: the chart, pipelines/rbac.yaml, and a GPU node for the
trainings and the trials.
"""

# No `from __future__ import annotations`: kfp reads the annotations as objects.

from kfp import dsl

from pipelines.assembly import Cluster, Machine, Toleration, on_cluster, one_line

GPU_NODE = {
    "selectors": {"nvidia.com/gpu.present": "true"},  # NVIDIA's GPU feature discovery sets it
    "tolerations": (Toleration("nvidia.com/gpu", "NoSchedule"),),
}
CLUSTER = Cluster(
    small=Machine(cpu="2", memory="8Gi"),
    trainer=Machine(cpu="8", memory="64Gi", gpus=1, **GPU_NODE),  # type: ignore[arg-type]
)


@dsl.pipeline(
    name="rankwise-tune-lora",
    description="Search LoRA hyperparameters with Katib, train the best, compare it with the default, register it.",
)
def tune_lora(
    experiment: str = one_line("lora-7b.yaml"),
    model_name: str = "lora-7b",
    promote: str = "if-better",
    hours: float = 72.0,
) -> None:
    """The pipeline.

    Args:
        experiment: a Katib Experiment (YAML) whose trials run `rankwise train`.
        model_name: name that the adapter is registered under.
        promote: whether it goes into production: `if-better` (than the default, on the test split), `always`, `never`.
        hours: most hours of the search; 0 for no limit.
    """
    on_cluster(CLUSTER, experiment=experiment, model_name=model_name, promote=promote, hours=hours)
