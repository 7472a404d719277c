"""Every error that Rankwise raises on purpose.

::

    RankwiseError
    ├── InvalidInput            the user's mistake: exit code 2, gRPC INVALID_ARGUMENT; all mistakes at once
    ├── SurroundingsError       the store, the network or the disk failed after bounded retries: exit code 3
    └── TrialError              one training ended without a usable objective
        ├── Diverged            the loss became NaN or infinite
        └── OutOfMemory         the configuration does not fit the device

Programming mistakes stay ordinary exceptions (``ValueError``, ``TypeError``): nobody should catch those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the user's input.

    Attributes:
        path: where it stands, e.g. ``spec.parameters[2].feasibleSpace.min`` or ``--rank``.
        value: what was given, as text.
        allowed: one clause that says what would be right, e.g. ``a number greater than 0``.
    """

    path: str
    value: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.path}: got {self.value!r}; allowed: {self.allowed}"


class RankwiseError(Exception):
    """Base of all errors that Rankwise raises on purpose."""


class InvalidInput(RankwiseError):
    """The user's input is wrong. Carries every mistake that was found, never only the first.

    Raises:
        ValueError: when it is made without a problem.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        if not self.problems:
            raise ValueError("InvalidInput needs at least one problem")
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def under(self, prefix: str) -> InvalidInput:
        """The same mistakes with ``prefix`` put before each path."""
        return InvalidInput(Problem(prefix + p.path, p.value, p.allowed) for p in self.problems)


class SurroundingsError(RankwiseError):
    """Something around us failed after bounded retries; the message says what was saved."""


class TrialError(RankwiseError):
    """One training ended without a usable objective."""


class Diverged(TrialError):
    """The loss became NaN or infinite."""


class OutOfMemory(TrialError):
    """The configuration does not fit into the device's memory."""
