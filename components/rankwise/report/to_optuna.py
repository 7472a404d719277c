"""A search as an Optuna study, so that Optuna's evaluators and optuna-dashboard can read it.

How parameters become Optuna's distributions is in :mod:`rankwise.strategies.optuna_space`.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from rankwise.report.facts import ParameterFacts, SearchFacts, TrialFacts
from rankwise.space.trial import Goal, TrialState
from rankwise.strategies.optuna_space import distribution_of, quiet, value_of

_STATES = {
    TrialState.PENDING: OptunaState.RUNNING,
    TrialState.SUCCEEDED: OptunaState.COMPLETE,
    TrialState.EARLY_STOPPED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    TrialState.UNAVAILABLE: OptunaState.FAIL,
}

_FINITE_VALUE = models.TrialValueModel.TrialValueType.FINITE
_FINITE_REPORT = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE

FANOVA_LIMIT = 200
"""Up to this many trials importances come from fANOVA, beyond it from PED-ANOVA, whose time does not grow as fast."""


def _distribution(parameter: ParameterFacts) -> BaseDistribution:
    return distribution_of(
        parameter.type, parameter.distribution, parameter.low, parameter.high, parameter.step, parameter.values
    )


def _local(time: datetime | None) -> datetime:
    """Optuna keeps local times without a zone; a trial whose time is unknown gets the epoch, not the present."""
    return (time or datetime.fromtimestamp(0, UTC)).astimezone().replace(tzinfo=None)


def _attributes(trial: TrialFacts) -> dict[str, object]:
    attributes: dict[str, object] = {
        "trial": trial.name,
        "state": trial.state.value,
        "condition": trial.condition or None,
        "assignments": dict(trial.assignments),
        "seconds": trial.seconds,
        "cost_seconds": trial.cost.seconds,
        "cost_peak_memory_bytes": trial.cost.peak_memory_bytes,
        "cost_energy_joules": trial.cost.energy_joules,
        "cost_seconds_per_epoch": trial.cost.seconds_per_epoch,
        "subset": trial.subset,
        "adapter": trial.adapter or None,
        "notes": list(trial.notes) or None,
        **{f"metric_{name}": value for name, value in trial.metrics.items()},
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _frozen(
    number: int, trial: TrialFacts, parameters: tuple[ParameterFacts, ...], space: Mapping[str, BaseDistribution]
) -> FrozenTrial:
    params: dict[str, str | int | float] = {}
    for parameter in parameters:
        text = trial.assignments.get(parameter.name)
        value = None if text is None else value_of(space[parameter.name], text, parameter.number(text))
        if value is not None:
            params[parameter.name] = value
    finished = trial.state.is_finished
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=_STATES[trial.state],
        value=trial.value,
        datetime_start=_local(trial.started),
        datetime_complete=_local(trial.completed or trial.started) if finished else None,
        params=params,
        distributions={name: space[name] for name in params},
        user_attrs=_attributes(trial),
        system_attrs={},
        intermediate_values={},
    )


def _with_curve(frozen: FrozenTrial, trial: TrialFacts, metric: str) -> FrozenTrial:
    for index, report in enumerate(trial.history):
        if metric in report.metrics:
            frozen.intermediate_values[index if report.step is None else report.step] = report.metrics[metric]
    return frozen


def build_study(facts: SearchFacts, storage: RDBStorage | None = None) -> optuna.Study:
    """An Optuna study with all trials of a search.

    Args:
        facts: the search.
        storage: where to put it; None for memory.

    Returns:
        A study named as the experiment, whose metric has the objective's name. Trial i of it is trial i of the facts.
    """
    with quiet(optuna.exceptions.ExperimentalWarning):
        study = optuna.create_study(
            storage=storage,
            study_name=facts.experiment,
            direction="minimize" if facts.objective.goal is Goal.MINIMIZE else "maximize",
        )
        study.set_metric_names([facts.objective.metric])
        study.set_user_attr("algorithm", facts.algorithm.name)
        study.set_user_attr("settings", json.dumps(dict(facts.algorithm.settings), ensure_ascii=False))
        space = {parameter.name: _distribution(parameter) for parameter in facts.parameters}
        trials = [
            _with_curve(_frozen(index, trial, facts.parameters, space), trial, facts.objective.metric)
            for index, trial in enumerate(facts.trials)
        ]
        if storage is None:
            study.add_trials(trials)
        else:
            _insert(storage, study._study_id, trials)
    return study


def _insert(storage: RDBStorage, study_id: int, trials: list[FrozenTrial]) -> None:
    """Insert all trials of a study at once.

    ``Study.add_trials`` asks the database several times for every value it writes: 90 s for a thousand trials, where
    this takes about one. It relies on the tables of the pinned Optuna version; a test reads the study back through
    Optuna's own API and compares it, trial by trial, with the one in memory.
    """
    ids = [number + 1 for number in range(len(trials))]
    rows: dict[type, list[dict[str, object]]] = {
        models.TrialModel: [
            {
                "trial_id": identity,
                "number": trial.number,
                "study_id": study_id,
                "state": trial.state,
                "datetime_start": _utc(trial.datetime_start),
                "datetime_complete": _utc(trial.datetime_complete),
            }
            for identity, trial in zip(ids, trials, strict=True)
        ],
        models.TrialValueModel: [
            {"trial_id": identity, "objective": 0, "value": trial.value, "value_type": _FINITE_VALUE}
            for identity, trial in zip(ids, trials, strict=True)
            if trial.value is not None
        ],
        models.TrialParamModel: [
            {
                "trial_id": identity,
                "param_name": name,
                "param_value": trial.distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(trial.distributions[name]),
            }
            for identity, trial in zip(ids, trials, strict=True)
            for name, value in trial.params.items()
        ],
        models.TrialUserAttributeModel: [
            {"trial_id": identity, "key": key, "value_json": json.dumps(value)}
            for identity, trial in zip(ids, trials, strict=True)
            for key, value in trial.user_attrs.items()
        ],
        models.TrialIntermediateValueModel: [
            {
                "trial_id": identity,
                "step": step,
                "intermediate_value": value,
                "intermediate_value_type": _FINITE_REPORT,
            }
            for identity, trial in zip(ids, trials, strict=True)
            for step, value in trial.intermediate_values.items()
        ],
    }
    with storage.engine.begin() as connection:
        for model, values in rows.items():
            if values:
                connection.execute(sqlalchemy.insert(model.__table__), values)  # type: ignore[attr-defined]


def _utc(time: datetime | None) -> datetime | None:
    """Optuna's database keeps UTC without a zone."""
    return None if time is None else time.astimezone(UTC).replace(tzinfo=None)


