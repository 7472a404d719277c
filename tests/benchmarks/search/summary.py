"""Tables, a picture and all figures of a benchmark.

    python -m benchmarks.search.summary --out FOLDER            (from tests/; the folder of benchmarks.search.run)

Writes FOLDER/summary.md, regret-GROUP.svg and figures.json, where the groups of tasks are those that the method's
parameters were chosen on and those that it is reported on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.search.figures import CHECKPOINTS, Group, Row, group_of, is_ours
from benchmarks.search.picture import draw, pictured
from benchmarks.search.problem import Pool
from benchmarks.search.regret import Estimate
from benchmarks.search.results import Results, Search
from benchmarks.search.run import OUT, TRIALS

MEANING = {
    "reported": "Tasks that nothing was chosen on",
    "development": "Tasks that the method's parameters were chosen on",
    "unlisted": "Tasks of neither list",
}
MEANING |= {f"{name}-stretched": f"{said}, stretched by a regression" for name, said in MEANING.items()}
METHOD = """\
Simple regret after t trials: (best value so far − best of the pool) / (median of the pool − best of the pool): 0 is the
best measured configuration, 1 the median one. Means over tasks of means over seeds, of min(regret, 1); in brackets 95 %
bootstrap intervals over seeds, tasks as strata. Initial points and failed trials are part of the budget. A proposal is
moved to the nearest measured configuration that was not tried yet (`moved by`: how far, in a unit cube of five
dimensions); `@pool` chooses among the measured ones itself. Each seed hides a random fifth of a table, the same from
all.
"""


def figure(estimate: Estimate) -> str:
    """A figure with its interval, for a cell."""
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def seconds(value: float) -> str:
    """A wall time, two digits."""
    if value < 0.001:
        return "< 1 ms"
    return f"{value * 1000:.0f} ms" if value < 0.1 else f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    line = ["---", *["---:"] * (len(header) - 1)]
    return "".join("| " + " | ".join(row) + " |\n" for row in (header, line, *rows))


def section(group: Group, pools: Mapping[str, Pool], picture: str | None) -> str:
    """The text of one group of tasks."""
    shown = [trial for trial in CHECKPOINTS if trial <= group.trials]
    compared = sorted(group.rows[0].ranks)
    parts = [f"## {MEANING[group.name]}\n", f"Tasks ({len(group.tasks)}): {', '.join(group.tasks)}.\n"]
    if picture:
        parts.append(f"![Mean regret over trials]({picture})\n")
    header = [
        "optimizer",
        *(f"regret @{t}" for t in shown),
        *(f"rank @{t}" for t in compared),
        "seeds",
        "a suggestion",
        "moved by",
    ]
    parts.append(table(header, [_overall(row, shown, compared) for row in group.rows]))
    if group.incomplete:
        listed = ", ".join(f"{name} (searches: {count})" for name, count in sorted(group.incomplete.items()))
        parts.append(f"Not on every task yet, so not in the table: {listed}.\n")
    parts += [_against_the_best_peer(group), _against_random(group), "### By task\n"]
    for task in group.tasks:
        parts.append(_task(group, task, pools[task], compared))
    return "\n".join(part for part in parts if part)


def _overall(row: Row, shown: Sequence[int], compared: Sequence[int]) -> list[str]:
    return [
        f"**{row.optimizer}**" if is_ours(row.optimizer) else row.optimizer,
        *(figure(row.curve.at(trial)) for trial in shown),
        *(f"{row.ranks[trial]:.1f}" for trial in compared),
        str(row.seeds),
        seconds(row.seconds),
        f"{row.distance:.2f}",
    ]


def _against_the_best_peer(group: Group) -> str:
    if not group.ratios:
        return ""
    lines = [
        f"- {optimizer} after {trial} trials: {figure(estimate)} of the regret of {group.best_peer[trial]}"
        for (optimizer, trial), estimate in group.ratios.items()
    ]
    return "### Against the best peer\n\n" + "\n".join(lines) + "\n"


def _against_random(group: Group) -> str:
    lines = []
    for row in group.rows:
        mine = [worse for worse in group.worse if worse.optimizer == row.optimizer]
        if mine:
            said = "; ".join(
                f"{w.task} @{w.trial} by {figure(w.difference)}{' (not chance)' if w.certain else ''}" for w in mine
            )
            lines.append(f"- {row.optimizer}: {said}")
        elif is_ours(row.optimizer):
            lines.append(f"- {row.optimizer}: on no task")
    if not lines:
        return ""
    return (
        "### Worse than random\n\nMean regret above random's, difference paired by seed.\n\n" + "\n".join(lines) + "\n"
    )


def _task(group: Group, task: str, pool: Pool, compared: Sequence[int]) -> str:
    head = (
        f"#### {task}\n\n{len(pool)} configurations, {pool.failed} of them failed; best {pool.best:.4f}, "
        f"median {pool.median:.4f}, worst {pool.worst:.4g}.\n"
    )
    rows = sorted(group.rows, key=lambda row: row.tasks[task].value[-1])
    cells = [[row.optimizer, *(figure(row.tasks[task].at(trial)) for trial in compared)] for row in rows]
    return head + "\n" + table(["optimizer", *(f"regret @{t}" for t in compared)], cells)


def plain(group: Group) -> dict[str, Any]:
    """A group for JSON: keys as text, infinite ratios as null."""
    facts = asdict(group)
    facts["ratios"] = [
        {"optimizer": optimizer, "trial": trial, "peer": group.best_peer[trial], **asdict(estimate)}
        for (optimizer, trial), estimate in group.ratios.items()
    ]
    return _finite(facts)


def _finite(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {str(key): _finite(value) for key, value in facts.items()}
    if isinstance(facts, (list, tuple)):
        return [_finite(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


def write(
    results: Results, pools: Mapping[str, Pool], roles: Mapping[str, str], trials: int, show: Sequence[str] = ()
) -> str:
    """Write everything beside the searches; returns the Markdown.

    Args:
        results: the searches.
        pools: task -> pool, of all tasks that may be in the summary.
        roles: task -> one of :data:`MEANING`.
        trials: budget of the searches that are taken.
        show: optimizers of the picture; a choice is made where none is given.
    """
    folder = results.path.parent
    searches: list[Search] = []
    stale = 0
    for search in results.searches():
        if search.task in pools and search.budget == trials:
            current = search.pool == pools[search.task].fingerprint
            stale += not current
            searches += [search] if current else []
    texts = ["# Search benchmark\n", METHOD]
    facts: dict[str, Any] = {"trials": trials, "groups": [], "environment": environments(results)}
    for name in MEANING:
        own = {task: pools[task] for task in pools if roles[task] == name and any(s.task == task for s in searches)}
        if not own:
            continue
        group = group_of(name, own, [search for search in searches if search.task in own], trials)
        picture = f"regret-{name}.svg"
        (folder / picture).write_text(draw(group, pictured(group, show)), encoding="utf-8")
        texts.append(section(group, own, picture))
        facts["groups"].append(plain(group))
    unavailable, broken = results.unavailable(), results.broken()
    lines = [f"- {optimizer}: not installed here ({reason})" for optimizer, reason in sorted(unavailable.items())]
    lines += [f"- {optimizer}: searches that broke off: {count}" for optimizer, count in sorted(broken.items())]
    if lines:
        texts.append("## Not run\n\n" + "\n".join(lines) + "\n")
    if stale:
        texts.append(f"Searches of other versions of the tables, left out: {stale}.\n")
    facts |= {"unavailable": unavailable, "broken": broken, "stale": stale}
    text = "\n".join(texts)
    (folder / "summary.md").write_text(text, encoding="utf-8")
    (folder / "figures.json").write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return text


def environments(results: Results) -> list[dict[str, Any]]:
    """The different environments that the searches were made in."""
    found: list[dict[str, Any]] = []
    for line in results.lines():
        if line["kind"] == "environment" and (facts := {k: v for k, v in line.items() if k != "kind"}) not in found:
            found.append(facts)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the summary and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the searches (default: runs/bench-search)")
    parser.add_argument("--trials", type=int, default=TRIALS, help="budget of the searches (default: %(default)s)")
    parser.add_argument("--show", nargs="+", default=[], metavar="NAME", help="optimizers of the picture")
    given = parser.parse_args(arguments)
    from benchmarks.search import tasks

    results = Results(given.out)
    searched = {search.task for search in results.searches()}
    names = sorted(task for task in searched if task.partition(tasks.STRETCHED)[0] in tasks.TASKS)
    if not names:
        print(f"no searches of a shipped table in {results.path}", file=sys.stderr)
        return 2
    pools = {task: tasks.pool(task) for task in names}
    print(write(results, pools, {task: tasks.role(task) for task in names}, given.trials, given.show))
    return 0


if __name__ == "__main__":
    sys.exit(main())
