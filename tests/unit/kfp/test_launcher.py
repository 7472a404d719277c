"""The launcher against a fake Katib: whatever breaks, one run makes one search and ends with its result or a reason."""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
import signal
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.kfp.api import AlreadyThere, Expired, WatchBroken
from rankwise.kfp.cancellation import Cancelled, cancellation
from rankwise.kfp.launcher import (
    RUN_LABEL,
    ExperimentFailed,
    KatibLauncher,
    Launched,
    LaunchOptions,
    TooLate,
    experiment_name,
)
from rankwise.retry import Backoff
from support import cluster_objects as objects
from support.fake_katib import BOOKMARK, DELETED, FakeKatib, Step, counts, failed, succeeded

RUN = "5f2a7c1e-run"
NAME = experiment_name("quickstart", RUN, "language-bo")
OPTIONS = LaunchOptions(backoff=Backoff(attempts=4, first=1.0, longest=8.0))


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, logger="rankwise.kfp"):
        yield


def document() -> objects.Object:
    made = objects.experiment()
    del made["status"]
    return made


def katib(*script: Sequence[Step]) -> FakeKatib:
    fake = FakeKatib([list(watch) for watch in script])
    fake.trials = [objects.trial(1, metrics=[objects.metric("loss", "2.5")], name="t-1", experiment=NAME, uid="")]
    return fake


def launch(fake: FakeKatib, options: LaunchOptions = OPTIONS, run: str = RUN) -> Launched:
    return KatibLauncher(fake, options, fake.clock, fake.sleep).launch(document(), run)


# ------------------------------------------------------------------------------------------------- the plain way


def test_it_makes_the_experiment_follows_it_and_returns_the_trials(caplog: pytest.LogCaptureFixture) -> None:
    fake = katib([counts(running=2), counts(1, running=1, best="t-1"), succeeded()])
    result = launch(fake)
    assert (result.name, result.namespace, result.uid, result.resumed) == (NAME, "rankwise", "uid-1", False)
    assert [trial.name for trial in result.snapshot.trials] == ["t-1"]
    # Watched, not asked again and again: one request for the whole way.
    assert fake.verbs() == ["get", "create", "watch", "snapshot"]
    said = [record.getMessage() for record in caplog.records]
    assert "0 of 12 trials have ended, 2 running" in said
    # The strategy of the metric is min: 2.5, although the latest value is 2.75.
    assert "1 of 12 trials have ended (1 succeeded), 1 running; best loss=2.5 by t-1 (rank=8)" in said
    assert NAME in fake.experiments, "left by default"


def test_the_watch_begins_at_the_version_that_is_known() -> None:
    fake = katib([counts(1), BOOKMARK], [succeeded()])
    launch(fake)
    # 101: made; 102: changed; 103: the bookmark, after which nothing has to be told again.
    assert [version for verb, version in fake.asked if verb == "watch"] == ["101", "103"]


def test_what_is_made_is_what_was_asked_for_under_the_runs_name() -> None:
    fake = katib([succeeded()])
    launch(fake)
    made, asked = fake.experiments[NAME], document()
    assert made["spec"] == asked["spec"]
    assert made["metadata"]["annotations"] == asked["metadata"]["annotations"]
    assert made["metadata"]["namespace"] == fake.namespace
    assert made["metadata"]["labels"][RUN_LABEL] == RUN


# ------------------------------------------------------------------------------------------------- attempts


def test_a_retried_attempt_goes_on_with_the_experiment_of_the_first() -> None:
    fake = katib([counts(1, running=1), SurroundingsError("the node is gone")], [succeeded()])
    with pytest.raises(SurroundingsError, match="the node is gone"):
        launch(fake)
    result = launch(fake)
    assert result.resumed
    assert fake.verbs().count("create") == 1
    assert list(fake.experiments) == [NAME]


def test_an_attempt_after_the_end_waits_for_nothing() -> None:
    fake = katib([succeeded()])
    launch(fake)
    fake.asked.clear()
    assert launch(fake).resumed
    assert fake.verbs() == ["get", "snapshot"]


