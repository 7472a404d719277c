"""Metrics over a set of examples, each with its standard error.

Notation: n examples; S_i the summed loss of example i's target tokens, T_i their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.train.rouge import rouge

_GROUPS = 32


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric.

    Attributes:
        value: its value.
        error: standard error over the examples; None when there are too few to tell.
        per_example: one number for each example whose mean is ``value``, so that two runs on the same examples can
            be compared in pairs; empty for a metric that is no mean.
    """

    value: float
    error: float | None
    per_example: tuple[float, ...] = ()


def token_mean(sums: Sequence[float], tokens: Sequence[int]) -> Measured:
    """Mean loss of a token, L = sum S_i / sum T_i, in nats.

    L is a ratio of two means; its error is that of the linearized ratio (Cochran, "Sampling Techniques", §2.11): the
    standard error of the mean of v_i = L + n (S_i - L T_i) / sum T_i. Their mean is L, so they serve as values per
    example.

    Args:
        sums: S_i in nats, (n,).
        tokens: T_i, (n,).
    """
    total, count = math.fsum(sums), sum(tokens)
    if count == 0:
        raise ValueError("no target tokens")
    mean, n = total / count, len(sums)
    values = [mean + n * (s - mean * t) / count for s, t in zip(sums, tokens, strict=True)]
    return Measured(mean, _error(values, mean), tuple(values))


def plain_mean(values: Sequence[float]) -> Measured:
    """Mean of one value an example with its standard error sd / sqrt(n)."""
    mean = math.fsum(values) / len(values)
    return Measured(mean, _error(values, mean), tuple(values))


def _error(values: Sequence[float], mean: float) -> float | None:
    n = len(values)
    if n < 2 or not math.isfinite(mean):
        return None
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)


def text_metrics(names: Sequence[str], targets: Sequence[str], predictions: Sequence[str]) -> dict[str, Measured]:
    """Metrics of generated texts.

    Args:
        names: of ``rouge1``, ``rouge2``, ``rougeL``, ``exact_match``, ``bleu``; other names are left out.
        targets: the wanted texts, (n,), n >= 1.
        predictions: the generated texts, (n,).
    """
    found: dict[str, Measured] = {}
    rouges = (
        [rouge(t, p) for t, p in zip(targets, predictions, strict=True)] if any("rouge" in n for n in names) else []
    )
    for name in names:
        if name in ("rouge1", "rouge2", "rougeL"):
            found[name] = plain_mean([scores[name] for scores in rouges])
        elif name == "exact_match":
            same = [" ".join(t.split()) == " ".join(p.split()) for t, p in zip(targets, predictions, strict=True)]
            found[name] = plain_mean([float(equal) for equal in same])
        elif name == "bleu":
            found[name] = _bleu(targets, predictions)
    return found


def _bleu(targets: Sequence[str], predictions: Sequence[str]) -> Measured:
    """BLEU of the whole set (sacrebleu's default signature), 0 to 100.

    It is no mean over examples; its error is the jackknife's over at most 32 groups of examples (Efron & Tibshirani,
    "An Introduction to the Bootstrap", §11): sqrt((g - 1) / g * sum_j (b_j - mean b)^2), b_j without group j.
    """
    from sacrebleu.metrics.bleu import BLEU

    def score(kept: Sequence[int]) -> float:
        # effective_order is off: that is for single sentences. A texts' list without any overlap scores 0.
        metric = BLEU(effective_order=False)
        return float(metric.corpus_score([predictions[i] for i in kept], [[targets[i] for i in kept]]).score)

    n = len(targets)
    everything = list(range(n))
    groups = min(_GROUPS, n)
    if groups < 2:
        return Measured(score(everything), None)
    without = [score([i for i in everything if i % groups != j]) for j in range(groups)]
    mean = math.fsum(without) / groups
    error = math.sqrt((groups - 1) / groups * math.fsum((b - mean) ** 2 for b in without))
    return Measured(score(everything), error)
