"""What follows from the facts of a search: counts, best so far, cost of the proxy, importances, the verdict."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rankwise.report import words
from rankwise.report.compare import Comparison, Verdict, compare, plain_metric
from rankwise.report.facts import Example, SearchFacts
from rankwise.report.front import FrontAnalysis, analyse_fronts, trial_runs
from rankwise.report.goals import GoalAnalysis, analyse_goals
from rankwise.report.seeded import SeededConfiguration, seeded_configurations
from rankwise.report.to_optuna import importances_of
from rankwise.space.trial import TrialState
from rankwise.strategies.choice import leaders
from rankwise.strategies.goals import Constraint


@dataclass(frozen=True, slots=True)
class Importances:
    """How much each parameter matters.

    Attributes:
        evaluator: name of the method; "" when none was possible.
        trials: number of trials that it saw.
        shares: parameter name -> share, largest first; they sum to 1.
        reason: why there are none, in a sentence; "" when there are.
    """

    evaluator: str = ""
    trials: int = 0
    shares: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ProxyCost:
    """What a trial on the proxy costs beside a final run, from the seconds that trials measured.

    Attributes:
        subset: share of the training data in a trial (median); None when unknown.
        trial_seconds: median over the finished trials; None when none was measured.
        trials: number of trials behind that median.
        full_seconds: mean over the final runs; None when none was measured.
        share: trial_seconds / full_seconds.
        search_seconds: sum over all trials that were measured, whatever their end.
        search_in_trainings: search_seconds / full_seconds.
        matched_share: the best configuration's own trial / its own final run, which leaves out that configurations
            differ in cost; None where one of the two was not measured.
    """

    subset: float | None
    trial_seconds: float | None
    trials: int
    full_seconds: float | None
    share: float | None
    search_seconds: float | None
    search_in_trainings: float | None
    matched_share: float | None


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """One test example with both predictions; None where a final run does not have it."""

    source: str
    target: str
    default: str | None
    best: str | None


@dataclass(frozen=True, slots=True)
class Analysis:
    """All that a report derives.

    Attributes:
        counts: trial state -> number of trials.
        best: name of the best trial; None without one.
        default_trial: name of the trial that had the default configuration; None without one.
        best_so_far: value of the best trial up to each one (None until there is one), in the order of the trials.
        goals: costs, bounds and prices.
        fronts: what quality costs.
        seeded: configurations that were trained with several seeds.
        comparisons: best against default on the test split, the objective's metric first.
        against_lead: best against the baseline without training.
        among_trials: best against default among the trials, on validation; empty where one of them was not tried, or
            both are one.
        importances: see :class:`Importances`.
        proxy: see :class:`ProxyCost`.
        examples: see :class:`ExampleRow`.
        verdict: the result in a sentence or two.
        headline: ``better``, ``worse``, ``no difference``, ``unknown`` or ``open`` (not compared on test).
    """

    counts: Mapping[str, int]
    best: str | None
    default_trial: str | None
    best_so_far: tuple[float | None, ...]
    goals: GoalAnalysis
    fronts: FrontAnalysis
    seeded: tuple[SeededConfiguration, ...]
    comparisons: tuple[Comparison, ...]
    against_lead: tuple[Comparison, ...]
    among_trials: tuple[Comparison, ...]
    importances: Importances
    proxy: ProxyCost
    examples: tuple[ExampleRow, ...]
    verdict: str
    headline: str


def analyse(facts: SearchFacts, budget: Sequence[Constraint] = ()) -> Analysis:
    """Derive everything that a report shows.

    Args:
        facts: the search.
        budget: bounds of the reader's own, within which the best configuration is named as well.
    """
    finals = facts.finals
    comparisons = compare(finals.default, finals.best, facts.objective) if finals.default and finals.best else ()
    against_lead = compare(finals.lead, finals.best, facts.objective) if finals.lead and finals.best else ()
    goals, seeded, runs = analyse_goals(facts), seeded_configurations(facts), trial_runs(facts)
    verdict, headline = _verdict(facts, _state_sentence(facts, goals, seeded), comparisons, against_lead)
    best, default_trial = facts.best, facts.default_trial
    return Analysis(
        counts={state.value: sum(trial.state is state for trial in facts.trials) for state in TrialState},
        best=best.name if best else None,
        default_trial=default_trial.name if default_trial else None,
        best_so_far=_best_so_far(facts),
        goals=goals,
        fronts=analyse_fronts(facts, budget),
        seeded=seeded,
        comparisons=comparisons,
        against_lead=against_lead,
        among_trials=compare(runs.default, runs.best, facts.objective) if runs and runs.default and runs.best else (),
        importances=_importances(facts),
        proxy=_proxy(facts),
        examples=_examples(facts),
        verdict=verdict,
        headline=headline,
    )


def _best_so_far(facts: SearchFacts) -> tuple[float | None, ...]:
    found = leaders([trial.as_trial() for trial in facts.trials], facts.aims)
    return tuple(None if one is None else one.value for one in found)


MINIMUM_TRIALS = 10
"""Importances of fewer trials than this would be read as knowledge but are chance."""


def _importances(facts: SearchFacts) -> Importances:
    trials = [trial for trial in facts.trials if trial.state is TrialState.SUCCEEDED]
    if len(trials) < MINIMUM_TRIALS:
        reason = f"Not enough trials: {len(trials)} succeeded, at least {MINIMUM_TRIALS} are needed."
        return Importances(trials=len(trials), reason=reason)
    if len({trial.value for trial in trials}) < 2:
        return Importances(trials=len(trials), reason="Every trial has the same value, so no parameter matters.")
    evaluator, shares = importances_of(facts)
    if not shares:
        return Importances(trials=len(trials), reason="No parameter took more than one value.")
    return Importances(evaluator, len(trials), dict(sorted(shares.items(), key=lambda item: (-item[1], item[0]))))


def _proxy(facts: SearchFacts) -> ProxyCost:
    subsets = [trial.subset for trial in facts.trials if trial.subset is not None]
    # An early-stopped trial did less than a whole proxy training, a failed one even less: the median leaves them out.
    whole = [t.cost.seconds for t in facts.trials if t.state is TrialState.SUCCEEDED and t.cost.seconds is not None]
    spent = [trial.cost.seconds for trial in facts.trials if trial.cost.seconds is not None]
    runs = [run for run in (facts.finals.default, facts.finals.best) if run is not None]
    full = [run.cost.seconds for run in runs if run.cost.seconds is not None]
    trial_seconds = statistics.median(whole) if whole else None
    full_seconds = statistics.fmean(full) if full else None
    search_seconds = sum(spent) if spent else None
    best = facts.best
    matched = None
    if best and facts.finals.best and facts.same_configuration(best.assignments, facts.finals.best.assignments):
        matched = _ratio(best.cost.seconds, facts.finals.best.cost.seconds)
    return ProxyCost(
        subset=statistics.median(subsets) if subsets else None,
        trial_seconds=trial_seconds,
        trials=len(whole),
        full_seconds=full_seconds,
        share=_ratio(trial_seconds, full_seconds),
        search_seconds=search_seconds,
        search_in_trainings=_ratio(search_seconds, full_seconds),
        matched_share=matched,
    )


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _examples(facts: SearchFacts) -> tuple[ExampleRow, ...]:
    default = facts.finals.default.examples if facts.finals.default else ()
    best = facts.finals.best.examples if facts.finals.best else ()

    def predictions(examples: Sequence[Example]) -> dict[tuple[str, str], str]:
        return {(example.source, example.target): example.prediction for example in examples}

    before, after = predictions(default), predictions(best)
    keys = list(dict.fromkeys([*before, *after]))
    return tuple(ExampleRow(key[0], key[1], before.get(key), after.get(key)) for key in keys)


def _state_sentence(facts: SearchFacts, goals: GoalAnalysis, seeded: Sequence[SeededConfiguration]) -> str:
    total, best, metric = len(facts.trials), facts.best, facts.objective.metric
    measured = sum(trial.value is not None for trial in facts.trials)
    if total == 0:
        return "No trial was started yet."
    if best is None and measured:
        return f"Not one of {words.plural(measured, 'trial')} with a value {_demands(goals)}."
    if best is None:
        finished = sum(trial.state.is_finished for trial in facts.trials)
        if finished == 0:
            return f"{words.plural(total, 'trial')} started, none has ended yet."
        if finished == 1:
            return f"The one finished trial has no value of {metric}."
        return f"Not one of the {words.plural(finished, 'finished trial')} has a value of {metric}."
    by = " by F (the objective and what it costs)" if goals.cost else ""
    keep = sum(goals.keeps.values())
    among = f", {keep:,} of which keep all bounds," if goals.bounds else ""
    return (
        f"The best{by} of {words.plural(measured, 'trial')} with a value{among} reached {metric} "
        f"{best_value(facts, seeded)} on validation."
    )


def _demands(goals: GoalAnalysis) -> str:
    """What trials with a value lack where none is the best."""
    lacking = ["is known to keep all bounds"] if goals.bounds else []
    lacking += ["has every cost that counts"] if goals.cost else []
    return " and ".join(lacking) or "is of a configuration that succeeds with most seeds"


def best_value(facts: SearchFacts, seeded: Sequence[SeededConfiguration]) -> str:
    """The best trial's value, as a mean with its error where there are several seeds; "" without one."""
    best = facts.best
    if best is None:
        return ""
    group = next((one for one in seeded if best.name in one.trials), None)
    if group is None:
        return words.number(best.value)
    return f"{group.text} (mean of {words.plural(group.trainings, 'training')})"


