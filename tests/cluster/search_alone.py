"""The launcher as it is used in anybody's pipeline: one step."""

# No `from __future__ import annotations`: kfp reads the annotations as objects.

from kfp import dsl

from rankwise.kfp.components import tune


@dsl.pipeline(name="search-alone")
def search_alone(experiment: str) -> None:
    """Search, and repeat the step when its pod is lost."""
    tune(experiment=experiment, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER).set_caching_options(False).set_retry(2)
