from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import plotly.offline
import pytest

from rankwise.report.analysis import analyse
from rankwise.report.facts import facts_from_json
from rankwise.report.parallel import LEVELS, MAX_LINES, parallel
from rankwise.report.plots import MAX_CURVES, curves, history
from rankwise.report.to_html import to_html
from rankwise.report.to_json import to_json
from rankwise.space.trial import TrialState
from support.facts import HOSTILE, edge_cases, hostile_facts, synthetic_facts

pytestmark = pytest.mark.usefixtures("importances_once")

SECTIONS = (
    "final", "configuration", "history", "front", "parallel", "importances", "slices", "proxy", "curves", "examples",
    "trials", "made",
)  # fmt: skip


class Page(HTMLParser):
    """The page as a browser's parser sees it: elements, their attributes, texts, contents of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._open: tuple[str, dict[str, str | None]] = ("", {})
        # plotly.js is 4.8 MB of the page and takes the parser seconds; that it is there once is tested on the text.
        self.feed(text.replace(plotly.offline.get_plotlyjs(), "/* plotly.js */"))
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self._open = (tag, dict(attrs))
        self.elements.append(self._open)

    def handle_endtag(self, tag) -> None:
        self._open = ("", {})

    def handle_data(self, data) -> None:
        if self._open[0] == "script":
            self.scripts.append((self._open[1], data))
        elif self._open[0] != "style":
            self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    @property
    def figures(self) -> dict[str | None, dict]:
        return {a["data-for"]: json.loads(text) for a, text in self.scripts if a.get("type") == "application/json"}


def page_of(facts) -> Page:
    return Page(to_html(facts, analyse(facts)))


@pytest.fixture(scope="module")
def text() -> str:
    facts = synthetic_facts(30)
    return to_html(facts, analyse(facts))


@pytest.fixture(scope="module")
def whole(text: str) -> Page:
    return Page(text)


def test_the_whole_page_has_every_section_and_plot(whole: Page) -> None:
    ids = [attributes.get("id") for _, attributes in whole.elements]
    assert [name for name in ids if name in SECTIONS] == list(SECTIONS)
    slices = {f"plot-slice-{index}" for index in range(7)}
    named = {"plot-history", "plot-parallel", "plot-importances", "plot-proxy", "plot-curves"}
    # rougeL beside the loss; seconds and memory against it
    named |= {"plot-metric-0", "plot-front-0", "plot-front-1", "plot-hypervolume"}
    assert whole.figures.keys() == slices | named
    assert whole.figures.keys() <= set(ids)
    for figure in whole.figures.values():
        assert any(len(trace.get("x") or trace.get("y") or ()) for trace in figure["data"])


def test_the_page_loads_nothing(whole: Page) -> None:
    attributes = [(tag, name, value) for tag, found in whole.elements for name, value in found.items()]
    assert not [item for item in attributes if item[1] in ("src", "href", "srcset", "action", "data")]
    assert not [tag for tag, _ in whole.elements if tag in ("link", "img", "iframe", "object", "base", "form")]
    (policy,) = [
        found["content"] for tag, found in whole.elements if found.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_plotly_is_inlined_once(text: str) -> None:
    library = plotly.offline.get_plotlyjs()
    assert text.count(library) == 1
    own = text.replace(library, "")
    assert len(own) < 400_000
    assert "@import" not in own
    assert "http://" not in own
    assert "https://" not in own


def test_texts_cannot_leave_their_place() -> None:
    """The hostile texts stand in the page as texts: no element, attribute or script is made of them."""
    facts, plain = hostile_facts(), synthetic_facts(12)
    text = to_html(facts, analyse(facts))
    page, other = Page(text), page_of(plain)
    assert "<script>alert" not in text
    assert "<b>b</b>" not in text
    assert "\u202e" not in text
    assert page.count("b") == other.count("b") == 0
    executable = [script for attributes, script in page.scripts if "type" not in attributes]
    assert executable == [script for attributes, script in other.scripts if "type" not in attributes]
    assert {name for _, found in page.elements for name in found} <= {
        name for _, found in other.elements for name in found
    } | {"lang"}
    seen = [" ".join(found.split()) for found in page.texts]
    assert " ".join(HOSTILE.replace("\u202e", "").split()) in seen  # it is shown, not dropped
    assert page.figures  # and the data of the figures still parse


def test_plotly_gets_texts_without_markup() -> None:
    """Plotly reads ``<b>`` and ``<a href>`` in labels as markup: only the ones that we write may be in them."""
    facts = hostile_facts()
    for figure in page_of(facts).figures.values():
        for text in _strings(figure):
            tags = set(re.findall(r"<\s*/?\s*([a-z]+)", text, re.IGNORECASE))
            assert tags <= {"b", "br", "extra"}, text
            assert "<b>b" not in text


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("name", sorted(edge_cases()))
def test_the_edges_make_a_page_with_every_section_and_no_empty_plot(name: str) -> None:
    page = page_of(edge_cases()[name])
    ids = [attributes.get("id") for _, attributes in page.elements]
    assert [found for found in ids if found in SECTIONS] == list(SECTIONS)
    for identifier, figure in page.figures.items():
        assert figure["data"], identifier
        assert not [text for text in _strings(figure) if text in ("nan", "inf", "None")]
    shown = " ".join(page.texts)
    assert not re.search(r"\b(None|nan|NaN|Undefined)\b", shown)


@pytest.mark.parametrize(
    ("case", "sentences"),
    [
        (
            "no finals",
            ["No configuration was measured on the test", "No predictions on the test split were kept."],
        ),
        ("all failed", ["No trial has a value yet.", "Not enough trials: 0 succeeded, at least 10 are needed."]),
        ("nothing", ["No trial was started yet.", "No parameter has taken two values yet."]),
        ("no cost", ["No successful trial's training time was measured."]),
    ],
)
def test_what_is_missing_is_said(case: str, sentences: list[str]) -> None:
    shown = " ".join(" ".join(text.split()) for text in page_of(edge_cases()[case]).texts)
    for sentence in sentences:
        assert sentence in shown


def test_the_table_has_a_row_for_each_trial_with_sortable_numbers(whole: Page) -> None:
    facts = synthetic_facts(30)
    keys = [found["data-sort"] for _, found in whole.elements if "data-sort" in found]
    per_row = len(keys) // 30
    assert len(keys) == 30 * per_row
    assert [float(keys[i * per_row] or 0) for i in range(30)] == list(range(1, 31))
    values = [keys[i * per_row + 1] for i in range(30)]
    assert values == ["" if trial.value is None else repr(trial.value) for trial in facts.trials]


def test_a_thousand_trials_share_few_traces_and_a_few_megabytes() -> None:
    facts = synthetic_facts(1000)
    page_text = to_html(facts, analyse(facts))
    page = Page(page_text)
    assert max(len(figure["data"]) for figure in page.figures.values()) <= 12
    assert len(page_text) < 9_000_000  # 4.8 MB of it is plotly.js
    names = {text for trace in page.figures["plot-curves"]["data"] for text in trace["text"] if text}
    assert len(names) <= MAX_CURVES
    best = facts.best
    assert best is not None
    assert best.name in names


def test_every_trial_is_drawn_as_a_point_or_a_cross() -> None:
    facts = synthetic_facts(30)
    plot = history(facts, analyse(facts))
    assert plot is not None
    drawn = {trace.name: len(trace.x) for trace in plot.figure.data if trace.mode == "markers"}
    count = {state: sum(t.state is state for t in facts.trials) for state in TrialState}
    assert drawn == {
        "trial": count[TrialState.SUCCEEDED],
        "early stopped": count[TrialState.EARLY_STOPPED],
        "failed, no value": count[TrialState.FAILED],
    }
    lines = [trace.name for trace in plot.figure.data if trace.mode == "lines"]
    assert lines == ["best so far", "default configuration: 1.845"]


def test_every_trial_with_a_value_is_one_line_of_the_parallel_plot() -> None:
    facts = synthetic_facts(30)
    plot = parallel(facts)
    assert plot is not None
    levels = [trace for trace in plot.figure.data if trace.name not in ("failed", "default", "best")]
    gaps = sum(list(trace.x).count(None) for trace in levels)
    assert gaps == sum(trial.value is not None for trial in facts.trials)


def test_of_many_trials_lines_are_drawn_from_the_worst_to_the_best() -> None:
    facts = synthetic_facts(400, finals=False)
    plot = parallel(facts)
    assert plot is not None
    levels = [trace for trace in plot.figure.data if trace.name not in ("failed", "default", "best")]
    assert [list(trace.x).count(None) for trace in levels] == [MAX_LINES // len(LEVELS)] * len(LEVELS)
    ends = [y for trace in levels for x, y in zip(trace.x, trace.y, strict=True) if x == len(facts.parameters)]
    assert (min(ends), max(ends)) == (0.0, 1.0)


def test_a_diverged_curve_does_not_press_the_others_flat() -> None:
    facts = synthetic_facts(30)
    plot = curves(facts)
    assert plot is not None
    low, high = plot.figure.layout.yaxis.range
    assert any(
        value is not None and value > high for trace in plot.figure.data for value in trace.y
    )  # it leaves the plot
    best = facts.best
    assert best is not None
    assert best.value is not None
    assert low < best.value < high


def test_the_json_holds_what_the_page_says() -> None:
    facts = synthetic_facts(30)
    analysis = analyse(facts)
    text = to_json(facts, analysis)
    document = json.loads(text)
    assert facts_from_json(text) == facts
    assert document["analysis"]["verdict"] == analysis.verdict
    assert document["analysis"]["best"] == facts.best.name if facts.best else False
    assert document["analysis"]["importances"]["shares"] == analysis.importances.shares
    assert [item["words"] for item in document["analysis"]["comparisons"]] == [
        item.words for item in analysis.comparisons
    ]
    assert document["analysis"]["examples"][0]["best"] == "INI configuration file parser - runtime"


def test_the_page_is_a_function_of_the_facts() -> None:
    facts = replace(synthetic_facts(12), message="A sentence of its own.")
    page = to_html(facts, analyse(facts))
    again = facts_from_json(to_json(facts, analyse(facts)))
    assert to_html(again, analyse(again)) == page
    assert "A sentence of its own." in page
