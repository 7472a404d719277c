"""The recurring run, against a client whose calls are checked by their signatures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import kfp
import pytest
from pipelines.compile import FOLDER

from pipelines import recurring


def test_what_is_asked_for() -> None:
    client = create_autospec(kfp.Client, instance=True)
    client.create_experiment.return_value = SimpleNamespace(experiment_id="e-1")
    client.create_recurring_run.return_value = SimpleNamespace(recurring_run_id="r-1")
    package = FOLDER / "tune_lora.yaml"
    made = recurring.schedule(
        client,
        experiment="rankwise",
        package=package,
        cron=recurring.WEEKLY,
        namespace=None,
        arguments={"promote": "never"},
    )
    assert made == "r-1"
    asked = client.create_recurring_run.call_args.kwargs
    assert asked["experiment_id"] == "e-1"
    assert asked["job_name"] == "tune-lora"
    assert asked["params"] == {"promote": "never"}
    assert (asked["max_concurrency"], asked["no_catchup"]) == (1, True)
    assert Path(asked["pipeline_package_path"]).is_file()
    assert len(asked["cron_expression"].split()) == 6


def test_the_host_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        recurring.main([])
    assert "--host" in capsys.readouterr().err
