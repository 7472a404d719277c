"""The report as one HTML page that needs nothing else: no network, no other file.

Every text goes through the template's escaping; figures go as JSON in script elements of a data type, with the
characters escaped that could end the element. A content security policy forbids the page to load anything.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2
import plotly
from markupsafe import Markup

from rankwise.report import goal_plots, goal_tables, landscape, parallel, plots, tables, words
from rankwise.report.analysis import Analysis, best_value
from rankwise.report.facts import SearchFacts, TrialFacts
from rankwise.report.figure import Plot


def _straight(value: object) -> object:
    """Every text of the page passes here, except what is markup already."""
    return words.straight(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_straight,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


@cache
def _library() -> Markup:
    """plotly.js, once a process (4.8 MB)."""
    code = plotly.offline.get_plotlyjs()
    if "</script" in code.lower() or "<!--" in code:
        raise RuntimeError("plotly.js cannot be written into a script element: it holds the end of one")
    return Markup(code)  # noqa: S704 - a library's code, checked above


def _figure_json(plot: Plot) -> Markup:
    """A figure as JSON that cannot end its script element."""
    text = plot.figure.to_json()
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    for character, escape in escapes.items():
        text = text.replace(character, escape)
    return Markup(text)  # noqa: S704 - no character is left that HTML gives a meaning to


def _cell(value: float | None, text: str) -> dict[str, str]:
    """A number of the sortable table: what is shown and what is sorted by ("" goes last)."""
    return {"text": text, "sort": "" if value is None else repr(float(value))}


def _trial_row(
    number: int, trial: TrialFacts, facts: SearchFacts, analysis: Analysis, metrics: list[str], best: bool
) -> dict[str, object]:
    group = next((one for one in analysis.seeded if trial.name in one.trials), None)
    parameters = []
    for parameter in facts.parameters:
        text = trial.assignments.get(parameter.name, "–")
        value = parameter.number(text)
        parameters.append({"text": text, "sort": text if value is None else repr(value)})
    return {
        "number": number,
        "name": trial.name,
        "state": trial.state.value,
        "state_words": trial.state_words,
        "best": best,
        "value": _cell(trial.value, words.number(trial.value)),
        "metrics": [_cell(trial.metrics.get(name), words.number(trial.metrics.get(name))) for name in metrics],
        "parameters": parameters,
        "duration": _cell(trial.seconds, words.seconds(trial.seconds)),
        "seconds": _cell(trial.cost.seconds, words.seconds(trial.cost.seconds)),
        "epoch": _cell(trial.cost.seconds_per_epoch, words.seconds(trial.cost.seconds_per_epoch)),
        "memory": _cell(trial.cost.peak_memory_bytes, words.memory(trial.cost.peak_memory_bytes)),
        "mean": _cell(None, "–") if group is None else _cell(group.value, group.text),
        "trainings": 0 if group is None else group.trainings,
        "bounds": "–" if trial.value is None else goal_tables.KEEPS[analysis.goals.keeps.get(trial.name)],
        "notes": trial.notes,
        "adapter": trial.adapter,
    }


def to_html(facts: SearchFacts, analysis: Analysis) -> str:
    """The page."""
    best = facts.best
    metrics = sorted({name for t in facts.trials for name in t.metrics if name != facts.objective.metric})
    rows = [_trial_row(i, t, facts, analysis, metrics, t is best) for i, t in enumerate(facts.trials, start=1)]
    cost_header, cost_rows = goal_tables.cost_table(facts, analysis)
    figures = {
        "history": plots.history(facts, analysis),
        "parallel": parallel.parallel(facts),
        "importances": plots.importances(analysis),
        "proxy": plots.proxy(facts, analysis),
        "curves": plots.curves(facts),
        "landscape": landscape.landscape(facts),
        "cost_aware": goal_plots.cost_aware(facts, analysis),
        "hypervolume": goal_plots.hypervolume(facts, analysis),
    }
    return _template().render(
        facts=facts,
        analysis=analysis,
        best=best,
        best_value=best_value(facts, analysis.seeded),
        best_adapter=tables.best_adapter(facts),
        library=_library(),
        figures=figures,
        slices=plots.slices(facts),
        other_metrics=goal_plots.other_metrics(facts),
        pairs=goal_plots.cost_against_value(facts, analysis),
        prices=goal_plots.prices(facts, analysis),
        has_goals=goal_tables.is_constrained_or_weighed(analysis),
        cost_words=goal_tables.cost_words(facts, analysis),
        cost_header=cost_header,
        cost_rows=cost_rows,
        bound_words=goal_tables.bound_words(analysis),
        bound_header=goal_tables.BOUND_HEADER,
        bound_rows=goal_tables.bound_rows(analysis),
        front_table=goal_tables.front_table(facts, analysis),
        pick_words=goal_tables.pick_words(facts, analysis),
        figure_json=_figure_json,
        final_rows=tables.final_rows(facts, analysis),
        trial_rows=tables.trial_rows(facts, analysis),
        trial_note=tables.TRIAL_NOTE,
        configuration_rows=tables.configuration_rows(facts),
        changed=tables.changed_parameters(facts),
        final_data=tables.final_data(facts),
        landscape_words=tables.landscape_words(facts),
        proxy_sentence=tables.proxy_sentence(facts, analysis),
        facts_rows=tables.facts_rows(facts),
        count_sentence=tables.count_sentence(facts),
        metrics=metrics,
        rows=rows,
        has_duration=any(trial.seconds is not None and trial.cost.seconds is None for trial in facts.trials),
        has_training=any(trial.cost.seconds is not None for trial in facts.trials),
        has_epoch=any(trial.cost.seconds_per_epoch is not None for trial in facts.trials),
        has_memory=any(trial.cost.peak_memory_bytes is not None for trial in facts.trials),
        has_notes=any(trial.notes or trial.adapter for trial in facts.trials),
        curves_limit=plots.MAX_CURVES,
        lines_limit=parallel.MAX_LINES,
        valued=sum(trial.value is not None for trial in facts.trials),
    )
