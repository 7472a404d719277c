"""The page in a real browser. Slow, and only where chromium is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rankwise.report.write import build_report
from support.facts import edge_cases, synthetic_facts, with_synthetic_landscape
from support.goal_facts import goal_cases

CHROMIUM = shutil.which("chromium")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]

# Before all other scripts: every error, broken policy and request ends up in the title, which --dump-dom shows.
WATCH = """<script>
window.faults = [];
window.alert = () => faults.push("alert");
addEventListener("error", (event) => faults.push("error: " + event.message));
addEventListener("unhandledrejection", (event) => faults.push("rejection: " + event.reason));
addEventListener("securitypolicyviolation", (event) => {
  faults.push("policy: " + event.violatedDirective + " " + event.blockedURI);
});
addEventListener("load", () => setTimeout(() => {
  const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  document.documentElement.dataset.faults = JSON.stringify([...faults, ...loaded]);
}, 500));
</script>"""

SORT = """<script>
addEventListener("load", () => {
  const rows = () => [...document.querySelectorAll(".trials tbody tr")];
  const names = () => rows().map((row) => row.cells[0].textContent).join(",");
  const button = document.querySelectorAll(".trials thead button")[3];
  button.click(); document.documentElement.dataset.up = names();
  button.click(); document.documentElement.dataset.down = names();
});
</script>"""


def dump(page: str, folder: Path, extra: str = "") -> str:
    assert CHROMIUM is not None
    file = folder / "report.html"
    file.write_text(
        page.replace("<title>", WATCH + "<title>", 1).replace("</body>", extra + "</body>"), encoding="utf-8"
    )
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
        "--disable-component-update", "--no-first-run", f"--user-data-dir={folder / 'profile'}",
        "--window-size=1280,2000", "--virtual-time-budget=30000", "--dump-dom", file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=240, check=True)
    return done.stdout.decode()


def attribute(dom: str, name: str) -> str:
    found = re.search(rf'<html[^>]* data-{name}="([^"]*)"', dom)
    assert found, f"the page's script did not get as far as data-{name}"
    return found.group(1)


CASES = {"whole": synthetic_facts(30), **edge_cases(), "thousand": synthetic_facts(1000)}
CASES |= goal_cases()
CASES["landscape"] = with_synthetic_landscape(synthetic_facts(30), 3, 1500)


@pytest.mark.parametrize("name", CASES)
def test_every_plot_is_drawn_without_an_error_or_a_request(name: str, tmp_path: Path) -> None:
    page, _ = build_report(CASES[name])
    dom = dump(page, tmp_path)
    expected = page.count('<script type="application/json" class="figure"')
    assert attribute(dom, "faults") == "[]"
    assert int(attribute(dom, "ready")) == expected
    assert dom.count('class="main-svg"') >= expected
    if name == "whole":
        assert expected == 16


def test_the_table_sorts_both_ways_with_empty_cells_last(tmp_path: Path) -> None:
    facts = synthetic_facts(30)
    dom = dump(build_report(facts)[0], tmp_path, SORT)
    valued = [(trial.value, number) for number, trial in enumerate(facts.trials, 1) if trial.value is not None]
    failed = [number for number, trial in enumerate(facts.trials, 1) if trial.value is None]
    assert failed
    up = [number for _, number in sorted(valued)]
    assert attribute(dom, "up").split(",") == [str(number) for number in up + failed]
    assert attribute(dom, "down").split(",") == [str(number) for number in up[::-1] + failed]


def test_the_watch_sees_a_fault(tmp_path: Path) -> None:
    """The test's own eyes: a page with a broken script and a picture from elsewhere is not called clean."""
    bad = '<img src="https://example.invalid/x.png"><script>undefinedFunction()</script>'
    page, _ = build_report(synthetic_facts(2))
    faults = attribute(dump(page, tmp_path, bad), "faults")
    assert "undefinedFunction" in faults
    assert "policy: img-src" in faults
