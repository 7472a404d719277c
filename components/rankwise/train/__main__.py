"""``rankwise train``: one trial as a program, the very command that a trial pod runs."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence

from rankwise.artifacts import Manifest, Outcome
from rankwise.errors import Diverged, InvalidInput, OutOfMemory, SurroundingsError
from rankwise.train.config import TrainConfig, parse
from rankwise.train.flags import KATIB_TRIAL, add_arguments
from rankwise.train.interruption import Interrupted, Interruption
from rankwise.train.place import Place, finished, open_places
from rankwise.train.report import MetricLines, only_metrics_with_equals, start_progress

__all__ = ["add_arguments", "main"]

log = logging.getLogger(__name__)

OUR_MISTAKE, WRONG_INPUT, SURROUNDINGS, DIVERGED, OUT_OF_MEMORY = 1, 2, 3, 4, 5
STOPPED = 128 + signal.SIGTERM

SEEN_WITHIN = 20.0
"""Seconds in which Katib's collector finds the process that it collects from. Its container starts after ours; when
ours has ended by then, it gives up ("unable to find main pid") and the trial counts as failed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one trial; return the process's exit code."""
    with Interruption() as interruption, only_metrics_with_equals() as stream:
        try:
            config = parse(sys.argv[1:] if argv is None else argv)
            start_progress(_log_format(config), _names(config))
            lines = MetricLines(config.metrics_format, config.metrics_file, stream)
            return _run(config, open_places(config), interruption, lines)
        except InvalidInput as error:
            for problem in error.problems:
                print(f"rankwise train: {problem}", file=sys.stderr)
            return WRONG_INPUT
        except SurroundingsError as error:
            log.error("%s", error)
            return SURROUNDINGS
        except Diverged as error:
            log.error("diverged: %s; a lower learning rate or a smaller alpha may help", error)
            return DIVERGED
        except OutOfMemory as error:
            log.error("%s", error)
            return OUT_OF_MEMORY
        except Interrupted:
            return STOPPED
        except Exception:
            # Told here: Python's own trace would quote lines of code such as "loss = ..." to the collector.
            log.exception("the trial failed")
            return OUR_MISTAKE


def _log_format(config: TrainConfig) -> str:
    return config.log_format or ("json" if os.environ.get(KATIB_TRIAL) else "text")


def _names(config: TrainConfig) -> dict[str, str]:
    names = {"experiment": config.experiment, "trial": config.trial_name}
    return names if config.namespace is None else {"namespace": config.namespace} | names


def _run(config: TrainConfig, places: list[Place], interruption: Interruption, lines: MetricLines) -> int:
    manifest = finished(places, config)
    if manifest is not None:
        return _tell_again(manifest, config, lines)
    from rankwise.train.trial import run_trial  # torch, transformers and peft: seconds that --help need not wait for

    outcome = run_trial(config, places, interruption, lines)
    log.info("%s", outcome.value.replace("_", " "))
    return 0


def _tell_again(manifest: Manifest, config: TrainConfig, lines: MetricLines) -> int:
    """A restarted pod of a finished trial: its metrics once more, without the work."""
    from rankwise.train.replay import final_lines

    log.info("this trial is finished since %s", manifest.created)
    for metrics in final_lines(manifest, config.reported):
        lines.write(metrics)
    if manifest.outcome is Outcome.DIVERGED:  # fails either way
        raise Diverged("the same configuration did so before")
    if os.environ.get(KATIB_TRIAL):
        time.sleep(SEEN_WITHIN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
