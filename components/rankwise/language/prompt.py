"""A configuration becomes text for a language model.

Two forms, because two kinds of models read them:

* ``full``: prose on what the hyperparameters do and how they relate, a sentence on each parameter, a blank line, and
  then the configuration, one ``name = value`` a line. For decoder models: everything before the blank line is the same
  for all configurations, and its states are computed once (see :mod:`rankwise.language.encoder`).
* ``compact``: the configuration alone, in words, about 30 tokens. For small bidirectional encoders, which would spend
  nine tenths of their time on prose that is the same for all.

A text depends on the configuration alone: not on the order of the parameters in the Experiment, nor on how a number
was spelled (``3e-4`` and ``0.0003`` give the same text).

The wording of the compact form was chosen by measurement (``tests/benchmarks/bench_prompts.py``): numbers that
tokenizers keep whole (300 millionths rather than 0.0003), each with a word for its magnitude, and alpha as the
scaling alpha / rank, in which it acts.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from rankwise.errors import InvalidInput, Problem
from rankwise.language import guide as guides
from rankwise.language.guide import Guide, guide_for
from rankwise.space import Candidates, SearchSpace, parse_finite

MAX_TEXT_BYTES = 64 * 1024
"""Largest text of a user. Every configuration's prompt begins with it, and no model reads more."""

PREFIX_END = "\n\n"
"""Its last occurrence ends what all prompts have in common; an encoder computes the states of that part once."""


class PromptForm(enum.Enum):
    """How much a prompt says besides the configuration."""

    FULL = "full"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What stands before a configuration, and the form in which the configuration follows.

    Attributes:
        form: full or compact.
        preamble: prose, the user's own or ours; empty in the compact form unless the user gave a text.
        sentences: one on each parameter, in the order of the configuration's lines; empty in the compact form.
        own: whether the preamble is the user's.
    """

    form: PromptForm
    preamble: str
    sentences: tuple[str, ...]
    own: bool = False

    @property
    def head(self) -> str:
        """All that is the same for every configuration; ends with a blank line unless it is empty."""
        parts = [self.preamble.strip()] if self.preamble.strip() else []
        if self.sentences:
            parts.append("Parameter guide:\n" + "\n".join(self.sentences))
        if self.form is PromptForm.FULL:
            parts.append("The configuration:")
        return "".join(part + PREFIX_END for part in parts)


def load_prompt(
    text_or_path: str | None, space: SearchSpace, form: PromptForm = PromptForm.FULL, path: str = "prompt"
) -> Prompt:
    """Make the prompt for a space.

    Args:
        text_or_path: the user's own preamble, or the path of a UTF-8 text file that holds it; None or empty for ours.
            One line without spaces that contains ``/`` or ends with ``.txt`` or ``.md`` is taken for a path.
        space: whose parameters are described.
        form: see the module. A user's text goes before the compact form too, and its tokens are computed anew for
            every configuration then.
        path: name of the setting, for messages.

    Raises:
        InvalidInput: the file cannot be read, or the text is too long or blank.
    """
    own = bool(text_or_path)
    preamble = guides.PREAMBLE if form is PromptForm.FULL else ""
    if text_or_path:
        preamble = _user_text(text_or_path, path)
    sentences: tuple[str, ...] = ()
    if form is PromptForm.FULL:
        sentences = tuple(_sentence(space.names[j]) for j in _order(space))
    return Prompt(form, preamble, sentences, own)


def _user_text(given: str, path: str) -> str:
    shown = given if len(given) <= 60 else given[:60] + "…"
    text = given
    if "\n" not in given:
        # The contents of a file never go into a message: a path may have been given by somebody else.
        try:
            is_file = Path(given).is_file()
            if is_file:
                with Path(given).open("rb") as stream:
                    text = stream.read(MAX_TEXT_BYTES + 1).decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidInput([Problem(path, shown, "a text file in UTF-8")]) from None
        except OSError as error:
            raise InvalidInput(
                [Problem(path, shown, f"a text, or a file that can be read ({error.strerror or error})")]
            ) from None
        if not is_file and re.fullmatch(r"\S*/\S*|\S+\.(txt|md)", given):
            raise InvalidInput([Problem(path, shown, "a text, or the path of an existing text file")])
    if not text.strip():
        raise InvalidInput([Problem(path, shown, "a text that is not blank")])
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise InvalidInput([Problem(path, shown, f"at most {MAX_TEXT_BYTES} bytes of text")])
    return text


def describe(prompt: Prompt, space: SearchSpace, assignments: Mapping[str, str]) -> str:
    """The text of one configuration.

    Raises:
        ValueError: the configuration is not in the space.
    """
    return _describe_keys(prompt, space, [space.key(assignments)])[0]


def describe_all(prompt: Prompt, space: SearchSpace, candidates: Candidates) -> list[str]:
    """The texts of many configurations: the same as :func:`describe` of each, with every part made once.

    Raises:
        ValueError: the candidates are of another space.
    """
    if candidates.space != space:
        raise ValueError("the candidates belong to another space")
    return _describe_keys(prompt, space, candidates.keys)


# -------------------------------------------------------------------------------------------------- how it is put

_Render = Callable[[tuple[Hashable, ...]], str]


@dataclass(frozen=True, slots=True)
class _Clause:
    """A part of the text and the parameters that it depends on."""

    columns: tuple[int, ...]
    render: _Render


def _order(space: SearchSpace) -> list[int]:
    """Columns of the space: known parameters in the guide's order, then the others by name."""

    def place(j: int) -> tuple[int, str]:
        known = guide_for(space.names[j])
        return (len(guides.ORDER) if known is None else guides.ORDER[known.kind], space.names[j])

    return sorted(range(space.dimension), key=place)


