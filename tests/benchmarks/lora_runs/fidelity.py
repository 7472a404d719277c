"""A proxy as a fidelity: what trainings on a part of the data are worth to a search on all of it.

    python -m benchmarks.lora_runs.fidelity [TASK] [--settings prior=none]      (from tests/)

The configurations that a table has on parts of the data and on all of it are searched on all of it by ``language-bo``
with its defaults, which chooses among them: once without more, and once for each part with the results on that part as
an earlier search (``earlier_searches``), whose trust the models earn like that of any other source. Prints a Markdown
table of the regret after so many trainings on all data, each seed with another fifth of the configurations hidden.

Notation
    regret      best loss so far on all data − best, over median − best, of those that the seed sees
    before      what the trainings on the part cost, in trainings on all data (processor seconds over processor
                seconds, evaluation included): a column of the table says "after k", the money spent is k + before
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.lora_runs.proxy import FRACTIONS, by_fraction
from benchmarks.lora_runs.table import Run, load, search_space
from benchmarks.search.ours import Ours
from benchmarks.search.problem import Pool, play, view_of
from benchmarks.search.regret import Array, interval, regret_curve, resampled_means
from benchmarks.search.tasks import HIDDEN
from rankwise.space import Goal
from rankwise.strategies.earlier import EarlierTrials

TASK = "minilm3-role"
"""The only shipped table with runs on all data."""
AFTER = (1, 2, 3, 5, 8)
SEEDS = 20


def earlier_of(name: str, runs: Sequence[Run]) -> EarlierTrials:
    """Runs as what an earlier search found."""
    ended = [(run.config, run.loss) for run in runs if run.loss is not None]
    return EarlierTrials(
        name,
        Goal.MINIMIZE,
        tuple(config for config, _ in ended),
        tuple(loss for _, loss in ended),
        tuple(run.config for run in runs if run.loss is None),
    )


def curves(
    pool: Pool,
    earlier: tuple[EarlierTrials, ...],
    seeds: int,
    trials: int,
    settings: Mapping[str, str] | None = None,
) -> Array:
    """Regret of searches on all data.

    Args:
        pool: what was measured on all data.
        earlier: what is known before.
        seeds: how many searches.
        trials: of each.
        settings: of ``language-bo``, its defaults when None.

    Returns:
        (seeds, trials).
    """
    found = []
    for seed in range(seeds):
        seen = pool.seen_by(seed)
        steps = play(seen, Ours(view_of(seen, seed, trials, "pool"), settings or {}, earlier=earlier), trials, seed)
        found.append(regret_curve([s.value for s in steps], trials, seen.best, seen.median, seen.worst))
    return np.stack(found)


def table(
    task: str,
    runs: Sequence[Run],
    seeds: int = SEEDS,
    after: Sequence[int] = AFTER,
    settings: Mapping[str, str] | None = None,
) -> str:
    """The Markdown table of one task.

    Args:
        task: its name.
        runs: all of its table.
        seeds: searches of each row.
        after: the columns: so many trainings on all data, ascending.
        settings: of ``language-bo``, its defaults when None.

    Raises:
        ValueError: too few configurations were run on all data.
    """
    found = by_fraction(runs)
    whole = found[1.0]
    pool = Pool(task, search_space(), [(run.config, run.loss) for run in whole.values()], HIDDEN)
    lines = [
        f"| what is known before ({len(pool)} configurations of {task}) | before "
        + " ".join(f"| after {k} " for k in after)
        + "|",
        "|---|--:" + "|--:" * len(after) + "|",
    ]
    for part in (None, *FRACTIONS):
        own = [] if part is None else [found[part][key] for key in whole if key in found[part]]
        earlier = () if part is None else (earlier_of(f"part-{part:.0%}", own),)
        cost = sum(run.seconds for run in own) / (sum(run.seconds for run in whole.values()) / len(whole))
        regret = curves(pool, earlier, seeds, after[-1], settings)
        draws = resampled_means(regret, 0)  # (resamples, trials)
        cells = [interval(float(regret[:, k - 1].mean()), draws[:, k - 1]) for k in after]
        name = "nothing more" if part is None else f"and {len(own)} runs on {part:.0%}"
        lines.append(
            f"| {name} | {cost:.1f} | " + " | ".join(f"{c.value:.3f} [{c.low:.3f}, {c.high:.3f}]" for c in cells) + " |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", default=TASK, help="a shipped table (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="searches of each (default: %(default)s)")
    parser.add_argument("--settings", nargs="*", default=[], metavar="NAME=VALUE", help="of language-bo")
    given = parser.parse_args(argv)
    settings = dict(text.split("=", 1) for text in given.settings)
    print(table(given.task, load(given.task), given.seeds, settings=settings))


if __name__ == "__main__":
    main()
