"""The picture of the embedding space: what is drawn, what is said, what is checked."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.errors import InvalidInput
from rankwise.report.analysis import analyse
from rankwise.report.facts import (
    AlgorithmFacts,
    SearchFacts,
    TrialFacts,
    facts_from_dict,
    facts_from_json,
    facts_to_dict,
    facts_to_json,
)
from rankwise.report.landscape import MANY, colour_range, landscape
from rankwise.report.landscape_facts import AxisFacts, LandscapeFacts, ViewFacts
from rankwise.report.tables import landscape_words
from rankwise.report.to_html import to_html
from rankwise.report.to_markdown import to_markdown
from rankwise.space.trial import Goal, Objective, TrialState
from support.facts import HOSTILE, edge_cases, hostile_facts, synthetic_facts, with_synthetic_landscape
from support.spaces import untimed

pytestmark = pytest.mark.usefixtures("importances_once")

WHOLE = with_synthetic_landscape(synthetic_facts(30))


def drawn(facts: SearchFacts) -> dict:
    plot = landscape(facts)
    assert plot is not None
    return json.loads(plot.figure.to_json())


def traces(figure: dict, name: str) -> list[dict]:
    return [trace for trace in figure["data"] if trace.get("name") == name]


def found_of(facts: SearchFacts) -> LandscapeFacts:
    assert facts.landscape is not None
    return facts.landscape


# ------------------------------------------------------------------------------------------------------------ picture


@pytest.mark.parametrize("views", [1, 2, 3])
def test_a_panel_for_each_view_with_the_path_in_order(views: int) -> None:
    facts = with_synthetic_landscape(synthetic_facts(30), views)
    figure, found = drawn(facts), found_of(facts)
    axes = ["x", "x2", "x3"][:views]
    dots = [trace for trace in figure["data"] if not trace.get("name") and trace["mode"] == "markers"]
    assert [trace["xaxis"] for trace in dots] == axes
    for trace, view in zip(dots, found.views, strict=True):
        assert (tuple(trace["x"]), tuple(trace["y"])) == (view.x, view.y)
        assert tuple(trace["marker"]["color"]) == found.predicted
    paths = [trace for trace in traces(figure, "path of the trials") if trace["line"]["color"] != "white"]
    assert [(tuple(path["x"]), tuple(path["y"])) for path in paths] == [
        (view.trial_x, view.trial_y) for view in found.views
    ]
    domains = [figure["layout"][f"xaxis{axis[1:]}"]["domain"] for axis in axes]
    assert domains[0][0] == pytest.approx(0)
    assert domains[-1][1] == pytest.approx(1)
    assert all(left[1] < right[0] for left, right in itertools.pairwise(domains))
    # Distances mean something: one unit is as long upwards as sideways.
    assert [figure["layout"][f"yaxis{axis[1:]}"]["scaleanchor"] for axis in axes] == axes
    plot = landscape(facts)
    assert plot is not None
    assert (plot.min_width >= 600) == (views > 1)


def test_every_trial_has_one_mark_and_three_have_a_number() -> None:
    figure, found = drawn(WHOLE), found_of(WHOLE)
    x = dict(zip(found.trials, found.views[0].trial_x, strict=True))
    groups = {
        name: {value for trace in traces(figure, name) if trace["xaxis"] == "x" for value in trace["x"]}
        for name in ("best", "failed, no value", "trial, by its value", "running")
    }
    best = WHOLE.best
    assert best is not None
    assert groups["best"] == {x[best.name]}
    assert groups["failed, no value"] == {x[t.name] for t in WHOLE.trials if t.state is TrialState.FAILED}
    assert groups["trial, by its value"] == {x[t.name] for t in WHOLE.trials if t.value is not None and t is not best}
    assert not groups["running"]
    (marks,) = [trace["marker"]["color"] for trace in traces(figure, "trial, by its value") if trace["xaxis"] == "x"]
    assert marks == [t.value for t in WHOLE.trials if t.value is not None and t is not best]
    numbers = [a["text"] for a in figure["layout"]["annotations"] if a["xref"] == "x"]
    assert numbers == ["1", str(WHOLE.trials.index(best) + 1), "30"]


def test_hover_boxes_tell_configuration_and_value() -> None:
    figure, found = drawn(WHOLE), found_of(WHOLE)
    dots = figure["data"][0]
    for name, column in found.candidates.items():
        assert f"{name}: {column[7]}" in dots["text"][7]
    assert dots["text"][7].startswith(f"predicted loss: {found.predicted[7]:.4g}")
    (trace,) = [trace for trace in traces(figure, "best") if trace["xaxis"] == "x"]
    best = WHOLE.best
    assert best is not None
    assert f"{WHOLE.trials.index(best) + 1}. <b>{best.name}</b>" in trace["text"][0]
    assert f"learning-rate: {best.assignments['learning-rate']}" in trace["text"][0]


def test_a_trial_without_a_place_keeps_the_others_numbers() -> None:
    found = found_of(WHOLE)
    views = tuple(replace(v, trial_x=v.trial_x[1:], trial_y=v.trial_y[1:]) for v in found.views)
    facts = replace(WHOLE, landscape=replace(found, trials=found.trials[1:], views=views))
    numbers = [a["text"] for a in drawn(facts)["layout"]["annotations"] if a["xref"] == "x"]
    assert (numbers[0], numbers[-1]) == ("2", "30")


@pytest.mark.parametrize("name", sorted(edge_cases()))
def test_every_edge_case_is_drawn(name: str) -> None:
    facts = with_synthetic_landscape(edge_cases()[name])
    drawn(facts)
    assert facts_from_json(facts_to_json(facts)) == facts


@pytest.mark.parametrize("count", [1, 2, MANY + 1])
def test_any_number_of_trials(count: int) -> None:
    figure = drawn(with_synthetic_landscape(synthetic_facts(count)))
    path = traces(figure, "path of the trials")[1]
    assert len(path["x"]) == count
    assert path["showlegend"] == (count > 1)


def test_running_trials_are_open() -> None:
    facts = synthetic_facts(4, finals=False)
    running = TrialFacts("later", dict(facts.trials[0].assignments), TrialState.PENDING)
    figure = drawn(with_synthetic_landscape(replace(facts, trials=(*facts.trials, running))))
    assert [len(trace["x"]) for trace in traces(figure, "running")] == [1, 1]


@pytest.mark.parametrize(("goal", "dark"), [(Goal.MINIMIZE, 0), (Goal.MAXIMIZE, -1)])
def test_the_better_end_of_the_colours_is_the_dark_one(goal: Goal, dark: int) -> None:
    scale = drawn(replace(WHOLE, objective=Objective("loss", goal)))["layout"]["coloraxis"]["colorscale"]
    assert [at for at, _ in scale] == sorted(at for at, _ in scale)
    brightness = [sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for _, colour in scale]
    assert brightness[dark] == min(brightness)


@untimed
@given(st.lists(st.floats(-1e300, 1e300), max_size=40), st.sampled_from(Goal))
def test_the_range_of_colours_is_a_range_with_the_best_in_it(values: list[float], goal: Goal) -> None:
    low, high = colour_range(values, goal)
    assert low < high or (low == high and abs(low) > 1e15)
    if values:
        best = min(values) if goal is Goal.MINIMIZE else max(values)
        assert low <= best <= high


def test_few_bad_predictions_share_the_last_colour() -> None:
    good = [1.0 + i / 100 for i in range(100)]
    assert colour_range(good, Goal.MINIMIZE) == (1.0, 1.99)
    assert colour_range([*good, 1e6], Goal.MINIMIZE) == (1.0, 1.9)
    assert colour_range([*(-value for value in good), -1e6], Goal.MAXIMIZE) == (-1.9, -1.0)


# -------------------------------------------------------------------------------------------------------------- words


def test_the_sentences_say_what_is_seen() -> None:
    said = landscape_words(WHOLE)
    assert said[0].startswith("Each dot is one of 200 configurations of the space, its colour the loss")
    assert said[1] == "In the frozen vectors the two axes show 55.0 % of the variance and follow learning-rate."
    assert said[2].startswith("After the projection was fitted to the trials the two axes show 55.0 %")
    assert said[3] == "The language model has 31.0 % of the weight in this prediction."
    assert len(said) == 4
    none = replace(WHOLE, landscape=replace(found_of(WHOLE), weight=0.0))
    assert "the language model has no weight" in landscape_words(none)[3]


def test_the_sentences_say_what_is_left_out() -> None:
    found = found_of(with_synthetic_landscape(WHOLE, 3))
    views = tuple(replace(view, axes=(AxisFacts(0.1), AxisFacts(0.05))) for view in found.views)
    facts = replace(
        WHOLE,
        landscape=replace(found, views=views, note="A view is missing."),
        algorithm=AlgorithmFacts("language-bo", {"earlier_searches": "exp-a"}),
    )
    said = landscape_words(facts)
    assert "and follow no single parameter" in said[3]
    assert said[-2:] == ("What the earlier searches found is left out of it.", "A view is missing.")


def test_the_page_holds_the_picture_and_the_summary_says_where_it_is() -> None:
    page, summary = to_html(WHOLE, analyse(WHOLE)), to_markdown(WHOLE, analyse(WHOLE))
    assert '<section id="landscape">' in page
    assert 'data-for="plot-landscape"' in page
    assert "[report.html](report.html#landscape)" in summary
    for text in (page, summary):
        assert "the two axes show 55.0 % of the variance" in text


def test_a_reason_stands_where_the_picture_would() -> None:
    facts = replace(synthetic_facts(3), landscape_note="The embedding space is not shown: there was no time.")
    page, summary = to_html(facts, analyse(facts)), to_markdown(facts, analyse(facts))
    assert "plot-landscape" not in page
    assert "report.html#landscape" not in summary
    for text in (page, summary):
        assert "The embedding space is not shown: there was no time." in text


def test_a_report_without_either_is_as_it_was() -> None:
    facts = synthetic_facts(3)
    page, summary = to_html(facts, analyse(facts)), to_markdown(facts, analyse(facts))
    assert landscape(facts) is None
    assert landscape_words(facts) == ()
    assert 'id="landscape"' not in page
    assert "language model sees" not in page + summary


def test_no_text_leaves_its_place() -> None:
    facts = replace(with_synthetic_landscape(hostile_facts()), landscape_note="")
    found = replace(found_of(facts), note=HOSTILE)
    views = tuple(
        replace(view, axes=(AxisFacts(0.5, HOSTILE, 0.9), AxisFacts(0.1, HOSTILE, 0.9))) for view in found.views
    )
    page = to_html(replace(facts, landscape=replace(found, views=views)), analyse(facts))
    assert "<script>alert" not in page
    assert "<b>b</b>" not in page


# -------------------------------------------------------------------------------------------------------------- facts


@pytest.mark.parametrize("views", [1, 2, 3])
def test_json_gives_the_same_landscape_back(views: int) -> None:
    facts = with_synthetic_landscape(synthetic_facts(5), views)
    assert facts_from_json(facts_to_json(facts)) == facts


def test_an_older_report_has_none() -> None:
    data = {k: v for k, v in facts_to_dict(synthetic_facts(3)).items() if not k.startswith("landscape")}
    assert facts_from_dict(data) == synthetic_facts(3)


VIEW = ViewFacts("frozen", (AxisFacts(0.5), AxisFacts(0.1)), (0.0, 1.0), (0.0, 1.0), (0.5,), (0.5,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AxisFacts(1.5), r"explained must be in \[0, 1\]"),
        (lambda: AxisFacts(0.5, "x", -0.1), r"agreement must be in \[0, 1\]"),
        (lambda: AxisFacts(float("nan")), r"explained must be in"),
        (lambda: replace(VIEW, name="other"), "name must be one of frozen, projected, token"),
        (lambda: replace(VIEW, axes=(AxisFacts(0.5),)), "needs two axes, got 1"),
        (lambda: replace(VIEW, x=(0.0,)), "the same length"),
        (lambda: replace(VIEW, trial_y=()), "the same length"),
        (lambda: replace(VIEW, y=(0.0, float("inf"))), "must be finite"),
        (lambda: LandscapeFacts("e", "mixture", {}, (1.0, 2.0), ("t",), ()), "needs a view"),
        (lambda: LandscapeFacts("e", "mixture", {}, (1.0,), ("t",), (VIEW,)), "columns of candidates"),
        (lambda: LandscapeFacts("e", "mixture", {"a": ("1",)}, (1.0, 2.0), ("t",), (VIEW,)), "columns of candidates"),
        (lambda: LandscapeFacts("e", "mixture", {}, (1.0, float("nan")), ("t",), (VIEW,)), "prediction must be finite"),
        (lambda: LandscapeFacts("e", "mixture", {}, (1.0, 2.0), (), (VIEW,)), "needs the places of 0 trials"),
        (lambda: LandscapeFacts("e", "mixture", {}, (1.0, 2.0), ("t",), (VIEW,), 1.5), r"weight must be in"),
    ],
)
def test_facts_that_contradict_themselves_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_landscape_of_unknown_trials_is_refused_with_its_path() -> None:
    data = facts_to_dict(WHOLE)
    data["trials"] = data["trials"][1:]
    with pytest.raises(InvalidInput, match="the landscape names a trial that is not there"):
        facts_from_dict(data)
