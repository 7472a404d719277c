"""What one trial is asked to do: one frozen value with every option, checked as a whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankwise.data import Size
from rankwise.errors import InvalidInput, Problem
from rankwise.train.flags import FLAGS, GENERATED_METRICS, read_flags


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Options of a trial; :data:`rankwise.train.flags.FLAGS` gives meaning, unit, bounds and default of each."""

    model: str
    num_layers: int | None
    task: str
    data: str
    source_field: str
    target_field: str
    template: str | None
    validation: Size
    test: Size
    split_seed: int
    subset: Size
    subset_seed: int
    max_source_tokens: int
    max_target_tokens: int
    rank: int
    alpha: float | None
    alpha_ratio: float | None
    dropout: float
    target_modules: tuple[str, ...]
    variant: str
    learning_rate: float
    schedule: str
    warmup_ratio: float
    parent: str | None
    batch_size: int
    micro_batch_size: int | None
    epochs: int | None
    steps: int | None
    seed: int
    weight_decay: float
    max_grad_norm: float
    precision: str
    objective: str
    metrics: tuple[str, ...]
    evaluate_every: int | None
    generate_samples: int
    early_stop_delta: float | None
    early_stop_patience: int
    evaluate: str
    store: str | None
    namespace: str | None
    experiment: str
    trial: str | None
    output: str | None
    metrics_format: str
    metrics_file: str | None
    checkpoint_every: int | None
    keep_state: str
    threads: int | None
    log_format: str | None
    device: str

    @property
    def scale(self) -> float:
        """LoRA's alpha, however it was given."""
        if self.alpha is not None:
            return self.alpha
        return self.rank * (2.0 if self.alpha_ratio is None else self.alpha_ratio)

    @property
    def reported(self) -> tuple[str, ...]:
        """Metrics of the final evaluation: the loss always, the objective last."""
        others = dict.fromkeys(("loss", *self.metrics))
        others.pop(self.objective, None)
        return (*others, self.objective)

    @property
    def generates(self) -> bool:
        """Whether the final evaluation needs generated text."""
        return any(name in GENERATED_METRICS for name in self.reported)

    @property
    def keeps_results(self) -> bool:
        """Whether there is a place for manifest, adapter and checkpoints."""
        return self.store is not None or self.output is not None

    def identity(self) -> dict[str, str | int | float]:
        """Every option that can change the result, as the manifest's ``configuration``; absent ones are left out."""
        found: dict[str, str | int | float] = {}
        for flag in FLAGS:
            value = getattr(self, flag.field)
            if flag.decides and value not in (None, ()):
                found[flag.field] = ",".join(value) if isinstance(value, tuple) else value
        return found

    @property
    def trial_name(self) -> str:
        """The trial's name in the store; without one: made from the options, so that the same command finds itself."""
        if self.trial is not None:
            return self.trial
        canonical = json.dumps(self.identity(), sort_keys=True).encode()
        return f"trial-{hashlib.sha256(canonical).hexdigest()[:10]}"


def parse(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> TrainConfig:
    """Read and check a command line.

    Args:
        argv: arguments after ``train``.
        environment: variables; ``os.environ`` when None.

    Raises:
        InvalidInput: with every mistake.
        SystemExit: ``--help`` (0), or an option without its value (2).
    """
    values, problems = read_flags(argv, os.environ if environment is None else environment)
    values["model"], values["data"] = values["model"] or "", values["data"] or ""
    config = TrainConfig(**values)
    problems += _contradictions(config)
    if problems:
        raise InvalidInput(problems)
    return config


def _contradictions(config: TrainConfig) -> list[Problem]:
    """Mistakes that only two options together show."""
    checks = (
        (
            config.alpha is not None and config.alpha_ratio is not None,
            Problem("--alpha-ratio", str(config.alpha_ratio), "either --alpha or --alpha-ratio"),
        ),
        (
            config.epochs is not None and config.steps is not None,
            Problem("--epochs", str(config.epochs), "either --epochs or --steps"),
        ),
        (
            (config.micro_batch_size or 0) > config.batch_size,
            Problem("--micro-batch-size", str(config.micro_batch_size), f"at most --batch-size ({config.batch_size})"),
        ),
        (
            config.early_stop_delta is not None and config.evaluate_every is None,
            Problem("--early-stop-delta", str(config.early_stop_delta), "only together with --evaluate-every"),
        ),
        (
            config.checkpoint_every is not None and not config.keeps_results,
            Problem("--checkpoint-every", str(config.checkpoint_every), "only together with --store or --output"),
        ),
        (
            config.keep_state != "none" and not config.keeps_results,
            Problem("--keep-state", config.keep_state, "only together with --store or --output"),
        ),
        (
            config.parent is not None and config.store is None,
            Problem("--parent", str(config.parent), "only together with --store, where the parent's state is"),
        ),
        (
            config.parent is not None and config.parent == config.trial,
            Problem("--parent", str(config.parent), "another trial than this one"),
        ),
        (
            config.evaluate == "test" and config.test == 0,
            Problem("--evaluate", config.evaluate, "none, or a --test split that is not empty"),
        ),
    )
    return [problem for wrong, problem in checks if wrong]
