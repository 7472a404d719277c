from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rankwise.artifacts import Outcome
from rankwise.errors import Diverged
from rankwise.train import checkpoint, loop
from rankwise.train.interruption import Interrupted
from rankwise.train.loop import Training
from rankwise.train.place import Place, open_places
from support.trainings import FakeLines, options, training

# What one optimizer step may differ by when float32 sums are made in another order; AdamW divides by the gradient's own
# size, so a relative difference of some ulps (1e-6) in it moves a parameter by at most that part of the rate.
CLOSE = 2e-6


def weights(made: Training) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in made.trainee.trainable().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_learns_and_leaves_the_pretrained_weights_alone(llama: Path, data: Path, tmp_path: Path) -> None:
    lines = FakeLines()
    made = training(
        options(llama, data, "--steps", "30", "--learning-rate", "1e-2", "--evaluate-every", "10"),
        tmp_path,
        lines=lines,
    )
    frozen = {n: p.detach().clone() for n, p in made.trainee.peft.named_parameters() if not p.requires_grad}
    assert len(made.encoded) == 40
    assert made.run() is Outcome.SUCCEEDED
    assert [entry["step"] for entry in made.progress.history] == [10, 20, 30]
    losses = [line["loss"] for line in lines.lines]
    assert losses == [entry["loss"] for entry in made.progress.history]
    # A random model over V tokens starts near ln V = 5.77 (sd of its logits is far below 1).
    assert losses[-1] < losses[0] < math.log(320) + 0.2
    for name, parameter in made.trainee.peft.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, frozen[name])


def test_epochs_are_passes_over_all_examples(llama: Path, data: Path, tmp_path: Path) -> None:
    made = training(options(llama, data, "--epochs", "2", "--batch-size", "16"), tmp_path)
    assert made.steps_per_epoch == 3
    assert made.total_steps == 6
    for epoch in range(2):
        seen = [id(e) for step in range(3) for e in made._batch(3 * epoch + step)]
        assert sorted(seen) == sorted(map(id, made.encoded))
    assert [id(e) for e in made._batch(0)] != [id(e) for e in made._batch(3)]


def test_accumulated_parts_make_the_step_of_the_whole_batch(llama: Path, data: Path, tmp_path: Path) -> None:
    """Parts have other numbers of target tokens (3 + 3 + 2 examples), so a mean of means would differ."""
    common = ["--batch-size", "8", "--learning-rate", "1e-3", "--steps", "3"]
    whole = training(options(llama, data, *common), tmp_path)
    parts = training(options(llama, data, *common, "--micro-batch-size", "3"), tmp_path)
    assert same(weights(whole), weights(parts))
    for step in range(3):
        sizes = {len(e.labels) for e in whole._batch(step)}
        assert len(sizes) > 1
        assert whole._step(step) == pytest.approx(parts._step(step), abs=1e-5)
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, weights(parts)[name], atol=CLOSE + 1e-3 * 1e-2, rtol=0)


def test_the_seed_decides_start_and_order_and_nothing_else_does(llama: Path, data: Path, tmp_path: Path) -> None:
    first, again, other = (
        training(options(llama, data, "--seed", seed, "--dropout", "0.3"), tmp_path) for seed in ("1", "1", "2")
    )
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))
    torch.rand(5)  # somebody else's draw in between
    assert [first._step(s) for s in range(4)] == [again._step(s) for s in range(4)]
    assert same(weights(first), weights(again))
    assert [first.encoded.index(e) for e in first._batch(0)] != [other.encoded.index(e) for e in other._batch(0)]


def test_the_data_order_does_not_depend_on_the_adapter(llama: Path, data: Path, tmp_path: Path) -> None:
    small = training(options(llama, data, "--rank", "2"), tmp_path)
    large = training(options(llama, data, "--rank", "16", "--dropout", "0.5", "--variant", "dora"), tmp_path)
    assert [small.encoded.index(e) for e in small._batch(1)] == [large.encoded.index(e) for e in large._batch(1)]


def test_an_evaluation_changes_nothing_of_the_training(llama: Path, data: Path, tmp_path: Path) -> None:
    common = ["--steps", "6", "--dropout", "0.2"]
    quiet = training(options(llama, data, *common), tmp_path)
    busy = training(options(llama, data, *common, "--evaluate-every", "1", "--objective", "rougeL"), tmp_path)
    quiet.run()
    busy.run()
    assert len(busy.progress.history) == 6
    assert same(weights(quiet), weights(busy))


