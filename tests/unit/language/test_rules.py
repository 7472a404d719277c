"""Quantities behind configurations, and the rules that are stated in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.language.quantities import quantities
from rankwise.language.rules import MOST_DEVIATIONS, Rule, literature, log_plausibility
from rankwise.space import ParameterText, SearchSpace, parse_space
from support.spaces import spaces, untimed


def space_of(**lists: tuple[str, ...]) -> SearchSpace:
    return parse_space([ParameterText(name, "categorical", list=values) for name, values in lists.items()])


def at(space: SearchSpace, **point: str) -> dict[str, float]:
    return {name: float(values[0]) for name, values in quantities(space.at(space.encode([point]))).items()}


def test_alpha_and_its_ratio_say_the_same() -> None:
    by_alpha = at(space_of(lora_r=("8", "16"), lora_alpha=("8", "32"), lr=("1e-4", "3e-4")), lora_r="16",
                  lora_alpha="32", lr="3e-4")  # fmt: skip
    by_ratio = at(space_of(rank=("8", "16"), alpha_ratio=("1", "2"), learningRate=("1e-4", "3e-4")), rank="16",
                  alpha_ratio="2", learningRate="3e-4")  # fmt: skip
    for found in (by_alpha, by_ratio):
        assert (found["rank"], found["scaling"], found["learning_rate"]) == (16, 2, 3e-4)
        assert found["step_size"] == pytest.approx(6e-4)


def test_rslora_scales_with_the_root_of_the_rank() -> None:
    space = space_of(rank=("4", "16"), alpha=("8", "16"), variant=("lora", "rslora"), lr=("1e-4", "1e-3"))
    assert at(space, rank="16", alpha="8", variant="lora", lr="1e-3")["scaling"] == 0.5
    assert at(space, rank="16", alpha="8", variant="rslora", lr="1e-3")["scaling"] == 2


def test_what_a_space_does_not_tell_is_missing() -> None:
    space = space_of(alpha=("8", "16"), lr=("1e-4", "fast"), optimizer=("adam", "sgd"))
    found = quantities(space.at(space.encode([{"alpha": "8", "lr": "fast", "optimizer": "sgd"}])))
    assert set(found) == {"alpha", "learning_rate"}
    assert np.isnan(found["learning_rate"]).all()


@untimed
@given(spaces(), st.integers(0, 100))
def test_any_space_has_finite_plausibilities_or_none(space: SearchSpace, seed: int) -> None:
    points = space.candidates(8, seed)
    scores = log_plausibility(quantities(points), literature())
    assert scores is None or (scores.shape == (len(points),) and np.isfinite(scores).all() and (scores <= 0).all())


def test_a_rule_is_a_bounded_log_normal_density() -> None:
    rule = Rule("learning_rate", 4e-4, 2.0)
    density = rule.log_density(np.array([4e-4, 1e-4, 1.6e-3, 1e-30, 0.0, np.nan]))
    # Two octaves are one deviation.
    np.testing.assert_allclose(density, [0, -0.5, -0.5, -0.5 * MOST_DEVIATIONS**2, 0, 0], atol=1e-12)


def test_the_literature_prefers_the_usual_configuration() -> None:
    space = parse_space(
        [
            ParameterText("rank", "discrete", list=("1", "8", "64")),
            ParameterText("alpha_ratio", "discrete", list=("0.5", "2", "128")),
            ParameterText("learning_rate", "discrete", list=("1e-6", "3e-4", "5e-2")),
            ParameterText("dropout", "discrete", list=("0", "0.3")),
        ]
    )
    points = space.enumerate()
    scores = log_plausibility(quantities(points), literature())
    assert scores is not None
    assert points.assignments(int(scores.argmax())) == {
        "rank": "64", "alpha_ratio": "2", "learning_rate": "3e-4", "dropout": "0",
    }  # fmt: skip
    assert points.assignments(int(scores.argmin()))["learning_rate"] in ("1e-6", "5e-2")


def test_the_rate_alone_counts_where_the_scaling_is_unknown() -> None:
    space = parse_space([ParameterText("lr", "discrete", list=("1e-6", "5e-4", "1e-1"))])
    scores = log_plausibility(quantities(space.enumerate()), literature())
    assert scores is not None
    assert scores.argmax() == 1
    assert {rule.quantity for rule in literature()} >= {"learning_rate", "reach"}


def test_the_reach_is_the_step_size_of_the_usual_rank_and_batch() -> None:
    space = space_of(r=("4", "16", "256"), alpha_ratio=("1", "2"), lr=("1e-4", "1e-3"), batch_size=("4", "16", "64"))
    usual = at(space, r="16", alpha_ratio="2", lr="1e-3", batch_size="16")
    assert usual["reach"] == usual["step_size"] == 2e-3
    ranks = [at(space, r=r, alpha_ratio="1", lr="1e-3", batch_size="16")["reach"] for r in ("4", "256")]
    assert ranks[1] / ranks[0] == pytest.approx(5.6, rel=0.02)  # 64 ** 0.41 = 5.50
    batches = [at(space, r="16", alpha_ratio="1", lr="1e-3", batch_size=b)["reach"] for b in ("4", "64")]
    assert batches[0] / batches[1] == pytest.approx(4)


def test_the_reach_needs_neither_rank_nor_batch() -> None:
    space = space_of(alpha_ratio=("1", "2"), lr=("1e-4", "1e-3"), rank=("auto", "8"))
    assert at(space, alpha_ratio="2", lr="1e-3", rank="auto")["reach"] == 2e-3
