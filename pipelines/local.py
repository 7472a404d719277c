"""``python -m pipelines.local``: the pipeline on this machine, without a cluster.

The steps and their order are those of pipelines/tune_lora.py (pipelines/assembly.py is both); each step is a process of
this Python, run by kfp.local, and the search is run by our own engine in place of Katib. What a cluster has and this
has not: pods, images, secrets, retries, caching, steps side by side, and the exit handler, which kfp.local does not
know.

The same command goes on where an earlier one stopped: finished trials and trainings are not repeated (``--run`` names
another run).
"""

# No `from __future__ import annotations`: kfp reads the annotations as objects.
import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import yaml
from kfp import dsl, local

from pipelines.assembly import EXPERIMENTS, assemble
from rankwise.kfp.image import IMAGE

ROOT = "rankwise-local"


@dsl.pipeline(name=ROOT, description="The way of rankwise-tune-lora on one machine.")
def on_this_machine(experiment: str, run: str, model_name: str, promote: str, folder: str) -> None:
    """The pipeline; see pipelines/tune_lora.py for its arguments."""
    assemble(experiment=experiment, run=run, model_name=model_name, promote=promote, engine="local", folder=folder)


def smaller(text: str, trials: int | None, arguments: Sequence[str]) -> str:
    """The Experiment with another number of trials, and options after those of its trials' command.

    Args:
        text: YAML of a checked Experiment with one container.
        trials: ``maxTrialCount``; None leaves it.
        arguments: options of ``rankwise train``; they hold for the trainings after the search too.
    """
    document = yaml.safe_load(text)
    if trials is not None:
        document["spec"]["maxTrialCount"] = trials
        failed = document["spec"].get("maxFailedTrialCount", trials)
        document["spec"]["maxFailedTrialCount"] = min(failed, trials)
    (container,) = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"]
    container["command"] = [*container["command"], *arguments]
    # JSON is YAML, and quotes "2e-5", which PyYAML takes for a text and Kubernetes for a number.
    return json.dumps(document, indent=1, ensure_ascii=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the pipeline; return the exit code: 0 when every step succeeded."""
    parser = argparse.ArgumentParser(
        description="The pipeline on this machine.",
        epilog="Options after -- are appended to the trials' command, e.g. -- --num-layers=4 --subset=32",
    )
    parser.add_argument("--experiment", type=Path, default=EXPERIMENTS / "quickstart.yaml", metavar="FILE")
    parser.add_argument("--folder", type=Path, default=Path("runs/pipeline"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("--run", default="local", metavar="ID", help="goes on with the run of this id (%(default)s)")
    parser.add_argument("--trials", type=int, metavar="N", help="trials of the search (the Experiment's own number)")
    parser.add_argument("--model-name", default="quickstart", metavar="NAME", help="(%(default)s)")
    parser.add_argument("--promote", default="if-better", metavar="WHEN", help="if-better, always or never")
    parser.add_argument("options", nargs="*", metavar="OPTION", help="of rankwise train")
    arguments = parser.parse_args(argv)
    text = smaller(arguments.experiment.read_text(encoding="utf-8"), arguments.trials, arguments.options)
    folder = arguments.folder.absolute()
    begun = time.monotonic()
    # Steps are run by this Python: that its name is not the image's is meant.
    warnings.filterwarnings("ignore", message=f'.*non-Python base image "{IMAGE}"', category=RuntimeWarning)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    local.init(
        runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(folder / "artifacts"), raise_on_error=False
    )
    on_this_machine(
        experiment=text,
        run=arguments.run,
        model_name=arguments.model_name,
        promote=arguments.promote,
        folder=str(folder),
    )
    return _told(folder, arguments.model_name, time.monotonic() - begun)


def _told(folder: Path, model: str, seconds: float) -> int:
    runs = sorted((folder / "artifacts").glob(f"{ROOT}-*"))
    page = next(iter(runs[-1].glob("report/page")), None) if runs else None
    if page is None:
        print(f"a step failed after {seconds:.0f} s; its output stands above", file=sys.stderr)
        return 1
    print(f"every step succeeded in {seconds:.0f} s")
    print(f"artifacts: {runs[-1]}")
    print(f"report:    {page}")
    production = folder / "store" / "models" / model / "production.json"
    if production.is_file():
        entry = json.loads(production.read_text(encoding="utf-8"))
        print(f"in production: {model} version {entry['version']}: {entry['verdict']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