def test_early_stop_after_so_many_evaluations_without_improvement(llama: Path, data: Path, tmp_path: Path) -> None:
    lines = FakeLines()
    arguments = ["--steps", "50", "--evaluate-every", "2", "--early-stop-delta", "5", "--early-stop-patience", "3"]
    made = training(options(llama, data, *arguments, "--objective", "rougeL"), tmp_path, lines=lines)
    assert made.run() is Outcome.EARLY_STOPPED
    # The first evaluation is the best; the three after it do not improve on it by 5 nats.
    assert made.progress.step == 8
    assert [list(line) for line in lines.lines] == [["loss", "rougeL"]] * 4


def test_an_improvement_starts_the_patience_again(llama: Path, data: Path, tmp_path: Path) -> None:
    made = training(options(llama, data, "--evaluate-every", "1", "--early-stop-delta", "0.1"), tmp_path)
    for loss in (5.0, 4.95, 4.91, 4.7, 4.65):
        made._note(loss)
    assert (made.progress.best, made.progress.stale) == (4.7, 1)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_number_that_is_not_finite_ends_the_training(
    where: str, llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = training(options(llama, data, "--steps", "5"), tmp_path)
    before = weights(made)
    parameter = next(iter(made.trainee.trainable().values()))
    if where == "loss":
        made.trainee.base.model.norm.weight.data[0] = math.nan
    else:
        parameter.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(Diverged, match=rf"training {where} became (nan|inf) at step 1"):
        made.run()
    assert same(weights(made), before)
    assert made.progress.step == 0


def test_a_validation_loss_that_is_not_finite_ends_the_training(llama: Path, data: Path, tmp_path: Path) -> None:
    made = training(options(llama, data, "--steps", "1"), tmp_path)
    first = made._step
    made._step = lambda step: (first(step), made.trainee.base.model.norm.weight.data.fill_(math.inf))[0]  # type: ignore[method-assign]
    with pytest.raises(Diverged, match="validation loss became nan at step 1"):
        made.run()
    assert made.progress.history == [{"step": 1, "loss": None}]


class FakeClock:
    """A clock that moves only when something that takes time is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: self.now))

    def taking(self, seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            self.now += seconds
            return work(*arguments)

        return run


def timed(made: Training, clock: FakeClock, step: float) -> Training:
    """A training whose steps take ``step`` seconds, each evaluation 1,000 and each checkpoint 100."""
    made._step = clock.taking(step, made._step)  # type: ignore[method-assign]
    made._evaluate = clock.taking(1000.0, made._evaluate)  # type: ignore[method-assign]
    if made.on_checkpoint:
        made.on_checkpoint = clock.taking(100.0, made.on_checkpoint)
    return made


@pytest.mark.parametrize("length", [("--steps", "2"), ("--steps", "7"), ("--epochs", "2")])
def test_seconds_per_epoch_are_those_of_training_alone(
    length: tuple[str, str], llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, lines = FakeClock(monkeypatch), FakeLines()
    config = options(llama, data, *length, "--batch-size", "16", "--evaluate-every", "1", "--checkpoint-every", "1",
                     "--output", str(tmp_path), "--metrics", "seconds_per_epoch")  # fmt: skip
    made = timed(training(config, tmp_path, open_places(config), lines), clock, 2.0)
    assert "seconds_per_epoch" not in made.costs()  # nothing was trained yet
    made.run()
    assert made.steps_per_epoch == 3  # of 40 examples
    assert made.costs()["seconds_per_epoch"] == made.progress.cost.seconds_per_epoch == 3 * 2.0
    assert lines.lines[-1]["seconds_per_epoch"] == 3 * 2.0


@pytest.mark.parametrize(("known", "expected"), [(True, (2 * 1.0 + 2 * 5.0) / 4), (False, 5.0)])
def test_seconds_per_epoch_of_a_resumed_training(
    known: bool, expected: float, llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, kept = FakeClock(monkeypatch), place(tmp_path, "timed")
    config = options(llama, data, "--steps", "4", "--batch-size", "16")
    first = timed(training(config, tmp_path, [kept]), clock, 1.0)
    first.interruption.check = clock.taking(0.0, lambda: _stop(first.progress.step == 2))  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        first.run()
    if not known:  # a checkpoint of a version that took no time of steps
        first.progress.timed_steps, first.progress.step_seconds = 0, 0.0
    assert first.on_checkpoint is not None
    first.on_checkpoint()
    again = timed(training(config, tmp_path, [kept]), clock, 5.0)
    assert again.progress.step == 2
    again.run()
    assert again.costs()["seconds_per_epoch"] == pytest.approx(3 * expected)


def _stop(now: bool) -> None:
    if now:
        raise Interrupted


def place(tmp_path: Path, name: str) -> Place:
    return open_places(options(Path("m"), Path("d"), "--output", str(tmp_path / name)))[0]


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora", "pissa"])
def test_a_resumed_training_is_the_unbroken_one_bit_for_bit(
    variant: str, llama: Path, data: Path, tmp_path: Path
) -> None:
    config = options(
        llama, data, "--variant", variant, "--steps", "9", "--dropout", "0.2", "--evaluate-every", "4",
        "--warmup-ratio", "0.2", "--schedule", "cosine", "--learning-rate", "3e-3", "--batch-size", "12",
    )  # fmt: skip
    unbroken = training(config, tmp_path)
    unbroken.run()
    assert unbroken.total_steps > 2 * unbroken.steps_per_epoch  # it crosses epochs

    kept = place(tmp_path, variant)
    broken = training(config, tmp_path, [kept])
    step = broken._step

    def interrupted(number: int) -> float:
        loss = step(number)
        broken.interruption.requested = number == 5
        return loss

    broken._step = interrupted  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        broken.run()
    assert broken.on_checkpoint is not None
    broken.on_checkpoint()
    lines = FakeLines()
    resumed = training(config, tmp_path, [kept], lines)
    assert resumed.progress.step == 6
    assert [list(line) for line in lines.lines] == [["loss"]]  # the evaluation at step 4 is reported again
    assert resumed.progress.cost.seconds is not None
    assert resumed.progress.cost.seconds > 0
    resumed.run()
    assert resumed.progress.history == unbroken.progress.history
    assert same(weights(resumed), weights(unbroken))


def test_a_checkpoint_of_other_options_is_left_alone(llama: Path, data: Path, tmp_path: Path) -> None:
    kept = place(tmp_path, "other")
    made = training(options(llama, data, "--rank", "4", "--steps", "4"), tmp_path, [kept])
    made._step(0)
    made.progress.step = 1
    assert made.on_checkpoint is not None
    made.on_checkpoint()
    assert training(options(llama, data, "--rank", "4", "--steps", "4"), tmp_path, [kept]).progress.step == 1
    assert training(options(llama, data, "--rank", "5", "--steps", "4"), tmp_path, [kept]).progress.step == 0


def test_the_newest_whole_checkpoint_counts_and_older_ones_go(llama: Path, data: Path, tmp_path: Path) -> None:
    kept = place(tmp_path, "newest")
    config = options(llama, data, "--steps", "9")
    made = training(config, tmp_path, [kept])
    assert made.on_checkpoint is not None
    for step in (1, 2):
        made.progress.step = step
        made.on_checkpoint()
    assert {key.split("/")[1] for key in kept.store.list("checkpoint/")} == {"step-000000002"}
    # One that was being written when the process died: no marker, or no state.
    kept.store.put_bytes("checkpoint/step-000000003/state.json", b"{}")
    kept.store.put_bytes("checkpoint/step-000000004/.complete", b"{}")
    saved = checkpoint.load(kept, config.identity())
    assert saved is not None
    assert saved.progress.step == 2
    checkpoint.remove(kept)
    assert kept.store.list("checkpoint/") == []
    assert checkpoint.load(kept, config.identity()) is None


def test_a_checkpoint_holds_no_pickle(llama: Path, data: Path, tmp_path: Path) -> None:
    kept = place(tmp_path, "plain")
    made = training(options(llama, data, "--steps", "4"), tmp_path, [kept])
    made._step(0)
    assert made.on_checkpoint is not None
    made.on_checkpoint()
    names = {key.rsplit("/", 1)[1] for key in kept.store.list("checkpoint/")}
    assert names == {"state.json", "tensors.safetensors", ".complete"}
    saved = checkpoint.load(kept, made.config.identity())
    assert saved is not None
    kinds = {name.partition("/")[0] for name in saved.tensors}
    assert kinds == {"adapter", "step", "exp_avg", "exp_avg_sq"}
    assert saved.of_kind("adapter").keys() == made.trainee.trainable().keys()


def test_checkpoints_are_saved_every_so_many_steps(llama: Path, data: Path, tmp_path: Path) -> None:
    kept = place(tmp_path, "every")
    config = options(llama, data, "--steps", "5", "--checkpoint-every", "2", "--output", str(tmp_path / "every"))
    made = training(config, tmp_path, [kept])
    saved: list[int] = []
    real: Any = made.on_checkpoint
    made.on_checkpoint = lambda: (real(), saved.append(made.progress.step))[0]
    made.run()
    assert saved == [2, 4]
