"""What a report derives of costs, bounds, prices and seeds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rankwise.report.analysis import analyse, best_value
from rankwise.report.goal_tables import bound_rows, bound_words, cost_table, cost_words
from rankwise.report.goals import analyse_goals
from rankwise.report.seeded import seeded_configurations
from rankwise.report.to_markdown import terminal_table, to_markdown
from rankwise.report.to_terminal import trial_table
from rankwise.space.trial import Goal
from rankwise.strategies.seeds import best_configuration
from support.facts import DEFAULT, synthetic_facts
from support.goal_facts import goal_cases, goal_facts, seeded_facts

pytestmark = pytest.mark.usefixtures("importances_once")

DEFAULT_TEXT = "{" + ", ".join(f'"{name}": "{value}"' for name, value in DEFAULT.items()) + "}"


def test_f_is_the_loss_and_the_weighed_costs_in_units_of_the_default() -> None:
    facts = goal_facts(12, cost_weight="0.3", cost_memory="0.5", default_configuration=DEFAULT_TEXT)
    default = facts.default_trial
    assert default is not None
    cost = analyse_goals(facts).cost
    assert cost is not None
    assert [(t.metric, t.weight, t.reference, t.of_default) for t in cost.terms] == [
        ("seconds", 1.0, default.cost.seconds, True),
        ("peak_memory_bytes", 0.5, default.cost.peak_memory_bytes, True),
    ]
    for row, trial in zip(cost.rows, facts.trials, strict=True):
        assert row.trial == trial.name
        if trial.value is None:
            assert (row.value, row.parts) == (None, {})
            continue
        assert trial.cost.seconds is not None
        assert default.cost.seconds is not None
        assert trial.cost.peak_memory_bytes is not None
        assert default.cost.peak_memory_bytes is not None
        seconds = trial.cost.seconds / default.cost.seconds
        memory = 0.5 * trial.cost.peak_memory_bytes / default.cost.peak_memory_bytes
        assert row.parts == pytest.approx({"seconds": seconds, "peak_memory_bytes": memory})
        assert row.cost == pytest.approx(seconds + memory)
        assert row.value == pytest.approx(trial.value + 0.3 * (seconds + memory))
    # The default's own parts are its weights: F = L + 0.3 · 1.5.
    assert cost.rows[0].cost == pytest.approx(1.5)
    best = facts.best
    values = {row.trial: row.value for row in cost.rows if row.value is not None}
    assert best is not None
    assert best.name == min(values, key=lambda name: values[name])
    assert best.value != min(trial.value for trial in facts.trials if trial.value is not None)


def test_the_sentence_names_weights_references_and_units() -> None:
    facts = goal_facts(12, cost_weight="0.3", cost_memory="0.5", default_configuration=DEFAULT_TEXT)
    said = cost_words(facts, analyse(facts))
    assert said == (
        "The search minimizes F = loss + 0.3 · C. C = 1 · seconds / 14.6 s + 0.5 · peak_memory_bytes / 1.5 GiB, "
        "without unit. The unit of seconds and peak_memory_bytes is what the default configuration took."
    )
    median = goal_facts(12, cost_weight="0.3", cost_energy="1")
    said = cost_words(median, analyse(median))
    assert "The unit of seconds is the trials’ median, since no trial of a default measured it." in said
    assert said.endswith("Too few trials measured energy_joules to count it.")
    upward = replace(facts, objective=replace(facts.objective, goal=Goal.MAXIMIZE))
    assert cost_words(upward, analyse(upward)).startswith("The search minimizes F = −loss + 0.3 · C.")
    assert cost_words(synthetic_facts(4), analyse(synthetic_facts(4))) == ""


def test_the_table_of_costs_has_a_row_for_each_trial_with_a_value_the_least_f_first() -> None:
    facts = goal_facts(12, cost_weight="0.3", cost_memory="0.5")
    header, rows = cost_table(facts, analyse(facts))
    assert header == [
        *("#", "trial", "loss", "seconds", "peak_memory_bytes", "part of seconds", "part of peak_memory_bytes"),
        *("C", "F"),
    ]
    assert len(rows) == sum(trial.value is not None for trial in facts.trials)
    assert facts.best is not None
    assert rows[0][1] == facts.best.name
    values = [float(row[-1]) for row in rows]
    assert values == sorted(values)
    named = {trial.name: trial for trial in facts.trials}
    assert all(facts.trials[int(row[0]) - 1] is named[row[1]] for row in rows)
    assert all(row[3] == f"{named[row[1]].cost.seconds:.3g} s" for row in rows)


def test_bounds_tell_who_keeps_and_who_violates_them() -> None:
    facts = goal_facts(30, constraints="peak_memory_bytes<=1.6GB, seconds<=1000")
    analysis = analyse(facts)
    memory, seconds = analysis.goals.bounds
    measured = {t.name: t.cost.peak_memory_bytes or 0.0 for t in facts.trials if t.value is not None}
    assert memory.violated == tuple(name for name, value in measured.items() if value > 1.6e9)
    assert 0 < len(memory.violated) < len(measured)
    assert memory.kept == len(measured) - len(memory.violated)
    assert (seconds.violated, seconds.kept, seconds.unknown) == ((), len(measured), 0)
    assert analysis.goals.keeps == {name: value <= 1.6e9 for name, value in measured.items()}
    best = facts.best
    assert best is not None
    assert measured[best.name] <= 1.6e9
    allowed = [t.value for t in facts.trials if t.value is not None and measured[t.name] <= 1.6e9]
    assert best.value == min(allowed)
    # Without the bound on memory a better trial would have been found; the other one changes nothing.
    assert min(t.value for t in facts.trials if t.value is not None) < min(allowed)
    assert (memory.binds, seconds.binds) == (True, False)
    rows = bound_rows(analysis)
    assert [row[:3] for row in rows] == [
        ["peak_memory_bytes <= 1600000000", "1.49 GiB", str(memory.kept)],
        ["seconds <= 1000", "16 min 40 s", str(len(measured))],
    ]
    numbers = [i for i, trial in enumerate(facts.trials, start=1) if trial.name in memory.violated]
    shown = ", ".join(f"#{i}" for i in numbers[:12])
    assert rows[0][3] == f"{len(numbers)}: {shown} and {len(numbers) - 12} more"
    assert [row[3:] for row in rows[1:]] == [["none", "no", "–"]]
    sentence = f"trials with a value, {memory.kept} of which keep all bounds, reached loss"
    assert sentence in analyse(replace(facts, finals=synthetic_facts(4, finals=False).finals)).verdict


def test_where_nothing_keeps_the_bounds_nothing_is_the_best() -> None:
    facts = goal_cases()["nothing keeps the bounds"]
    facts = replace(facts, finals=synthetic_facts(4, finals=False).finals)
    analysis = analyse(facts)
    assert facts.best is None
    assert analysis.best is None
    assert set(analysis.best_so_far) == {None}
    measured = sum(trial.value is not None for trial in facts.trials)
    assert analysis.verdict.startswith(f"Not one of {measured} trials with a value is known to keep all bounds.")
    assert [bound.binds for bound in analysis.goals.bounds] == [None]
    assert "* " not in trial_table(facts)


def test_a_bound_on_what_few_trials_report_does_not_count() -> None:
    facts = goal_cases()["unmeasured bound"]
    (bound,) = analyse_goals(facts).bounds
    reports = sum("energy_joules" in trial.metrics for trial in facts.trials)
    valued = sum(trial.value is not None for trial in facts.trials)
    assert 2 * reports <= valued
    assert (bound.counts, bound.unknown) == (False, valued - reports)
    assert facts.best is not None
    assert bound_rows(analyse(facts))[0][4] == "does not count: too few trials report it"


def test_prices_and_the_dual_bound_by_trial() -> None:
    facts = goal_facts(30, constraints="peak_memory_bytes<=1.6GB, seconds<=1000", constraint_method="lagrangian")
    goals = analyse_goals(facts)
    dual = goals.dual
    assert dual is not None
    assert len(dual.prices) == len(dual.bounds) == len(goals.ranks) == len(facts.trials)
    first = next(i for i, trial in enumerate(facts.trials) if goals.keeps.get(trial.name))
    assert first > 0
    assert all(value is None for row in dual.prices[:first] for value in row)
    assert set(dual.bounds[:first]) == {None}
    assert all(price is not None and price >= 0 for row in dual.prices[first:] for price in row)
    # Weak duality: no feasible trial is below the bound. Sums of numbers of size 2 are good to some 1e-12.
    for bound, best in zip(dual.bounds, goals.ranks, strict=True):
        assert best is None or (bound is not None and bound <= best + 1e-12)
    memory, seconds = goals.bounds
    assert memory.price is not None
    assert memory.price == dual.prices[-1][0]
    assert memory.price > 0
    assert memory.binds is True
    assert (seconds.price, seconds.binds) == (0.0, False)
    assert "μ is the price of violating one whole bound" in bound_words(analyse(facts))
    assert analyse_goals(goal_facts(12, constraints="seconds<=20")).dual is None


def test_settings_that_cannot_be_read_are_told() -> None:
    facts = goal_cases()["settings of another algorithm"]
    analysis = analyse(facts)
    assert (analysis.goals.bounds, analysis.goals.cost) == ((), None)
    assert facts.best is not None
    assert "could not be read" in cost_words(facts, analysis)
    assert "anything goes" in to_markdown(facts, analysis)


def test_the_best_of_several_seeds_is_the_best_mean_not_the_luckiest_training() -> None:
    facts = seeded_facts()
    groups = seeded_configurations(facts)
    assert all(len(group.trials) == 3 for group in groups)
    valued = [group for group in groups if group.value is not None]
    best = facts.best
    theirs = best_configuration([trial.as_trial() for trial in facts.trials], facts.objective, "seed")
    assert best is not None
    assert theirs is not None
    assert best.name == theirs.trial.name
    (chosen,) = [group for group in groups if best.name in group.trials]
    assert (chosen.value, chosen.standard_error) == (theirs.value, theirs.standard_error)
    for group in valued:
        rows = [t.value for t in facts.trials if t.name in group.trials and t.value is not None]
        assert group.value == pytest.approx(sum(rows) / 3)
        assert group.trainings == 3
        assert group.standard_error is not None
        assert group.standard_error > 0
    assert best_value(facts, groups) == f"{chosen.text} (mean of 3 trainings)"
    table = trial_table(facts)
    assert "mean over seeds" in table
    (line,) = [line for line in table.splitlines() if line.startswith("*")]
    assert chosen.text in line
    assert analyse(facts).best_so_far[-1] == pytest.approx(chosen.value)
    assert seeded_configurations(synthetic_facts(4)) == ()


def test_trials_with_default_and_best_are_compared_where_no_final_run_is() -> None:
    facts = replace(goal_facts(12), finals=synthetic_facts(4, finals=False).finals)
    default, best = facts.default_trial, facts.best
    assert default is not None
    assert best is not None
    assert default is not best
    (loss, *_) = analyse(facts).among_trials
    assert (loss.metric, loss.reference, loss.value) == ("loss", default.value, best.value)
    text = terminal_table(facts)
    assert "among the trials" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["peak", "memory", "↓"] in [row[:3] for row in rows]
    assert ["time", "per", "epoch", "↓"] in [row[:4] for row in rows]
    assert "luckiest of the good ones" in to_markdown(facts, analyse(facts))
    itself = replace(facts, trials=facts.trials[:1])
    assert analyse(itself).among_trials == ()


def test_seeds_give_the_comparison_of_trials_an_error() -> None:
    facts = seeded_facts()
    assert facts.default_trial is not None
    rows = analyse(replace(facts, finals=synthetic_facts(4, finals=False).finals)).among_trials
    assert [row.method for row in rows if row.metric == "loss"] == ["independent"]


def test_of_many_trials_the_terminal_shows_the_one_that_was_found() -> None:
    facts = goal_facts(80, seed=1, constraints="peak_memory_bytes<=1.36GB")
    best = facts.best
    assert best is not None
    better = sum(t.value is not None and best.value is not None and t.value < best.value for t in facts.trials)
    assert better > 40  # it would not be among the best by value
    lines = trial_table(facts).splitlines()
    assert [line.split()[2] for line in lines if line.startswith("*")] == [best.name]
    assert "(40 of 80 trials: the best and the last ones)" in lines
