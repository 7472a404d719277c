"""``rankwise embed``: the vectors of a search space, made before a search needs them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rankwise.errors import InvalidInput, Problem
from rankwise.local.experiment import Experiment, load_experiment
from rankwise.settings import Settings

if TYPE_CHECKING:  # torch takes seconds to load
    from rankwise.language.cached import EmbedSummary


def main(argv: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="rankwise embed",
        description="Turn every configuration of an Experiment's search space into its vector and keep the vectors in "
        "the cache ($RANKWISE_CACHE), so that no request for suggestions has to. Vectors that are there already are "
        "not computed again; what is done when it is interrupted is kept.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a Katib v1beta1 Experiment with algorithm language-bo")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args(list(argv))
    experiment = load_experiment(arguments.file)
    summary, identity = embed(experiment, quiet=arguments.quiet)
    print(
        f"{summary.total:,} configurations: {summary.computed:,} embedded in {summary.seconds:.1f} s, "
        f"{summary.found:,} found in the cache; {identity}"
    )
    return 0


def embed(experiment: Experiment, *, quiet: bool) -> tuple[EmbedSummary, str]:
    """Make the vectors that a search of this Experiment may ask for at its start.

    Args:
        experiment: a checked Experiment.
        quiet: whether the progress bar is left out.

    Returns:
        what was done, and the encoder's identity.

    Raises:
        InvalidInput: the algorithm reads no configurations, or its settings are wrong.
        SurroundingsError: the model or the cache could not be read or written.
    """
    # torch and transformers take seconds to load: only for a file that is right.
    from rankwise.language.cached import embed_space
    from rankwise.strategies.base import SuggestRequest
    from rankwise.strategies.language_bo import LanguageBO, embedding_plan
    from rankwise.suggest.wiring import wire

    if experiment.algorithm_name != LanguageBO.name:
        allowed = f"{LanguageBO.name}, the algorithm that reads configurations"
        raise InvalidInput([Problem("spec.algorithm.algorithmName", experiment.algorithm_name, allowed)])
    request = SuggestRequest(
        experiment.name, experiment.space, experiment.objective, experiment.algorithm_settings, (), 0
    )
    plan = embedding_plan(request)
    encoder = wire(Settings.from_environment()).encoders(plan.embedder, plan.pooling)
    prompt = plan.prompt(encoder.form)
    console = Console(file=sys.stderr, quiet=quiet)
    columns = (TextColumn("configurations"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("embed", total=len(plan.points))
        summary = embed_space(
            encoder, prompt, plan.points, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    return summary, encoder.identity
