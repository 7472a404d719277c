from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.language.cached import CachedEncoder
from rankwise.language.encoder import TransformersEncoder, load_encoder
from rankwise.language.learnable_token import TokenEncoder, shortlist
from rankwise.language.text_encoder import EmbeddingIncomplete
from support.fake_encoder import FakeEncoder
from support.language import character_tokenizer, random_model, save_random_model

PREAMBLE = "LoRA has a rank and an alpha.\nThe rate matters most.\n\n"
LINES = (("1", "16", "256"), ("0", "0.05", "0.1", "0.25"), ("1e-4", "3e-4", "0.00025"))
TEXTS = [
    f"{PREAMBLE}rank = {rank}\ndropout = {dropout}\nlr = {rate}\n" for rank, dropout, rate in itertools.product(*LINES)
]
# Of other widths, with another prefix, without one.
OTHERS = [f"{PREAMBLE}x = {'1' * 70}\n", "another preamble, of some length\n\nr = 1", "no blank line", "xy"]
# Two layers of float32 sums of some hundred products in another order, see test_encoder.py.
RELATIVE = 1e-4


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TransformersEncoder]:
    root = tmp_path_factory.mktemp("models")
    saved: dict[str, Path] = {}

    def made(kind: str = "llama", **arguments: Any) -> TransformersEncoder:
        if kind not in saved:
            saved[kind] = save_random_model(root / kind, kind)
        return load_encoder(str(saved[kind]), cache=root, device="cpu", **arguments)

    return made


def plain(kind: str, text: str, psi: Tensor) -> Tensor:
    """The final state of ψ behind one whole text, from the plain model."""
    model = random_model(kind).eval()
    ids = torch.tensor(character_tokenizer(256)(text)["input_ids"])
    embeddings = torch.cat([model.get_input_embeddings()(ids), psi[None]])
    state: Tensor = model(inputs_embeds=embeddings[None]).last_hidden_state[0, -1]
    return state


def some_psi(seed: int = 0) -> Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(seed)) * 0.2


def relative(a: Any, b: Any) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_random_model_vectors_with_the_token_equal_those_of_the_plain_model(make: Any, kind: str) -> None:
    psi, texts = some_psi(), TEXTS[::5] + OTHERS
    encoder = make(kind)
    kept = encoder.token_states(texts).vectors(psi.numpy())
    streamed = encoder.encode_with_token(texts, psi.numpy())
    assert kept.shape == streamed.shape == (len(texts), 32)
    assert kept.dtype == streamed.dtype == np.float32
    for text, a, b in zip(texts, kept, streamed, strict=True):
        expected = plain(kind, text, psi).detach().numpy()
        assert relative(a, expected) < RELATIVE, text
        assert relative(b, expected) < RELATIVE, text
    # The comparison can fail: another token or another text gives another vector.
    other = encoder.encode_with_token(texts, some_psi(1).numpy())
    assert relative(other[0], kept[0]) > 100 * RELATIVE
    assert relative(kept[1], kept[0]) > 10 * RELATIVE


def test_random_model_gradient_equals_that_of_the_plain_model(make: Any) -> None:
    texts = TEXTS[::7]
    weights = torch.randn(len(texts), 32, generator=torch.Generator().manual_seed(3))
    ours, theirs = some_psi().requires_grad_(), some_psi().requires_grad_()
    (make().token_states(texts).last_states(ours) * weights).sum().backward()
    (torch.stack([plain("llama", text, theirs) for text in texts]) * weights).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert relative(ours.grad, theirs.grad) < RELATIVE
    assert float(theirs.grad.norm()) > 1e-3


def test_random_model_gradient_reaches_a_token_of_another_precision(make: Any) -> None:
    psi = some_psi().double().requires_grad_()
    make().token_states(TEXTS[:2]).last_states(psi).double().sum().backward()
    assert psi.grad is not None
    assert psi.grad.dtype is torch.float64
    assert float(psi.grad.norm()) > 0


def test_random_model_rows_may_be_chosen_repeated_and_none(make: Any) -> None:
    texts = [*TEXTS[:6], OTHERS[0], TEXTS[0], OTHERS[1]]
    states = make().token_states(texts)
    assert len(states) == len(texts)
    everything = states.vectors(some_psi().numpy())
    assert everything[7].tobytes() == everything[0].tobytes()
    rows = [8, 2, 6, 2, 0]
    chosen = states.vectors(some_psi().numpy(), rows)
    # In other company the sums may be cut in another way.
    np.testing.assert_allclose(chosen, everything[rows], rtol=1e-4, atol=1e-5)
    assert states.vectors(some_psi().numpy(), rows).tobytes() == chosen.tobytes()
    assert states.vectors(some_psi().numpy(), []).shape == (0, 32)
    assert make().token_states([]).vectors(some_psi().numpy()).shape == (0, 32)
    assert make().encode_with_token([], some_psi().numpy()).shape == (0, 32)


