"""Search spaces: parameters as Katib has them, the one encoder to the unit cube, and trials as types."""

from __future__ import annotations

from rankwise.space.parameter import Distribution, Parameter, ParameterText, ParameterType
from rankwise.space.search_space import Candidates, SearchSpace, parse_space
from rankwise.space.trial import Goal, Objective, Trial, TrialState, parse_finite

__all__ = [
    "Candidates",
    "Distribution",
    "Goal",
    "Objective",
    "Parameter",
    "ParameterText",
    "ParameterType",
    "SearchSpace",
    "Trial",
    "TrialState",
    "parse_finite",
    "parse_space",
]
