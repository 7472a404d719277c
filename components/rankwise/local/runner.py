"""Runs trials side by side: starts their processes, follows what they report, writes down how they ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rankwise.errors import SurroundingsError
from rankwise.local.collector import Follower, MetricsSource, UnreadableMetrics, collect, summarize
from rankwise.local.early_stopping import RuleWatch
from rankwise.local.experiment import Experiment, render_trial
from rankwise.local.journal import Journal
from rankwise.local.processes import EXIT_CODE_FILE, TrialProcess, environment_of, stop_all
from rankwise.local.records import Condition, Kind, TrialRecord
from rankwise.settings import Settings

LOG_FILE = "output.log"
TRIALS_FOLDER = "trials"
STORE_FOLDER = "store"
_TAIL_BYTES = 4096


@dataclass(slots=True)
class _Running:
    """A trial whose process runs; ``follower`` and ``watch`` only where an early stopping rule applies."""

    trial: TrialRecord
    process: TrialProcess
    source: MetricsSource
    follower: Follower | None = None
    watch: RuleWatch | None = None
    stop_asked: float | None = None
    killed: bool = False


class Runner:
    """The trials' processes of one run.

    Args:
        experiment: says what a trial's command is and how its metrics are read.
        folder: the run folder, absolute.
        journal: where every step is written down first.
        settings: cache folder and threads that trials get when their container does not set them.
        grace: seconds that a process has between SIGTERM and SIGKILL.
    """

    def __init__(
        self, experiment: Experiment, folder: Path, journal: Journal, settings: Settings, grace: float = 30.0
    ) -> None:
        self._experiment = experiment
        self._folder = folder
        self._journal = journal
        self._settings = settings
        self._grace = grace
        self._running: dict[str, _Running] = {}

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the trials whose processes run."""
        return tuple(self._running)

    def trial_folder(self, name: str) -> Path:
        return self._folder / TRIALS_FOLDER / name

    def source(self, trial: TrialRecord) -> MetricsSource:
        """Where a trial's metrics are read."""
        collector = self._experiment.collector
        folder = self.trial_folder(trial.name)
        if collector.kind == "StdOut":
            path, form = folder / LOG_FILE, "TEXT"
        else:
            path, form = _local_path(folder, collector.path), collector.format
        metrics = (self._experiment.objective.metric, *self._experiment.objective.additional_metrics)
        return MetricsSource(path, form, collector.filters, metrics)

    def start(self, trial: TrialRecord) -> None:
        """Start a trial, or start it again under the same name with the same assignments.

        Raises:
            SurroundingsError: its folder or process cannot be made.
        """
        rendered = render_trial(self._experiment, trial.name, trial.assignments, trial.labels)
        folder = self.trial_folder(trial.name)
        localize = self._localize(folder)
        source = self.source(trial)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            source.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SurroundingsError(f"the folder of trial {trial.name} cannot be made: {error}") from error
        process = TrialProcess.start(
            [localize(word) for word in (*rendered.command, *trial.arguments)],
            environment_of({name: localize(value) for name, value in rendered.env.items()}, self._defaults(trial)),
            folder,
            folder / LOG_FILE,
            folder,
            lambda process: self._journal.started(trial.name, process),
        )
        self._follow(trial, process, source)

    def take_up(self, trial: TrialRecord) -> bool:
        """Go on with a trial that an earlier engine left unfinished; False when it has to be started again.

        A trial that ran when its engine was killed still runs, or has ended and left its exit code: it is adopted. One
        that its engine had asked to end is ended for good and started again.
        """
        if trial.process is None or trial.condition is Condition.CREATED:
            return False
        process = TrialProcess.adopt(trial.process, self.trial_folder(trial.name))
        if process is None and trial.stopping:
            self._finish(trial, self.source(trial), 128 + signal.SIGTERM)
            return True
        if process is None:
            return False
        if trial.condition is Condition.INTERRUPTED:
            process.kill()
            stop_all([process], 0.0)
            return False
        self._follow(trial, process, self.source(trial))
        return True

    def poll(self) -> list[TrialRecord]:
        """Look after the running trials once; return those that have ended, as the journal has them now."""
        finished = []
        for name, running in list(self._running.items()):
            code = running.process.poll()
            if code is not None:
                del self._running[name]
                self._finish(running.trial, running.source, code)
                record = self._journal.trial(name)
                if record is not None:
                    finished.append(record)
            else:
                self._watch(running)
        return finished

    def interrupt(self, hurry: Callable[[], bool] = lambda: False) -> list[str]:
        """End all running trials; they stay unfinished and are started again by the next engine.

        Trials that have ended by themselves before are written down as finished first.

        Args:
            hurry: whether to wait no longer for the trials to end by themselves.

        Raises:
            SurroundingsError: the journal cannot be written. The processes have been killed then, without the time for
                a checkpoint: an exit code that they would leave now would be taken for their own doing.
        """
        try:
            self.poll()
            names = list(self._running)
            self._journal.interrupted([name for name in names if not self._running[name].trial.stopping])
        except BaseException:
            stop_all(self._processes(), 0.0)
            raise
        stop_all(self._processes(), self._grace, hurry)
        for running in list(self._running.values()):
            del self._running[running.trial.name]
            if running.trial.stopping:
                self._finish(running.trial, running.source, running.process.poll() or 0)
        return names

    def _processes(self) -> list[TrialProcess]:
        return [running.process for running in self._running.values()]

    # -- one trial ----------------------------------------------------------------------------------------------------

    def _localize(self, folder: Path) -> Callable[[str], str]:
        """Rewrites the File collector's path, which is the pod's, to the one within the trial's folder."""
        path = self._experiment.collector.path
        if self._experiment.collector.kind != "File":
            return lambda text: text
        whole = re.compile(rf"(?<![\w./-]){re.escape(path)}(?![\w/-]|\.\w)")
        local = str(_local_path(folder, path))
        return lambda text: whole.sub(lambda _match: local, text)

    def _defaults(self, trial: TrialRecord) -> dict[str, str]:
        threads = self._settings.threads or max(1, (os.cpu_count() or 1) // self._experiment.parallel_trial_count)
        return {
            "RANKWISE_STORE": str(self._folder / STORE_FOLDER),
            # A run folder is one namespace, whatever the engine's own surroundings say.
            "RANKWISE_NAMESPACE": "",
            "RANKWISE_EXPERIMENT": self._experiment.name,
            "RANKWISE_TRIAL": trial.name,
            "RANKWISE_CACHE": str(self._settings.cache),
            "RANKWISE_THREADS": str(threads),
        }

    def _follow(self, trial: TrialRecord, process: TrialProcess, source: MetricsSource) -> None:
        running = _Running(trial, process, source)
        if trial.rule is not None and trial.kind is Kind.SEARCH and not trial.stopping:
            running.follower, running.watch = Follower(source), RuleWatch(trial.rule)
        if trial.stopping:
            running.stop_asked = time.monotonic()
            process.terminate()
        self._running[trial.name] = running

    def _watch(self, running: _Running) -> None:
        """Apply the early stopping rule; end a process that does not heed its SIGTERM."""
        if running.stop_asked is not None:
            if not running.killed and time.monotonic() - running.stop_asked > self._grace:
                running.process.kill()
                running.killed = True
            return
        if self._strikes(running):
            self._journal.stopping(running.trial.name)
            running.trial = self._journal.trial(running.trial.name) or running.trial
            running.stop_asked = time.monotonic()
            running.process.terminate()

    @staticmethod
    def _strikes(running: _Running) -> bool:
        if running.follower is None or running.watch is None:
            return False
        try:
            reports = running.follower.new_reports()
        except UnreadableMetrics:
            running.follower = None  # told when the trial has ended
            return False
        rule = running.watch.rule
        return any(running.watch.add(report.value) for report in reports if report.metric == rule.metric)

    def _finish(self, trial: TrialRecord, source: MetricsSource, code: int) -> None:
        try:
            reports, unreadable = collect(source), ""
        except UnreadableMetrics as error:
            reports, unreadable = [], str(error)
        except OSError as error:
            raise SurroundingsError(
                f"the metrics of trial {trial.name} cannot be read: {error}; run the same command again"
            ) from error
        summaries = summarize(reports, source.metrics)
        strategies = self._experiment.metric_strategies
        value = summaries[0].value(strategies[source.metrics[0]])
        condition, reason = self._outcome(
            trial, code, value, unreadable or self._unavailable(source, summaries[0].latest)
        )
        self._journal.finished(
            trial.name,
            condition,
            exit_code=code,
            reason=reason,
            seconds=self._seconds(trial),
            reports=reports,
            summaries=summaries,
        )

    def _outcome(self, trial: TrialRecord, code: int, value: float | None, unavailable: str) -> tuple[Condition, str]:
        if trial.stopping and trial.rule is not None:
            rule = trial.rule
            sentence = (
                f"its best {rule.metric} after {rule.start_step} reports was {rule.comparison.value} than"
                f" the median {rule.value:g} of the trials before it"
            )
            return Condition.EARLY_STOPPED, f"stopped early: {sentence}"
        if code != 0:
            said = last_line(self.trial_folder(trial.name) / LOG_FILE)
            how = f"signal {code - 128}" if code > 128 else f"exit code {code}"
            return Condition.FAILED, f"{how}{': ' if said else ''}{said}"
        if value is None:
            return Condition.METRICS_UNAVAILABLE, unavailable
        return Condition.SUCCEEDED, "exit code 0"

    @staticmethod
    def _unavailable(source: MetricsSource, latest: str) -> str:
        metric = source.metrics[0]
        if latest == "unavailable":
            return f"it reported no {metric} in {source.path.name}"
        return f"its {metric} was no finite number (last: {latest!r})"

    def _seconds(self, trial: TrialRecord) -> float | None:
        begun = (self._journal.trial(trial.name) or trial).attempt_started
        if begun is None:
            return None
        end = time.time()
        with contextlib.suppress(OSError):  # an adopted trial may have ended long before it was looked at
            end = (self.trial_folder(trial.name) / EXIT_CODE_FILE).stat().st_mtime
        return max(0.0, end - begun)


def _local_path(folder: Path, path: str) -> Path:
    """A pod's absolute path within the trial's folder: ``/var/log/m.json`` -> ``<folder>/var/log/m.json``."""
    return folder / path.lstrip("/")


def last_line(log: Path) -> str:
    """The last line of a trial's output that is not empty, at most 200 characters; "" when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").replace("\r", "\n").split("\n")
    except OSError:
        return ""
    printable = ("".join(c for c in line if c.isprintable()).strip() for line in reversed(lines))
    return next((line[:200] for line in printable if line), "")