def _verdict(
    facts: SearchFacts, state: str, comparisons: tuple[Comparison, ...], against_lead: tuple[Comparison, ...]
) -> tuple[str, str]:
    finals = facts.finals
    own = plain_metric(facts.objective.metric)
    main = next((item for item in comparisons if plain_metric(item.metric) == own), None)
    if finals.default is None or finals.best is None or main is None:
        open_point = "Best and default were not compared on the test split."
        return f"{state} {open_point}", "open"
    if facts.same_configuration(finals.default.assignments, finals.best.assignments):
        return "The search found nothing better than the default configuration: it is the best one itself.", "unknown"
    text = _main_sentence(main)
    if finals.lead and against_lead:  # the objective's own metric comes first, if the baseline has it
        lead = against_lead[0]
        text += f" Against the baseline without training ({finals.lead.description}), in {lead.metric}: {lead.words}."
    return text, main.verdict.value


def _main_sentence(main: Comparison) -> str:
    where = f"On {words.plural(main.examples, 'test example')}" if main.examples else "On the test split"
    if main.verdict in (Verdict.BETTER, Verdict.WORSE):
        gain = f" ({words.percent(abs(main.gain))})" if main.gain is not None else ""
        word, amount = main.words.split(" by ")
        return f"{where} the best configuration found is {word} than the default by {amount} in {main.metric}{gain}."
    return f"{where}, best against default in {main.metric}: {main.words}."


def ranks(values: Sequence[float], lower_is_better: bool) -> list[float]:
    """Each value's place from 0 (worst) to 1 (best); equal values share their mean place.  (n,) -> (n,)"""
    data = np.asarray(values, dtype=float)
    if len(data) < 2:
        return [1.0] * len(data)
    order = -data if lower_is_better else data
    below = (order[:, None] > order[None, :]).sum(axis=1)
    equal = (order[:, None] == order[None, :]).sum(axis=1) - 1
    return [float(place) for place in (below + equal / 2) / (len(data) - 1)]