def test_random_model_streamed_bits_depend_on_text_and_token_alone(make: Any) -> None:
    psi = some_psi().numpy()
    together = make().encode_with_token(TEXTS + OTHERS, psi)
    backwards = make().encode_with_token((OTHERS + TEXTS)[::-1], psi)
    assert backwards[::-1][len(OTHERS) :].tobytes() == together[: len(TEXTS)].tobytes()
    encoder = make()
    for text, vector in list(zip(TEXTS + OTHERS, together, strict=True))[::6]:
        assert encoder.encode_with_token([text], psi).tobytes() == vector.tobytes()


def test_random_model_in_bfloat16_is_near_float32(make: Any) -> None:
    single, half = make(), make(precision="bfloat16")
    psi = some_psi().numpy()
    for a, b in zip(
        (single.encode(PRODUCT[:9]), single.encode_with_token(PRODUCT[:9], psi)),
        (half.encode(PRODUCT[:9]), half.encode_with_token(PRODUCT[:9], psi)),
        strict=True,
    ):
        assert b.dtype == np.float32
        # bfloat16 has 8 bits: a relative error of 2^-9 per rounding, some tens of roundings deep.
        assert 0 < max(relative(x, y) for x, y in zip(b, a, strict=True)) < 0.1
    learned = torch.tensor(psi).requires_grad_()
    half.token_states(PRODUCT[:2]).last_states(learned).sum().backward()
    assert learned.grad is not None
    assert learned.grad.dtype is torch.float32
    assert bool(torch.isfinite(learned.grad).all())


def test_initial_token_is_the_embedding_of_the_end_of_a_text(make: Any) -> None:
    encoder = make()
    expected = random_model("llama").get_input_embeddings().weight[2].detach().numpy()
    assert np.array_equal(encoder.initial_token(), expected)
    assert np.array_equal(encoder.token_states(TEXTS[:1]).initial, expected)


