"""Names that population-based training shares with those who run its trials; loads nothing else.

A trial of a population begins with the weights of an ended one, its parent. The parent's name is a label of the
suggestion; Katib puts it on the trial's pod, whose container reads it through the downward API::

    env:
      - name: RANKWISE_PARENT
        valueFrom:
          fieldRef:
            fieldPath: metadata.labels['rankwise.dev/parent']
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ALGORITHM = "rankwise-pbt"
"""Its ``algorithmName``. Katib has an algorithm ``pbt`` of its own, and names are keys in katib-config."""
PARENT_LABEL = "rankwise.dev/parent"
"""Name of the trial whose weights a trial begins with; a trial without this label begins anew."""
MEMBER_LABEL = "rankwise.dev/member"
"""Which member of the population a trial trains, counted from 0."""
GENERATION_LABEL = "rankwise.dev/generation"
"""How many trials of its member were before it."""

_NOTE = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Lineage:
    """Which generation of which member a trial is; both count from 0."""

    member: int
    generation: int

    @property
    def note(self) -> str:
        """As a note of a suggestion."""
        return f"{self.member}.{self.generation}"

    @classmethod
    def read(cls, note: str) -> Lineage | None:
        """What a note says; None for a text that is none of ours."""
        match = _NOTE.fullmatch(note)
        return None if match is None else cls(int(match[1]), int(match[2]))
