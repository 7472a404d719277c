"""What may change, fail or be interrupted in a run, and how it goes on."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.local.interruption import Interrupted, Interruption
from rankwise.local.records import Condition
from support.local_runs import FakeSuggestions, change, experiment, go, listed, names, search_rows, serving, status

Status = Any


def test_raising_max_trial_count_goes_on(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    file = experiment(tmp_path, maxTrialCount=2)
    first = go(file, tmp_path / "run", endpoint)
    unchanged = go(file, tmp_path / "run", endpoint)
    assert unchanged.trials == first.trials
    assert len(service.requests) == 2
    change(file, maxTrialCount=4, parallelTrialCount=2)
    more = go(file, tmp_path / "run", endpoint)
    assert more.trials[:2] == first.trials
    assert len(more.trials) == 4
    last = service.requests[-1]
    assert (last.current_request_number, last.total_request_number, len(last.trials)) == (2, 4, 2)


def test_a_changed_experiment_is_refused(tmp_path: Path, endpoint: str) -> None:
    file = experiment(tmp_path, maxTrialCount=1)
    go(file, tmp_path / "run", endpoint)
    change(file, algorithm={"algorithmName": "random"})
    with pytest.raises(InvalidInput, match=r"spec\.algorithm\.algorithmName: got 'random'"):
        go(file, tmp_path / "run", endpoint)


def test_wrong_settings_are_refused_before_anything_is_made(
    tmp_path: Path, service: FakeSuggestions, endpoint: str
) -> None:
    service.refuse = (
        grpc.StatusCode.INVALID_ARGUMENT,
        "spec.algorithm.algorithmSettings.n: got '0'; allowed: at least 1\nand something else",
    )
    file = experiment(tmp_path)
    with pytest.raises(InvalidInput, match="allowed: at least 1") as error:
        go(file, tmp_path / "run", endpoint)
    assert [(p.path, p.value) for p in error.value.problems] == [
        ("spec.algorithm.algorithmSettings.n", "0"),
        ("spec.algorithm", "sobol"),
    ]
    assert not (tmp_path / "run").exists()


def test_a_service_that_fails_in_its_check(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    service.refuse = (grpc.StatusCode.UNKNOWN, "Exception calling application")
    with pytest.raises(SurroundingsError, match="nothing was started"):
        go(experiment(tmp_path), tmp_path / "run", endpoint)
    service.refuse = (grpc.StatusCode.UNIMPLEMENTED, "no such method")  # Katib takes this for valid
    assert len(go(experiment(tmp_path), tmp_path / "run", endpoint).trials) == 4


def test_a_service_that_fails_now_and_then(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    service.fail = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED]
    result = go(experiment(tmp_path), tmp_path / "run", endpoint)
    assert len(result.trials) == 4
    assert len(service.requests) == 6


def test_a_service_that_is_gone(tmp_path: Path, service: FakeSuggestions) -> None:
    file = experiment(tmp_path, maxTrialCount=3)
    with serving(service) as endpoint:
        service.fail = []

        def gone(reply: Any) -> None:
            if len(service.requests) == 2:
                service.fail = [grpc.StatusCode.UNAVAILABLE] * 3

        service.change_reply = gone
        with pytest.raises(SurroundingsError, match=r"UNAVAILABLE: made up.*2 finished trials are saved"):
            go(file, tmp_path / "run", endpoint)
        assert [condition for _, _, condition in search_rows(tmp_path / "run")] == ["Succeeded"] * 2
        assert len(go(file, tmp_path / "run", endpoint).trials) == 3
    with pytest.raises(SurroundingsError, match="cannot check the Experiment"):
        go(file, tmp_path / "other", endpoint)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("break_reply", "sentence"),
    [
        (lambda reply: reply.parameter_assignments.add(), "answered 2 configurations where 1"),
        (lambda reply: reply.ClearField("parameter_assignments"), "answered 0 configurations where 1"),
        (lambda reply: reply.parameter_assignments[0].assignments.pop(), "answered the parameters x where x, kind"),
        (lambda reply: reply.parameter_assignments[0].assignments.add(name="x"), "answered the parameters x, kind, x"),
        (lambda reply: setattr(reply.parameter_assignments[0], "trial_name", "A_b"), "'A_b' is no name for a trial"),
        (lambda reply: setattr(reply.parameter_assignments[0], "trial_name", "same"), "gave two trials one name: same"),
    ],
)
def test_replies_that_katib_would_not_take(
    tmp_path: Path, service: FakeSuggestions, endpoint: str, break_reply: Any, sentence: str
) -> None:
    service.change_reply = break_reply
    with pytest.raises(SurroundingsError, match=sentence):
        go(experiment(tmp_path), tmp_path / "run", endpoint)
    same = "same" in sentence  # the first trial may have that name
    assert len(search_rows(tmp_path / "run")) == (1 if same else 0)


def test_names_and_labels_of_the_reply_are_kept(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    def name(reply: Any) -> None:
        reply.parameter_assignments[0].trial_name = f"named-{len(service.requests)}"
        reply.parameter_assignments[0].labels["rankwise.dev/fallback"] = "deadline"

    service.change_reply = name
    result = go(experiment(tmp_path, maxTrialCount=2), tmp_path / "run", endpoint)
    assert names(result.trials) == ["named-1", "named-2"]
    assert result.facts.trials[0].notes == ("suggested by a fallback: deadline",)


def test_an_interrupted_run_goes_on(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    """The running trial is ended, not failed, and started again under its name with its assignments."""
    body = f"""
signal.signal(signal.SIGTERM, lambda *_: (print("checkpoint"), sys.exit(143)))
print("loss=100", flush=True)
while x == 2 and not os.path.exists({str(tmp_path / "go")!r}): time.sleep(0.01)
print(f"loss={{x}}")
"""
    service.answer = listed((1, "a"), (2, "a"), (3, "a"), (4, "a"))
    file = experiment(tmp_path, body)
    folder = tmp_path / "run"
    interruption = Interruption()

    def interrupt() -> None:
        while not list(folder.glob("trials/*/output.log")) or len(list(folder.glob("trials/*/output.log"))) < 2:
            time.sleep(0.01)
        second = max(folder.glob("trials/*/output.log"), key=lambda path: path.stat().st_ctime)
        while "loss=100" not in second.read_text():
            time.sleep(0.01)
        interruption.request()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted, match="signal 2"):
        go(file, folder, endpoint, interruption)
    thread.join()
    before = search_rows(folder)
    assert [condition for _, _, condition in before] == ["Succeeded", "Interrupted"]
    assert status(folder)["pendingTrialList"] == [before[1][0]]
    assert "checkpoint" in (folder / "trials" / before[1][0] / "output.log").read_text()  # it had time to save
    (tmp_path / "go").touch()
    result = go(file, folder, endpoint)
    assert search_rows(folder)[:2] == [before[0], (*before[1][:2], "Succeeded")]
    assert [trial.attempts for trial in result.trials] == [1, 2, 1, 1]
    assert [trial.condition for trial in result.trials] == [Condition.SUCCEEDED] * 4
    assert len(service.requests) == 4


def test_an_unwritable_folder(tmp_path: Path, endpoint: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SurroundingsError, match="cannot be used"):
        go(experiment(tmp_path), tmp_path / "file" / "run", endpoint)
