from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.lora_runs import proxy
from benchmarks.lora_runs.table import VALUES, Run

from .test_table import RUN

SERIES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12)


def config(number: int) -> dict[str, str]:
    return RUN.config | {
        "rank": VALUES["rank"][number % 7],
        "learning_rate": VALUES["learning_rate"][number // 7],
    }


def trained(part: str, number: int, loss: float | None, examples: int = 512, seed: int = 0, seconds: float = 4) -> Run:
    return replace(
        RUN,
        part=part,
        position=number,
        config=config(number),
        loss=loss,
        status="diverged" if loss is None else "ok",
        examples=examples,
        fraction=examples / 5120,
        seed=seed,
        seconds=seconds,
    )


@given(SERIES)
def test_rank_correlations_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, dtype=np.float64).T
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(proxy.spearman(a, b))
        assert math.isnan(proxy.kendall(a, b))
        return
    # sums of at most 144 numbers below 100: some hundreds of roundings of 1e-16
    assert proxy.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert proxy.kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-12)


def test_diverged_runs_are_the_last_in_rank() -> None:
    lost = np.array([math.inf, 2.0, 1.0, math.inf])
    assert proxy.spearman(lost, np.array([9.0, 2.0, 1.0, 9.0])) == pytest.approx(1)
    assert proxy.kendall(lost, np.array([9.0, 2.0, 1.0, 9.0])) == pytest.approx(1)


@pytest.mark.parametrize(
    ("by", "full", "expected"),
    [
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], 0),
        ([5, 1, 3, 4, 2], [1, 2, 3, 4, 5], 0.5),  # chose 2: half of the way from 1 to the median 3
        ([5, 4, 3, 2, 1], [1, 2, 3, 4, 5], 2),
        ([5, 4, 3, 2, 1], [1, 2, 3, 4, math.inf], 1.5),  # counts as the worst finite loss, 4; the median stays 3
        ([math.inf, math.inf, 1, math.inf, 2], [1, 2, 3, 4, 5], 1),
    ],
)
def test_regret_of_choosing_by_the_proxy(by: list[float], full: list[float], expected: float) -> None:
    assert proxy.choice_regret(np.array(by, dtype=float), np.array(full, dtype=float)) == pytest.approx(expected)


def test_regret_of_several_finalists_is_that_of_the_best_of_them() -> None:
    by, full = np.array([5.0, 4, 3, 2, 1]), np.array([1.0, 2, 3, 4, 5])
    assert [proxy.choice_regret(by, full, n) for n in (1, 2, 3, 4, 5, 9)] == pytest.approx([2, 1.5, 1, 0.5, 0, 0])


def test_no_regret_without_a_gap() -> None:
    assert math.isnan(proxy.choice_regret(np.arange(3.0), np.ones(3)))
    assert math.isnan(proxy.choice_regret(np.arange(3.0), np.full(3, math.inf)))


def test_bootstrap_resamples_configurations_with_all_their_results() -> None:
    rows = np.arange(40.0).reshape(20, 2)
    met = []

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        assert np.array_equal(a[:, 0] * 10, b)
        met.append(a)
        return float(a.mean())

    found = proxy.bootstrap(mean, rows, rows[:, 0] * 10, resamples=400)
    assert found is not None
    assert len(met) == 401
    assert found.value == rows.mean()
    assert all({tuple(row) for row in a} <= {tuple(row) for row in rows} for a in met)
    # the mean of 20 draws has the standard error sd / sqrt(20); of 400 draws the 2.5 % percentile lies within
    # four of its own standard errors, sqrt(.025 * .975 / 400) / density(-1.96) = 0.13, of -1.96
    error = rows[:, 0].std() / math.sqrt(20)
    assert found.low == pytest.approx(rows.mean() - 1.96 * error, abs=4 * 0.13 * error + 0.1 * error)
    assert found.high == pytest.approx(rows.mean() + 1.96 * error, abs=4 * 0.13 * error + 0.1 * error)
    assert proxy.bootstrap(proxy.kendall, np.ones(5), np.arange(5.0), resamples=10) is None


