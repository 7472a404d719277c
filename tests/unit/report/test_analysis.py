from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.report.analysis import MINIMUM_TRIALS, analyse, ranks
from rankwise.report.facts import CostFacts, Finals, LeadBaseline, TrialFacts
from rankwise.report.to_optuna import FANOVA_LIMIT, importances_of
from rankwise.space.trial import Goal, Objective, TrialState
from support.facts import edge_cases, synthetic_facts, synthetic_finals


def trial(index: int, value: float | None, seconds: float | None = None, state: TrialState | None = None) -> TrialFacts:
    state = state or (TrialState.FAILED if value is None else TrialState.SUCCEEDED)
    return TrialFacts(f"t{index}", {"rank": "8"}, state, value, cost=CostFacts(seconds), subset=0.25)


def test_best_so_far_waits_for_the_first_value_and_keeps_the_best() -> None:
    values = (None, 3.0, None, 4.0, 1.0, 2.0)
    facts = replace(synthetic_facts(1), trials=tuple(trial(i, v) for i, v in enumerate(values)))
    assert analyse(facts).best_so_far == (None, 3.0, 3.0, 3.0, 1.0, 1.0)
    upward = replace(facts, objective=Objective("loss", Goal.MAXIMIZE))
    assert analyse(upward).best_so_far == (None, 3.0, 3.0, 4.0, 4.0, 4.0)


def test_counts_tell_every_state() -> None:
    facts = synthetic_facts(30)
    counts = analyse(facts).counts
    assert sum(counts.values()) == len(facts.trials) == 30
    assert set(counts) == {state.value for state in TrialState}
    assert counts["failed"] == sum(t.state is TrialState.FAILED for t in facts.trials) > 0


def test_proxy_cost_from_measured_seconds() -> None:
    finals = synthetic_finals({"rank": "8"})
    assert finals.default is not None
    assert finals.best is not None
    finals = replace(
        finals, default=replace(finals.default, cost=CostFacts(100.0)), best=replace(finals.best, cost=CostFacts(300.0))
    )
    rows = (
        trial(0, 3.0, 10.0),
        trial(1, 1.0, 30.0),  # the best one; its configuration is that of the best final run
        trial(2, 2.0, 20.0),
        trial(3, None, 7.0),
        trial(4, 4.0, 3.0, TrialState.EARLY_STOPPED),
        trial(5, 5.0, None),
    )
    cost = analyse(replace(synthetic_facts(1), trials=rows, finals=finals)).proxy
    assert (cost.subset, cost.trial_seconds, cost.trials, cost.full_seconds) == (0.25, 20.0, 3, 200.0)
    assert (cost.share, cost.search_seconds, cost.search_in_trainings) == (0.1, 70.0, 0.35)
    assert cost.matched_share == 30.0 / 300.0


def test_proxy_cost_is_absent_where_nothing_was_measured() -> None:
    cost = analyse(edge_cases()["no cost"]).proxy
    assert (cost.trial_seconds, cost.share, cost.search_seconds) == (None, None, None)
    assert cost.full_seconds is not None


def test_importances_name_the_parameter_that_matters() -> None:
    """The synthetic loss varies most with the learning rate; both evaluators must see that."""
    small, large = synthetic_facts(60), synthetic_facts(FANOVA_LIMIT + 100, finals=False)
    for facts, evaluator in ((small, "fANOVA"), (large, "PED-ANOVA")):
        result = analyse(facts).importances
        assert result.evaluator == evaluator
        assert result.trials == sum(t.state is TrialState.SUCCEEDED for t in facts.trials)
        assert next(iter(result.shares)) == "learning-rate"
        assert sum(result.shares.values()) == pytest.approx(1.0, abs=1e-9)  # a dozen shares, each rounded once
        assert list(result.shares.values()) == sorted(result.shares.values(), reverse=True)


def test_importances_are_the_same_each_time() -> None:
    facts = synthetic_facts(20)
    assert importances_of(facts) == importances_of(facts)


def test_importances_need_enough_trials_that_differ() -> None:
    rows = tuple(trial(i, float(i)) for i in range(MINIMUM_TRIALS))
    base = synthetic_facts(1)
    few = analyse(replace(base, trials=rows[1:])).importances
    assert few.reason == "Not enough trials: 9 succeeded, at least 10 are needed."
    one_configuration = analyse(replace(base, trials=rows)).importances
    assert one_configuration.reason == "No parameter took more than one value."
    equal = analyse(replace(base, trials=tuple(replace(row, value=1.0) for row in rows))).importances
    assert equal.reason == "Every trial has the same value, so no parameter matters."
    for result in (few, one_configuration, equal):
        assert not result.shares


def test_the_verdict_says_better_and_by_how_much() -> None:
    analysis = analyse(synthetic_facts(20, gain=0.12))
    assert analysis.headline == "better"
    assert analysis.verdict.startswith(
        "On 200 test examples the best configuration found is better than the default by 0.1"
    )
    assert "first ten words), in rougeL: better by 0.0" in analysis.verdict


def test_the_verdict_admits_that_nothing_was_shown() -> None:
    analysis = analyse(synthetic_facts(20, gain=0.0))
    assert analysis.headline == "no difference"
    assert "no difference that this test set can show" in analysis.verdict


def test_the_verdict_admits_a_loss() -> None:
    analysis = analyse(edge_cases()["worse"])
    assert analysis.headline == "worse"
    assert "is worse than the default by 0.1" in analysis.verdict


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("nothing", "No trial was started yet."),
        ("all pending", "12 trials started, none has ended yet."),
        ("all failed", "Not one of the 12 finished trials has a value of loss."),
        ("no finals", "Best and default were not compared on the test split."),
        ("best only", "Best and default were not compared on the test split."),
        ("one trial", "it is the best one itself"),
    ],
)
def test_the_verdict_at_the_edges(case: str, sentence: str) -> None:
    analysis = analyse(edge_cases()[case])
    assert sentence in analysis.verdict
    assert analysis.headline in ("open", "unknown")


def test_a_metric_that_only_one_run_has_is_not_compared() -> None:
    facts = synthetic_facts(12)
    lead = LeadBaseline("nothing in common", {"other": 1.0})
    assert facts.finals.best is not None
    bare = replace(facts.finals.best, metrics={"rougeL": 0.3})
    analysis = analyse(replace(facts, finals=Finals(facts.finals.default, bare, lead)))
    assert [item.metric for item in analysis.comparisons] == ["rougeL"]
    assert analysis.against_lead == ()
    assert analysis.headline == "open"


def test_examples_are_joined_by_their_source_and_target() -> None:
    facts = synthetic_facts(12)
    default, best = facts.finals.default, facts.finals.best
    assert default is not None
    assert best is not None
    shuffled = replace(best, examples=tuple(reversed(best.examples))[:2])
    rows = analyse(replace(facts, finals=replace(facts.finals, best=shuffled))).examples
    assert [row.source for row in rows] == [example.source for example in default.examples]
    assert [row.best is None for row in rows] == [True, False, False]
    assert rows[1].best == "compare two directory trees"
    assert rows[1].default == "directory comparison tool"


@given(st.lists(st.floats(-1e6, 1e6), max_size=30), st.booleans())
def test_ranks_are_places_from_worst_to_best(values: list[float], lower: bool) -> None:
    places = ranks(values, lower)
    assert all(0 <= place <= 1 for place in places)
    for a, x in zip(values, places, strict=True):
        for b, y in zip(values, places, strict=True):
            assert (x < y) == (a > b if lower else a < b)
