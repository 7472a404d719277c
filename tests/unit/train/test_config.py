from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.errors import InvalidInput
from rankwise.train.config import TrainConfig, parse
from rankwise.train.flags import FLAGS, make_parser

NEEDED = ["--model", "m", "--data", "d"]


def read(*arguments: str, **environment: str) -> TrainConfig:
    return parse([*NEEDED, *arguments], environment)


def problems(*arguments: str, needed: bool = True, **environment: str) -> dict[str, str]:
    with pytest.raises(InvalidInput, match="allowed:") as caught:
        parse([*(NEEDED if needed else []), *arguments], environment)
    return {p.path: p.value for p in caught.value.problems}


def test_every_default() -> None:
    assert dataclasses.asdict(read()) == {
        "model": "m", "num_layers": None, "task": "causal", "data": "d", "source_field": "source",
        "target_field": "target", "template": None, "validation": 0.1, "test": 0.1, "split_seed": 0, "subset": 1.0,
        "subset_seed": 0, "max_source_tokens": 256, "max_target_tokens": 64, "rank": 8, "alpha": None,
        "alpha_ratio": None, "dropout": 0.0, "target_modules": ("auto",), "variant": "lora", "learning_rate": 2e-4,
        "schedule": "linear", "warmup_ratio": 0.0, "parent": None, "batch_size": 8,
        "micro_batch_size": None, "epochs": None, "steps": None, "seed": 0, "weight_decay": 0.0, "max_grad_norm": 1.0,
        "precision": "auto", "objective": "loss",
        "metrics": (), "evaluate_every": None, "generate_samples": 64, "early_stop_delta": None,
        "early_stop_patience": 5, "evaluate": "none", "store": None, "namespace": None, "experiment": "manual",
        "trial": None,
        "output": None, "metrics_format": "text", "metrics_file": None, "checkpoint_every": None, "keep_state": "none",
        "threads": None,
        "log_format": None, "device": "auto",
    }  # fmt: skip


def test_the_table_and_the_value_have_the_same_fields_in_the_same_order() -> None:
    assert [flag.field for flag in FLAGS] == [field.name for field in dataclasses.fields(TrainConfig)]


def test_the_help_names_every_flag_with_its_default() -> None:
    text = make_parser().format_help()
    for flag in FLAGS:
        assert f"--{flag.name} " in text
        assert flag.help.split(";")[0].split()[0] in text
    assert "(0.0002)" in text
    assert "(1.0)" in text  # a fraction; "1" would be one example
    assert "[RANKWISE_STORE]" in text
    assert "[RANKWISE_TRIAL, KATIB_TRIAL_NAME]" in text


def test_all_mistakes_are_told_at_once() -> None:
    found = problems(
        "--rank", "8.0", "--alpha", "0", "--dropout", "1", "--learning-rate", "-1e-4", "--schedule", "step",
        "--batch-size", "0", "--micro-batch-size", "16", "--epochs", "3", "--steps", "5", "--subset", "1.5",
        "--validation", "0", "--metrics", "loss,f1", "--objective", "accuracy", "--template", "no field",
        "--target-modules", "q_proj,,v", "--early-stop-delta", "0.1", "--experiment", "a/b", "--lr", "3",
        "--warmup-ratio", "nan", "--max-grad-norm", "inf", "--seed", "-1",
        needed=False,
    )  # fmt: skip
    assert found == {
        "--lr": "--lr", "3": "3", "--model": "nothing", "--data": "nothing", "--rank": "8.0", "--alpha": "0",
        "--dropout": "1", "--learning-rate": "-1e-4", "--schedule": "step", "--batch-size": "0", "--subset": "1.5",
        "--validation": "0", "--metrics": "loss,f1", "--objective": "accuracy", "--template": "no field",
        "--target-modules": "q_proj,,v", "--experiment": "a/b", "--warmup-ratio": "nan", "--max-grad-norm": "inf",
        "--seed": "-1", "--epochs": "3", "--micro-batch-size": "16", "--early-stop-delta": "0.1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("--alpha", "16", "--alpha-ratio", "2"), "--alpha-ratio"),
        (("--epochs", "1", "--steps", "2"), "--epochs"),
        (("--batch-size", "4", "--micro-batch-size", "5"), "--micro-batch-size"),
        (("--early-stop-delta", "0.1"), "--early-stop-delta"),
        (("--checkpoint-every", "5"), "--checkpoint-every"),
        (("--evaluate", "test", "--test", "0"), "--evaluate"),
    ],
)
def test_contradictions(arguments: tuple[str, ...], path: str) -> None:
    assert list(problems(*arguments)) == [path]


