"""The same way for T5-small and summaries of news articles, in smaller machines."""

# No `from __future__ import annotations`: kfp reads the annotations as objects.

from kfp import dsl

from pipelines.assembly import Cluster, Machine, assemble, one_line, place, settle
from pipelines.tune_lora import GPU_NODE
from rankwise.kfp import components

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
    run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    end = components.finish(experiment=experiment, run=run)
    settle(end, CLUSTER, CLUSTER.small)
    end.set_caching_options(False)
    with dsl.ExitHandler(end, name="the way"):
        steps = assemble(
            experiment=experiment, run=run, model_name=model_name, promote=promote, engine="katib", hours=hours
        )
        place(steps, CLUSTER)