def _sentence(name: str) -> str:
    known = guide_for(name)
    # Not str.format: a name may hold braces.
    return "- " + (guides.NEUTRAL_SENTENCE if known is None else known.sentence).replace("{name}", name)


def _describe_keys(prompt: Prompt, space: SearchSpace, keys: Sequence[tuple[Hashable, ...]]) -> list[str]:
    full = prompt.form is PromptForm.FULL
    clauses = _full_clauses(space) if full else _compact_clauses(space)
    columns: list[list[str]] = []
    for clause in clauses:
        known: dict[tuple[Hashable, ...], str] = {}
        column = []
        for key in keys:
            values = tuple([key[j] for j in clause.columns])
            text = known.get(values)
            if text is None:
                text = known[values] = clause.render(values)
            column.append(text)
        columns.append(column)
    head, separator, end = prompt.head, ("\n" if full else ", "), ("\n" if full else ".")
    return [head + separator.join(row) + end for row in zip(*columns, strict=True)]


def _full_clauses(space: SearchSpace) -> list[_Clause]:
    """``name = value`` for each parameter, and the scaling where it follows from others."""
    clauses = []
    for j in _order(space):
        name = space.names[j]
        clauses.append(_Clause((j,), lambda values, name=name: f"{name} = {_exact(values[0])}"))  # type: ignore[misc]
    scaling = _scaling_columns(space)
    if scaling is not None and scaling.alpha is not None:
        clauses.append(
            _Clause(scaling.columns, lambda values: f"alpha / rank = {_optional(scaling.ratio(values), _exact)}")
        )
    return clauses


def _optional(number: float | None, render: Callable[[Hashable], str]) -> str:
    return "unknown" if number is None else render(number)


def _compact_clauses(space: SearchSpace) -> list[_Clause]:
    """Each parameter in words; alpha as the scaling wherever the rank is known."""
    scaling = _scaling_columns(space)
    clauses = []
    for j in _order(space):
        known = guide_for(space.names[j])
        # Values of a list or a grid keep all digits, so that different configurations have different texts; of a
        # continuous value four digits are as much as words can tell.
        digits = 4 if space.parameters[j].values is None and space.parameters[j].step is None else 12
        if known is None:
            name = re.sub(r"[\W_]+", " ", space.names[j]).strip() or space.names[j]
            clauses.append(_Clause((j,), lambda values, name=name: f"{name} {_exact(values[0])}"))  # type: ignore[misc]
        elif scaling is not None and j in (scaling.alpha, scaling.given):
            clauses.append(_Clause(scaling.columns, lambda values: _scaling_phrase(scaling, values)))
        else:
            clauses.append(
                _Clause((j,), lambda values, known=known, digits=digits: _phrase(known, values[0], digits))  # type: ignore[misc]
            )
    return clauses


