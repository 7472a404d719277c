from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from rankwise.data import CausalCollator, Collator, Encoded, Example, Seq2SeqCollator, batches
from rankwise.errors import InvalidInput
from support.small_tokenizers import small_tokenizer

TOKENIZER = small_tokenizer()
BOS = small_tokenizer(bos=True)
CLOSING = small_tokenizer(closing=True)
EXAMPLES = [
    Example("a long description of a package", "a short text"),
    Example("grün, λ und 試験 🙂", "to be"),
    Example("x", "or not to be 0123 or not to be"),
]


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])


EOS = TOKENIZER.eos_token_id
PAD = TOKENIZER.pad_token_id


# --------------------------------------------------------------------------------------------------------- causal


def test_a_causal_example_is_prompt_target_and_end() -> None:
    encoded = CausalCollator(TOKENIZER).encode(EXAMPLES[0])
    prompt = ids("a long description of a package") + ids("\nSummary:")
    target = (*ids(" a short text"), EOS)  # the template's last blank belongs to the target's first word
    assert encoded.input_ids == prompt + target
    assert encoded.labels == (-100,) * len(prompt) + target
    assert encoded.length == len(prompt + target)
    assert encoded.target_tokens == len(target)
    assert TOKENIZER.decode(encoded.input_ids) == "a long description of a package\nSummary: a short text</s>"


@pytest.mark.parametrize("template", ["{source}", "{source} =>  ", "Text: {source}\n\nIn short:\n", "{{x}} {source}|"])
def test_templates(template: str) -> None:
    encoded = CausalCollator(TOKENIZER, template).encode(EXAMPLES[0])
    assert TOKENIZER.decode(encoded.input_ids) == template.replace("{source}", EXAMPLES[0].source) + "a short text</s>"


def test_only_the_source_is_cut_never_the_template() -> None:
    collator = CausalCollator(TOKENIZER, "Q: {source} A:", max_source_tokens=3, max_target_tokens=4)
    encoded = collator.encode(EXAMPLES[0])
    prompt = ids("Q: ") + ids(EXAMPLES[0].source)[:3] + ids(" A:")
    # A target that was cut has no end token: the text does not end there.
    assert encoded.labels == (-100,) * len(prompt) + ids("a short text")[:4]
    assert len(ids("a short text")) >= 4
    assert EOS not in encoded.input_ids
    exact = CausalCollator(TOKENIZER, "{source}", max_target_tokens=len(ids("a short text")) + 1).encode(EXAMPLES[0])
    assert exact.labels[-1] == EOS


def test_the_opening_token_of_a_tokenizer_is_kept() -> None:
    collator = CausalCollator(BOS)
    assert collator.encode(EXAMPLES[0]).input_ids[0] == BOS.bos_token_id
    assert collator.encode(EXAMPLES[0]).labels[0] == -100
    assert collator.prompt(EXAMPLES[:1])["input_ids"][0, 0] == BOS.bos_token_id
    assert BOS.bos_token_id not in collator.encode(EXAMPLES[0]).input_ids[1:]


def test_a_causal_batch_is_padded_on_the_right_to_the_longest() -> None:
    collator = CausalCollator(TOKENIZER)
    encoded = collator.encode_all(EXAMPLES)
    batch = collator.collate(encoded)
    longest = max(len(e.input_ids) for e in encoded)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    for tensor in batch.values():
        assert tensor.dtype == torch.int64
        assert tensor.shape == (3, longest)
    for i, e in enumerate(encoded):
        n = len(e.input_ids)
        assert tuple(batch["input_ids"][i, :n].tolist()) == e.input_ids
        assert tuple(batch["labels"][i, :n].tolist()) == e.labels
        assert batch["input_ids"][i, n:].eq(PAD).all()
        assert batch["labels"][i, n:].eq(-100).all()
        assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (longest - n)


