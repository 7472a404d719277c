"""How a trial ended, in a manifest and in what its process returns and prints."""

from __future__ import annotations

import json
import logging
import math
import platform
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import rankwise
from rankwise.artifacts import Code, Cost, DataSource, Lineage, Manifest, ModelSource, Outcome, Sample
from rankwise.train import checkpoint
from rankwise.train.adapter import save_adapter
from rankwise.train.checkpoint import History
from rankwise.train.config import TrainConfig
from rankwise.train.loop import Training
from rankwise.train.metrics import Measured
from rankwise.train.place import ADAPTER, MANIFEST, PER_EXAMPLE, STATE, Place, finished
from rankwise.train.replay import TEST

log = logging.getLogger(__name__)

SHOWN_EXAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All that a trial found out; see :class:`rankwise.artifacts.Manifest` for what the parts mean.

    Attributes:
        measured: metrics on the validation split.
        tested: metrics on the test split, with ``lead_NAME`` for the baseline; None when it was not evaluated.
        lineage: what the training began with; None where it began anew.
    """

    outcome: Outcome
    model: ModelSource
    data: DataSource
    cost: Cost
    history: History
    measured: Mapping[str, Measured] = field(default_factory=dict)
    tested: Mapping[str, Measured] | None = None
    samples: Sequence[Sample] = ()
    lineage: Lineage | None = None


def make_manifest(config: TrainConfig, result: Result, artifacts: Mapping[str, str]) -> Manifest:
    """The manifest; numbers that are not finite are left out."""
    named = dict(result.measured) | {TEST + name: measured for name, measured in (result.tested or {}).items()}
    return Manifest(
        experiment=config.experiment,
        trial=config.trial_name,
        namespace=config.namespace,
        created=datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        outcome=result.outcome,
        configuration=config.identity(),
        metrics=_finite(result.measured),
        test_metrics=None if result.tested is None else _finite(result.tested),
        standard_errors={name: m.error for name, m in named.items() if m.error is not None},
        cost=result.cost,
        model=result.model,
        data=result.data,
        code=_code(),
        seeds={"training": config.seed, "split": config.split_seed, "subset": config.subset_seed},
        history=tuple(result.history),
        artifacts=artifacts,
        examples=tuple(result.samples[:SHOWN_EXAMPLES]),
        lineage=result.lineage,
    )


def _finite(measured: Mapping[str, Measured]) -> dict[str, float]:
    return {name: m.value for name, m in measured.items() if math.isfinite(m.value)}


def keep(places: Sequence[Place], config: TrainConfig, result: Result, training: Training | None) -> None:
    """Store adapter, final state, values per example and, last, the manifest; then checkpoints are not needed any more.

    A result that is there already is left alone: a second pod of the trial, started because the first one's node did
    not answer, must not take apart what the first one has finished meanwhile.

    Args:
        places: where to.
        config: the trial's options.
        result: what came out.
        training: when its adapter is worth keeping.

    Raises:
        SurroundingsError: a store failed; checkpoints are still there.
    """
    for place in places:
        if finished([place], config) is not None:
            log.info("another process has finished this trial meanwhile; its result stays")
            checkpoint.remove(place)
            continue
        artifacts: dict[str, str] = {}
        if training is not None:
            with tempfile.TemporaryDirectory(prefix="rankwise-adapter-") as folder:
                save_adapter(training.trainee, config.model, Path(folder))
                place.store.put_folder(place.key(ADAPTER), Path(folder))
            artifacts["adapter"] = place.key(ADAPTER)
            if config.keep_state == "final":
                with tempfile.TemporaryDirectory(prefix="rankwise-state-") as folder:
                    training.write(Path(folder))
                    place.store.put_folder(place.key(STATE), Path(folder))
                artifacts["state"] = place.key(STATE)
        if values := _per_example(result):
            place.store.put_bytes(place.key(PER_EXAMPLE), json.dumps(values, sort_keys=True).encode())
            artifacts["per_example"] = place.key(PER_EXAMPLE)
        place.store.put_bytes(place.key(MANIFEST), make_manifest(config, result, artifacts).to_json().encode())
        checkpoint.remove(place)


def _per_example(result: Result) -> dict[str, list[float]]:
    """Metric line's name -> one value an example, in the order of the examples that were measured.

    Runs with the same data, split and number of generated texts were measured on the same examples in the same order.
    """
    named = dict(result.measured) | {TEST + name: measured for name, measured in (result.tested or {}).items()}
    return {
        name: list(m.per_example)
        for name, m in named.items()
        if m.per_example and all(math.isfinite(value) for value in m.per_example)
    }


def _code() -> Code:
    commit, dirty = _git()
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "peft")}
    return Code(rankwise.__version__, commit, dirty, platform.python_version(), **versions)


def _git() -> tuple[str | None, bool | None]:
    """Commit of the working tree that this package lies in, and whether it has changes; None where there is none."""
    folder = Path(rankwise.__file__).parent

    def ask(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        # An installed copy may lie in another project's tree; only a tracked one is of that commit.
        ask("ls-files", "--error-unmatch", "__init__.py")
        return ask("rev-parse", "HEAD"), bool(ask("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None
