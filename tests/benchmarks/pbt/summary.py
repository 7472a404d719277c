"""What the race's outcomes say, as Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import t

from benchmarks.pbt.race import METHODS, Outcome


def differences(outcomes: Sequence[Outcome], method: str, against: str, field: str) -> list[float]:
    """For each seed that both have: the method's loss minus the other's, in nats; negative where it is better."""
    values = {(one.method, one.seed): float(getattr(one, field)) for one in outcomes}
    seeds = sorted({one.seed for one in outcomes})
    return [
        values[method, seed] - values[against, seed]
        for seed in seeds
        if (method, seed) in values and (against, seed) in values
    ]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and its standard error (NaN of fewer than two values)."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def verdict(difference: Sequence[float]) -> str:
    """In words: whether the mean difference is told from zero, by Student's t at 95 % on both sides (each alone)."""
    mean, error = mean_and_error(difference)
    if math.isnan(error) or abs(mean) <= float(t.ppf(0.975, len(difference) - 1)) * error:
        return "no difference that the seeds can tell"
    return "better" if mean < 0 else "worse"


def markdown(outcomes: Sequence[Outcome], about: Mapping[str, Any]) -> str:
    """Tables of means, spreads and paired differences."""
    setting = about["setting"]
    each = setting["members"] * setting["generations"] * setting["steps"]
    lines = [
        "# Population-based training against random search",
        "",
        f"Task {about['task']} (tests/benchmarks/lora_runs/CARD.md), {about['train']:,} training examples, batches of "
        f"{setting['batch']}; P = {setting['members']} members, G = {setting['generations']} generations, S = "
        f"{setting['steps']} steps: {each} optimizer steps for every method and seed. Loss in nats of the adapter that "
        f"is best on {about['validation']} validation examples; of the same adapter on the test examples.",
        "",
        f"    cd tests && OMP_NUM_THREADS=1 python -m benchmarks.pbt --seeds {len({one.seed for one in outcomes})}",
        "",
        f"{about['processor']}, torch {about['torch']}, one thread; {about['processor_seconds']} s of the processor.",
        "",
        "| method | seeds | validation loss, mean ± sd | test loss, mean ± sd | worst seed (test) |",
        "|---|--:|--:|--:|--:|",
    ]
    for method in METHODS:
        own = [one for one in outcomes if one.method == method]
        if own:
            tested = [one.test_loss for one in own]
            lines.append(
                f"| {method} | {len(own)} | {_spread([one.loss for one in own])} | {_spread(tested)} | "
                f"{max(tested):.3f} |"
            )
    lines += [
        "",
        "Paired by seed (the same first configurations), ± standard error; negative: PBT is better:",
        "",
        "| pbt against | on | mean difference | better in | says |",
        "|---|---|--:|--:|---|",
    ]
    for against in METHODS[1:]:
        for field, name in (("loss", "validation"), ("test_loss", "test")):
            found = differences(outcomes, METHODS[0], against, field)
            if found:
                mean, error = mean_and_error(found)
                wins = sum(value < 0 for value in found)
                lines.append(
                    f"| {against} | {name} | {mean:+.3f} ± {error:.3f} | {wins} of {len(found)} | {verdict(found)} |"
                )
    looks = setting["members"] * setting["generations"]
    lines += [
        "",
        "What it says is by Student's t at 95 %, each line alone. PBT chooses among the adapters after each of "
        f"{looks} trials, random search among {setting['members']}: the comparison on the test examples, on which "
        f"nobody chooses, is the fair one. The {looks} looks at the validation examples are not counted as compute. "
        "Seeds differ in the first configurations, so the spread of a method is mostly theirs; the paired differences "
        "are without it.",
    ]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.3f} ± {spread:.3f}"
