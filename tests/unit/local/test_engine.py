"""The engine end to end: tiny real commands as trials, a fake suggestion service over a real socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise.local.journal import Journal
from rankwise.local.records import Comparison, Condition, Kind, ProcessId, StopRule, TrialRecord
from rankwise.space.trial import TrialState
from rankwise.strategies.base import Suggestions, SuggestRequest
from rankwise.surrogate.observations import read_trials
from support.katib import FakeStrategy, Running
from support.local_runs import (
    LOSS,
    FakeSuggestions,
    change,
    experiment,
    go,
    listed,
    loss,
    names,
    rows,
    scattered,
    search_rows,
    status,
)

Status = Any


def test_a_whole_run(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    body = LOSS + '\nprint(f"acc={x}")\nprint("noise=1")'
    objective = {"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": ["acc"]}
    file = experiment(tmp_path, body, objective=objective)
    result = go(file, tmp_path / "run", endpoint)

    trials = search_rows(tmp_path / "run")
    assert [condition for _, _, condition in trials] == ["Succeeded"] * 4
    # What came in is what the service said, in its order.
    assert [assignments for _, assignments, _ in trials] == [
        scattered(service.requests[0], position) for position in range(4)
    ]
    best = min(trials, key=lambda trial: loss(trial[1]))
    assert result.verdict.reason == "ExperimentMaxTrialsReached"
    assert result.best is not None
    assert (result.best.name, result.best_value) == (best[0], loss(best[1]))

    state = status(tmp_path / "run")
    assert state["currentOptimalTrial"] == {
        "bestTrialName": best[0],
        "parameterAssignments": [{"name": name, "value": value} for name, value in best[1].items()],
        "observation": {
            "metrics": [
                {"name": "loss", **dict.fromkeys(("latest", "max", "min"), repr(loss(best[1])))},
                {"name": "acc", **dict.fromkeys(("latest", "max", "min"), str(float(best[1]["x"])))},
            ]
        },
    }
    assert (state["trials"], state["trialsSucceeded"]) == (4, 4)
    assert state["succeededTrialList"] == [name for name, _, _ in trials]
    assert not {"runningTrialList", "trialsRunning", "failedTrialList", "trialsFailed"} & state.keys()
    assert [(c["type"], c["status"]) for c in state["conditions"]] == [
        ("Created", "True"),
        ("Running", "False"),
        ("Succeeded", "True"),
    ]
    assert state["startTime"] <= state["completionTime"] <= state["lastReconcileTime"]
    document = yaml.safe_load((tmp_path / "run" / "experiment.yaml").read_text())
    assert document["spec"] == yaml.safe_load(file.read_text())["spec"]  # the user's own text besides

    assert [trial.value for trial in result.facts.trials] == [loss(assignments) for _, assignments, _ in trials]
    assert [trial.state for trial in result.facts.trials] == [TrialState.SUCCEEDED] * 4
    assert result.facts.completed is not None
    for name, assignments, _ in trials:
        log = (tmp_path / "run" / "trials" / name / "output.log").read_text()
        assert log == f"loss={loss(assignments)!r}\nacc={float(assignments['x'])}\nnoise=1\n"


def test_requests_are_those_of_katibs_controller(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    """Fail, no metric and success, one after the other: who is sent, with what, and which numbers."""
    body = """
