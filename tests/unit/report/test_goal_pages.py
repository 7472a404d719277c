"""Costs, bounds, prices, fronts and seeds as they stand in the page, the summary and the terminal."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from rankwise.report import goal_plots, plots
from rankwise.report.analysis import analyse
from rankwise.report.facts import SearchFacts, facts_from_json
from rankwise.report.to_html import to_html
from rankwise.report.to_json import to_json
from rankwise.report.to_markdown import terminal_table, to_markdown
from rankwise.report.to_terminal import trial_table
from rankwise.strategies.goals import parse_constraints
from support.goal_facts import goal_cases, goal_facts

pytestmark = pytest.mark.usefixtures("importances_once")

CASES = goal_cases()
GOALS = {
    "costs": {"plot-cost-aware"},
    "cost that few measured": {"plot-cost-aware"},
    "prices": {"plot-cost-aware", "plot-prices", "plot-dual"},
    "seeds and bounds": {"plot-cost-aware"},
}
"""Plots of the section on goals, where there are any."""


def own(facts: SearchFacts, text: str) -> str:
    """The page from its body on, without plotly's code."""
    page = to_html(facts, analyse(facts, parse_constraints(text)))
    return page[page.index("<main>") : page.index("</main>")]


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_page_shows_what_the_search_was_for(name: str) -> None:
    facts = CASES[name]
    page = own(facts, "seconds<=20")
    drawn = set(re.findall(r'data-for="(plot-[a-z]+(?:-[a-z]+)?)"', page))
    assert {plot for plot in drawn if plot in {"plot-cost-aware", "plot-prices", "plot-dual"}} == GOALS.get(name, set())
    has_goals = name not in ("front", "seeds")
    assert ('id="goals"' in page) == has_goals
    assert ('<th scope="col"><button type="button">bounds</button></th>' in page) == bool(analyse(facts).goals.bounds)
    assert ("mean over seeds" in page) == name.startswith("seeds")
    assert "within the budget seconds &lt;= 20" in page
    shown = re.sub(r"<[^>]+>", " ", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))
    assert not re.search(r"\b(None|nan|NaN|Undefined)\b", shown)
    # Every table has as many cells in each row as in its head.
    for table in re.findall(r"<table.*?</table>", page, flags=re.DOTALL):
        counts = {len(re.findall(r"<t[hd]\b", row)) for row in re.findall(r"<tr.*?</tr>", table, flags=re.DOTALL)}
        assert len(counts) == 1, table[:300]


@pytest.mark.parametrize("name", sorted(CASES))
def test_summary_and_terminal_keep_their_columns(name: str) -> None:
    facts = CASES[name]
    budget = parse_constraints("seconds<=20")
    text = to_markdown(facts, analyse(facts, budget))
    assert "## What quality costs" in text
    assert ("## What the search was for" in text) == (name not in ("front", "seeds"))
    columns = 0
    for line in text.splitlines():
        bars = line.replace("\\|", "").count("|") if line.startswith("|") else 0
        assert columns in (0, bars) or not bars, line
        columns = bars
    assert not re.search(r"\b(None|nan)\b", text + terminal_table(facts, budget) + trial_table(facts))
    assert "Best within the budget seconds" in terminal_table(facts, budget) or name == "nothing keeps the bounds"


@pytest.mark.parametrize("name", sorted(CASES))
def test_json_holds_the_derived_numbers_and_only_facts_are_read_back(name: str) -> None:
    facts = CASES[name]
    analysis = analyse(facts, parse_constraints("seconds<=20"))
    text = to_json(facts, analysis)
    document = json.loads(text)
    assert facts_from_json(text) == facts
    assert document["analysis"]["fronts"]["pick"]["trial"] == (analysis.fronts.pick and analysis.fronts.pick.trial)
    assert len(document["analysis"]["fronts"]["fronts"]) == len(analysis.fronts.fronts)
    assert [bound["text"] for bound in document["analysis"]["goals"]["bounds"]] == [
        bound.text for bound in analysis.goals.bounds
    ]
    assert "goals" not in document["facts"]


def test_trials_beyond_a_bound_are_crosses_of_their_own() -> None:
    facts = goal_facts(30, constraints="peak_memory_bytes<=1.6GB")
    analysis = analyse(facts)
    outside = {name for name, keeps in analysis.goals.keeps.items() if not keeps}
    assert outside
    plot = plots.history(facts, analysis)
    assert plot is not None
    (trace,) = [trace for trace in plot.figure.data if trace.name == "violates a bound"]
    assert [facts.trials[i - 1].name for i in trace.x] == [t.name for t in facts.trials if t.name in outside]
    fronts = [front for front in analysis.fronts.fronts if len(front.metrics) == 2]
    for front, pair in zip(fronts, goal_plots.cost_against_value(facts, analysis), strict=True):
        (trace,) = [trace for trace in pair.figure.data if trace.name == "violates a bound"]
        points = [point for point in analysis.fronts.points if front.metrics[1] in point.values]
        assert len(trace.x) == sum(point.trial in outside for point in points) > 0


def test_the_stairs_go_through_the_front_from_cheap_to_good() -> None:
    facts = goal_facts(30)
    analysis = analyse(facts)
    fronts = [front for front in analysis.fronts.fronts if len(front.metrics) == 2]
    for front, pair in zip(fronts, goal_plots.cost_against_value(facts, analysis), strict=True):
        (stairs,) = [trace for trace in pair.figure.data if trace.name == "Pareto front"]
        assert len(stairs.x) == len(front.trials)
        assert list(stairs.x) == sorted(stairs.x)
        assert list(stairs.y) == sorted(stairs.y, reverse=True)


def test_further_metrics_are_drawn_by_trial() -> None:
    facts = goal_facts(12)
    drawn = {plot.label: plot.figure for plot in goal_plots.other_metrics(facts)}
    assert drawn.keys() == {
        f"{name} of each trial" for name in ("rougeL", "seconds", "peak_memory_bytes", "energy_joules")
    }
    rouge = drawn["rougeL of each trial"]
    points = {(x, y) for trace in rouge.data for x, y in zip(trace.x, trace.y, strict=True)}
    assert points == {(i, t.metrics["rougeL"]) for i, t in enumerate(facts.trials, start=1) if t.value is not None}
    assert goal_plots.other_metrics(replace(facts, trials=facts.trials[:1])) == []