def test_attempts_share_one_time() -> None:
    fake = katib([counts(1), SurroundingsError("the node is gone")], [counts(1)])
    options = LaunchOptions(timeout=3600.0, backoff=OPTIONS.backoff)
    with pytest.raises(SurroundingsError):
        launch(fake, options)
    fake.experiments[NAME]["metadata"]["creationTimestamp"] = "2026-03-02T09:00:00Z"
    # 09:50 UTC: ten minutes are left, and two watches of five minutes use them up
    later = dt.datetime(2026, 3, 2, 9, 50, tzinfo=dt.UTC).timestamp()
    fake.script = [[], []]
    began = fake.now
    with pytest.raises(TooLate):
        KatibLauncher(fake, options, fake.clock, fake.sleep, lambda: later).launch(document(), RUN)
    assert fake.now - began == 600
    assert fake.experiments == {}


def test_an_experiment_that_goes_while_it_is_made_is_left_for_a_retry() -> None:
    fake = katib()

    def late(wanted: objects.Object) -> objects.Object:
        raise AlreadyThere(NAME)  # another attempt's, which is deleted before we see it

    fake.create = late  # type: ignore[method-assign,assignment]
    with pytest.raises(SurroundingsError, match="was deleted while it was being made; a retry makes it anew"):
        launch(fake)


def test_created_twice_at_once_is_one_search() -> None:
    fake = katib([succeeded()])
    first = fake.create

    def late(wanted: objects.Object) -> objects.Object:
        first(wanted)  # another attempt is faster
        raise AlreadyThere(NAME)

    fake.create = late  # type: ignore[method-assign,assignment]
    assert launch(fake).resumed
    assert list(fake.experiments) == [NAME]


def test_another_runs_experiment_is_not_taken_over() -> None:
    fake = katib([succeeded()])
    launch(fake)
    fake.experiments[NAME]["metadata"]["labels"][RUN_LABEL] = "somebody-elses"
    with pytest.raises(InvalidInput, match="carries no label of this run"):
        launch(fake)


def test_another_spec_under_the_same_name_is_not_taken_over() -> None:
    fake = katib([succeeded()])
    launch(fake)
    changed = document()
    changed["spec"]["maxTrialCount"] = 13
    with pytest.raises(InvalidInput, match="another spec"):
        KatibLauncher(fake, OPTIONS).launch(changed, RUN)


def test_an_experiment_that_is_being_deleted_is_left_for_a_retry() -> None:
    fake = katib([succeeded()])
    launch(fake)
    fake.experiments[NAME]["metadata"]["deletionTimestamp"] = objects.clock(9)
    with pytest.raises(SurroundingsError, match="is being deleted; when it is gone, a retry makes it anew"):
        launch(fake)


# ------------------------------------------------------------------------------------------------- broken watches


def test_a_broken_watch_goes_on_where_it_broke() -> None:
    fake = katib([counts(1), WatchBroken("reset")], [counts(2), WatchBroken("reset")], [succeeded()])
    launch(fake)
    assert [version for verb, version in fake.asked if verb == "watch"] == ["101", "102", "103"]
    assert fake.verbs().count("get") == 1, "nothing is read anew"
    # One wait each, from [first / 2, first]: an event in between makes the next one short again.
    assert [0.5 <= wait <= 1.0 for wait in fake.slept] == [True, True]


def test_an_expired_version_is_read_anew() -> None:
    def meanwhile(fake: FakeKatib) -> None:
        fake.change(NAME, counts(5))

    fake = katib([counts(1), meanwhile, Expired("gone")], [succeeded()])
    launch(fake)
    assert fake.verbs() == ["get", "create", "watch", "get", "watch", "snapshot"]
    assert [version for verb, version in fake.asked if verb == "watch"] == ["101", "103"]


def test_an_end_that_falls_into_the_gap_is_seen() -> None:
    fake = katib([lambda fake: fake.change(NAME, succeeded()) and None, Expired("gone")])
    assert launch(fake).name == NAME


def test_breaks_between_quiet_watches_do_not_add_up() -> None:
    # More breaks than the backoff has waits, each after a watch that lasted its five minutes without news.
    breaks: list[list[Step]] = [watch for _ in range(6) for watch in ([], [WatchBroken("reset")])]
    fake = katib(*breaks, [succeeded()])
    assert launch(fake).name == NAME


