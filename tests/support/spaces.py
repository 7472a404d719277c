"""Search spaces to test with: the one of the LoRA search, and hypothesis strategies for all kinds."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st

from rankwise.space import ParameterText, SearchSpace, parse_space

# A loaded machine must not fail a property: no time limit for one example.
untimed = settings(deadline=None)

DISTRIBUTIONS = ("", "uniform", "logUniform", "normal", "logNormal")


def lora_texts() -> tuple[ParameterText, ...]:
    """The space of 9 × 9 × 7 × 8 × 10 = 45,360 points."""
    return (
        ParameterText("lora_rank", "int", "1", "9"),
        ParameterText("lora_alpha", "int", "4", "36", "4"),
        ParameterText("batch_size", "discrete", list=("4", "8", "16", "32", "64", "128", "256")),
        ParameterText("target_modules", "categorical", list=tuple("abcdefgh"), distribution="uniform"),
        ParameterText("learning_rate", "double", "1e-4", "1e-3", "1e-4", distribution="logUniform"),
    )


def lora_space() -> SearchSpace:
    return parse_space(lora_texts())


def decimal(number: Fraction) -> str:
    """A decimal text of a fraction whose denominator is a power of ten."""
    digits = 0
    while (number * 10**digits).denominator != 1:
        digits += 1
    whole = abs(int(number * 10**digits))
    text = f"{whole:0{digits + 1}d}"
    sign = "-" if number < 0 else ""
    return sign + (f"{text[:-digits]}.{text[-digits:]}" if digits else text)


@st.composite
def decimals(draw: st.DrawFn, low: int = -(10**6), high: int = 10**6) -> Fraction:
    """Numbers as people write them into an Experiment: a few digits and a power of ten."""
    return Fraction(draw(st.integers(low, high)), 10 ** draw(st.integers(0, 8)))


@st.composite
def ranges(draw: st.DrawFn, name: str, kind: str, stepped: bool | None = None) -> ParameterText:
    """An int or double parameter; ``stepped`` None leaves open whether it has a step."""
    distribution = draw(st.sampled_from(DISTRIBUTIONS))
    positive = distribution.startswith("log")
    if kind == "int":
        low = Fraction(draw(st.integers(1 if positive else -(10**9), 10**9)))
        span = Fraction(draw(st.one_of(st.integers(0, 200), st.sampled_from((10**5, 10**9 + 7, 10**12)))))
    else:
        low = draw(decimals(1 if positive else -(10**6)))
        span = draw(decimals(0))
    step = ""
    if span and (draw(st.booleans()) if stepped is None else stepped):
        if kind == "int":
            step = str(draw(st.integers(1, int(span))))
        else:
            parts = draw(st.sampled_from((1, 2, 3, 7, 60, 600, 10**6)))
            fraction = Fraction(int(span / parts * 10**16), 10**16)
            # Not below a double's resolution at the bounds: 1e-9 of their size is far above its 1e-16.
            step = decimal(fraction) if fraction >= (abs(low) + span) / 10**9 else ""
    return ParameterText(name, kind, decimal(low), decimal(low + span), step, distribution=distribution)


@st.composite
def lists(draw: st.DrawFn, name: str, kind: str) -> ParameterText:
    if kind == "categorical":
        values = draw(st.lists(st.text(max_size=8), min_size=1, max_size=12, unique=True))
        return ParameterText(name, kind, list=tuple(values), distribution=draw(st.sampled_from(("", "uniform"))))
    distribution = draw(st.sampled_from(DISTRIBUTIONS))
    positive = distribution.startswith("log")
    numbers = draw(st.lists(decimals(1 if positive else -(10**6)), min_size=1, max_size=12, unique=True))
    return ParameterText(name, kind, list=tuple(decimal(x) for x in numbers), distribution=distribution)


def parameters(name: str = "x") -> st.SearchStrategy[ParameterText]:
    """Valid parameters of every kind."""
    return st.one_of(ranges(name, "int"), ranges(name, "double"), lists(name, "discrete"), lists(name, "categorical"))


@st.composite
def spaces(draw: st.DrawFn, max_dimension: int = 4) -> SearchSpace:
    """Valid spaces of every kind."""
    dimension = draw(st.integers(1, max_dimension))
    return parse_space([draw(parameters(f"p{i}")) for i in range(dimension)])


units = st.floats(0.0, 1.0)
