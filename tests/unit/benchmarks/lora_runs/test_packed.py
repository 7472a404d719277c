from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.lora_runs.packed import mean_of_sequences, pack, root_mean_square


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_every_token_has_its_place(sequences: list[list[int]]) -> None:
    layout = pack(sequences)
    assert layout.longest % 4 == 0
    assert layout.longest - 4 < max(map(len, sequences)) <= layout.longest
    padded = torch.full((layout.count * layout.longest,), -1)
    padded[layout.slots] = layout.ids
    for row, sequence in zip(padded.view(layout.count, -1).tolist(), sequences, strict=True):
        assert row == sequence + [-1] * (layout.longest - len(sequence))
    assert layout.positions.tolist() == [i for sequence in sequences for i in range(len(sequence))]
    assert layout.rows.tolist() == [n for n, sequence in enumerate(sequences) for _ in sequence]


@pytest.mark.parametrize("sequences", [[], [[1], []]])
def test_empty_sequences_are_refused(sequences: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="at least one sequence"):
        pack(sequences)


def test_mean_of_sequences_and_its_gradient() -> None:
    layout = pack([[1, 2, 3], [4]])
    states = torch.arange(8.0, dtype=torch.float64).view(4, 2).requires_grad_()
    found = mean_of_sequences(states, layout)
    assert found.tolist() == [[2.0, 3.0], [6.0, 7.0]]
    assert torch.autograd.gradcheck(lambda x: mean_of_sequences(x, layout), (states,))


def test_gradient_of_the_norm() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: root_mean_square(v, weight, 1e-5), (x,))
    expected = torch.nn.functional.rms_norm(x, (5,), weight, 1e-5)
    assert torch.allclose(root_mean_square(x, weight, 1e-5), expected, rtol=0, atol=1e-12)  # a few roundings