@dataclass(frozen=True, slots=True)
class _Scaling:
    """Which parameters the scaling follows from: rank and alpha, or alpha / rank itself; and the variant."""

    rank: int | None
    alpha: int | None
    given: int | None
    variant: int | None

    @property
    def columns(self) -> tuple[int, ...]:
        return tuple(j for j in (self.rank, self.alpha, self.given, self.variant) if j is not None)

    def _values(self, values: Iterable[Hashable]) -> dict[int, Hashable]:
        return dict(zip(self.columns, values, strict=True))

    def ratio(self, values: Iterable[Hashable]) -> float | None:
        """alpha / rank; None when it cannot be told."""
        by_column = self._values(values)
        if self.given is not None:
            return _number(by_column[self.given])
        assert self.rank is not None, "alpha alone gives no scaling"  # noqa: S101 - see _scaling_columns
        assert self.alpha is not None, "neither alpha nor a ratio"  # noqa: S101
        rank, alpha = _number(by_column[self.rank]), _number(by_column[self.alpha])
        return None if rank is None or alpha is None or rank <= 0 else alpha / rank

    def factor(self, values: Iterable[Hashable]) -> float | None:
        """The factor on the update: alpha / rank, or alpha / sqrt(rank) under rslora (arXiv 2312.03732)."""
        values = tuple(values)
        ratio, by_column = self.ratio(values), self._values(values)
        if ratio is None or self.variant is None or self.rank is None or by_column[self.variant] != "rslora":
            return ratio
        rank = _number(by_column[self.rank])
        return None if rank is None or rank <= 0 else ratio * math.sqrt(rank)


def _scaling_columns(space: SearchSpace) -> _Scaling | None:
    """Where the scaling can be read off; None when the space has neither alpha with a rank nor their ratio."""
    first: dict[str, int] = {}
    for j in _order(space):
        known = guide_for(space.names[j])
        if known is not None:
            first.setdefault(known.kind, j)
    rank, alpha, given = (first.get(kind.kind) for kind in (guides.RANK, guides.ALPHA, guides.SCALING))
    variant = first.get(guides.VARIANT.kind)
    if given is not None:
        return _Scaling(rank, None, given, variant)
    if alpha is not None and rank is not None:
        return _Scaling(rank, alpha, None, variant)
    return None


def _scaling_phrase(scaling: _Scaling, values: tuple[Hashable, ...]) -> str:
    factor = scaling.factor(values)
    return "unknown scaling" if factor is None else _phrase(guides.SCALING, factor, digits=6)


def _phrase(known: Guide, value: Hashable, digits: int) -> str:
    """A value of a known parameter in words."""
    number = _number(value)
    if number is not None and number == 0 and known.zero is not None:
        return known.zero
    text = _words(known, str(value)) if number is None else _short(number * known.factor, digits)
    word = known.word(number) if number is not None and known.limits else ""
    if number is None and known.factor != 1.0:
        return f"{known.kind.replace('_', ' ')} {text}"  # a unit does not go with what is no number
    phrase = known.phrase.replace("{word}", word, 1).strip()
    return phrase.replace("{value}", text, 1)


def _words(known: Guide, text: str) -> str:
    """The words of a value that is no number."""
    if known is guides.VARIANT:
        return guides.VARIANT_WORDS.get(text, text)
    if known.kind == "target_modules":
        names = [part for part in re.split(r"[\s,;|+\[\]\"']+", text) if part]
        return " ".join(guides.MODULE_WORDS.get(name, name) for name in names) or text
    return text


def _number(value: Hashable) -> float | None:
    """The number behind a value; a category that reads as a number is one too (learning rates are often listed so)."""
    if isinstance(value, str):
        return parse_finite(value)
    return float(value) if isinstance(value, int | float) else None


def _short(number: float, digits: int) -> str:
    """A number without an exponent where that stays readable: 300, 0.5, 2.5e-07."""
    return f"{number:.{digits}g}"


def _exact(value: Hashable) -> str:
    """A value with all its digits; small numbers in scientific form: 3e-4, 16, 0.05, q_proj."""
    if isinstance(value, str) or not isinstance(value, float):
        return str(value)
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if 1e-3 <= abs(value) < 1e6:
        return repr(value)
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    mantissa = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if digits[1:] else "")
    return f"{'-' if sign else ''}{mantissa}e{int(exponent) + len(digits) - 1}"
