"""Synthetic searches with goals beside the objective, for tests of reports: made-up numbers. Nothing was trained."""

from __future__ import annotations

from dataclasses import replace

from rankwise.report.facts import AlgorithmFacts, CostFacts, ParameterFacts, SearchFacts, TrialFacts
from support.facts import synthetic_facts

COSTS = ("seconds", "peak_memory_bytes", "energy_joules")
SEED = ParameterFacts("seed", "discrete", values=("0", "1", "2"))


def _with_costs(trial: TrialFacts) -> TrialFacts:
    """Memory grows with batch size and rank, time with epochs; trials with more than 2 epochs lack energy."""
    epochs, batch = float(trial.assignments["epochs"]), float(trial.assignments["batch-size"])
    seconds = trial.cost.seconds or 0.0
    memory = 1.1e9 + 6e7 * batch + 4e6 * float(trial.assignments["rank"])
    costs = {"seconds": seconds, "peak_memory_bytes": memory}
    if epochs <= 2:
        costs["energy_joules"] = 40.0 * seconds
    return replace(
        trial,
        cost=CostFacts(seconds, memory, costs.get("energy_joules"), seconds / epochs),
        metrics={**trial.metrics, **costs} if trial.value is not None else {},
    )


def goal_facts(trials: int = 30, seed: int = 0, **settings: str) -> SearchFacts:
    """A made-up search with these algorithm settings, whose trials report costs among their metrics."""
    facts = synthetic_facts(trials, seed)
    return replace(
        facts,
        trials=tuple(_with_costs(trial) for trial in facts.trials),
        objective=replace(facts.objective, additional_metrics=("rougeL", *COSTS)),
        algorithm=AlgorithmFacts("language-bo", dict(settings)),
    )


def seeded_facts(configurations: int = 6, seed: int = 0) -> SearchFacts:
    """A made-up search in which each configuration was trained with three seeds, the first one with luck."""
    facts = synthetic_facts(configurations, seed)
    rows = []
    for trial in facts.trials:
        for number in range(3):
            shift = (-0.3 if number == 0 else 0.15) * (1 + len(rows) % 2)
            made = replace(trial, name=f"{trial.name}-{number}", assignments={**trial.assignments, "seed": str(number)})
            if trial.value is not None:
                made = replace(made, value=trial.value + shift, metrics={"loss": trial.value + shift})
            rows.append(made)
    return replace(
        facts,
        parameters=(*facts.parameters, SEED),
        trials=tuple(rows),
        algorithm=AlgorithmFacts("language-bo", {"seed_parameter": "seed"}),
    )


def goal_cases() -> dict[str, SearchFacts]:
    """Made-up searches for everything that a search can be for, by name."""
    weighed = {"cost_weight": "0.3", "cost_memory": "0.5"}
    bounds = "peak_memory_bytes<=1.8GB, seconds<=25, rougeL>=0.2"
    return {
        "costs": goal_facts(12, **weighed, default_configuration='{"rank": "8"}'),
        "cost that few measured": goal_facts(12, cost_weight="0.3", cost_energy="1"),
        "bounds": goal_facts(12, constraints=bounds),
        "prices": goal_facts(12, constraints=bounds, constraint_method="lagrangian", **weighed),
        "nothing keeps the bounds": goal_facts(12, constraints="seconds<=0.001"),
        "unmeasured bound": goal_facts(12, constraints="energy_joules<=1"),
        "front": goal_facts(12, pareto="seconds, peak_memory_bytes, rougeL:maximize"),
        "settings of another algorithm": goal_facts(12, constraints="anything goes"),
        "seeds": seeded_facts(),
        "seeds and bounds": _bounded_seeds(),
    }


def _bounded_seeds() -> SearchFacts:
    facts = seeded_facts()
    settings = {**facts.algorithm.settings, "constraints": "loss<=2", "cost_weight": "0.1"}
    return replace(
        facts,
        algorithm=AlgorithmFacts("language-bo", settings),
        objective=replace(facts.objective, additional_metrics=("rougeL", "seconds")),
    )
