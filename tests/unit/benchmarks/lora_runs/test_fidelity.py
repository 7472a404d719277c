from __future__ import annotations

import math

from benchmarks.lora_runs.fidelity import curves, earlier_of, table
from benchmarks.lora_runs.table import VALUES, search_space
from benchmarks.search.problem import Pool

from .test_proxy import trained

NUMBERS = {"surrogate": "numeric", "prior": "none"}
"""No language model: the tests are about what is told, not about what reads it."""


def loss(number: int) -> float:
    """Best at the sixth rank and the third learning rate, where no rule of thumb would look first."""
    return 1.0 + (number % 7 - 5) ** 2 + (number // 7 - 2) ** 2


def runs(examples: int, seconds: float):
    part = "sobol" if examples == 512 else "fidelity"
    return [trained(part, i, loss(i), examples, seconds=seconds) for i in range(7 * len(VALUES["learning_rate"]))]


def test_diverged_runs_are_told_as_diverged() -> None:
    told = earlier_of("part", [trained("sobol", 0, 2.0), trained("sobol", 1, None)])
    assert told.values == (2.0,)
    assert told.configurations == (trained("sobol", 0, 2.0).config,)
    assert told.diverged == (trained("sobol", 1, None).config,)


def test_what_the_part_says_reaches_the_search() -> None:
    whole = runs(5120, 40)
    pool = Pool("whole", search_space(), [(run.config, run.loss) for run in whole], hidden=0.2)
    without = curves(pool, (), seeds=2, trials=2, settings=NUMBERS)
    told = curves(pool, (earlier_of("part", runs(512, 4)),), seeds=2, trials=2, settings=NUMBERS)
    assert without.shape == told.shape == (2, 2)
    # A part that says exactly what the whole says leaves nothing to search for.
    assert told[:, -1].max() == 0.0
    assert without[:, 0].mean() > told[:, 0].mean()


def test_the_table_counts_what_the_part_cost() -> None:
    lines = table("made-up", [*runs(5120, 40), *runs(512, 4)], seeds=1, after=(1,), settings=NUMBERS).splitlines()
    assert len(lines) == 2 + 1 + 4
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    configurations = 7 * len(VALUES["learning_rate"])
    assert str(configurations) in cells[0][0]
    assert cells[2][1] == "0.0"
    assert math.isclose(float(cells[5][1]), configurations * 4 / 40, abs_tol=0.05)  # one decimal is shown
    assert {len(row) for row in cells} == {3}