def test_a_proxy_that_orders_all_alike_and_one_that_reverses() -> None:
    runs = [trained("fidelity", i, 1 + i, 5120, seconds=100) for i in range(10)]
    runs += [trained("sobol", i, 2 + 2 * i, seconds=10) for i in range(12)]  # two have no result on all data
    runs += [trained("fidelity", i, 9 - i, 51, seconds=5) for i in range(10)]
    runs += [trained("fidelity", i, 1.0, 256) for i in range(3)]
    one, five, ten, quarter = proxy.fidelity_lines("a", runs, resamples=50)
    agreed, nothing = " | ".join(["1.00 [1.00, 1.00]"] * 2), " | ".join(["0.00 [0.00, 0.00]"] * 2)
    assert ten == f"| a | 10% | 10 | {agreed} | {nothing} | 10.0 of 100.0 s (10%) |"
    assert one.startswith("| a | 1% | 10 | -1.00 [-1.00, -1.00] | -1.00 [-1.00, -1.00] | 2.00 [")
    assert one.endswith("| 5.0 of 100.0 s (5%) |")
    unknown = " | ".join(["not measured"] * 5)
    assert five == f"| a | 5% | 3 | {unknown} |"
    assert quarter == f"| a | 25% | 0 | {unknown} |"


def test_other_seeds_and_parts_are_no_proxy() -> None:
    runs = [trained("repeat", 0, 1.0, seed=1), trained("dense", 1, 1.0), trained("sobol", 2, 1.0)]
    found = proxy.by_fraction(runs)
    assert {part: len(of) for part, of in found.items()} == {0.01: 0, 0.05: 0, 0.1: 1, 0.25: 0, 1.0: 0}


def test_spread_and_ceiling_of_seeds() -> None:
    noise = {0: 0.0, 1: 0.1, 2: -0.1}
    runs = [
        trained("sobol" if seed == 0 else "repeat", i, 1 + i + off * (1 + (i == 4)), seed=seed)
        for i in range(5)
        for seed, off in noise.items()
    ]
    runs.append(trained("repeat", 0, 1.0, seed=3))  # no other configuration has this seed
    runs.append(trained("sobol", 20, 1.0))
    assert proxy.repeated(runs).shape == (5, 3)
    cells = [cell.strip() for cell in proxy.seed_line("a", runs, resamples=20).strip("|").split("|")]
    # standard deviations 0.1 four times and 0.2: sqrt((4 * 0.01 + 0.04) / 5) = 0.126, median 0.1; means 1 … 5
    assert cells == ["a", "5", "3", "0.126", "0.1", "1.58", "1.00 [1.00, 1.00]", "1.00 [1.00, 1.00]"]


def test_a_diverged_seed_has_a_rank_and_no_spread() -> None:
    runs = [trained("repeat", i, 1.0 + i + seed / 10, seed=seed) for i in range(6) for seed in (1, 2)]
    runs[-1] = replace(runs[-1], loss=None, status="diverged")
    cells = proxy.seed_line("a", runs, resamples=20).split(" | ")
    assert cells[1:6] == ["6", "2", "0.0707", "0.0707", "1.58"]
    assert cells[6].startswith("1.00")
    lost = [replace(run, loss=None, status="diverged") for run in runs]
    assert proxy.seed_line("a", lost).count("not measured") == 5


def test_the_ceiling_is_the_mean_over_pairs_of_seeds() -> None:
    losses = np.random.default_rng(0).normal(size=(12, 4))
    pairs = [stats.kendalltau(losses[:, i], losses[:, j]).statistic for i, j in combinations(range(4), 2)]
    # as above
    assert proxy.between_seeds(proxy.kendall, losses) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_what_is_not_there_is_not_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "load", lambda task, path: (trained("sobol", 0, 1.0),))
    proxy.main(["a", "folder/b.csv.gz"])
    printed = capsys.readouterr().out
    assert printed.count("| not measured | not measured | not measured | not measured |") == 2 * 4 + 2
    assert [line.split(" | ")[0] for line in printed.splitlines() if "not measured" in line] == [
        *["| a"] * 4,
        *["| b"] * 4,
        "| a",
        "| b",
    ]
