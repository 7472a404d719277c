from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.language.encoder import TransformersEncoder, load_encoder
from rankwise.language.prompt import PromptForm
from rankwise.language.text_encoder import EmbeddingIncomplete
from support.language import CAUSAL, KINDS, character_tokenizer, random_model, save_random_model

PREAMBLE = "LoRA has a rank and an alpha.\nThe rate matters most.\n\n"
TEXTS = [
    f"{PREAMBLE}rank = {rank}\nlr = {rate}\n" for rank in (1, 16, 256) for rate in ("1e-4", "3e-4", "0.00025", "2")
] + ["short", "", "x" * 200, "another preamble, of some length\n\nr = 1", "a\n\nb", "ends with a blank line\n\n"]

# Two layers of float32 arithmetic: each value is a sum of at most some hundred products in another order, so that
# the relative error of a vector stays under 200 × 6e-8 per sum and a few of them in a row.
RELATIVE = 1e-4


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TransformersEncoder]:
    root = tmp_path_factory.mktemp("models")
    saved: dict[tuple[str, str], Path] = {}

    def made(kind: str, padding_side: str = "right", **arguments: Any) -> TransformersEncoder:
        if (kind, padding_side) not in saved:
            saved[kind, padding_side] = save_random_model(root / f"{kind}-{padding_side}", kind, padding_side)
        return load_encoder(str(saved[kind, padding_side]), cache=root, device="cpu", **arguments)

    return made


def plain_vector(kind: str, text: str, pooling: str) -> np.ndarray:
    """One text alone, without padding, prefix or batch."""
    model = random_model(kind).eval()
    model = model.get_encoder() if kind == "t5" else model
    ids = character_tokenizer(256)(text)["input_ids"] or [2]
    with torch.no_grad():
        hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return np.asarray((hidden[-1] if pooling == "last" else hidden.mean(dim=0)).numpy())


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_random_model_vectors_equal_those_of_the_plain_model(make: Any, kind: str, pooling: str) -> None:
    encoder = make(kind, pooling=pooling)
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 32)
    assert vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert relative(vector, plain_vector(kind, text, pooling)) < RELATIVE, text
    # The comparison can fail: different texts are further apart than the tolerance by far.
    assert relative(vectors[0], vectors[1]) > 100 * RELATIVE


@pytest.mark.parametrize("kind", KINDS)
def test_random_model_pools_as_its_architecture_wants(make: Any, kind: str) -> None:
    encoder = make(kind)
    named_causal = kind in (*CAUSAL, "gemma-bidirectional")
    assert encoder.pooling == ("last" if named_causal else "mean")
    assert encoder.form == (PromptForm.FULL if named_causal else PromptForm.COMPACT)
    assert encoder.dimension == 32