def test_a_tokenizer_without_padding_pads_with_its_end_token() -> None:
    tokenizer = small_tokenizer(pad=False)
    collator = CausalCollator(tokenizer)
    batch = collator.collate(collator.encode_all(EXAMPLES))
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert batch["input_ids"][padding].eq(tokenizer.eos_token_id).all()
    # The end tokens that are targets still count; those that pad do not.
    assert batch["labels"].eq(tokenizer.eos_token_id).sum() == len(EXAMPLES)


@pytest.mark.parametrize("tokenizer", [TOKENIZER, BOS])
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40), min_size=1, max_size=6),
    limit=st.integers(1, 30),
)
@settings(max_examples=60)
def test_training_and_generation_see_the_same_prompt(tokenizer: object, texts: list[str], limit: int) -> None:
    examples = [Example(text, "target") for text in texts]
    collator = CausalCollator(tokenizer, max_source_tokens=limit)  # type: ignore[arg-type]
    batch = collator.prompt(examples)
    longest = batch["input_ids"].shape[1]
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    for i, encoded in enumerate(collator.encode_all(examples)):
        prompt = [t for t, label in zip(encoded.input_ids, encoded.labels, strict=True) if label == -100]
        assert batch["input_ids"][i, longest - len(prompt) :].tolist() == prompt
        assert batch["attention_mask"][i].tolist() == [0] * (longest - len(prompt)) + [1] * len(prompt)
        assert encoded == collator.encode(examples[i])


def test_a_causal_model_generates_from_a_padded_batch_as_from_single_prompts() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    collator = CausalCollator(TOKENIZER)
    options = {"max_new_tokens": 8, "do_sample": False}
    batch = collator.prompt(EXAMPLES)
    together = collator.decode(model.generate(**batch, **options), batch)
    alone = []
    for example in EXAMPLES:
        single = collator.prompt([example])
        alone += collator.decode(model.generate(**single, **options), single)
    assert together == alone
    assert not any("Summary" in text for text in together)  # the prompt was cut off
    loss = model(**collator.collate(collator.encode_all(EXAMPLES))).loss
    assert torch.isfinite(loss)


# -------------------------------------------------------------------------------------------------------- seq2seq


def test_a_seq2seq_example_is_prompt_and_target() -> None:
    collator = Seq2SeqCollator(CLOSING, "shorten: {source}", max_source_tokens=4, max_target_tokens=40)
    encoded = collator.encode(EXAMPLES[0])
    assert encoded.input_ids == (*ids("shorten: "), *ids(EXAMPLES[0].source)[:4], EOS)
    assert encoded.labels == (*ids("a short text"), EOS)
    assert encoded.target_tokens == len(encoded.labels)
    assert encoded.length == max(len(encoded.input_ids), len(encoded.labels))


def test_a_seq2seq_batch_pads_sources_and_targets_apart() -> None:
    collator = Seq2SeqCollator(CLOSING)
    encoded = collator.encode_all(EXAMPLES)
    batch = collator.collate(encoded)
    assert batch["input_ids"].shape == (3, max(len(e.input_ids) for e in encoded))
    assert batch["labels"].shape == (3, max(len(e.labels) for e in encoded))
    for i, e in enumerate(encoded):
        assert batch["attention_mask"][i].sum() == len(e.input_ids)
        assert tuple(batch["input_ids"][i, : len(e.input_ids)].tolist()) == e.input_ids
        assert tuple(batch["labels"][i, : len(e.labels)].tolist()) == e.labels
        assert batch["labels"][i, len(e.labels) :].eq(-100).all()
    prompt = collator.prompt(EXAMPLES)
    assert torch.equal(prompt["input_ids"], batch["input_ids"])
    assert torch.equal(prompt["attention_mask"], batch["attention_mask"])


