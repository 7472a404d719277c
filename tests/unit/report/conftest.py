"""Importances of parameters are computed once for equal searches."""

from __future__ import annotations

import pytest

from rankwise.report import analysis
from rankwise.report.facts import SearchFacts
from rankwise.report.to_optuna import importances_of

_KNOWN: list[tuple[tuple[object, ...], tuple[str, dict[str, float]]]] = []


def _once(facts: SearchFacts) -> tuple[str, dict[str, float]]:
    key = (facts.parameters, facts.objective, facts.trials)
    result = next((result for known, result in _KNOWN if known == key), None)
    if result is None:
        result = importances_of(facts)
        _KNOWN.append((key, result))
    return result[0], dict(result[1])


@pytest.fixture
def importances_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is made of importances: a forest takes a second (test_analysis.py grows its own each time)."""
    monkeypatch.setattr(analysis, "importances_of", _once)
