"""The same way for T5-small and summaries of news articles, in smaller machines."""

# No `from __future__ import annotations`: kfp reads the annotations as objects.

from kfp import dsl

from pipelines.assembly import Cluster, Machine, on_cluster, one_line
from pipelines.tune_lora import GPU_NODE

CLUSTER = Cluster(
    small=Machine(cpu="2", memory="8Gi"),
    trainer=Machine(cpu="4", memory="16Gi", gpus=1, **GPU_NODE),  # type: ignore[arg-type]
)


@dsl.pipeline(
    name="rankwise-t5-summarization",
    description="Search LoRA hyperparameters of T5-small for summaries, train the best, compare, register it.",
)
def t5_summarization(
    experiment: str = one_line("t5-summarization.yaml"),
    model_name: str = "t5-summarization",
    promote: str = "if-better",
    hours: float = 24.0,
) -> None:
    """The pipeline; its arguments are those of pipelines/tune_lora.py."""
    on_cluster(CLUSTER, experiment=experiment, model_name=model_name, promote=promote, hours=hours)
