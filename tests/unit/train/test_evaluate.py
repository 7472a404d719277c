from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rankwise.data import Example
from rankwise.train.evaluate import Held, generate, lead_baseline, measure
from rankwise.train.interruption import Interrupted, Interruption
from rankwise.train.model import Trainee
from support.trainings import options, trainee

SOURCES = ["a long text", "to be or not to be that is", "x", "a package of short text and more of it", "be"]
EXAMPLES = [Example(source, "to be") for source in SOURCES]


def never() -> None:
    """Nobody interrupts."""


def naive(made: Trainee, example: Example, longest: int) -> str:
    """Greedy text without batches, cache and the library's loop: the definition."""
    ids = made.collator.prompt([example])["input_ids"]
    start, ends = ids.shape[1], {made.tokenizer.eos_token_id, made.tokenizer("\n")["input_ids"][0]}
    with torch.no_grad():
        for _ in range(longest):
            following = made.base(input_ids=ids).logits[0, -1].argmax()
            ids = torch.cat([ids, following[None, None]], dim=1)
            if int(following) in ends:
                break
    return made.tokenizer.decode(ids[0, start:], skip_special_tokens=True).split("\n")[0].strip()  # type: ignore[no-any-return]


def test_texts_are_the_greedy_ones_in_the_order_of_the_examples(llama: Path, data: Path, tmp_path: Path) -> None:
    made = trainee(options(llama, data), tmp_path)
    made.peft.eval()
    # A random model says little: larger weights make it say more, and other things to other prompts.
    for parameter in made.base.parameters():
        parameter.data *= 8 if parameter.dim() > 1 else 1
    texts = generate(made, EXAMPLES, 8, never)
    assert texts == [naive(made, example, 8) for example in EXAMPLES]
    assert len(set(texts)) > 1  # or the order could not be told


def test_generation_ends_at_a_line_end(llama: Path, data: Path, tmp_path: Path) -> None:
    made = trainee(options(llama, data), tmp_path)
    made.peft.eval()
    newline = made.tokenizer("\n")["input_ids"]
    assert len(newline) == 1
    word = made.tokenizer("be")["input_ids"][-1]
    steps: list[int] = []

    def force(*seen: object) -> torch.Tensor:
        logits: torch.Tensor = torch.zeros_like(seen[2])  # type: ignore[call-overload]
        logits[..., newline[0] if len(steps) == 2 else word] = 1.0
        steps.append(1)
        return logits

    made.base.lm_head.register_forward_hook(force)
    assert generate(made, EXAMPLES[:1], 20, never) == [made.tokenizer.decode([word, word])]
    assert len(steps) == 3


def test_a_random_t5_generates(t5: Path, data: Path, tmp_path: Path) -> None:
    made = trainee(options(t5, data, "--task", "seq2seq"), tmp_path)
    made.peft.eval()
    together = generate(made, EXAMPLES, 6, never)
    assert together == [generate(made, [example], 6, never)[0] for example in EXAMPLES]


def held(made: Trainee, sampled: tuple[int, ...]) -> Held:
    return Held(tuple(EXAMPLES), tuple(made.collator.encode_all(EXAMPLES)), sampled)


def test_a_measurement_does_what_is_asked_for_and_no_more(llama: Path, data: Path, tmp_path: Path) -> None:
    made = trainee(options(llama, data), tmp_path)
    made.peft.train()
    measured, samples = measure(made, held(made, (3, 0)), ("loss",), 5, never)
    assert list(measured) == ["loss"]
    assert samples == []
    assert len(measured["loss"].per_example) == 5
    assert made.peft.training
    measured, samples = measure(made, held(made, (3, 0)), ("rougeL", "seconds", "bleu", "loss"), 5, never)
    assert list(measured) == ["rougeL", "bleu", "loss"]
    assert [sample.source for sample in samples] == [SOURCES[3], SOURCES[0]]
    assert len(measured["rougeL"].per_example) == 2


def test_the_loss_is_the_mean_over_target_tokens_whatever_the_batches(
    llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainee(options(llama, data), tmp_path)
    values = []
    for size in (1, 2, 32):
        monkeypatch.setattr("rankwise.train.evaluate._LOSS_BATCH", size)
        values.append(measure(made, held(made, ()), ("loss",), 5, never)[0]["loss"].value)
    batch = made.collator.collate(made.collator.encode_all(EXAMPLES))
    made.peft.eval()
    values.append(made.base(**batch).loss.item())
    assert values == pytest.approx([values[0]] * 4, abs=1e-5)  # float32 sums in another order


def test_a_measurement_can_be_interrupted(llama: Path, data: Path, tmp_path: Path) -> None:
    made = trainee(options(llama, data), tmp_path)
    asked = Interruption()
    asked.requested = True
    with pytest.raises(Interrupted):
        measure(made, held(made, ()), ("loss",), 5, asked.check)
    assert made.peft.training


def test_the_baseline_is_the_first_words_of_the_source(llama: Path, data: Path, tmp_path: Path) -> None:
    made = trainee(options(llama, data), tmp_path)
    found = lead_baseline(held(made, (1, 2)), ("loss", "rouge1", "exact_match"), 2)
    assert list(found) == ["rouge1", "exact_match"]
    assert found["exact_match"].per_example == (1.0, 0.0)
    assert found["rouge1"].per_example == (1.0, 0.0)
