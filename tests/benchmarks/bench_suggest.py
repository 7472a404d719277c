"""How long does one suggestion over the 45,360 configurations of the paper's space take, and how much memory?

    python -m benchmarks.bench_suggest --observations 30            (from tests/)

By default the vectors are random ones in a temporary cache: time and memory depend on their number and length, not on
their values. ``--vectors real`` takes the embedder's own from $RANKWISE_CACHE; what is not there is embedded first and
counted apart.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rankwise.deadline import Deadline
from rankwise.language.cache import VectorCache
from rankwise.language.cached import CachedEncoder
from rankwise.language.encoder import load_encoder
from rankwise.language.prompt import describe_all, load_prompt
from rankwise.language.text_encoder import TextEncoder
from rankwise.settings import Settings
from rankwise.space import Goal, Objective, Trial, TrialState
from rankwise.strategies.base import SuggestRequest
from rankwise.strategies.language_bo import LanguageBO
from rankwise.strategies.language_options import DEFAULT_EMBEDDER
from support.paper_space import paper_space


class NeverComputes:
    """The real model's name and form; every vector has to come from the cache."""

    def __init__(self, model: TextEncoder) -> None:
        self.identity, self.dimension, self.form = model.identity, model.dimension, model.form

    def encode(self, texts: Sequence[str], deadline: Deadline | None = None) -> NDArray[np.float32]:
        raise RuntimeError(f"{len(texts)} vectors are missing")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observations", type=int, nargs="+", default=[30], metavar="N")
    parser.add_argument("--vectors", choices=("random", "real"), default="random")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = Settings.from_environment()
    space = paper_space()
    model = load_encoder(DEFAULT_EMBEDDER, cache=settings.cache)
    texts = describe_all(load_prompt(None, space, model.form), space, space.enumerate())
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        if arguments.vectors == "random":
            vectors = np.random.default_rng(0).standard_normal((len(texts), model.dimension), dtype=np.float32)
            VectorCache(Path(folder), model.identity, model.dimension).put(texts, vectors)
            del vectors
            encoder = CachedEncoder(NeverComputes(model), Path(folder))
        else:
            encoder = CachedEncoder(model, settings.cache)
            encoder.encode(texts)
        print(f"vectors ({arguments.vectors}) ready in {time.perf_counter() - began:.1f} s")
        strategy = LanguageBO(lambda reference, pooling: encoder)
        generator = np.random.default_rng(1)
        points = space.enumerate()
        for count in arguments.observations:
            trials = tuple(
                Trial(f"t{i}", points.assignments(int(j)), TrialState.SUCCEEDED, float(generator.normal()))
                for i, j in enumerate(generator.choice(len(points), count, replace=False))
            )
            request = SuggestRequest("paper", space, Objective("loss", Goal.MINIMIZE), {}, trials, 1, count)
            seconds = []
            for _ in range(3):
                began = time.perf_counter()
                answer = strategy.suggest(request)
                seconds.append(time.perf_counter() - began)
                if answer.fallback:
                    raise RuntimeError(answer.fallback)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(
                f"{count} observations: {sorted(seconds)[1]:.2f} s ({min(seconds):.2f} to {max(seconds):.2f}) over "
                f"{answer.details['candidates']:.0f} candidates; peak memory of the process {peak:.2f} GiB"
            )


if __name__ == "__main__":
    main()