def test_a_server_that_stays_away_is_given_up_and_the_experiment_left() -> None:
    fake = katib(*[[WatchBroken("refused")] for _ in range(4)])
    with pytest.raises(SurroundingsError, match=f"Experiment {NAME} goes on, and a retry of this step goes on with it"):
        launch(fake)
    # Backoff(attempts=4, first=1, longest=8): three waits of [w/2, w], w = 1, 2, 4.
    assert len(fake.slept) == 3
    assert all(w / 2 <= wait <= w for wait, w in zip(fake.slept, (1, 2, 4), strict=True))
    assert NAME in fake.experiments


def test_a_server_that_ends_watches_at_once_is_no_busy_loop() -> None:
    fake = katib(*[[] for _ in range(4)])
    fake.watch_lasts = 0.0
    with pytest.raises(SurroundingsError, match="ended it at once"):
        launch(fake)
    assert len(fake.slept) == 3


def test_a_quiet_watch_is_told_and_renewed(caplog: pytest.LogCaptureFixture) -> None:
    fake = katib([counts(1)], [], [succeeded()])
    launch(fake)
    assert "no news for 300 s: 1 of 12 trials have ended (1 succeeded)" in caplog.text
    assert fake.slept == []


# ------------------------------------------------------------------------------------------------- ends that are none


def test_a_failed_experiment_says_why() -> None:
    fake = katib([counts(failed=["t-1"], running=1), counts(failed=["t-1", "t-2"]), failed(["t-1", "t-2"])])
    fake.logs = {"t-1": "first\n", "t-2": "\n".join(f"line {i}" for i in range(50))}
    with pytest.raises(ExperimentFailed) as raised:
        launch(fake)
    text = str(raised.value)
    assert "condition Failed: ExperimentMaxFailedTrialsReached: Experiment has failed because max failed count" in text
    assert "the last lines of trial t-2" in text
    assert "  line 49" in text
    assert "  line 19" not in text, "30 lines"
    assert NAME in fake.experiments, "left to be looked at"


def test_the_log_is_read_while_the_pod_is_there() -> None:
    def pod_goes(fake: FakeKatib) -> None:
        fake.logs.clear()

    fake = katib([counts(failed=["t-1"]), pod_goes, failed(["t-1"])])
    fake.logs = {"t-1": "CUDA out of memory"}
    with pytest.raises(ExperimentFailed, match="CUDA out of memory"):
        launch(fake)


def test_without_a_log_the_failure_says_where_logs_stay() -> None:
    with pytest.raises(ExperimentFailed, match="retain: true keeps pods"):
        launch(katib([failed(["t-1"])]))


def test_a_refused_experiment_repeats_the_suggestions_sentence() -> None:
    fake = katib([failed()])
    fake.said = "embedder: got 'x'; allowed: a model"
    with pytest.raises(ExperimentFailed, match="its Suggestion: embedder: got 'x'; allowed: a model"):
        launch(fake)


def test_a_retry_of_a_failed_experiment_fails_with_the_same_reason() -> None:
    fake = katib([failed(["t-1"])])
    fake.logs = {"t-1": "no such file"}
    for _ in range(2):
        with pytest.raises(ExperimentFailed, match="no such file"):
            launch(fake)
    assert fake.verbs().count("create") == 1


def test_success_without_a_best_trial_is_a_failure() -> None:
    with pytest.raises(ExperimentFailed, match="no trial has a value"):
        launch(katib([succeeded(best="")]))


def test_deleted_while_it_runs() -> None:
    with pytest.raises(ExperimentFailed, match="was deleted while it ran"):
        launch(katib([counts(1), DELETED]))
    gone = katib([counts(1), lambda fake: fake.experiments.clear(), Expired("gone")])
    with pytest.raises(ExperimentFailed, match="was deleted while it ran"):
        launch(gone)


def test_another_object_of_its_name_is_not_followed() -> None:
    def replaced(fake: FakeKatib) -> None:
        fake.put(fake.experiments.pop(NAME))

    with pytest.raises(ExperimentFailed, match="another one has its name"):
        launch(katib([counts(1), replaced, Expired("gone")]))


# ------------------------------------------------------------------------------------------------- cancelled


def terminate(_: FakeKatib) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_cancelled_run_deletes_its_experiment() -> None:
    fake = katib([counts(1, running=2), terminate])
    with cancellation(), pytest.raises(Cancelled, match="signal 15"):
        launch(fake)
    assert fake.experiments == {}