def test_a_t5_model_trains_and_generates_from_these_batches() -> None:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(CLOSING), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=PAD,
        eos_token_id=EOS, decoder_start_token_id=PAD,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    collator = Seq2SeqCollator(CLOSING)
    loss = model(**collator.collate(collator.encode_all(EXAMPLES))).loss
    loss.backward()
    assert torch.isfinite(loss)
    batch = collator.prompt(EXAMPLES)
    texts = collator.decode(model.eval().generate(**batch, max_new_tokens=5, do_sample=False), batch)
    assert len(texts) == 3
    assert all("<pad>" not in text and "</s>" not in text for text in texts)


# ------------------------------------------------------------------------------------------------------ both kinds


@pytest.mark.parametrize("kind", [CausalCollator, Seq2SeqCollator])
def test_all_problems_at_once(kind: type[CausalCollator] | type[Seq2SeqCollator]) -> None:
    with pytest.raises(InvalidInput, match="allowed:") as raised:
        kind(small_tokenizer(eos=False), "no field", 0, -1)
    paths = [problem.path for problem in raised.value.problems]
    assert paths == ["max-source-tokens", "max-target-tokens", "template", "model"]
    with pytest.raises(InvalidInput, match="exactly once"):
        kind(TOKENIZER, "{source}{source}")


@pytest.mark.parametrize("collator", [CausalCollator(TOKENIZER), Seq2SeqCollator(CLOSING)])
def test_nothing_to_encode(collator: Collator) -> None:
    assert collator.encode_all([]) == []


def test_lengths_of_an_encoded_example() -> None:
    assert Encoded((1, 2, 3), (4,)).length == 3
    assert Encoded((1,), (4, 5)).length == 2
    assert Encoded((1, 2, 3), (-100, 2, 3)).target_tokens == 2


# --------------------------------------------------------------------------------------------------------- batches


@given(
    lengths=st.lists(st.integers(1, 500), max_size=200),
    batch_size=st.integers(1, 33),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 50),
    bucket=st.integers(1, 20),
)
def test_every_example_comes_once_in_an_epoch(
    lengths: list[int], batch_size: int, seed: int, epoch: int, bucket: int
) -> None:
    made = batches(lengths, batch_size, seed, epoch, bucket=bucket)
    assert Counter(i for batch in made for i in batch) == Counter(range(len(lengths)))
    assert len(made) == -(-len(lengths) // batch_size)
    assert sum(len(batch) < batch_size for batch in made) <= 1
    assert batches(lengths, batch_size, seed, epoch, bucket=bucket) == made


def test_epochs_and_seeds_have_their_own_order() -> None:
    lengths = [i % 50 for i in range(200)]
    orders = [batches(lengths, 8, seed, epoch) for seed in range(4) for epoch in range(4)]
    assert all(one != two for i, one in enumerate(orders) for two in orders[:i])


def padding(lengths: list[int], made: list[list[int]]) -> int:
    return sum(max(lengths[i] for i in batch) * len(batch) - sum(lengths[i] for i in batch) for batch in made)


def test_examples_of_like_length_come_together() -> None:
    lengths = [(37 * i) % 101 + 1 for i in range(1000)]  # all lengths from 1 to 101, evenly
    sorted_, plain = (batches(lengths, 8, 0, 0, bucket=bucket) for bucket in (16, 1))
    # In a group of 128 sorted examples a batch of 8 spans about 1/16 of the lengths: far below what chance gives.
    assert padding(lengths, sorted_) < 0.2 * padding(lengths, plain)
    # And the batches do not come in order of their lengths.
    longest = [max(lengths[i] for i in batch) for batch in sorted_]
    assert longest != sorted(longest)
    assert len(set(longest[:10])) > 3


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"bucket": 0}, {"seed": -1}, {"epoch": -1}])
def test_values_out_of_range(wrong: dict[str, int]) -> None:
    arguments = {"batch_size": 1, "seed": 0, "epoch": 0} | wrong
    with pytest.raises(ValueError, match="out of range"):
        batches([1], **arguments)