@given(st.sampled_from(["8.0", "+8", " 8", "1_0", "0x8", "8e0", "٨", "", "eight", "-", "99999999999999999999"]))
def test_a_whole_number_is_digits_and_nothing_else(text: str) -> None:
    assert problems(f"--rank={text}") == {"--rank": text}


@given(st.integers(min_value=1, max_value=10**6))
def test_whole_numbers_are_read_exactly(value: int) -> None:
    assert read("--rank", str(value)).rank == value


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_numbers_are_read_exactly(value: float) -> None:
    assert read("--learning-rate", repr(value)).learning_rate == value


def test_an_abbreviation_is_no_flag() -> None:
    assert problems("--learn=1e-4") == {"--learn=1e-4": "--learn=1e-4"}


def test_the_environment_gives_defaults_and_the_command_line_wins() -> None:
    environment = {
        "RANKWISE_STORE": "s3://b/p",
        "RANKWISE_EXPERIMENT": "e",
        "RANKWISE_TRIAL": "t",
        "RANKWISE_THREADS": "2",
    }
    config = read(**environment)
    assert (config.store, config.experiment, config.trial, config.threads) == ("s3://b/p", "e", "t", 2)
    config = read("--store", "/x", "--trial", "u", **environment)
    assert (config.store, config.trial) == ("/x", "u")


def test_a_trial_of_katib_has_its_name_unless_another_is_given() -> None:
    assert read(KATIB_TRIAL_NAME="k").trial == "k"
    assert read(KATIB_TRIAL_NAME="k", RANKWISE_TRIAL="").trial == "k"
    assert read(KATIB_TRIAL_NAME="k", RANKWISE_TRIAL="r").trial == "r"
    assert read("--trial", "t", KATIB_TRIAL_NAME="k", RANKWISE_TRIAL="r").trial == "t"
    assert problems(KATIB_TRIAL_NAME="a b") == {"KATIB_TRIAL_NAME": "a b"}


def test_the_prompt_may_come_from_a_variable() -> None:
    assert read(RANKWISE_TEMPLATE="{source}\\nAnswer: ").template == "{source}\nAnswer: "
    assert read("--template", "{source}!", RANKWISE_TEMPLATE="{source}?").template == "{source}!"


def test_where_it_runs_decides_nothing() -> None:
    plain = read().identity()
    assert read("--namespace", "n", "--log-format", "json", KATIB_TRIAL_NAME="k").identity() == plain


def test_an_empty_variable_counts_as_unset() -> None:
    config = read(RANKWISE_STORE="", RANKWISE_EXPERIMENT="", RANKWISE_TRIAL="")
    assert (config.store, config.experiment, config.trial) == (None, "manual", None)


def test_a_wrong_variable_is_named() -> None:
    assert problems(RANKWISE_THREADS="many", RANKWISE_TRIAL="a/b") == {
        "RANKWISE_THREADS": "many",
        "RANKWISE_TRIAL": "a/b",
    }


def test_alpha_however_it_is_given() -> None:
    assert read("--rank", "4").scale == 8
    assert read("--rank", "4", "--alpha-ratio", "0.5").scale == 2
    assert read("--rank", "4", "--alpha", "3").scale == 3


def test_the_loss_is_always_reported_and_the_objective_last() -> None:
    assert read().reported == ("loss",)
    assert read("--metrics", "rougeL,loss,seconds").reported == ("rougeL", "seconds", "loss")
    config = read("--objective", "rougeL", "--metrics", "bleu,rougeL")
    assert config.reported == ("loss", "bleu", "rougeL")


def test_a_template_may_write_its_line_end_out() -> None:
    assert read("--template", "{source}\\nTL;DR: ").template == "{source}\nTL;DR: "


def test_identity_holds_what_decides_the_result_and_nothing_else() -> None:
    plain = read("--rank", "4").identity()
    assert plain["rank"] == 4
    assert plain["target_modules"] == "auto"
    assert "alpha" not in plain
    moved = read(
        "--rank", "4", "--store", "/s", "--output", "o", "--trial", "t", "--threads", "2", "--checkpoint-every", "5"
    )
    assert moved.identity() == plain
    for flag in FLAGS:
        assert flag.field not in ("store", "output", "metrics_file") or not flag.decides


def test_the_same_options_make_the_same_name_for_a_trial() -> None:
    assert read("--rank", "4").trial_name == read("--rank", "4", "--output", "x").trial_name
    assert read("--rank", "4").trial_name != read("--rank", "5").trial_name
    assert read("--trial", "mine").trial_name == "mine"


def test_help_needs_no_torch() -> None:
    program = (
        "import sys\nfrom rankwise.train.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--learning-rate" in done.stdout