def write_database(facts: SearchFacts, path: Path) -> None:
    """Write the study as an sqlite file for ``optuna-dashboard sqlite:///PATH``.

    The study is built in memory and copied page by page, so that no path has to be written as a URL.

    Args:
        facts: the search.
        path: a file that does not exist yet.
    """
    with quiet(optuna.exceptions.ExperimentalWarning):
        storage = RDBStorage("sqlite:///:memory:")
    try:
        build_study(facts, storage)
        connection = storage.engine.raw_connection()
        try:
            with contextlib.closing(sqlite3.connect(path)) as target:
                source = connection.driver_connection
                assert isinstance(source, sqlite3.Connection)  # noqa: S101 - the engine's URL is sqlite
                source.backup(target)
        finally:
            connection.close()
    finally:
        storage.remove_session()
        storage.engine.dispose()


def importances_of(facts: SearchFacts) -> tuple[str, dict[str, float]]:
    """How much each parameter matters, over the trials that succeeded.

    fANOVA (Hutter et al., ICML 2014): share of the objective's variance that a parameter explains in a random forest.
    PED-ANOVA (Watanabe et al., IJCAI 2023): how far a parameter's values in the best tenth differ from all others.

    Returns:
        The evaluator's name, and parameter -> share. Empty when no parameter took two values.
    """
    study = build_study(facts)
    finished = study.get_trials(deepcopy=False, states=(OptunaState.COMPLETE,))
    varied = [p.name for p in facts.parameters if len({trial.params.get(p.name) for trial in finished}) > 1]
    # Optuna can only weigh a parameter that every trial has.
    varied = [name for name in varied if all(name in trial.params for trial in finished)]
    if not varied:
        return "", {}
    small = len(finished) <= FANOVA_LIMIT
    evaluator = FanovaImportanceEvaluator(seed=0) if small else PedAnovaImportanceEvaluator()
    with quiet(optuna.exceptions.ExperimentalWarning):
        shares = get_param_importances(study, evaluator=evaluator, params=varied)
    return "fANOVA" if small else "PED-ANOVA", {name: float(share) for name, share in shares.items()}
