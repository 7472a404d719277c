from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rankwise.language.tree_attention import NAME, Path, TreePass, Unsupported, attend, run
from support.language import random_model


def plain_attention(query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    """One token's attention (h, g, e) to keys and values (h, n, e), in float64."""
    scores = torch.einsum("hge,hne->hgn", query.double(), keys.double()) * scaling
    return torch.einsum("hgn,hne->hge", scores.softmax(-1), values.double())


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 4)] * 5),
    prefix=st.integers(0, 5),
    seed=st.integers(0, 2**31 - 1),
)
def test_attention_is_that_of_prefix_ancestors_and_the_token_itself(
    sizes: tuple[int, int, int, int, int], prefix: int, seed: int
) -> None:
    h, t, g, e, a = sizes
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    query, key, value = drawn(h, t, g, e), drawn(h, t, e), drawn(h, t, e)
    before = (drawn(h, prefix, e), drawn(h, prefix, e)) if prefix else None
    ancestors = (drawn(h, t, a, e), drawn(h, t, a, e))
    seen = torch.rand((t, a), generator=generator) < 0.5
    result = attend(query, key, value, before, ancestors, seen, 0.7)
    for i in range(t):
        parts = [
            (*(() if before is None else (before[which],)), ancestors[which][:, i][:, seen[i]], own[:, i : i + 1])
            for which, own in enumerate((key, value))
        ]
        expected = plain_attention(query[:, i], torch.cat(parts[0], 1), torch.cat(parts[1], 1), 0.7)
        # float32 sums of at most 10 products of numbers of size 1 … 10.
        torch.testing.assert_close(result[:, i].double(), expected, rtol=1e-4, atol=1e-5)


def test_states_of_a_path_are_handed_on_from_chunk_to_chunk() -> None:
    path = Path(layers=1, width=2, keep_all=True)
    first = torch.tensor([[[10.0], [11.0], [12.0]]])  # (1, 3, 1)
    path.enter(torch.tensor([[0, 0], [2, 0], [2, 3]]), torch.tensor([2, 4]))
    keys, values = path.gather(0, first, -first)
    assert keys[0, 2, :, 0].tolist() == [10.0, 11.0]
    assert values[0, 2, :, 0].tolist() == [-10.0, -11.0]
    path.enter(torch.tensor([[0, 1]]), torch.tensor([0, 2]))
    keys, _ = path.gather(0, torch.tensor([[[13.0]]]), torch.tensor([[[0.0]]]))
    assert keys[0, 0, :, 0].tolist() == [10.0, 12.0]
    assert [k.shape for k, _ in path.computed] == [(1, 1, 1)]


def one_token(model: Any) -> Tensor:
    path = Path(2, 1)
    path.enter(torch.zeros((1, 1), dtype=torch.long), torch.zeros(1, dtype=torch.long))
    embeddings = model.get_input_embeddings()(torch.tensor([5]))
    with torch.no_grad():
        return run(model, TreePass(None, path, torch.zeros((1, 1), dtype=torch.bool)), embeddings, torch.tensor([0]))


def test_the_model_has_its_own_attention_again_after_a_pass() -> None:
    model = random_model("llama").eval()
    own = model.config._attn_implementation
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[5]])).last_hidden_state[0]
    torch.testing.assert_close(one_token(model), expected, rtol=1e-4, atol=1e-5)
    assert model.config._attn_implementation == own != NAME
    with torch.no_grad():
        assert torch.equal(model(input_ids=torch.tensor([[5]])).last_hidden_state[0], expected)


def test_a_window_is_refused_and_the_model_left_as_it_was() -> None:
    model = random_model("mistral").eval()
    own = model.config._attn_implementation
    with pytest.raises(Unsupported, match="sliding_window"):
        one_token(model)
    assert model.config._attn_implementation == own


def test_a_model_that_does_not_ask_for_attention_is_refused() -> None:
    model = copy.deepcopy(random_model("llama")).eval()
    model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(Unsupported, match="1 of 2 layers"):
        one_token(model)
