"""Trials that begin with another one's end: the same as one training, never a silent start from scratch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rankwise.artifacts import Lineage, Manifest, open_store
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.train.__main__ import main
from rankwise.train.config import TrainConfig
from rankwise.train.inheritance import load_parent
from rankwise.train.interruption import Interrupted
from rankwise.train.loop import Training
from rankwise.train.place import STATE, open_places, parent_place
from support.trainings import options, training

CONSTANT = ("--schedule", "constant", "--learning-rate", "3e-3", "--dropout", "0.2", "--batch-size", "12")
"""40 examples in batches of 12: an epoch of four steps, so that a generation of five ends within one."""


def arguments(model: Path, data: Path, store: Path, trial: str, *more: str) -> list[str]:
    fixed = ["--device", "cpu", "--precision", "fp32", "--validation", "12", "--test", "8", "--max-target-tokens", "12"]
    place = ["--store", str(store), "--experiment", "e", "--trial", trial, "--threads", "1"]
    return ["--model", str(model), "--data", str(data), *fixed, *place, *more]


def manifest(store: Path, trial: str) -> Manifest:
    return Manifest.from_json((store / f"experiments/e/trials/{trial}/manifest.json").read_bytes())


def tensors(store: Path, trial: str, part: str = "adapter/adapter_model") -> dict[str, torch.Tensor]:
    return load_file(store / f"experiments/e/trials/{trial}/{part}.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums of several threads need not have the same bits twice."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("variant", ["lora", "dora", "pissa"])
def test_two_generations_are_one_training_of_twice_the_steps(
    variant: str, llama: Path, data: Path, tmp_path: Path
) -> None:
    common = (*CONSTANT, "--variant", variant, "--keep-state", "final")
    first = arguments(llama, data, tmp_path, "first", *common, "--steps", "5")
    second = arguments(llama, data, tmp_path, "second", *common, "--steps", "5", "--parent", "first")
    whole = arguments(llama, data, tmp_path, "whole", *common, "--steps", "10")
    assert [main(command) for command in (first, second, whole)] == [0, 0, 0]
    assert same(tensors(tmp_path, "second"), tensors(tmp_path, "whole"))
    assert same(tensors(tmp_path, "second", "state/tensors"), tensors(tmp_path, "whole", "state/tensors"))
    assert manifest(tmp_path, "second").metrics == manifest(tmp_path, "whole").metrics
    assert not same(tensors(tmp_path, "second"), tensors(tmp_path, "first"))
    assert manifest(tmp_path, "second").lineage == Lineage("first", 5)
    assert manifest(tmp_path, "second").configuration["parent"] == "first"
    assert manifest(tmp_path, "second").artifacts["state"] == "experiments/e/trials/second/state"
    assert manifest(tmp_path, "first").lineage is None
    assert manifest(tmp_path, "first").history[-1]["step"] == 5
    # A third generation counts the steps of all before it.
    third = arguments(llama, data, tmp_path, "third", *common, "--steps", "1", "--parent", "second")
    assert main(third) == 0
    assert manifest(tmp_path, "third").lineage == Lineage("second", 10)


@pytest.mark.usefixtures("one_thread")
def test_the_child_has_its_own_rate_dropout_and_schedule(llama: Path, data: Path, tmp_path: Path) -> None:
    common = ("--steps", "2", "--batch-size", "12", "--keep-state", "final")
    assert main(arguments(llama, data, tmp_path, "p", *common, "--learning-rate", "1e-3")) == 0
    own = ("--parent", "p", "--learning-rate", "1e-2", "--dropout", "0.4", "--schedule", "linear")
    store = open_store(str(tmp_path))
    places = open_places(options(llama, data, *common, *own, "--store", str(tmp_path), "--experiment", "e"))
    made = training(
        options(llama, data, *common, *own, "--store", str(tmp_path), "--experiment", "e"), tmp_path, places
    )
    assert (made.progress.step, made.progress.inherited, made.progress.parent) == (0, 2, "p")
    made._step(0)
    assert made.optimizer.param_groups[0]["lr"] == 1e-2  # a linear schedule begins anew
    made._step(1)
    assert made.optimizer.param_groups[0]["lr"] == pytest.approx(5e-3)
    assert store.list("experiments/e/trials/p/checkpoint") == []


@pytest.mark.usefixtures("one_thread")
def test_a_stopped_child_goes_on_from_its_own_checkpoint(llama: Path, data: Path, tmp_path: Path) -> None:
    common = (*CONSTANT, "--keep-state", "final")
    assert main(arguments(llama, data, tmp_path, "p", *common, "--steps", "3")) == 0
    child = (*common, "--steps", "4", "--parent", "p", "--store", str(tmp_path), "--experiment", "e")
    config = options(llama, data, *child, "--trial", "stopped")
    places = open_places(config)
    broken = training(config, tmp_path, places)
    step = broken._step

    def interrupted(number: int) -> float:
        loss = step(number)
        broken.interruption.requested = number == 1
        return loss

    broken._step = interrupted  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        broken.run()
    assert broken.on_checkpoint is not None
    broken.on_checkpoint()
    # The parent's state may be gone by then: the child has all that it needs.
    for key in open_store(str(tmp_path)).list("experiments/e/trials/p/state"):
        open_store(str(tmp_path)).delete(key)
    resumed = training(config, tmp_path, places)
    assert (resumed.progress.step, resumed.progress.inherited, resumed.progress.parent) == (2, 3, "p")
    resumed.run()
    assert main(arguments(llama, data, tmp_path, "whole", *common, "--steps", "7")) == 0
    whole = tensors(tmp_path, "whole", "state/tensors")
    ended = {f"adapter/{name}": value.detach() for name, value in resumed.trainee.trainable().items()}
    assert same(ended, {name: value for name, value in whole.items() if name.startswith("adapter/")})


def test_the_state_is_kept_only_when_asked(llama: Path, data: Path, tmp_path: Path) -> None:
    assert main(arguments(llama, data, tmp_path, "plain", "--steps", "1")) == 0
    assert "state" not in manifest(tmp_path, "plain").artifacts
    assert open_store(str(tmp_path)).list("experiments/e/trials/plain/state") == []


def test_the_state_holds_no_pickle(llama: Path, data: Path, tmp_path: Path) -> None:
    assert main(arguments(llama, data, tmp_path, "p", "--steps", "1", "--keep-state", "final")) == 0
    keys = open_store(str(tmp_path)).list("experiments/e/trials/p/state/")
    assert {key.rsplit("/", 1)[1] for key in keys} == {"state.json", "tensors.safetensors", ".complete"}


def told(command: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(command) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return [line for line in shown.err.splitlines() if line.startswith("rankwise train: ")]


def test_a_parent_that_is_not_there_ends_the_trial(
    llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = told(arguments(llama, data, tmp_path, "t", "--steps", "1", "--parent", "nobody"), capsys)
    assert "--parent: got 'nobody'; allowed: a trial that has ended" in line
    assert main(arguments(llama, data, tmp_path, "plain", "--steps", "1")) == 0
    (line,) = told(arguments(llama, data, tmp_path, "t", "--steps", "1", "--parent", "plain"), capsys)
    assert "it kept no state" in line
    assert open_store(str(tmp_path)).list("experiments/e/trials/t/") == []


def test_a_parent_of_another_shape_ends_the_trial_with_everything_that_differs(
    llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = ("--steps", "1", "--keep-state", "final", "--rank", "4", "--target-modules", "q_proj")
    assert main(arguments(llama, data, tmp_path, "p", *kept)) == 0
    other = ("--steps", "1", "--parent", "p", "--rank", "8", "--variant", "dora", "--target-modules", "q_proj,v_proj")
    lines = told(arguments(llama, data, tmp_path, "t", *other), capsys)
    assert [line.split(": ")[1] for line in lines] == ["--rank", "--target-modules", "--variant"]
    assert "got '8'; allowed: 4, as the parent p has it: its weights fit no other" in lines[0]
    # Alpha, rate, dropout and the data are no shape.
    free = ("--steps", "1", "--parent", "p", "--rank", "4", "--target-modules", "q_proj", "--alpha", "1", "--seed", "3")
    assert main(arguments(llama, data, tmp_path, "free", *free, "--subset", "0.5")) == 0


def test_a_model_that_changed_behind_its_name_is_seen(
    llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = ("--steps", "1", "--keep-state", "final", "--rank", "4")
    assert main(arguments(llama, data, tmp_path, "p", *kept)) == 0
    folder = tmp_path / "experiments/e/trials/p/state"
    state = json.loads((folder / "state.json").read_text())
    state["identity"]["rank"] = 8
    (folder / ".complete").unlink()
    (folder / "state.json").write_text(json.dumps(state))
    new = tmp_path / "new"
    new.mkdir()
    for name in ("state.json", "tensors.safetensors"):
        (new / name).write_bytes((folder / name).read_bytes())
    open_store(str(tmp_path)).put_folder("experiments/e/trials/p/state", new)
    (line,) = told(arguments(llama, data, tmp_path, "t", "--steps", "1", "--rank", "8", "--parent", "p"), capsys)
    assert "a trial whose adapter has the same tensors" in line


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"schema_version": 99}'])
def test_a_damaged_state_is_a_failure_of_the_surroundings(damage: bytes, tmp_path: Path) -> None:
    config = options(Path("m"), Path("d"), "--store", str(tmp_path), "--experiment", "e", "--parent", "p")
    place = parent_place(config, open_places(config))
    assert place is not None
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "state.json").write_bytes(damage)
    place.store.put_folder(place.key(STATE), tmp_path / "new")
    with pytest.raises(SurroundingsError, match="state of the parent p cannot be read"):
        load_parent(place, config)


def read(*more: str, **environment: str) -> TrainConfig:
    from rankwise.train.config import parse

    return parse(["--model", "m", "--data", "d", *more], environment)


def test_the_parent_comes_from_a_label_and_decides_the_result() -> None:
    assert read("--store", "s", RANKWISE_PARENT="a-1").parent == "a-1"
    assert read("--store", "s", "--parent", "b", RANKWISE_PARENT="a-1").parent == "b"
    assert read("--store", "s", "--parent=", RANKWISE_PARENT="a-1").parent is None
    assert read("--store", "s", RANKWISE_PARENT="").parent is None
    assert read("--store", "s", "--parent", "b").identity()["parent"] == "b"
    assert "parent" not in read("--store", "s").identity()
    assert read("--store", "s", "--keep-state", "final").identity() == read().identity()


@pytest.mark.parametrize(
    ("more", "path"),
    [
        (("--parent", "p"), "--parent"),
        (("--parent", "p", "--output", "o"), "--parent"),
        (("--parent", "p", "--trial", "p", "--store", "s"), "--parent"),
        (("--parent", "a/b", "--store", "s"), "--parent"),
        (("--keep-state", "final"), "--keep-state"),
        (("--keep-state", "all", "--store", "s"), "--keep-state"),
    ],
)
def test_contradictions(more: tuple[str, ...], path: str) -> None:
    with pytest.raises(InvalidInput, match=path) as caught:
        read(*more)
    assert [problem.path for problem in caught.value.problems] == [path]


def test_a_training_without_a_parent_inherits_nothing(llama: Path, data: Path, tmp_path: Path) -> None:
    made: Training = training(options(llama, data, "--steps", "1"), tmp_path)
    assert (made.progress.inherited, made.progress.parent) == (0, None)
