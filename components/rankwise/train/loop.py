"""The training loop: AdamW on the adapter, evaluation, early stop, checkpoints.

It can be stopped between any two steps and goes on from a checkpoint as if nothing had happened: what happens at step
k is a function of the options, the state (adapter, moments, history) and k. A training that begins with the end of
another one (``--parent``) goes on counting the steps where data and dropout are concerned: at a constant rate, two
trainings of n steps in a row are one of 2n steps.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from rankwise.artifacts import Outcome, Sample
from rankwise.data import Encoded, batches
from rankwise.errors import Diverged
from rankwise.train import checkpoint
from rankwise.train.checkpoint import Progress, Saved
from rankwise.train.config import TrainConfig
from rankwise.train.cost import CostMeter
from rankwise.train.evaluate import Held, measure, to_device
from rankwise.train.flags import COST_METRICS
from rankwise.train.interruption import Interruption
from rankwise.train.loss import token_losses
from rankwise.train.metrics import Measured
from rankwise.train.model import Trainee
from rankwise.train.schedule import rate_factor
from rankwise.train.seeds import derive

log = logging.getLogger(__name__)

_SPEAK_EVERY = 5.0
"""Seconds between two progress lines."""


@dataclass
class Training:
    """One training.

    Attributes:
        config: its options.
        trainee: the model.
        encoded: training examples as tokens.
        validation: the validation set.
        meter: measures the cost; started here.
        interruption: asked between steps and between batches of an evaluation.
        on_metrics: called with the metrics of each evaluation, in the order of reporting.
        on_checkpoint: saves the state; None when there is no place for it.
        progress: how far it is.
        measured: the final metrics, after :meth:`run`.
        samples: validation examples with what was generated for them, after :meth:`run`.
    """

    config: TrainConfig
    trainee: Trainee
    encoded: Sequence[Encoded]
    validation: Held
    meter: CostMeter
    interruption: Interruption
    on_metrics: Callable[[Mapping[str, float]], None]
    on_checkpoint: Callable[[], None] | None = None
    progress: Progress = field(default_factory=Progress)
    measured: dict[str, Measured] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    optimizer: torch.optim.AdamW = field(init=False)
    _order: tuple[int, list[list[int]]] = field(init=False, default=(-1, []))
    _spoke: float = field(init=False, default=-math.inf)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(
            list(self.trainee.trainable().values()),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.encoded) / self.config.batch_size)

    @property
    def total_steps(self) -> int:
        if self.config.steps is not None:
            return self.config.steps
        return self.steps_per_epoch * (self.config.epochs or 1)

    def resume(self, saved: Saved) -> None:
        """Go on from a checkpoint; its evaluations are reported again, since a new pod's log begins empty."""
        saved.restore(self.trainee.trainable(), self.optimizer)
        self.progress = saved.progress
        for entry in self.progress.history:
            self.on_metrics({k: v for k, v in entry.items() if k != "step" and v is not None})
        log.info("resumed after step %d of %d", self.progress.step, self.total_steps)

    def inherit(self, saved: Saved, parent: str) -> None:
        """Begin with another training's end: its adapter, its moments, and its place in the data.

        Args:
            saved: the state at its end, of an adapter of the same shape.
            parent: name of its trial.
        """
        saved.restore(self.trainee.trainable(), self.optimizer)
        self.progress = Progress(inherited=saved.progress.trained, parent=parent)
        log.info("begins with %s, which was trained for %d steps", parent, saved.progress.trained)

    def write(self, folder: Path) -> None:
        """Write the state as it is into an empty folder."""
        checkpoint.write(
            folder,
            self.config.identity(),
            self.progress,
            self.trainee.trainable(),
            self.optimizer,
            self.trainee.initial,
        )

    def run(self) -> Outcome:
        """Train to the end, or until the loss no longer improves, and measure.

        Returns:
            ``succeeded`` or ``early_stopped``.

        Raises:
            Diverged: a loss or gradient is not finite.
            Interrupted: SIGTERM has come; the state is that between two steps.
            OutOfMemory: from the device's own errors, see ``memory``.
        """
        self.meter.start(self.progress.cost)
        progress, config = self.progress, self.config
        while True:
            ends = progress.step >= self.total_steps
            if not ends and self._is_due(progress.step) and not self._is_measured(progress.step):
                self._evaluate(("loss",) if config.objective == "loss" else ("loss", config.objective))
            stopped = config.early_stop_delta is not None and progress.stale >= config.early_stop_patience
            if ends or stopped:
                if not (self._is_measured(progress.step) and set(config.reported) <= set(self.measured)):
                    self._evaluate(config.reported)
                return Outcome.SUCCEEDED if ends else Outcome.EARLY_STOPPED
            every = config.checkpoint_every
            if self.on_checkpoint and every and progress.step > 0 and progress.step % every == 0:
                self.on_checkpoint()
            self.interruption.check()
            began = time.monotonic()
            loss = self._step(progress.step)
            progress.step_seconds += time.monotonic() - began
            progress.timed_steps += 1
            progress.step += 1
            self._speak(loss)

    def _is_due(self, step: int) -> bool:
        every = self.config.evaluate_every
        return every is not None and step > 0 and step % every == 0

    def _is_measured(self, step: int) -> bool:
        return bool(self.progress.history) and self.progress.history[-1]["step"] == step

    def _batch(self, step: int) -> list[Encoded]:
        """Examples of a step, counted with the inherited ones: a function of seed and step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            lengths = [e.length for e in self.encoded]
            order = batches(lengths, self.config.batch_size, derive(self.config.seed, "order"), epoch)
            self._order = (epoch, order)
        return [self.encoded[i] for i in self._order[1][position]]

    def _step(self, step: int) -> float:
        """One optimizer step; the loss of its batch in nats a token.

        Data and dropout go on where the parent's stopped; the schedule is this training's own.
        """
        trained = self.progress.inherited + step
        torch.manual_seed(derive(self.config.seed, "dropout", trained))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rate_factor(
                self.config.schedule, step, self.total_steps, self.config.warmup_ratio
            )
        chosen = self._batch(trained)
        micro = self.config.micro_batch_size or len(chosen)
        parts = [
            to_device(self.trainee, self.trainee.collator.collate(chosen[i : i + micro]))
            for i in range(0, len(chosen), micro)
        ]
        # Every target token weighs the same, in whichever part it stands: the gradient is that of the whole batch.
        tokens = sum(self._tokens(part) for part in parts)
        total = 0.0
        for part in parts:
            losses, _ = token_losses(self.trainee, part)  # (K,)
            loss = losses.sum() / tokens
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(self.trainee.trainable().values(), self.config.max_grad_norm)
        if not (math.isfinite(total) and math.isfinite(norm.item())):
            self.optimizer.zero_grad(set_to_none=True)
            what = "loss" if not math.isfinite(total) else "gradient"
            raise Diverged(f"the training {what} became {total if what == 'loss' else norm.item()} at step {step + 1}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _tokens(self, batch: Mapping[str, Tensor]) -> int:
        labels = batch["labels"] if self.trainee.is_seq2seq else batch["labels"][:, 1:]
        return int((labels != -100).sum().item())

    def _evaluate(self, names: Sequence[str]) -> None:
        self.measured, self.samples = measure(
            self.trainee, self.validation, names, self.config.max_target_tokens, self.interruption.check
        )
        loss = self.measured["loss"].value
        values = {name: measured.value for name, measured in self.measured.items()}
        if not self._is_measured(self.progress.step):
            self._note(loss)
        else:
            self.progress.history.pop()
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.progress.history.append({"step": self.progress.step} | finite)
        if not math.isfinite(loss):
            raise Diverged(f"the validation loss became {loss} at step {self.progress.step}")
        log.info("step %d of %d, validation loss %.4f", self.progress.step, self.total_steps, loss)
        costs = {name: value for name, value in self.costs().items() if name in names}
        self.on_metrics({name: (values | costs)[name] for name in names if name in values or name in costs})

    def costs(self) -> dict[str, float]:
        """Cost so far, by metric name; what cannot be measured is left out."""
        self.progress.cost = cost = replace(self.meter.read(), seconds_per_epoch=self._seconds_per_epoch())
        named = {name: getattr(cost, name) for name in COST_METRICS}
        return {name: value for name, value in named.items() if value is not None}

    def _seconds_per_epoch(self) -> float | None:
        """Mean seconds of an optimizer step times the steps of an epoch; None before the first step.

        A step reads loss and gradient norm back from the device, so its clock stops after the device's work; only the
        last update of the weights before an evaluation may still run.
        """
        if self.progress.timed_steps == 0:
            return None
        return self.progress.step_seconds / self.progress.timed_steps * self.steps_per_epoch

    def _note(self, loss: float) -> None:
        """Count evaluations that did not improve the loss by more than delta."""
        progress = self.progress
        if progress.best is None or loss < progress.best - (self.config.early_stop_delta or 0.0):
            progress.best, progress.stale = loss, 0
        else:
            progress.stale += 1

    def _speak(self, loss: float) -> None:
        now = time.monotonic()
        if now - self._spoke >= _SPEAK_EVERY:
            self._spoke = now
            log.info("step %d of %d, training loss %.4f", self.progress.step, self.total_steps, loss)
