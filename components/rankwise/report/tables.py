"""The rows of a report's tables, as texts: HTML, Markdown and the terminal show the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rankwise.report import words
from rankwise.report.analysis import Analysis
from rankwise.report.compare import Comparison, Verdict, plain_metric
from rankwise.report.facts import ConditionFacts, FinalRun, Finals, LeadBaseline, ParameterFacts, SearchFacts
from rankwise.report.front import trial_runs
from rankwise.report.landscape_facts import ViewFacts
from rankwise.report.scale import short
from rankwise.space.trial import Goal, TrialState

_ARROWS = {Goal.MINIMIZE: "↓", Goal.MAXIMIZE: "↑", None: ""}


TRIAL_NOTE = (
    "The best of many trials is the luckiest of the good ones as well: its gain on validation is larger than what it "
    "gains in truth, which only the test split shows."
)


@dataclass(frozen=True, slots=True)
class FinalRow:
    """One line of the table "default against best".

    Attributes:
        label: metric with an arrow for the better direction, or a kind of cost.
        lead, default, best: the values with standard errors; a dash where there is none.
        gain: improvement in percent, positive when better.
        reading: the verdict in words.
        verdict: see :class:`rankwise.report.compare.Verdict`; None for costs.
    """

    label: str
    lead: str
    default: str
    best: str
    gain: str
    reading: str
    verdict: Verdict | None = None


def final_rows(facts: SearchFacts, analysis: Analysis) -> list[FinalRow]:
    """Test metrics of the final runs, the objective's first, then their costs; empty without a final run."""
    return _compared_rows(facts, facts.finals, analysis.comparisons)


def trial_rows(facts: SearchFacts, analysis: Analysis) -> list[FinalRow]:
    """The same of the trials with the default and the best configuration, on validation; empty where final runs are."""
    runs = trial_runs(facts)
    return (
        []
        if runs is None or facts.finals.default or facts.finals.best
        else _compared_rows(facts, runs, analysis.among_trials)
    )


def _compared_rows(facts: SearchFacts, finals: Finals, comparisons: Sequence[Comparison]) -> list[FinalRow]:
    if finals.default is None and finals.best is None:
        return []
    compared = {comparison.metric: comparison for comparison in comparisons}
    names = list(compared)
    for run in (finals.best, finals.default, finals.lead):
        names += [name for name in sorted(run.metrics) if name not in names] if run else []
    own = plain_metric(facts.objective.metric)
    names.sort(key=lambda name: plain_metric(name) != own)
    rows = []
    for name in names:
        comparison = compared.get(name)
        goal = comparison.goal if comparison else None
        rows.append(
            FinalRow(
                f"{name} {_ARROWS[goal]}".strip(),
                _measured(finals.lead, name),
                _measured(finals.default, name),
                _measured(finals.best, name),
                words.percent(comparison.gain, signed=True) if comparison else "–",
                _reading(comparison) if comparison else "–",
                comparison.verdict if comparison else None,
            )
        )
    return rows + _cost_rows(finals.default, finals.best)


def _measured(run: FinalRun | LeadBaseline | None, metric: str) -> str:
    if run is None or metric not in run.metrics:
        return "–"
    return words.with_error(run.metrics[metric], run.standard_errors.get(metric))


def _reading(comparison: Comparison) -> str:
    how = {"paired": f", paired over {comparison.examples} examples", "independent": ", not paired", "none": ""}
    return comparison.words + how[comparison.method]


def _cost_rows(default: FinalRun | None, best: FinalRun | None) -> list[FinalRow]:
    kinds: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
        ("training time", "seconds", words.seconds),
        ("time per epoch", "seconds_per_epoch", words.seconds),
        ("peak memory", "peak_memory_bytes", words.memory),
        ("energy", "energy_joules", words.energy),
    )
    rows = []
    for label, name, show in kinds:
        before = getattr(default.cost, name) if default else None
        after = getattr(best.cost, name) if best else None
        if before is not None or after is not None:
            gain = (before - after) / before if before and after is not None else None
            rows.append(FinalRow(f"{label} ↓", "–", show(before), show(after), words.percent(gain, signed=True), "–"))
    return rows


