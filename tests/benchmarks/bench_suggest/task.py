"""What every method is asked: the same space, the same observations.

The values are made up (a bowl over the space's unit cube, with a little noise): what a suggestion costs depends on the
number of observations, hardly on where they came from, but a fit to noise alone would be no fit that anybody makes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.search.problem import Array, Dimension, dimensions, positions
from rankwise.space import Goal, Objective, ParameterText, SearchSpace, Trial, TrialState, parse_space
from support import paper_space as lists

AIM = Objective("loss", Goal.MINIMIZE)
MOST = 100
"""Observations that are drawn; a method is given the first so many of them."""
NOISE = 0.02
"""Standard deviation of the values' noise; the bowl itself is some tenths deep."""


@dataclass(frozen=True)
class Observed:
    """One ended trial.

    Attributes:
        config: of the space.
        value: smaller is better.
    """

    config: dict[str, str]
    value: float


def paper_parameters() -> list[ParameterText]:
    """The paper's space as an Experiment spells it."""
    return [
        ParameterText(parameter.name, parameter.type.value, list=tuple(parameter.values or ()))
        for parameter in lists.paper_space().parameters
    ]


def numeric_space() -> SearchSpace:
    """The paper's space as an optimizer of numbers is given it: ranges, in log scale where a user would say so."""
    logarithmic = {
        "learning_rate": lists.LEARNING_RATES,
        "rank": lists.RANKS,
        "alpha_ratio": lists.ALPHA_RATIOS,
        "batch_size": lists.BATCH_SIZES,
    }
    texts = [
        ParameterText(name, "discrete", list=values, distribution="logUniform") for name, values in logarithmic.items()
    ]
    return parse_space([*texts, ParameterText("dropout", "discrete", list=lists.DROPOUTS)])


def observations(space: SearchSpace, dims: tuple[Dimension, ...], count: int = MOST, seed: int = 0) -> list[Observed]:
    """Different configurations of a finite space with their values; fewer are the beginning of more.

    Args:
        space: search space.
        dims: the same parameters as numbers.
        count: how many, at most all.
        seed: of choice and noise.
    """
    generator = np.random.default_rng(seed)
    points = space.enumerate()
    chosen = generator.permutation(len(points))
    noise = generator.standard_normal(len(points)) * NOISE
    configs = [points.assignments(int(i)) for i in chosen[:count]]
    places = positions(dims, configs)  # (n, D)
    bowl = ((places - np.linspace(0.3, 0.7, len(dims))) ** 2).sum(axis=1)
    return [Observed(config, float(2 + b + e)) for config, b, e in zip(configs, bowl, noise[:count], strict=True)]


def paper_observations(count: int = MOST) -> list[Observed]:
    """Observations in the paper's space."""
    return observations(lists.paper_space(), dimensions(numeric_space()), count)


def as_trials(observed: list[Observed]) -> tuple[Trial, ...]:
    """As the service is told them."""
    return tuple(Trial(f"trial-{i:03d}", one.config, TrialState.SUCCEEDED, one.value) for i, one in enumerate(observed))


def nearest(space: SearchSpace, dims: tuple[Dimension, ...], position: Array) -> dict[str, str]:
    """The configuration of a space of lists that is nearest to a point of the unit cube (D,)."""
    config = {}
    for parameter, dim, at in zip(space.parameters, dims, position, strict=True):
        assert parameter.values is not None, "the space is one of lists"
        config[dim.name] = min(parameter.values, key=lambda text: abs(dim.position(float(text)) - at))
    return config
