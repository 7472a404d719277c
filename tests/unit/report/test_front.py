"""Fronts, hypervolumes and budgets against definitions written out anew."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.report.analysis import analyse
from rankwise.report.facts import CostFacts, SearchFacts, TrialFacts
from rankwise.report.front import analyse_fronts
from rankwise.report.goal_plots import unit_of
from rankwise.report.goal_tables import front_table, pick_words
from rankwise.space.trial import Goal, Objective, TrialState
from rankwise.strategies.goals import parse_constraints
from support.facts import edge_cases, synthetic_facts
from support.goal_facts import goal_cases, goal_facts

pytestmark = pytest.mark.usefixtures("importances_once")


def facts_of(rows: list[tuple[float, float]], goal: Goal = Goal.MINIMIZE) -> SearchFacts:
    trials = tuple(
        TrialFacts(f"t{i}", {"rank": "8"}, TrialState.SUCCEEDED, value, cost=CostFacts(seconds))
        for i, (value, seconds) in enumerate(rows)
    )
    return replace(synthetic_facts(1, finals=False), trials=trials, objective=Objective("loss", goal))


ROWS = st.lists(st.tuples(st.integers(-5, 5).map(float), st.integers(0, 8).map(float)), min_size=2, max_size=12)


@given(ROWS, st.sampled_from(Goal))
def test_nothing_is_better_in_both_than_what_is_on_the_front(rows: list[tuple[float, float]], goal: Goal) -> None:
    fronts = analyse_fronts(facts_of(rows, goal)).fronts
    flat = len({v for v, _ in rows}) == 1 or len({s for _, s in rows}) == 1
    assert len(fronts) == (0 if flat else 1)
    sign = 1 if goal is Goal.MINIMIZE else -1
    points = [(sign * value, seconds) for value, seconds in rows]

    def dominated(i: int) -> bool:
        a, b = points[i]
        return any(p[0] <= a and p[1] <= b and p != (a, b) for p in points)

    for front in fronts:
        assert set(front.trials) == {f"t{i}" for i in range(len(rows)) if not dominated(i)}
        values = [points[int(name[1:])] for name in front.trials]
        assert values == sorted(values)
        # Monotone, a share of a box whose corner is the reference point, and larger than 0 once a point is inside.
        shares = front.hypervolumes
        assert len(shares) == len(rows)
        assert all(0 <= a <= b <= 1 + 1e-12 for a, b in itertools.pairwise(shares))
        assert shares[-1] > 0


def test_a_hypervolume_by_hand() -> None:
    # Front (0, 10), (1, 5), (3, 0): nadir (3, 10), a tenth beyond (3.3, 11), ideal (0, 0); the box is 3.3 × 11.
    # Scaled areas: trial 1: 3.3 · 1; with trial 2: + 2.3 · 5; with trial 4: + 0.3 · 5. The third is dominated.
    (front,) = analyse_fronts(facts_of([(0, 10), (1, 5), (2, 7), (3, 0)])).fronts
    box = 3.3 * 11
    assert front.hypervolumes == pytest.approx([3.3 / box, 14.8 / box, 14.8 / box, 16.3 / box])
    assert front.trials == ("t0", "t1", "t3")


def test_no_trial_that_violates_a_bound_is_on_a_front_or_picked() -> None:
    facts = goal_facts(30, constraints="peak_memory_bytes<=1.6GB")
    found = analyse_fronts(facts, parse_constraints("seconds<=25"))
    outside = {point.trial for point in found.points if not point.feasible}
    assert outside
    assert {front.metrics for front in found.fronts} >= {("loss", "seconds"), ("loss", "peak_memory_bytes")}
    assert all(outside.isdisjoint(front.trials) for front in found.fronts)
    within = [
        t
        for t in facts.trials
        if t.value is not None and (t.cost.seconds or 0) <= 25 and (t.cost.peak_memory_bytes or 0) <= 1.6e9
    ]
    assert found.pick is not None
    assert found.pick.within == len(within)
    assert found.pick.trial == min(within, key=lambda t: t.value or 0.0).name
    assert found.pick.values.keys() == {"loss", "seconds"}


def test_the_best_within_a_budget_is_on_the_front_of_what_it_bounds() -> None:
    facts = goal_facts(30)
    for text in ("peak_memory_bytes<=1.5GB", "seconds<=20", "seconds_per_epoch<=7"):
        found = analyse_fronts(facts, parse_constraints(text))
        assert found.pick is not None
        (front,) = [front for front in found.fronts if front.metrics == ("loss", text.partition("<")[0])]
        assert found.pick.trial in front.trials


def test_a_budget_in_words() -> None:
    facts = goal_facts(30)
    analysis = analyse(facts, parse_constraints("peak_memory_bytes<=1.5GB"))
    pick = analysis.fronts.pick
    assert pick is not None
    said = pick_words(facts, analysis)
    assert said.startswith(
        f"Best within the budget peak_memory_bytes <= 1500000000 ({pick.within} configurations within): trial "
    )
    assert f", {pick.trial}: loss " in said
    assert "rank " in said
    nothing = analyse(facts, parse_constraints("peak_memory_bytes<=1"))
    assert pick_words(facts, nothing) == "No trial is known to be within the budget peak_memory_bytes <= 1."
    assert pick_words(facts, analyse(facts)) == ""


def test_a_search_for_a_front_shows_the_whole_one_and_its_pairs() -> None:
    facts = goal_cases()["front"]
    found = analyse(facts)
    whole, *pairs = found.fronts.fronts
    assert (whole.metrics, whole.searched) == (("loss", "seconds", "peak_memory_bytes", "rougeL"), True)
    assert whole.goals == ("minimize", "minimize", "minimize", "maximize")
    assert [front.metrics[1] for front in pairs[:3]] == ["seconds", "peak_memory_bytes", "rougeL"]
    # What is best in two of the metrics and in no tie is on the front of all.
    assert set(whole.trials) >= {front.trials[0] for front in pairs}
    table = front_table(facts, found)
    assert table.has_whole
    assert table.header == [
        *("#", "trial", "loss", "seconds", "peak_memory_bytes", "rougeL", "energy_joules", "seconds_per_epoch"),
        "on the front of",
    ]
    assert {row[1] for row in table.rows} == {name for front in found.fronts.fronts for name in front.trials}
    assert [row[-1].startswith("all") for row in table.rows] == [row[1] in whole.trials for row in table.rows]


@pytest.mark.parametrize("name", sorted(edge_cases()))
def test_every_search_has_its_fronts(name: str) -> None:
    facts = edge_cases()[name]
    found = analyse_fronts(facts, parse_constraints("seconds<=20"))
    for front in found.fronts:
        assert set(front.trials) <= {trial.name for trial in facts.trials if trial.value is not None}
        assert len(front.hypervolumes) == len(found.points)
        # Shares of huge numbers lose digits to rounding: 1e-6 of the box.
        assert all(0 <= share <= 1 + 1e-6 for share in front.hypervolumes)


def test_units_of_axes() -> None:
    assert unit_of("peak_memory_bytes", [3e9, 4e9]) == (2.0**30, "peak_memory_bytes in GiB")
    assert unit_of("peak_memory_bytes", [3e6]) == (2.0**20, "peak_memory_bytes in MiB")
    assert unit_of("seconds", [30.0, 90.0, 100.0]) == (1.0, "seconds in s")
    assert unit_of("seconds_per_epoch", [600.0]) == (60.0, "seconds_per_epoch in min")
    assert unit_of("energy_joules", [5e3]) == (1e3, "energy_joules in kJ")
    assert unit_of("rougeL", [0.3]) == (1.0, "rougeL")
    assert unit_of("rougeL", []) == (1.0, "rougeL")
