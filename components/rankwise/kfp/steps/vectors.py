"""The vectors of a search space, made before the search asks for them."""

from __future__ import annotations

from rankwise.kfp import experiments
from rankwise.local.embed_command import embed as embed_experiment


def embed(text: str) -> dict[str, str | int | float]:
    """Embed what a search of this Experiment may ask for at its start.

    Returns:
        ``configurations``, ``embedded`` (now), ``found`` (in the cache), ``seconds``, ``encoder``; an algorithm that
        reads no language needs no vectors: zeros, and ``encoder`` says none.

    Raises:
        InvalidInput: the Experiment is wrong.
        SurroundingsError: the model or the cache could not be read or written.
    """
    experiment = experiments.read(text, ours_alone=False)
    from rankwise.strategies.language_bo import LanguageBO

    if experiment.algorithm_name != LanguageBO.name:
        print(f"{experiment.algorithm_name} reads no language: nothing to embed")
        return {"configurations": 0, "embedded": 0, "found": 0, "seconds": 0.0, "encoder": "none"}
    summary, identity = embed_experiment(experiment, quiet=True)
    return {
        "configurations": summary.total,
        "embedded": summary.computed,
        "found": summary.found,
        "seconds": summary.seconds,
        "encoder": identity,
    }
