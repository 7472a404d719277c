"""ROUGE-1, ROUGE-2 and ROUGE-L (F1) of one text against one reference (Lin 2004, "ROUGE: A Package for Automatic
Evaluation of Summaries").

The numbers are those of the ``rouge-score`` package without stemming; a test compares the two. That package imports
nltk and with it pandas, scipy and scikit-learn: three seconds in each of a search's processes.
"""

from __future__ import annotations

import re
from collections import Counter

_WORDS = re.compile(r"[a-z0-9]+")


def rouge(target: str, prediction: str) -> dict[str, float]:
    """F1 scores in [0, 1]: ``rouge1``, ``rouge2``, ``rougeL``."""
    wanted, got = _WORDS.findall(target.lower()), _WORDS.findall(prediction.lower())
    return {
        "rouge1": _f1(_overlap(wanted, got, 1), len(wanted), len(got)),
        "rouge2": _f1(_overlap(wanted, got, 2), len(wanted) - 1, len(got) - 1),
        "rougeL": _f1(_common_subsequence(wanted, got), len(wanted), len(got)),
    }


def _f1(common: int, wanted: int, got: int) -> float:
    precision, recall = common / max(got, 1), common / max(wanted, 1)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _overlap(wanted: list[str], got: list[str], n: int) -> int:
    """Common n-grams, each counted as often as both texts have it."""
    grams = (Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for words in (wanted, got))
    return (next(grams) & next(grams)).total()


def _common_subsequence(wanted: list[str], got: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(got) + 1)  # row[j]: of the words of wanted so far and got[:j]
    for word in wanted:
        diagonal = 0
        for j, other in enumerate(got, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if word == other else max(row[j], row[j - 1])
    return row[-1]