if x == 1: sys.exit("broken")
if x == 2: sys.exit(0)
print(f"loss={x:.3f}")
"""
    service.answer = listed((1, "a"), (2, "a"), (3, "a"), (4, "b"))
    algorithm = {"algorithmName": "sobol", "algorithmSettings": [{"name": "random_state", "value": "7"}]}
    file = experiment(tmp_path, body, algorithm=algorithm, parallelTrialCount=1)
    go(file, tmp_path / "run", endpoint)

    assert len(service.validated) == 1
    assert [(r.current_request_number, r.total_request_number) for r in service.requests] == [
        (1, n) for n in (1, 2, 3, 4)
    ]
    trials = [name for name, _, _ in search_rows(tmp_path / "run")]
    # The second trial ended without a metric (MetricsUnavailable): Katib does not send it.
    assert [names(request.trials) for request in service.requests] == [
        [],
        trials[:1],
        trials[:1],
        [trials[0], trials[2]],
    ]
    failed, succeeded = service.requests[-1].trials
    assert (failed.status.condition, len(failed.status.observation.metrics)) == (4, 0)
    assert succeeded.status.condition == 2
    # Katib's text, not our number.
    assert [(m.name, m.value) for m in succeeded.status.observation.metrics] == [("loss", "3.000")]
    assert [(a.name, a.value) for a in succeeded.spec.parameter_assignments.assignments] == [("x", "3"), ("kind", "a")]
    assert succeeded.status.start_time <= succeeded.status.completion_time
    spec = service.requests[0].experiment.spec
    assert (spec.parallel_trial_count, spec.max_trial_count) == (1, 4)
    assert [p.feasible_space.step for p in spec.parameter_specs.parameters] == ["0.25", ""]
    # Settings of a reply come back with the next request, over the Experiment's own.
    settings = [
        {s.name: s.value for s in request.experiment.spec.algorithm.algorithm_settings} for request in service.requests
    ]
    assert settings == [
        {"random_state": "7"},
        *({"random_state": "7", "seen": seen} for seen in "123"),
    ]


def test_running_trials_are_sent_without_observation(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    """Three side by side; the first to end makes room for one while two still run."""
    body = f"""
{LOSS}
sys.stdout.flush()
while x != 1 and not os.path.exists({str(tmp_path / "go")!r}): time.sleep(0.01)
"""
    service.answer = listed((1, "a"), (2, "a"), (3, "a"), (4, "a"))
    file = experiment(tmp_path, body, parallelTrialCount=3)

    def release(reply: Any) -> None:
        if len(service.requests) == 2:
            (tmp_path / "go").touch()

    service.change_reply = release
    go(file, tmp_path / "run", endpoint)
    first, second = service.requests[:2]
    assert (first.current_request_number, first.total_request_number, len(first.trials)) == (3, 3, 0)
    assert (second.current_request_number, second.total_request_number) == (1, 4)
    states = [(trial.status.condition, len(trial.status.observation.metrics)) for trial in second.trials]
    assert states == [(2, 1), (1, 0), (1, 0)]
    assert len(service.requests) == 2


def test_environment_of_a_trial(tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = LOSS + '\nprint(json.dumps({k: v for k, v in os.environ.items() if k.startswith("RANKWISE_")}))'
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    file = experiment(tmp_path, body, maxTrialCount=3, parallelTrialCount=3)
    document = yaml.safe_load(file.read_text())
    container = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "RANKWISE_EXPERIMENT", "value": "mine"}]
    file.write_text(yaml.safe_dump(document))
    result = go(file, tmp_path / "run", endpoint)
    name = result.trials[0].name
    environment = json.loads((tmp_path / "run" / "trials" / name / "output.log").read_text().splitlines()[1])
    assert environment.pop("RANKWISE_EXIT_CODE_FILE")
    assert environment == {
        "RANKWISE_STORE": str(tmp_path / "run" / "store"),
        "RANKWISE_NAMESPACE": "",
        "RANKWISE_EXPERIMENT": "mine",
        "RANKWISE_TRIAL": name,
        "RANKWISE_CACHE": str(tmp_path / "cache"),
        "RANKWISE_THREADS": "2",  # 8 cores shared by 3
    }


def test_trials_that_fail_diverge_or_say_nothing(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    body = """
if x == 1: print("about to fail", file=sys.stderr); sys.exit(9)
if x == 2: print("loss=nan")
if x == 3: print("Loss: 3")
if x == 4: os.kill(os.getpid(), signal.SIGSEGV)
if x == 5: print("loss=inf\\nloss=0.5\\nloss=nan")
"""
    service.answer = listed(*((x, "a") for x in range(1, 6)))
    result = go(experiment(tmp_path, body, maxTrialCount=5), tmp_path / "run", endpoint)
    assert [trial.condition for trial in result.trials] == [
        Condition.FAILED,
        Condition.METRICS_UNAVAILABLE,
        Condition.METRICS_UNAVAILABLE,
        Condition.FAILED,
        Condition.SUCCEEDED,  # the least of its finite values, as its strategy is min
    ]
    assert [trial.reason for trial in result.trials[:4]] == [
        "exit code 9: about to fail",
        "its loss was no finite number (last: '')",
        "it reported no loss in output.log",
        "signal 11: Segmentation fault",
    ]
    assert result.best_value == 0.5
    state = status(tmp_path / "run")
    assert (state["trialsFailed"], state["trialMetricsUnavailable"], state["trialsSucceeded"]) == (2, 2, 1)
    assert state["metricsUnavailableTrialList"] == names(result.trials[1:3])
    assert [trial.value for trial in result.facts.trials] == [None, None, None, None, 0.5]


def test_too_many_failures_fail_the_experiment(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    """Katib counts failed trials and those without a metric, and fails when the limit is reached."""
    body = "if x == 1: sys.exit(1)\nif x != 2: print('loss=1')"
    service.answer = listed((5, "a"), (1, "a"), (6, "a"), (2, "a"), (7, "a"))
    file = experiment(tmp_path, body, maxFailedTrialCount=2, maxTrialCount=5)
    result = go(file, tmp_path / "run", endpoint)
    assert (result.verdict.succeeded, result.verdict.reason) == (False, "ExperimentFailed")
    assert len(result.trials) == 4
    assert status(tmp_path / "run")["conditions"][-1]["type"] == "Failed"
    change(file, maxFailedTrialCount=3)  # and on it goes
    again = go(file, tmp_path / "run", endpoint)
    assert (again.verdict.succeeded, len(again.trials)) == (True, 5)
    assert [c["type"] for c in status(tmp_path / "run")["conditions"]] == ["Created", "Running", "Succeeded"]


@pytest.mark.parametrize(("kind", "goal", "count"), [("minimize", 4.0, 2), ("maximize", 9.0, 3), ("minimize", -1.0, 4)])
def test_goal(tmp_path: Path, service: FakeSuggestions, endpoint: str, kind: str, goal: float, count: int) -> None:
    service.answer = listed((1, "a"), (2, "a"), (3, "a"), (8, "a"))
    objective = {"type": kind, "objectiveMetricName": "loss", "goal": goal}
    values = {"minimize": "{1: 9, 2: 4, 3: 1, 8: 0}", "maximize": "{1: 1, 2: 2, 3: 9, 8: 100}"}[kind]
    result = go(
        experiment(tmp_path, f"print('loss=%d' % {values}[x])", objective=objective), tmp_path / "run", endpoint
    )
    assert len(result.trials) == count
    expected = "ExperimentMaxTrialsReached" if count == 4 else "ExperimentGoalReached"
    assert result.verdict.reason == expected
    assert result.verdict.succeeded


def test_trials_that_run_when_the_goal_is_reached_are_let_finish(
    tmp_path: Path, service: FakeSuggestions, endpoint: str
) -> None:
    service.answer = listed((1, "a"), (2, "a"), (3, "a"), (4, "a"))
    body = f"""