def test_cancelled_while_it_is_made() -> None:
    fake = katib()
    fake.create_fails = [Cancelled(signal.SIGTERM)]  # between the server's work and its answer
    with pytest.raises(Cancelled):
        launch(fake)
    assert fake.experiments == {}


def test_a_pod_whose_node_goes_leaves_the_experiment_to_the_next_attempt() -> None:
    fake = katib([counts(1), terminate], [succeeded()])
    fake.node_goes = True
    with cancellation(), pytest.raises(Cancelled):
        launch(fake)
    assert launch(fake).resumed


def test_left_running_where_that_is_asked_for() -> None:
    fake = katib([terminate])
    with cancellation(), pytest.raises(Cancelled):
        launch(fake, LaunchOptions(delete_on_cancel=False))
    assert list(fake.experiments) == [NAME]


def test_cancelling_deletes_nothing_of_others() -> None:
    def taken(fake: FakeKatib) -> None:
        fake.experiments[NAME]["metadata"]["labels"][RUN_LABEL] = "somebody-elses"
        terminate(fake)

    fake = katib([taken])
    with cancellation(), pytest.raises(Cancelled):
        launch(fake)
    assert "delete" not in fake.verbs()


def test_an_ended_experiment_is_not_deleted_by_a_late_signal() -> None:
    fake = katib([lambda fake: fake.change(NAME, succeeded()) and None, terminate])
    with cancellation(), pytest.raises(Cancelled):
        launch(fake)
    assert list(fake.experiments) == [NAME]


def test_the_second_signal_does_not_interrupt_cleaning_up() -> None:
    with cancellation():
        with pytest.raises(Cancelled):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # would raise here


def test_a_cluster_that_cannot_be_cleaned_up_does_not_hide_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    fake = katib([counts(1), terminate])

    def refuse(name: str, uid: str) -> None:
        raise SurroundingsError("not allowed to delete")

    fake.delete = refuse  # type: ignore[method-assign]
    with cancellation(), pytest.raises(Cancelled):
        launch(fake)
    assert "could not be deleted and may still run: not allowed to delete" in caplog.text


def test_too_late_is_cleaned_up() -> None:
    fake = katib([counts(1)], [counts(2)], [])
    with pytest.raises(TooLate, match=r"did not end within 700 s \(2 of 12 trials"):
        launch(fake, LaunchOptions(timeout=700.0))
    # Watches of 300 s, 300 s and the rest.
    assert fake.now == 700.0
    assert fake.experiments == {}


# ------------------------------------------------------------------------------------------------- names


@given(
    base=st.from_regex(r"[a-z]([-a-z0-9]{0,52}[a-z0-9])?", fullmatch=True),
    run=st.text(min_size=1).filter(lambda text: text.strip()),
    algorithm=st.from_regex(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?", fullmatch=True),
)
def test_names_fit_everything_that_katib_makes_of_them(base: str, run: str, algorithm: str) -> None:
    name = experiment_name(base, run, algorithm)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) + 9 <= 63, "a trial's name"
    assert len(f"{name}-{algorithm}") <= 63, "the Deployment's name"
    assert name == experiment_name(base, run, algorithm)


def test_runs_have_experiments_of_their_own() -> None:
    names = {experiment_name(base, run, "tpe") for base in ("a", "a" * 54, "a" * 53) for run in ("1", "2", "a")}
    assert len(names) == 9


@pytest.mark.parametrize(
    ("run", "algorithm", "said"), [("", "tpe", "run"), (" ", "tpe", "run"), ("1", "a" * 52, "at most 50")]
)
def test_names_that_cannot_be_made_are_refused(run: str, algorithm: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        experiment_name("base", run, algorithm)


@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_every_runs_id_becomes_a_label(run: str) -> None:
    fake = katib([succeeded()])
    result = KatibLauncher(fake, OPTIONS, fake.clock, fake.sleep).launch(document(), run)
    label = fake.experiments[result.name]["metadata"]["labels"][RUN_LABEL]
    assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", label)


@pytest.mark.parametrize("wrong", [{"timeout": 0.0}, {"watch_seconds": 0.0}, {"log_lines": -1}])
def test_options_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="times must be positive"):
        LaunchOptions(**wrong)  # type: ignore[arg-type]
