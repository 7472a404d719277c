"""One method in a process of its own: a line of JSON in, a line of JSON out.

    python -m benchmarks.bench_suggest.worker METHOD --vectors FOLDER       (from tests/)

Says ``{"ready": seconds}`` when it has been made, then answers ``{"observations": n}`` with a :class:`Sample`'s fields
or with ``{"error": "…"}``. ``METHOD`` may be ``fill``: it writes vectors into the folder and ends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from benchmarks.bench_suggest.task import paper_observations

NOISE = 0.05
"""Standard deviation of the noise in made-up vectors, whose coordinates are of size 1."""


def fill(folder: Path, kind: str) -> None:
    """Vectors of the whole space in a cache: made-up ones, or the small encoder's own from $RANKWISE_CACHE.

    Made-up ones are a random linear map of the configuration's numbers with noise, so that a model of them predicts the
    observations about as well as the numbers do: one that does not has no weight in the mixture, and costs less. The
    decoder's are made up always: to embed them takes half an hour here.
    """
    import numpy as np

    from benchmarks.bench_suggest.ours import DECODER, DEFAULT_EMBEDDER, paper_texts
    from rankwise.language.cache import VectorCache
    from rankwise.language.cached import CachedEncoder
    from rankwise.language.encoder import load_encoder
    from rankwise.settings import Settings
    from support.paper_space import paper_space

    settings = Settings.from_environment()
    for seed, reference in enumerate((DEFAULT_EMBEDDER, DECODER)):
        encoder = load_encoder(reference, cache=settings.cache)
        texts = paper_texts(encoder)
        if kind == "real" and reference == DEFAULT_EMBEDDER:
            vectors = CachedEncoder(encoder, settings.cache).encode(texts)
        else:
            generator = np.random.default_rng(seed)
            units = paper_space().enumerate().units.astype(np.float32)  # (m, D)
            towards = generator.standard_normal((units.shape[1], encoder.dimension), dtype=np.float32)
            vectors = generator.standard_normal((len(units), encoder.dimension), dtype=np.float32)
            vectors *= NOISE
            vectors += units @ towards  # (m, d)
        VectorCache(folder, encoder.identity, encoder.dimension).put(texts, vectors)


def serve(method: Any, requests: TextIO, replies: TextIO) -> None:
    """Answer until the requests end."""
    observed = paper_observations()
    for line in requests:
        try:
            count = json.loads(line)["observations"]
            answer = method.ready(observed[:count])
            wall, cpu = time.perf_counter(), time.process_time()
            found = answer()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            reply = {
                "wall": wall,
                "cpu": cpu,
                "peak": peak_bytes(),
                "given": found.given,
                "assignment": dict(found.assignment),
                "details": dict(found.details),
            }
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)


def peak_bytes() -> int:
    """Most memory that this process has had so far.

    Linux counts in KiB, and carries over what the process had before it became this program: the parent has to be small
    (it loads no torch).
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Make the method and serve it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method")
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--kind", choices=("made-up", "real"), default="made-up")
    parser.add_argument("--sample", type=int, default=512)
    arguments = parser.parse_args()
    replies = sys.stdout
    # What libraries print must not come between the lines of the protocol.
    with contextlib.redirect_stdout(sys.stderr):
        began = time.perf_counter()
        if arguments.method == "fill":
            fill(arguments.vectors, arguments.kind)
        else:
            from benchmarks.bench_suggest.methods import EMBEDDINGS, METHODS, SLOW, Place

            made = {**METHODS, **EMBEDDINGS}[arguments.method](Place(arguments.vectors, arguments.sample))
            if arguments.method not in (*SLOW, *EMBEDDINGS):
                # What only the first call of a process does (imports, the cache's index) is no part of a suggestion.
                made.ready(paper_observations(2))()
        print(json.dumps({"ready": time.perf_counter() - began}), file=replies, flush=True)
        if arguments.method != "fill":
            serve(made, sys.stdin, replies)


if __name__ == "__main__":
    main()