while x == 2 and "Succeeded" not in open({str(tmp_path / "run" / "experiment.yaml")!r}).read() \\
    and "currentOptimalTrial" not in open({str(tmp_path / "run" / "experiment.yaml")!r}).read(): time.sleep(0.01)
time.sleep(0.3 if x == 2 else 0)
print(f"loss={{x}}")
"""
    objective = {"type": "minimize", "objectiveMetricName": "loss", "goal": 1.0}
    result = go(experiment(tmp_path, body, objective=objective, parallelTrialCount=2), tmp_path / "run", endpoint)
    assert [trial.condition for trial in result.trials] == [Condition.SUCCEEDED, Condition.SUCCEEDED]
    assert result.verdict.reason == "ExperimentGoalReached"


def test_file_collector_with_json_and_strategies(tmp_path: Path, endpoint: str) -> None:
    body = """
assert os.environ["COPY"] == flags["metrics-file"] != "/var/log/katib/metrics.json", flags
assert flags["other"] == "/mnt/var/log/katib/metrics.json.bak"
with open(flags["metrics-file"], "a") as file:
    for value in (5, 1, 3):
        file.write(json.dumps({"timestamp": time.time(), "loss": str(value), "acc": str(-value), "epoch": 1}) + "\\n")
print("loss=77")
"""
    objective = {
        "type": "minimize",
        "objectiveMetricName": "loss",
        "additionalMetricNames": ["acc"],
        "metricStrategies": [{"name": "loss", "value": "latest"}, {"name": "acc", "value": "max"}],
    }
    collector = {
        "collector": {"kind": "File"},
        "source": {"fileSystemPath": {"path": "/var/log/katib/metrics.json", "kind": "File", "format": "JSON"}},
    }
    file = experiment(tmp_path, body, objective=objective, metricsCollectorSpec=collector, maxTrialCount=1)
    document = yaml.safe_load(file.read_text())
    container = document["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container["args"] += ["--metrics-file=/var/log/katib/metrics.json", "--other=/mnt/var/log/katib/metrics.json.bak"]
    container["env"] = [{"name": "COPY", "value": "/var/log/katib/metrics.json"}]
    file.write_text(yaml.safe_dump(document))
    result = go(file, tmp_path / "run", endpoint)
    assert result.best_value == 3.0
    assert result.facts.trials[0].metrics == {"loss": 3.0, "acc": -1.0}
    assert [dict(report.metrics) for report in result.facts.trials[0].history] == [
        {"loss": 5.0, "acc": -5.0},
        {"loss": 1.0, "acc": -1.0},
        {"loss": 3.0, "acc": -3.0},
    ]


def test_the_standard_error_of_a_loss_reaches_the_strategy(tmp_path: Path) -> None:
    """Engine, service and all between them are the real ones; only the strategy writes down what it is asked."""
    body = LOSS + '\nprint(f"loss_standard_error={x / 4}" if kind == "a" else "loss_standard_error=-1")'
    objective = {
        "type": "minimize",
        "objectiveMetricName": "loss",
        "additionalMetricNames": ["loss_standard_error"],
    }
    file = experiment(tmp_path, body, objective=objective, algorithm={"algorithmName": "fake"})
    with Running() as running:
        result = go(file, tmp_path / "run", running.address)
        ingested = running.fake.requests[-1].trials
    assert len(ingested) == 3, "of four trials one after the other, three have ended when the last is asked for"
    assert {trial.assignments["kind"] for trial in ingested} == {"a", "b"}
    for trial in ingested:
        expected = float(trial.assignments["x"]) / 4 if trial.assignments["kind"] == "a" else None
        assert (trial.value, trial.standard_error) == (loss(dict(trial.assignments)), expected)
    assert len(result.trials) == 4


def test_medianstop_ends_a_bad_trial(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    """Two good trials, then a bad one that would go on for ever."""
    body = """