# -- the cost model ------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Tokens of every pass through any model."""
    tokens: list[int] = []
    handles = []
    from rankwise.language import encoder as encoder_module

    load = encoder_module.load_model

    def note(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs["inputs_embeds"] if "inputs_embeds" in kwargs else kwargs["input_ids"]
        tokens.append(given.shape[0] * given.shape[1])

    def load_and_watch(*args: Any) -> Any:
        frozen = load(*args)
        handles.append(frozen._model.register_forward_pre_hook(note, with_kwargs=True))
        return frozen

    monkeypatch.setattr(encoder_module, "load_model", load_and_watch)
    yield tokens
    for handle in handles:
        handle.remove()


def distinct_nodes(texts: list[str]) -> int:
    tails = [text[len(PREAMBLE) :] for text in texts]
    return len({tail[:k] for tail in tails for k in range(1, len(tail) + 1)})


# 480 texts of 43 tokens behind the prefix: one trie.
PRODUCT = [
    f"{PREAMBLE}rank = {rank:03d}\nalpha = {alpha:03d}\nbatch = {batch:02d}\nlr = {rate}e-5\n"
    for rank, alpha, batch, rate in itertools.product(range(4), range(6), range(5), range(4))
]


def test_random_decoder_computes_every_node_of_the_trie_once(make: Any, counted: list[int]) -> None:
    encoder = make()
    encoder.encode(PRODUCT[:1])
    # Measurements: 2 × 8 tokens, a prefix filled up to 64, four in a tree and 10 and 11 in rows; the prefix; one chunk.
    assert counted == [16, 64, 4, 10, 11, 64, 256]
    counted.clear()
    encoder.encode(PRODUCT)
    nodes = distinct_nodes(PRODUCT)
    assert nodes == 3561
    assert counted == [256] * math.ceil(nodes / 256)
    # A rest of 43 characters each, in batches, would be 480 × 48 tokens; whole prompts 480 × 104.
    assert sum(counted) * 6 < 480 * 48


def test_random_decoder_a_new_token_costs_one_token_a_text(make: Any, counted: list[int]) -> None:
    encoder = make()
    states = encoder.token_states(PRODUCT)
    nodes = distinct_nodes(PRODUCT)
    chunks = math.ceil(nodes / 256)
    assert counted[-chunks:] == [256] * chunks
    # Two layers of keys and values of two heads of eight float32 numbers.
    assert states.bytes == nodes * 2 * 2 * 2 * 8 * 4
    counted.clear()
    states.vectors(some_psi().numpy())
    assert sum(counted) == len(PRODUCT)
    counted.clear()
    states.vectors(some_psi().numpy(), [5, 3])
    assert counted == [2]
    counted.clear()
    encoder.encode_with_token(PRODUCT, some_psi().numpy())
    assert counted == [256] * math.ceil((nodes + len(PRODUCT)) / 256)


# -- limits --------------------------------------------------------------------------------------------------------


def test_states_that_do_not_fit_into_memory_are_refused_before_they_are_computed(make: Any, counted: list[int]) -> None:
    encoder = make()
    nodes = distinct_nodes(PRODUCT)
    assert encoder.token_states(PRODUCT, most_bytes=nodes * 256).bytes == nodes * 256
    counted.clear()
    with pytest.raises(
        InvalidInput, match=r"learnable token: got '480 texts of 0.9 MiB'; allowed: states of at most 0.9 MiB"
    ):
        encoder.token_states(PRODUCT, most_bytes=nodes * 256 - 1)
    assert counted == []


@pytest.mark.parametrize("kind", ["bert", "mistral", "gemma-bidirectional"])
def test_random_model_without_plain_causal_attention_is_refused(make: Any, kind: str) -> None:
    with pytest.raises(InvalidInput, match="a decoder with causal attention"):
        make(kind).token_states(TEXTS[:1])
    with pytest.raises(InvalidInput, match="a decoder with causal attention"):
        make(kind).encode_with_token(TEXTS[:1], some_psi().numpy())


@pytest.mark.parametrize("text", ["x" * 300, "x" * 256, "x", ""])
def test_texts_without_room_for_a_token_are_refused(make: Any, text: str) -> None:
    with pytest.raises(InvalidInput, match="2 to 255 tokens"):
        make().token_states([TEXTS[0], text])


def test_deadline_stops_between_chunks(make: Any) -> None:
    encoder = make()
    ticks = itertools.count()
    for expired in (Deadline(0), Deadline(4, clock=lambda: float(next(ticks)))):
        with pytest.raises(EmbeddingIncomplete) as caught:
            encoder.encode_with_token(PRODUCT, some_psi().numpy(), expired)
        # What is done depends on ψ: it is no vector of the text that a cache could keep.
        assert caught.value.texts == ()
    with pytest.raises(EmbeddingIncomplete):
        encoder.token_states(PRODUCT, Deadline(0))


def test_waiting_for_another_call_counts_against_the_deadline(make: Any) -> None:
    encoder = make()
    states = encoder.token_states(TEXTS[:2])
    with encoder._lock, pytest.raises(EmbeddingIncomplete, match="after 0 of 2"):
        states.last_states(some_psi(), deadline=Deadline(0.01))
    assert states.last_states(some_psi(), deadline=Deadline(10)).shape == (2, 32)


def test_a_token_that_is_not_finite_is_told(make: Any) -> None:
    with pytest.raises(SurroundingsError, match="not finite"):
        make().token_states(TEXTS[:2]).vectors(np.full(32, np.nan, np.float32))


def test_random_model_threads_share_one_encoder(make: Any) -> None:
    encoder = make()
    states = encoder.token_states(TEXTS)
    expected = states.vectors(some_psi().numpy()), encoder.encode(TEXTS)
    wrong = []

    def work(i: int) -> None:
        found = states.vectors(some_psi().numpy()) if i % 2 else encoder.encode(TEXTS)
        if found.tobytes() != expected[1 - i % 2].tobytes():
            wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- with a cache --------------------------------------------------------------------------------------------------


def test_cached_encoder_hands_the_token_through_and_stores_nothing_of_it(make: Any, tmp_path: Path) -> None:
    encoder = make()
    cached = CachedEncoder(encoder, tmp_path)
    assert isinstance(cached, TokenEncoder)
    psi = cached.initial_token()
    assert cached.token_states(TEXTS).vectors(psi).tobytes() == encoder.token_states(TEXTS).vectors(psi).tobytes()
    assert cached.encode_with_token(TEXTS, psi).tobytes() == encoder.encode_with_token(TEXTS, psi).tobytes()
    assert (cached.hits, cached.misses) == (0, 0)
    assert not list(tmp_path.rglob("*.bin"))


def test_cached_encoder_around_another_kind_of_encoder_refuses(tmp_path: Path) -> None:
    for call in (
        lambda cached: cached.initial_token(),
        lambda cached: cached.token_states(["a"]),
        lambda cached: cached.encode_with_token(["a"], np.zeros(4)),
    ):
        with pytest.raises(InvalidInput, match="can put a token behind a text"):
            call(CachedEncoder(FakeEncoder(), tmp_path))


# -- the shortlist -------------------------------------------------------------------------------------------------


def test_shortlist_takes_the_best_by_a_stale_score() -> None:
    scores = np.array([0.5, np.nan, 2.0, 0.5, -np.inf, 1.0])
    assert shortlist(scores, 4).tolist() == [2, 5, 0, 3]
    assert shortlist(scores, 10).tolist() == [2, 5, 0, 3, 1, 4]
    assert shortlist(scores, 0).tolist() == []
