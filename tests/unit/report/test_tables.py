"""What the report says of the data behind its numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rankwise.report.analysis import analyse
from rankwise.report.facts import SearchFacts
from rankwise.report.tables import final_data, proxy_sentence
from rankwise.report.to_html import to_html
from support.facts import synthetic_facts

pytestmark = pytest.mark.usefixtures("importances_once")


def trained_on(default: float | None, best: float | None) -> SearchFacts:
    facts = synthetic_facts()
    finals = facts.finals
    assert finals.default is not None
    assert finals.best is not None
    return replace(
        facts,
        finals=replace(finals, default=replace(finals.default, subset=default), best=replace(finals.best, subset=best)),
    )


@pytest.mark.parametrize(
    ("default", "best", "words"),
    [
        (1.0, 1.0, " on all training data"),
        (0.25, 0.25, " on 25.0 % of the training data"),
        (0.25, 1.0, ""),
        (None, None, ""),
        (None, 1.0, ""),
    ],
)
def test_no_more_data_is_claimed_than_was_used(default: float | None, best: float | None, words: str) -> None:
    facts = trained_on(default, best)
    assert final_data(facts) == words
    assert f"A final run{words} took" in proxy_sentence(facts, analyse(facts))
    assert f"Both were trained{words} and measured once." in to_html(facts, analyse(facts))


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_of_data_is_one(share: float) -> None:
    with pytest.raises(ValueError, match="subset must be in"):
        trained_on(share, 1.0)