for step in range(4 if x < 5 else 100_000):
    print(f"loss={x - 0.1 * min(step, 3)}", flush=True)
    if step >= 3 and x >= 5: time.sleep(0.05)
"""
    service.answer = listed((1, "a"), (2, "a"), (6, "a"), (1.5, "a"))
    stopping = {
        "algorithmName": "medianstop",
        "algorithmSettings": [{"name": "min_trials_required", "value": "2"}, {"name": "start_step", "value": "3"}],
    }
    result = go(experiment(tmp_path, body, earlyStopping=stopping), tmp_path / "run", endpoint)
    assert [trial.condition for trial in result.trials] == [
        Condition.SUCCEEDED,
        Condition.SUCCEEDED,
        Condition.EARLY_STOPPED,
        Condition.SUCCEEDED,
    ]
    stopped = result.trials[2]
    assert stopped.rule is not None
    assert stopped.rule.value == pytest.approx(1.4)  # median of the means 0.9 and 1.9 of the first three reports
    assert stopped.value("loss", "min") == pytest.approx(5.7)  # what it reported is kept
    sent = service.requests[-1].trials[2]
    assert (sent.status.condition, [m.value for m in sent.status.observation.metrics]) == (6, ["5.7"])
    assert status(tmp_path / "run")["earlyStoppedTrialList"] == [stopped.name]
    assert service.requests[0].experiment.spec.early_stopping.algorithm_name == "medianstop"


def test_trials_that_stop_themselves_and_trials_that_are_stopped_are_both_observations(tmp_path: Path) -> None:
    """Engine and service are the real ones; the strategy writes down what it is asked."""
    body = """
best, stale, step = None, 0, 0
while True:
    loss = x - (0.1 * step if x >= 5 else min(0.1 * step, 0.2))
    print(f"loss={loss!r}", flush=True)
    improved = best is None or loss < best - 0.01
    best, stale, step = (loss if improved else best), (0 if improved else stale + 1), step + 1
    if stale >= 5: break
    if step > 3 and x >= 5: time.sleep(0.05)
