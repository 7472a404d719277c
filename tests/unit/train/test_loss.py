from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

from rankwise.data import Example
from rankwise.train.loss import contiguous_head, token_losses
from support.trainings import options, trainee

EXAMPLES = [Example("a long text", "short"), Example("to be or not to be", "to be"), Example("x", "a package of 試")]

# float32 sums of at most 32 products of numbers near 1 differ by some ulps (1.2e-7) with the order of summation, and a
# loss is a mean of some 10 of logits near 1: 1e-5 is far above that and far below what one wrong token would change.
CLOSE = 1e-5


def plain(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The loss of the library itself, with logits everywhere."""
    loss: torch.Tensor = model(**batch).loss
    return loss


def test_the_causal_loss_and_its_gradient_are_the_librarys(llama: Path, data: Path, tmp_path: Path) -> None:
    made = trainee(options(llama, data), tmp_path)
    batch = made.collator.collate(made.collator.encode_all(EXAMPLES))
    losses, rows = token_losses(made, batch)
    assert len(losses) == int((batch["labels"][:, 1:] != -100).sum())
    assert rows.tolist() == sorted(rows.tolist())
    assert set(rows.tolist()) == {0, 1, 2}
    expected = plain(made.base, batch)
    assert losses.mean().item() == pytest.approx(expected.item(), abs=CLOSE)
    losses.mean().backward()
    got = {name: p.grad.clone() for name, p in made.trainable().items() if p.grad is not None}
    made.peft.zero_grad()
    expected.backward()
    assert set(got) == set(made.trainable())
    assert any(gradient.abs().max() > 1e-4 for gradient in got.values())
    for name, parameter in made.trainable().items():
        assert parameter.grad is not None
        torch.testing.assert_close(got[name], parameter.grad, atol=CLOSE, rtol=0)


def test_the_seq2seq_loss_is_the_librarys_with_a_random_t5(t5: Path, data: Path, tmp_path: Path) -> None:
    made = trainee(options(t5, data, "--task", "seq2seq"), tmp_path)
    made.peft.eval()
    batch = made.collator.collate(made.collator.encode_all(EXAMPLES))
    losses, rows = token_losses(made, batch)
    assert len(losses) == int((batch["labels"] != -100).sum())
    assert losses.mean().item() == pytest.approx(plain(made.base, batch).item(), abs=CLOSE)
    # Each row's own loss, so that losses are not given to another example.
    for row in range(3):
        alone = made.collator.collate([made.collator.encode_all(EXAMPLES)[row]])
        assert losses[rows == row].mean().item() == pytest.approx(plain(made.base, alone).item(), abs=CLOSE)


def test_logits_are_made_for_target_tokens_alone(llama: Path, data: Path, tmp_path: Path) -> None:
    made = trainee(options(llama, data), tmp_path)
    batch = made.collator.collate(made.collator.encode_all(EXAMPLES))
    seen: list[Sequence[int]] = []
    made.base.lm_head.register_forward_hook(lambda *seen_by_hook: seen.append(seen_by_hook[2].shape))
    losses, _ = token_losses(made, batch)
    assert [tuple(shape) for shape in seen] == [(1, len(losses), made.base.config.vocab_size)]


def bare(model: Any) -> Any:
    """What token_losses needs of a trainee, around a model without an adapter."""
    from contextlib import nullcontext

    return SimpleNamespace(base=model.eval(), is_seq2seq=False, precision=nullcontext)


def random_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 50, (3, 9), generator=generator)
    labels = ids.clone()
    labels[:, :5] = -100
    labels[1, 8] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@pytest.mark.parametrize("cap", [None, 2.0])
def test_what_a_model_does_to_its_logits_still_happens(cap: float | None) -> None:
    """Gemma 2 caps its logits: a loss from the output layer alone would be wrong."""
    torch.manual_seed(1)
    model = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, final_logit_softcapping=cap, initializer_range=1.0,
            attn_implementation="eager",
        )
    )  # fmt: skip
    batch = random_batch()
    losses, _ = token_losses(bare(model), batch)
    # Logits of some tens here: ten times the tolerance of the small ones.
    assert losses.mean().item() == pytest.approx(plain(model, batch).item(), abs=10 * CLOSE)


def test_a_model_that_names_no_output_layer_gets_all_logits() -> None:
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=16))
    batch = random_batch()
    expected = plain(model.eval(), batch).item()
    model.get_output_embeddings = lambda: None  # type: ignore[method-assign]
    losses, rows = token_losses(bare(model), batch)
    assert len(losses) == 11
    assert rows.tolist() == [0] * 4 + [1] * 3 + [2] * 4
    assert losses.mean().item() == pytest.approx(expected, abs=CLOSE)


def test_the_output_layer_gets_one_block_of_memory_during_generation() -> None:
    head = nn.Linear(4, 3)
    seen: list[bool] = []
    head.register_forward_hook(lambda *seen_by_hook: seen.append(seen_by_hook[1][0].is_contiguous()))
    hidden = torch.randn(2, 5, 4)[:, -1:, :]
    assert not hidden.is_contiguous()
    with contiguous_head(head):
        inside = head(hidden)
    outside = head(hidden)
    assert seen == [True, False]
    torch.testing.assert_close(inside, outside)
    with contiguous_head(None):
        pass
