"""The search's loop: keep trials running, ask for more, judge, until the Experiment has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from rankwise.local.choice import Choice, choose
from rankwise.local.client import SuggestionClient
from rankwise.local.early_stopping import MedianStop
from rankwise.local.experiment import Experiment
from rankwise.local.interruption import Interruption
from rankwise.local.journal import Journal
from rankwise.local.progress import Output, Snapshot, seconds_left
from rankwise.local.records import Condition, Kind, StopRule, TrialRecord
from rankwise.local.runner import Runner
from rankwise.local.status import Verdict, judge, status, trial_value, write_experiment

EXPERIMENT_FILE = "experiment.yaml"


class Search:
    """One search in one run folder.

    Args:
        experiment: what is searched for.
        folder: the run folder.
        journal: its journal, with the run opened.
        runner: the trials' processes.
        output: what the user sees.
        interruption: whether the run is to end.
        client: gives the (validated) suggestion client; called when the first suggestion is needed.
        poll: seconds between two looks at the running trials.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        journal: Journal,
        runner: Runner,
        output: Output,
        interruption: Interruption,
        client: Callable[[], SuggestionClient],
        poll: float = 0.1,
    ) -> None:
        self._experiment = experiment
        self._folder = folder
        self._journal = journal
        self._runner = runner
        self._output = output
        self._interruption = interruption
        self._client = client
        self._poll = poll
        self._trials = journal.trials()
        self._chosen: tuple[list[TrialRecord], Choice | None] = ([], None)

    @property
    def trials(self) -> list[TrialRecord]:
        """Every trial of the search, in the order of suggestion."""
        return list(self._trials)

    def run(self) -> Verdict:
        """Search until the Experiment has ended. What runs when it has ended is let finish, as in Katib.

        Raises:
            Interrupted: the run was asked to end; processes may still run, see :meth:`Runner.interrupt`.
            SurroundingsError: the service, the disk or the system failed.
        """
        self._begin()
        while True:
            self._interruption.check()
            self._look_after(self._runner.poll())
            verdict = judge(self._experiment, self._trials)
            if verdict is None:
                self._ask_for_more()
            elif all(trial.condition.is_finished for trial in self._trials):
                self._journal.add_condition(
                    "Succeeded" if verdict.succeeded else "Failed", verdict.reason, verdict.message
                )
                self.changed()
                return verdict
            self._start_waiting(self._trials)
            self._output.tick(self.snapshot())
            self._interruption.sleep(self._poll)

    def run_finals(self, finals: Iterable[TrialRecord]) -> None:
        """Run final runs that are in the journal to their end.

        Raises:
            Interrupted, SurroundingsError: as :meth:`run`.
        """
        names = [trial.name for trial in finals]
        self._take_up(self._finals(names))
        while waiting := [trial for trial in self._finals(names) if not trial.condition.is_finished]:
            self._interruption.check()
            self._start_waiting(waiting)
            self._look_after(self._runner.poll())
            self._output.tick(self.snapshot())
            self._interruption.sleep(self._poll)

    def changed(self) -> None:
        """Read the journal anew and write the Experiment's status."""
        self._trials = self._journal.trials()
        state = status(self._experiment, self._trials, self._journal.conditions(), self._journal.start_time)
        write_experiment(self._folder / EXPERIMENT_FILE, self._experiment.document, state)

    def snapshot(self) -> Snapshot:
        """How far the search is now."""
        finished = [trial for trial in self._trials if trial.condition.is_finished]
        limit = self._experiment.max_trial_count
        now = time.time()
        if self._chosen[0] is not self._trials:  # asked ten times a second; trials change less often
            self._chosen = self._trials, choose(self._experiment, self._trials)
        choice = self._chosen[1]
        return Snapshot(
            metric=self._experiment.objective.metric,
            finished=len(finished),
            total=limit,
            running=self._runner.running,
            best=None if choice is None else (choice.trial.name, choice.value, choice.trial.assignments),
            seconds_left=seconds_left(
                [trial.seconds for trial in finished if trial.seconds is not None],
                [
                    now - trial.attempt_started
                    for trial in self._trials
                    if trial.condition is Condition.RUNNING and trial.attempt_started is not None
                ],
                None if limit is None else max(0, limit - len(finished)),
                self._experiment.parallel_trial_count,
            ),
        )

    # -- steps --------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        conditions = self._journal.conditions()
        if not conditions:
            self._journal.add_condition("Created", "ExperimentCreated", "Experiment is created")
        self._take_up(self._trials)
        self._trials = self._journal.trials()
        if judge(self._experiment, self._trials) is None:
            if conditions and conditions[-1].type in ("Succeeded", "Failed"):
                self._journal.add_condition("Restarting", "ExperimentRestarting", "Experiment is restarted")
            self._journal.add_condition("Running", "ExperimentRunning", "Experiment is running")
        self.changed()

    def _take_up(self, trials: Iterable[TrialRecord]) -> None:
        for trial in trials:
            if not trial.condition.is_finished and self._runner.take_up(trial):
                self._output.message(f"{trial.name} was still running or had ended: taken up again")

    def _ask_for_more(self) -> None:
        unfinished = sum(not trial.condition.is_finished for trial in self._trials)
        wanted = self._experiment.parallel_trial_count - unfinished
        if self._experiment.max_trial_count is not None:
            wanted = min(wanted, self._experiment.max_trial_count - len(self._trials))
        if wanted <= 0:
            return
        issued = len(self._trials)
        finished = sum(trial.condition.is_finished for trial in self._trials)
        saved = f"{finished} finished trials are saved in {self._folder}; the same command goes on from there"
        client = self._client()
        reply = client.suggest(self._trials, wanted, issued, self._journal.algorithm_settings(), saved)
        rule = self._rule()
        self._journal.add_trials(
            [
                TrialRecord(
                    name=suggestion.trial_name,
                    kind=Kind.SEARCH,
                    position=issued + offset,
                    assignments=suggestion.assignments,
                    labels=suggestion.labels,
                    rule=rule,
                )
                for offset, suggestion in enumerate(reply.suggestions)
            ],
            reply.settings,
        )
        self._trials = self._journal.trials()

    def _rule(self) -> StopRule | None:
        """The early stopping rule of trials that are made now, from the succeeded ones."""
        if self._experiment.early_stopping is None:
            return None
        stop = MedianStop.from_settings(self._experiment.early_stopping.settings)
        metric = self._experiment.objective.metric
        succeeded = (trial for trial in self._trials if trial.condition is Condition.SUCCEEDED)
        histories = ([report.value for report in self._journal.reports(trial.name, metric)] for trial in succeeded)
        return stop.rule(self._experiment.objective, histories)

    def _start_waiting(self, trials: Iterable[TrialRecord]) -> None:
        running = self._runner.running
        room = self._experiment.parallel_trial_count - len(running)
        waiting = [trial for trial in trials if not trial.condition.is_finished and trial.name not in running]
        for trial in waiting[: max(0, room)]:
            self._runner.start(trial)
            self.changed()
            self._output.started(trial, self.snapshot())

    def _look_after(self, finished: Iterable[TrialRecord]) -> None:
        for trial in finished:
            self.changed()
            self._output.finished(trial, trial_value(self._experiment, trial), self.snapshot())

    def _finals(self, names: Iterable[str]) -> list[TrialRecord]:
        wanted = set(names)
        return [trial for trial in self._journal.trials(Kind.FINAL) if trial.name in wanted]
