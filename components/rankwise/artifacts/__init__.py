"""Artifacts: one small Protocol over a local folder or S3, and the manifest that says what a trial was."""

from rankwise.artifacts.manifest import (
    Code,
    Cost,
    DataSource,
    Lineage,
    Manifest,
    ModelSource,
    Outcome,
    Sample,
    trial_key,
)
from rankwise.artifacts.store import Incomplete, NotFound, Store, open_store

__all__ = [
    "Code",
    "Cost",
    "DataSource",
    "Incomplete",
    "Lineage",
    "Manifest",
    "ModelSource",
    "NotFound",
    "Outcome",
    "Sample",
    "Store",
    "open_store",
    "trial_key",
]