def configuration_rows(facts: SearchFacts) -> list[tuple[str, str, str, str]]:
    """Parameter, default value, best value, what was allowed."""
    default = facts.default_configuration or {}
    best = facts.best.assignments if facts.best else {}
    rows = [(p.name, default.get(p.name, "–"), best.get(p.name, "–"), allowed(p)) for p in facts.parameters]
    known = {parameter.name for parameter in facts.parameters}
    others = dict.fromkeys([*default, *best])
    return rows + [(n, default.get(n, "–"), best.get(n, "–"), "not searched") for n in others if n not in known]


def best_adapter(facts: SearchFacts) -> str:
    """Where the best trial's adapter is: the store's URI and the key, as far as they are known; "" without one."""
    if facts.best is None or not facts.best.adapter:
        return ""
    return f"{facts.store}/{facts.best.adapter}" if facts.store else facts.best.adapter


def changed_parameters(facts: SearchFacts) -> set[str]:
    """Parameters in which the best configuration differs from the default one (``0.1`` and ``0.10`` are equal)."""
    default, best = facts.default_configuration, facts.best
    if default is None or best is None:
        return set()
    return {
        parameter.name
        for parameter in facts.parameters
        if parameter.name in default
        and parameter.name in best.assignments
        and not parameter.same(default[parameter.name], best.assignments[parameter.name])
    }


def allowed(parameter: ParameterFacts) -> str:
    """What a parameter may be, in words: ``1e-5 … 0.01, logUniform``."""
    if parameter.values is not None:
        text = ", ".join(parameter.values)
    else:
        text = f"{short(parameter.low or 0.0)} … {short(parameter.high or 0.0)}"
        text += f", step {short(parameter.step)}" if parameter.step else ""
    return text if parameter.distribution in ("", "uniform") else f"{text}; {parameter.distribution}"


def final_data(facts: SearchFacts) -> str:
    """How much of the training data the final runs were trained on, as the end of a clause; "" when unknown."""
    runs = [run for run in (facts.finals.default, facts.finals.best) if run is not None]
    shares = {run.subset for run in runs}
    if len(shares) != 1 or None in shares:
        return ""
    share = shares.pop()
    return " on all training data" if share == 1 else f" on {words.percent(share)} of the training data"


def proxy_sentence(facts: SearchFacts, analysis: Analysis) -> str:
    """What the proxy cost, in words."""
    cost = analysis.proxy
    if cost.trial_seconds is None:
        return "No successful trial's training time was measured."
    on = f" on {words.percent(cost.subset)} of the training data" if cost.subset is not None else ""
    text = f"A trial{on} took {words.seconds(cost.trial_seconds)} to train and evaluate (median of {cost.trials})."
    if cost.full_seconds is None or cost.share is None:
        return text + " No final run was measured beside it."
    full = words.seconds(cost.full_seconds)
    text += f" A final run{final_data(facts)} took {full}: a trial costs {words.percent(cost.share)} of it."
    if cost.search_in_trainings is not None:
        trials = words.plural(len(facts.trials), "trial")
        text += f" The whole search ({trials}) cost as much as {cost.search_in_trainings:.1f} final runs."
    if cost.matched_share is not None:
        share = words.percent(cost.matched_share)
        text += f" For the best configuration alone, its trial cost {share} of its own final run."
    return text