"""
    stopping = {
        "algorithmName": "medianstop",
        "algorithmSettings": [{"name": "min_trials_required", "value": "2"}, {"name": "start_step", "value": "3"}],
    }
    points = [{"x": x, "kind": "a"} for x in ("1", "2", "6", "1.5")]

    def answer(request: SuggestRequest) -> Suggestions:
        return Suggestions(tuple(points[request.issued : request.issued + request.count]))

    file = experiment(tmp_path, body, algorithm={"algorithmName": "fake"}, earlyStopping=stopping)
    with Running(FakeStrategy(behaviour=answer)) as running:
        result = go(file, tmp_path / "run", running.address)
        last = running.fake.requests[-1]
    # Inside: 0.8 after three evaluations, and five more without an improvement. Outside: at the third report of x = 6.
    assert [trial.condition for trial in result.trials] == [
        Condition.SUCCEEDED,
        Condition.SUCCEEDED,
        Condition.EARLY_STOPPED,
        Condition.SUCCEEDED,
    ]
    read = read_trials(last.space, last.objective, last.trials)
    assert (len(read.failed), len(read.pending)) == (0, 0)
    told = {point["x"]: value for point, value in zip(read.measured, read.values.tolist(), strict=True)}
    assert told["1"] == pytest.approx(0.8)
    assert told["2"] == pytest.approx(1.8)
    assert 5.0 < told["6"] <= 5.8  # what it had reported until its process ended
    assert result.best is not None
    assert result.best.assignments["x"] == "1"


def test_final_runs(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    body = 'loss = (x - 3) ** 2 + (10 if "evaluate" in flags else 0)\nprint(f"loss={loss!r}")'
    annotations = {
        "rankwise.dev/default-configuration": json.dumps({"x": "8", "kind": "b"}),
        "rankwise.dev/final-arguments": json.dumps(["--evaluate=test"]),
    }
    service.answer = listed((1, "a"), (4, "b"), (3, "a"))
    file = experiment(tmp_path, body, annotations=annotations, maxTrialCount=2)
    result = go(file, tmp_path / "run", endpoint)
    assert names(result.finals) == ["tiny-final-default", "tiny-final-best"]
    assert [dict(trial.assignments) for trial in result.finals] == [{"x": "8", "kind": "b"}, {"x": "4", "kind": "b"}]
    assert result.facts.finals.default is not None
    assert result.facts.finals.best is not None
    assert result.facts.finals.default.metrics == {"loss": 35.0}
    assert result.facts.finals.best.metrics == {"loss": 11.0}
    assert status(tmp_path / "run")["trials"] == 2  # they are no trials of the search
    again = go(file, tmp_path / "run", endpoint)
    assert again.finals == result.finals
    # A better trial after more trials: only the best final run is made anew, without the old one's leavings.
    change(file, maxTrialCount=3)
    stale = tmp_path / "run" / "store" / "experiments" / "tiny" / "trials" / "tiny-final-best" / "manifest.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    more = go(file, tmp_path / "run", endpoint)
    assert more.finals[0] == result.finals[0]
    assert dict(more.finals[1].assignments) == {"x": "3", "kind": "a"}
    assert more.facts.finals.best is not None
    assert more.facts.finals.best.metrics == {"loss": 10.0}
    assert not stale.exists()
    starts = {path.parent.name: path.read_text() for path in tmp_path.glob("run/trials/*/starts")}
    assert (starts["tiny-final-default"], starts["tiny-final-best"]) == ("start\n", "start\n")


def test_a_final_run_that_failed_is_tried_again(tmp_path: Path, endpoint: str) -> None:
    body = f'{LOSS}\nif "evaluate" in flags and not os.path.exists({str(tmp_path / "go")!r}): sys.exit(1)'
    annotations = {"rankwise.dev/final-arguments": json.dumps(["--evaluate=test"])}
    file = experiment(tmp_path, body, annotations=annotations, maxTrialCount=1)
    result = go(file, tmp_path / "run", endpoint)
    assert names(result.failed_finals) == ["tiny-final-best"]
    (tmp_path / "go").touch()
    again = go(file, tmp_path / "run", endpoint)
    assert names(again.finals) == ["tiny-final-best"]
    assert again.failed_finals == ()
    assert len(rows(tmp_path / "run", "SELECT * FROM trials")) == 2


def test_a_trial_that_was_being_stopped_early_when_the_engine_died(
    tmp_path: Path, service: FakeSuggestions, endpoint: str
) -> None:
    """The reason was written down before the process was told: it is neither failed nor run again."""
    file = experiment(tmp_path, maxTrialCount=2)
    folder = tmp_path / "run"
    folder.mkdir()
    with Journal(folder / "journal.sqlite") as journal:
        journal.open_run("tiny", yaml.safe_load(file.read_text())["spec"])
        rule = StopRule("loss", 1.0, Comparison.GREATER, 2)
        journal.add_trials([TrialRecord("stopped", Kind.SEARCH, 0, {"x": "1", "kind": "a"}, rule=rule)])
        journal.started("stopped", ProcessId(2**22 + 1, "an earlier boot"))
        journal.stopping("stopped")
    (folder / "trials" / "stopped").mkdir(parents=True)
    (folder / "trials" / "stopped" / "output.log").write_text("loss=7\nloss=6\n")
    result = go(file, folder, endpoint)
    assert [trial.condition for trial in result.trials] == [Condition.EARLY_STOPPED, Condition.SUCCEEDED]
    assert result.trials[0].value("loss", "min") == 6.0
    assert "greater than the median 1" in result.trials[0].reason
    assert result.trials[0].attempts == 1
