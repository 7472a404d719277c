"""One trial from options to result. Everything heavy is imported from here on."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from rankwise.artifacts import Cost, DataSource, Lineage, ModelSource, Outcome, Sample
from rankwise.data import Collator, Example, LoadedData, Split, load_examples, split, subset
from rankwise.errors import Diverged, InvalidInput, OutOfMemory, Problem
from rankwise.pretrained import ResolvedModel, resolve
from rankwise.settings import Settings
from rankwise.train import checkpoint
from rankwise.train.config import TrainConfig
from rankwise.train.cost import CostMeter
from rankwise.train.evaluate import Held, lead_baseline, measure
from rankwise.train.inheritance import check_fits, load_parent
from rankwise.train.interruption import Interrupted, Interruption, stopped_for_good
from rankwise.train.loop import Training
from rankwise.train.memory import is_out_of_memory
from rankwise.train.metrics import Measured
from rankwise.train.model import Trainee, build, restart_pissa
from rankwise.train.outcome import Result, keep
from rankwise.train.place import Place, parent_place
from rankwise.train.replay import LEAD, LEAD_WORDS, TEST
from rankwise.train.report import MetricLines
from rankwise.train.seeds import derive

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What the options name, found and checked."""

    model: ResolvedModel
    loaded: LoadedData
    parts: Split
    chosen: tuple[int, ...]

    def source(self, config: TrainConfig) -> DataSource:
        return DataSource(
            reference=config.data,
            sha256=self.loaded.sha256,
            train=len(self.parts.train),
            validation=len(self.parts.validation),
            test=len(self.parts.test),
            subset=len(self.chosen),
            seed=config.split_seed,
        )

    def held(self, config: TrainConfig, positions: Sequence[int], collator: Collator) -> Held:
        """A held-out set; texts are generated for the same examples of it in every trial."""
        examples = self.examples(positions)
        number = min(config.generate_samples, len(examples))
        return Held(
            examples=examples,
            encoded=tuple(collator.encode_all(examples)),
            sampled=subset(range(len(examples)), number, config.split_seed),
        )

    def examples(self, positions: Sequence[int]) -> tuple[Example, ...]:
        return tuple(self.loaded.examples[i] for i in positions)