def facts_rows(facts: SearchFacts) -> list[tuple[str, str]]:
    """How the results were made: label and value."""
    environment = facts.environment
    rows = [("namespace", facts.namespace)] if facts.namespace else []
    rows += [("algorithm", facts.algorithm.name)]
    rows += [(f"setting {name}", value) for name, value in facts.algorithm.settings.items()]
    if facts.started:
        rows.append(("started", f"{facts.started:%Y-%m-%d %H:%M %Z}"))
    if facts.started and facts.completed:
        rows.append(("duration", words.seconds((facts.completed - facts.started).total_seconds())))
    rows += [(f"condition {item.type}", _condition(item)) for item in facts.conditions]
    rows += [("store", facts.store)] if facts.store else []
    if environment.model:
        model = environment.model
        cut = f", first {model.layers} layers" if model.layers is not None else ""
        rows.append(("model", f"{model.reference}{cut}"))
        rows += [("model revision", model.revision)] if model.revision else []
    for data in environment.data:
        sizes = [(n, getattr(data, n)) for n in ("train", "validation", "test")]
        text = ", ".join(f"{count:,} {name}" for name, count in sizes if count is not None)
        rows.append(("data", data.reference + (f" ({text})" if text else "")))
        rows += [("data sha256", data.sha256)] if data.sha256 else []
    rows += [("device", environment.device)] if environment.device else []
    rows += [(f"seed {name}", str(value)) for name, value in environment.seeds.items()]
    return rows + list(environment.versions.items())


def _condition(condition: ConditionFacts) -> str:
    """``False since 2026-03-02 09:00 UTC: ExperimentRunning, Experiment is running``."""
    since = f" since {condition.since:%Y-%m-%d %H:%M %Z}" if condition.since else ""
    why = ", ".join(text for text in (condition.reason, condition.message) if text)
    return f"{condition.status}{since}" + (f": {why}" if why else "")


def count_sentence(facts: SearchFacts) -> str:
    """``30 trials: 25 succeeded, 3 early stopped, 1 killed, 1 failed``."""
    order = list(TrialState)
    counts = Counter((order.index(trial.state), trial.state_words) for trial in facts.trials)
    parts = [f"{counts[key]:,} {key[1]}" for key in sorted(counts)]
    asked = facts.max_trials
    of = f" of {asked:,} asked for" if asked and asked != len(facts.trials) else ""
    return words.plural(len(facts.trials), "trial") + of + (": " + ", ".join(parts) if parts else "")


def landscape_words(facts: SearchFacts) -> tuple[str, ...]:
    """What is seen, in sentences: how to read the picture, what it shows, what the prediction stands on."""
    found = facts.landscape
    if found is None:
        return (facts.landscape_note,) if facts.landscape_note else ()
    how = (
        f"Each dot is one of {len(found.predicted):,} configurations of the space, its colour the "
        f"{facts.objective.metric} that the model predicts after all trials. The line visits the trials in their "
        "order; a trial's colour is what it measured."
    )
    said = [how, *(_view_words(view, first=i == 0) for i, view in enumerate(found.views))]
    if found.weight is not None and found.weight > 0:
        said.append(f"The language model has {words.percent(found.weight)} of the weight in this prediction.")
    elif found.weight is not None:
        said.append("In this search the numbers predict so much better that the language model has no weight in it.")
    if facts.algorithm.settings.get("earlier_searches", "").strip():
        said.append("What the earlier searches found is left out of it.")
    return (*said, *([found.note] if found.note else []))


def _view_words(view: ViewFacts, *, first: bool) -> str:
    """What a view's axes show: their share of the variance and the parameters that they follow."""
    where = {
        "frozen": "In the frozen vectors",
        "projected": "after the projection was fitted to the trials",
        "token": "with the learnable token",
    }[view.name]
    where = where if first else where[0].upper() + where[1:]
    followed = list(dict.fromkeys(axis.parameter for axis in view.axes if axis.parameter))
    shown = f"{where} the two axes show {words.percent(view.explained)} of the variance"
    if not followed:
        return f"{shown} and follow no single parameter."
    return f"{shown} and follow {' and '.join(followed)}."