@pytest.mark.parametrize("kind", ["bert", "llama"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_random_model_vector_depends_on_nothing_but_its_text(make: Any, kind: str, data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.one_of(st.sampled_from(TEXTS), st.text(CHARACTERS, max_size=40)), max_size=40))
    encoder = make(kind)
    alone = {text: encoder.encode([text])[0] for text in set(texts)}
    together = make(kind).encode(texts)
    assert together.shape == (len(texts), 32)
    for text, vector in zip(texts, together, strict=True):
        assert vector.tobytes() == alone[text].tobytes()


CHARACTERS = st.characters(codec="utf-8")


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_random_model_bits_are_the_same_with_one_and_two_threads(make: Any, kind: str) -> None:
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(make(kind).encode(TEXTS))
    finally:
        torch.set_num_threads(threads)
    assert results[0].tobytes() == results[1].tobytes()


def test_random_model_padding_side_of_the_tokenizer_plays_no_part(make: Any) -> None:
    for kind in ("bert", "llama"):
        right, left = make(kind).encode(TEXTS), make(kind, padding_side="left").encode(TEXTS)
        assert right.tobytes() == left.tobytes()


def test_random_model_threads_share_one_encoder(make: Any) -> None:
    encoder = make("llama")
    expected = make("llama").encode(TEXTS)
    results: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        results[i] = encoder.encode(TEXTS[i:] + TEXTS[:i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        assert results[i].tobytes() == np.roll(expected, -i, axis=0).tobytes()


# -- what the model is given ---------------------------------------------------------------------------------------


@pytest.fixture
def given_shapes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Shapes of the input of every call of any model."""
    shapes: list[tuple[int, int]] = []

    def note(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if "input_ids" in kwargs:
            shapes.append(tuple(kwargs["input_ids"].shape))

    handles = []
    from rankwise.language import encoder as encoder_module

    load = encoder_module.load_model

    def load_and_watch(*args: Any) -> Any:
        frozen = load(*args)
        handles.append(frozen._model.register_forward_pre_hook(note, with_kwargs=True))
        return frozen

    monkeypatch.setattr(encoder_module, "load_model", load_and_watch)
    yield shapes
    for handle in handles:
        handle.remove()


def test_random_decoder_computes_a_shared_prefix_once(make: Any, given_shapes: list[tuple[int, int]]) -> None:
    # With a window over the last 16 tokens: every text's rest is computed by itself.
    encoder = make("mistral")
    texts = TEXTS[:12]
    encoder.encode(texts)
    assert len(PREAMBLE) == 54
    # Two measurements, the second of which begins with a prefix; the prefix of 54 tokens, filled up to 64 as well;
    # and one batch for each bucket of the tails' lengths.
    tails = {-(-(len(text) - len(PREAMBLE)) // 8) * 8 for text in texts}
    assert given_shapes[0] == (2, 8)
    assert given_shapes.count((1, 64)) == 2
    assert sorted(length for rows, length in given_shapes if rows > 2) == sorted(tails)
    given_shapes.clear()
    encoder.encode(texts[::-1])
    assert sorted(length for _, length in given_shapes) == sorted(tails)


@pytest.mark.parametrize("kind", ["bert", "gemma-bidirectional", "t5"])
def test_random_bidirectional_model_reuses_no_prefix(make: Any, given_shapes: list[tuple[int, int]], kind: str) -> None:
    make(kind).encode(TEXTS[:1])
    assert given_shapes[-1][1] >= len(TEXTS[0])


def test_random_model_computes_a_repeated_text_once(make: Any, given_shapes: list[tuple[int, int]]) -> None:
    vectors = make("bert").encode(["same text"] * 1000)
    assert len(given_shapes) == 1
    assert (vectors == vectors[0]).all()


def test_random_model_batches_have_one_shape_for_each_bucket(make: Any, given_shapes: list[tuple[int, int]]) -> None:
    encoder = make("bert")
    for count in (1, 3, 70):
        encoder.encode([f"{i:05d}" for i in range(count)])
    assert set(given_shapes) == {(64, 8)}
    assert len(given_shapes) == 1 + 1 + 2


def test_no_text_needs_no_model(make: Any, given_shapes: list[tuple[int, int]]) -> None:
    assert make("bert").encode([]).shape == (0, 32)
    assert given_shapes == []


# -- long texts ----------------------------------------------------------------------------------------------------


def test_random_model_truncation_keeps_the_end_and_is_told_once(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    encoder = make("llama", max_tokens=40)
    end = "rank = 16\nlr = 3e-4 and forty characters"
    assert len(end) == 40
    with caplog.at_level(logging.WARNING, logger="rankwise"):
        vectors = encoder.encode(["a" * 100 + end, "b" * 77 + "\n\n" + end, end])
        encoder.encode(["c" * 100 + end])
    assert vectors[0].tobytes() == vectors[1].tobytes() == vectors[2].tobytes()
    assert [record.message for record in caplog.records] == [
        "a text is longer than the model reads; its beginning is dropped"
    ]
    assert caplog.records[0].__dict__["max_tokens"] == 40


def test_random_model_longest_text_is_what_model_and_tokenizer_allow(make: Any) -> None:
    assert make("bert").max_tokens == 256
    assert make("bert", max_tokens=64).max_tokens == 64
    assert make("bert", max_tokens=9999).max_tokens == 256


# -- deadlines -----------------------------------------------------------------------------------------------------


def test_random_model_deadline_hands_over_what_is_done(make: Any) -> None:
    encoder = make("bert")
    texts = [f"{i:05d}" for i in range(200)]
    clock = itertools.count()
    # The clock is read when the deadline is made, before waiting for the model and before each batch of 64: two
    # batches fit into 4 ticks.
    with pytest.raises(EmbeddingIncomplete, match="after 128 of 200 texts") as caught:
        encoder.encode(texts, Deadline(4, clock=lambda: float(next(clock))))
    assert (caught.value.done, caught.value.total) == (128, 200)
    assert len(caught.value.texts) == 128
    assert caught.value.vectors.tobytes() == encoder.encode(caught.value.texts).tobytes()


def test_expired_deadline_loads_no_model(make: Any, given_shapes: list[tuple[int, int]]) -> None:
    with pytest.raises(EmbeddingIncomplete, match="after 0 of 1 texts"):
        make("bert").encode(["a"], Deadline(0))
    assert given_shapes == []


def test_waiting_for_another_call_counts_against_the_deadline(make: Any) -> None:
    encoder = make("bert")
    with encoder._lock, pytest.raises(EmbeddingIncomplete, match="after 0 of 2 texts"):
        encoder.encode(["a", "b"], Deadline(0.01))
    assert encoder.encode(["a", "b"]).shape == (2, 32)


# -- identity and bad input ----------------------------------------------------------------------------------------


def test_identity_tells_everything_that_changes_a_vector(make: Any, tmp_path: Path) -> None:
    identities = [
        make("bert").identity,
        make("llama").identity,
        make("bert", pooling="last").identity,
        make("bert", max_tokens=16).identity,
        make("bert", precision="bfloat16").identity,
    ]
    assert len(set(identities)) == len(identities)
    assert make("bert", pooling="auto").identity == make("bert", pooling="mean").identity


def test_identity_follows_the_weights_and_not_the_place(tmp_path: Path) -> None:
    identities = []
    for place in ("a/model", "b/model"):
        folder = save_random_model(tmp_path / place, "bert")
        identities.append(load_encoder(str(folder), cache=tmp_path, device="cpu").identity)
    assert identities[0] == identities[1]
    model = random_model("bert")
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[5, 5] += 1
    model.save_pretrained(tmp_path / "b/model")
    assert load_encoder(str(tmp_path / "b/model"), cache=tmp_path, device="cpu").identity != identities[0]


def test_random_model_in_bfloat16_is_near_float32(make: Any) -> None:
    single, half = make("bert").encode(TEXTS), make("bert", precision="bfloat16").encode(TEXTS)
    for a, b in zip(single, half, strict=True):
        # bfloat16 has 8 bits: a relative error of 2^-9 per rounding, some tens of roundings deep.
        assert 0 < relative(b, a) < 0.1


def test_every_wrong_argument_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="pooling") as caught:
        load_encoder(
            "x",
            cache=tmp_path,
            pooling="max",  # type: ignore[arg-type]
            precision="int8",  # type: ignore[arg-type]
            max_tokens=0,
            device="tpu",
        )
    assert [problem.path for problem in caught.value.problems] == ["pooling", "precision", "max_tokens", "device"]


def test_missing_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="existing folder"):
        load_encoder(str(tmp_path / "none"), cache=tmp_path)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_damaged_description_is_told(tmp_path: Path, file: str) -> None:
    folder = save_random_model(tmp_path / "model", "bert")
    (folder / file).write_text("{")
    with pytest.raises(SurroundingsError, match="cannot load the language model model"):
        load_encoder(str(folder), cache=tmp_path, device="cpu")


def test_damaged_weights_are_told_when_they_are_needed(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model", "bert")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    encoder = load_encoder(str(folder), cache=tmp_path, device="cpu")
    with pytest.raises(SurroundingsError, match="cannot load the language model model"):
        encoder.encode(["a"])


def test_weights_that_are_not_finite_are_told(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model", "bert")
    model = random_model("bert")
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[:] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(SurroundingsError, match="not finite"):
        load_encoder(str(folder), cache=tmp_path, device="cpu").encode(["a"])