def run_trial(config: TrainConfig, places: Sequence[Place], interruption: Interruption, lines: MetricLines) -> Outcome:
    """Train, measure, report and keep the result.

    Args:
        config: options.
        places: where results go; checkpoints go to the first.
        interruption: asked at safe points.
        lines: where metrics are reported.

    Returns:
        how it ended: succeeded or early_stopped (by --early-stop-delta, or by Katib: then the adapter is that of the
        step at which SIGTERM came, and the metrics are those of the last evaluation before it).

    Raises:
        InvalidInput: options that do not fit model or data.
        SurroundingsError: model, data or store could not be reached.
        Diverged, OutOfMemory: after the manifest was kept.
        Interrupted: after a checkpoint was saved, when there is a place for it and something to save.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    inputs = _find(config, Settings.from_environment().cache)
    interruption.check()
    # Nothing of ours draws from these generators, but a library might.
    random.seed(derive(config.seed, "python"))
    np.random.seed(derive(config.seed, "numpy") % 2**32)  # noqa: NPY002 - the global generator is the one meant
    result = Result(
        outcome=Outcome.FAILED,
        model=ModelSource(config.model, inputs.model.revision, config.num_layers),
        data=inputs.source(config),
        cost=Cost(None, None, None),
        history=[],
    )
    training: Training | None = None

    def ended(outcome: Outcome) -> Result:
        if training is None:
            return replace(result, outcome=outcome)
        training.costs()
        progress = training.progress
        lineage = None if progress.parent is None else Lineage(progress.parent, progress.inherited)
        return replace(result, outcome=outcome, cost=progress.cost, history=progress.history, lineage=lineage)

    try:
        training = _prepare(config, inputs, places, interruption, lines)
        outcome = training.run()
        result = replace(ended(outcome), measured=training.measured, samples=training.samples)
        if config.evaluate == "test":
            tested, samples = _test(config, inputs, training.trainee, interruption)
            lines.write({TEST + name: measured.value for name, measured in tested.items()})
            result = replace(result, tested=tested, samples=samples or result.samples)
    except Interrupted:
        if training is not None and stopped_for_good():
            log.info("stopped early after step %d", training.progress.step)
            stopped = replace(ended(Outcome.EARLY_STOPPED), measured=training.measured, samples=training.samples)
            keep(places, config, stopped, training)
            return Outcome.EARLY_STOPPED
        if training is not None and training.on_checkpoint is not None:
            training.on_checkpoint()
            log.info("stopped after step %d; the same command goes on from here", training.progress.step)
        raise
    except Diverged:
        keep(places, config, ended(Outcome.DIVERGED), None)
        raise
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        keep(places, config, ended(Outcome.OUT_OF_MEMORY), None)
        raise OutOfMemory(_need(config, training)) from error
    keep(places, config, result, training)
    return outcome


def _need(config: TrainConfig, training: Training | None) -> str:
    at_once = config.micro_batch_size or config.batch_size
    when = "while the model was loaded" if training is None else f"after step {training.progress.step}"
    return (
        f"out of memory {when}: {at_once} examples at once, rank {config.rank}; a smaller --micro-batch-size needs less"
    )


def _find(config: TrainConfig, cache: Path) -> _Inputs:
    """Find model and data.

    Raises:
        InvalidInput: with the mistakes of both.
    """
    problems: list[Problem] = []

    def attempt(work: Callable[[], T]) -> T | None:
        try:
            return work()
        except InvalidInput as error:
            problems.extend(
                replace(p, path=p.path if p.path.startswith("--") else f"--{p.path}") for p in error.problems
            )
            return None

    model = attempt(lambda: resolve(config.model, cache))
    loaded = attempt(
        lambda: load_examples(
            config.data, source_field=config.source_field, target_field=config.target_field, cache=cache
        )
    )
    parts = chosen = None
    if loaded is not None:
        parts = attempt(lambda: split(len(loaded.examples), config.validation, config.test, config.split_seed))
    if parts is not None:
        chosen = attempt(lambda: subset(parts.train, config.subset, config.subset_seed))
    if model is None or loaded is None or parts is None or chosen is None:
        raise InvalidInput(problems)
    log.info(
        "%d examples: %d of %d to train on, %d for validation, %d for the test",
        len(loaded.examples), len(chosen), len(parts.train), len(parts.validation), len(parts.test),
    )  # fmt: skip
    return _Inputs(model, loaded, parts, chosen)


def _prepare(
    config: TrainConfig, inputs: _Inputs, places: Sequence[Place], interruption: Interruption, lines: MetricLines
) -> Training:
    """The training at its start, which may be its parent's end, or where a checkpoint of it was saved."""
    place = places[0] if places else None
    saved = checkpoint.load(place, config.identity()) if place else None
    # A trial that was stopped goes on from its own state, which the parent's is part of already.
    elder = parent_place(config, places) if saved is None else None
    inherited = None if elder is None else load_parent(elder, config)
    begun = saved or inherited
    trainee = build(config, inputs.model, plain_start=begun is not None)
    interruption.check()
    training = Training(
        config=config,
        trainee=trainee,
        encoded=trainee.collator.encode_all(inputs.examples(inputs.chosen)),
        validation=inputs.held(config, inputs.parts.validation, trainee.collator),
        meter=CostMeter(trainee.device),
        interruption=interruption,
        on_metrics=lines.write,
    )
    parameters = trainee.trainable()
    log.info(
        "%s with %d of %d parameters to train, %d steps on %s in %s",
        config.model, sum(p.numel() for p in parameters.values()), sum(p.numel() for p in trainee.peft.parameters()),
        training.total_steps, trainee.device.type, "float32" if trainee.autocast is None else "bfloat16",
    )  # fmt: skip
    if begun is not None:
        check_fits(begun, parameters, config.parent)
        if config.variant == "pissa":
            restart_pissa(trainee, begun.of_kind("initial"))
    if saved is not None:
        training.resume(saved)
    elif inherited is not None and config.parent is not None:
        training.inherit(inherited, config.parent)
    if place is not None:

        def save() -> None:
            training.costs()
            checkpoint.save(
                place, config.identity(), training.progress, parameters, training.optimizer, trainee.initial
            )

        training.on_checkpoint = save
    return training


def _test(
    config: TrainConfig, inputs: _Inputs, trainee: Trainee, interruption: Interruption
) -> tuple[dict[str, Measured], list[Sample]]:
    """Metrics on the test split, those of the baseline as ``lead_NAME`` before them, and generated texts."""
    held = inputs.held(config, inputs.parts.test, trainee.collator)
    measured, samples = measure(trainee, held, config.reported, config.max_target_tokens, interruption.check)
    lead = lead_baseline(held, config.reported, LEAD_WORDS)
    return {LEAD + name: value for name, value in lead.items()} | measured, samples
