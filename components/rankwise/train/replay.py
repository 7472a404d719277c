"""The metric lines of a finished trial, from its manifest."""

from __future__ import annotations

from collections.abc import Sequence

from rankwise.artifacts import Manifest
from rankwise.train.flags import COST_METRICS

TEST = "test_"
"""What a metric of the test split starts with, in metric lines and in ``standard_errors``."""
LEAD = "lead_"
"""What a metric of the baseline starts with: the first :data:`LEAD_WORDS` words of the source as the answer."""
LEAD_WORDS = 10


def final_lines(manifest: Manifest, reported: Sequence[str]) -> list[dict[str, float]]:
    """What a finished trial prints, again: each evaluation, then the final metrics, then those of the test split."""
    # The last evaluation is the final one, which is told with its costs below; a diverged trial has none.
    earlier = manifest.history[:-1] if manifest.metrics else manifest.history
    lines = [{name: value for name in reported if (value := entry.get(name)) is not None} for entry in earlier]
    costs = {name: getattr(manifest.cost, name) for name in COST_METRICS}
    known = {name: value for name, value in costs.items() if value is not None} | dict(manifest.metrics)
    lines.append({name: known[name] for name in reported if name in known})
    tested = manifest.test_metrics or {}
    names = [LEAD + name for name in reported] + list(reported)
    lines.append({TEST + name: tested[name] for name in names if name in tested})
    return [line for line in lines if line]
