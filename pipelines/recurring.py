"""``python -m pipelines.recurring``: run a compiled pipeline every week, as an example of a recurring run.

Each run has an id of its own, so each searches anew. Past searches are not lost: name them in the Experiment's setting
``earlier_searches``, and the next search begins with what they found (README, "Beginning with earlier searches").
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.compile import FOLDER

WEEKLY = "0 0 2 * * 6"
"""Seconds, minutes, hours, day of month, month, day of week: Saturdays at two."""


def schedule(
    client: Any, *, experiment: str, package: Path, cron: str, namespace: str | None, arguments: dict[str, str]
) -> str:
    """Make the recurring run; return its id.

    Args:
        client: a ``kfp.Client``.
        experiment: experiment of Kubeflow Pipelines (a folder of runs; not Katib's) that the runs are shown under.
        package: compiled pipeline.
        cron: six fields, with seconds.
        namespace: of a multi-user installation; None elsewhere.
        arguments: of the pipeline.
    """
    folder = client.create_experiment(name=experiment, namespace=namespace)
    made = client.create_recurring_run(
        experiment_id=folder.experiment_id,
        job_name=package.stem.replace("_", "-"),
        cron_expression=cron,
        # A search that takes longer than a week must not be joined by the next one, nor missed ones be made up for.
        max_concurrency=1,
        no_catchup=True,
        pipeline_package_path=str(package),
        params=arguments,
    )
    return str(made.recurring_run_id)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the recurring run; print its id."""
    parser = argparse.ArgumentParser(description="Run a compiled pipeline at fixed times.")
    parser.add_argument("--host", required=True, metavar="URL", help="of Kubeflow Pipelines")
    parser.add_argument("--package", type=Path, default=FOLDER / "tune_lora.yaml", metavar="FILE")
    parser.add_argument("--experiment", default="rankwise", metavar="NAME", help="folder of runs in the UI")
    parser.add_argument("--cron", default=WEEKLY, metavar="CRON", help="six fields, with seconds (%(default)s)")
    parser.add_argument("--namespace", metavar="NAME", help="of a multi-user installation")
    parser.add_argument("--argument", action="append", default=[], metavar="NAME=VALUE", help="of the pipeline")
    chosen = parser.parse_args(argv)
    from kfp import Client

    arguments = dict(text.split("=", 1) for text in chosen.argument)
    client = Client(host=chosen.host, namespace=chosen.namespace or "kubeflow")
    print(
        schedule(
            client,
            experiment=chosen.experiment,
            package=chosen.package,
            cron=chosen.cron,
            namespace=chosen.namespace,
            arguments=arguments,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
