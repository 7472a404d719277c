"""Runs an Experiment on this machine, from its file to a searched, resumable run folder.

::

    runs/<experiment>/
    ├── engine.lock         held while an engine works here
    ├── journal.sqlite      the truth
    ├── experiment.yaml     the Experiment with Katib's status, written after each change
    ├── trials/<name>/      working folder of a trial; output.log is all that it printed
    └── store/              manifests, adapters, checkpoints (``RANKWISE_STORE`` of the trials)

``kill -9`` at any moment is no harm: the same command goes on. Trials that still run are taken up; those that ended
meanwhile have left their exit code; those that are gone are started again under their name with their assignments.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rankwise.artifacts.store import Store, open_store
from rankwise.errors import SurroundingsError
from rankwise.local.choice import Choice, choose
from rankwise.local.client import SuggestionClient
from rankwise.local.earlier import earlier_searches, notes
from rankwise.local.early_stopping import check_early_stopping
from rankwise.local.experiment import Experiment, load_experiment
from rankwise.local.finals import prepare_finals
from rankwise.local.interruption import Interrupted, Interruption, listening
from rankwise.local.journal import JOURNAL_FILE, Journal
from rankwise.local.lock import locked
from rankwise.local.progress import Output, SilentOutput
from rankwise.local.records import Condition, Kind, TrialRecord
from rankwise.local.run_facts import search_facts
from rankwise.local.runner import STORE_FOLDER, TRIALS_FOLDER, Runner
from rankwise.local.search import Search
from rankwise.local.service import embedded_service
from rankwise.local.status import Verdict
from rankwise.local.template_notes import machine_notes
from rankwise.report.facts import SearchFacts
from rankwise.retry import Backoff
from rankwise.settings import Settings
from rankwise.suggest.earlier import EarlierSearches

DEFAULT_RUNS_FOLDER = "runs"


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to.

    Attributes:
        experiment: the Experiment.
        folder: the run folder, absolute.
        verdict: how the Experiment ended.
        choice: the configuration chosen; None when no trial is what the search looks for.
        trials: every trial, in the order of suggestion.
        finals: the final runs.
        facts: all of it for the report.
    """

    experiment: Experiment
    folder: Path
    verdict: Verdict
    choice: Choice | None
    trials: tuple[TrialRecord, ...]
    finals: tuple[TrialRecord, ...]
    facts: SearchFacts

    @property
    def best(self) -> TrialRecord | None:
        """The best trial, or the first one of the best configuration; None when no trial has a value."""
        return None if self.choice is None else self.choice.trial

    @property
    def best_value(self) -> float | None:
        """Its value of the objective, or the mean over its configuration's seeds."""
        return None if self.choice is None else self.choice.value

    @property
    def failed_finals(self) -> tuple[TrialRecord, ...]:
        """Final runs that did not succeed."""
        return tuple(trial for trial in self.finals if trial.condition is not Condition.SUCCEEDED)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine behaves.

    Attributes:
        poll: seconds between two looks at the running trials.
        grace: seconds that a trial has between SIGTERM and SIGKILL: enough to write a checkpoint.
        backoff: retries of calls to the suggestion service.
        deadline: seconds for one such call.
    """

    poll: float = 0.1
    grace: float = 30.0
    backoff: Backoff = field(default_factory=Backoff)
    deadline: float = 60.0


def default_folder(experiment: Experiment) -> Path:
    """``runs/<experiment>`` under the working folder."""
    return Path(DEFAULT_RUNS_FOLDER) / experiment.name


def run(
    experiment_path: Path | str,
    run_folder: Path | str | None = None,
    *,
    endpoint: str | None = None,
    output: Output | None = None,
    settings: Settings | None = None,
    interruption: Interruption | None = None,
    options: EngineOptions | None = None,
) -> RunResult:
    """Run an Experiment, or go on with it.

    Args:
        experiment_path: the Experiment's file.
        run_folder: :func:`default_folder` when None.
        endpoint: ``host:port`` of a suggestion service; None starts our own in this process.
        output: what the user sees; nothing when None.
        settings: from the environment when None.
        interruption: lets another thread end the run; signals do so in the main thread.
        options: see :class:`EngineOptions`.

    Raises:
        InvalidInput: the Experiment is wrong, differs from the one that the folder was begun with, or another engine
            works in the folder.
        SurroundingsError: the service, the disk or the system failed; what was finished is saved.
        Interrupted: the run was asked to end; the same call goes on.
    """
    experiment = load_experiment(Path(experiment_path))
    if experiment.early_stopping is not None:
        check_early_stopping(experiment.early_stopping.algorithm_name, experiment.early_stopping.settings)
    folder = Path(run_folder or default_folder(experiment)).absolute()
    output = output or SilentOutput()
    interruption = interruption or Interruption()
    with ExitStack() as stack:
        stack.callback(output.close)
        for note in machine_notes(experiment.template):
            output.message(note)
        stack.enter_context(listening(interruption))
        earlier = earlier_searches(experiment, (folder.parent, Path(DEFAULT_RUNS_FOLDER).absolute()))
        service = _Service(
            stack, experiment, earlier, endpoint, settings, interruption, options or EngineOptions(), output
        )
        if not (folder / JOURNAL_FILE).exists():
            # Wrong settings are refused before anything is made.
            service.client()
        stack.enter_context(locked(folder))
        journal = stack.enter_context(Journal(folder / JOURNAL_FILE))
        new = journal.open_run(experiment.name, experiment.document["spec"])
        engine = _Engine(experiment, folder, journal, service, output, interruption)
        return engine.run(new=new)


class _Service:
    """The suggestion client, made and validated when it is first needed: a run that has ended needs none."""

    def __init__(
        self,
        stack: ExitStack,
        experiment: Experiment,
        earlier: EarlierSearches,
        endpoint: str | None,
        settings: Settings | None,
        interruption: Interruption,
        options: EngineOptions,
        output: Output,
    ) -> None:
        self._stack = stack
        self._experiment = experiment
        self._earlier = earlier
        self._endpoint = endpoint
        self.settings = settings or Settings.from_environment()
        self._interruption = interruption
        self.options = options
        self._output = output
        self._client: SuggestionClient | None = None

    def client(self) -> SuggestionClient:
        if self._client is None:
            if self._endpoint is None:
                self._output.message("starting the suggestion service")  # torch takes seconds to load
            endpoint = self._endpoint or self._stack.enter_context(embedded_service(self.settings, self._earlier))
            client = SuggestionClient(
                endpoint, self._experiment, self._interruption, self.options.backoff, self.options.deadline
            )
            self._stack.callback(client.close)
            client.validate()
            self._client = client
        return self._client

    def earlier_notes(self) -> list[str]:
        """What our own service will find of earlier searches; another one looks in places of its own."""
        return notes(self._earlier, self._experiment) if self._endpoint is None else []


class _Engine:
    """One run with its journal opened and its folder locked."""

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        journal: Journal,
        service: _Service,
        output: Output,
        interruption: Interruption,
    ) -> None:
        self._experiment = experiment
        self._folder = folder
        self._journal = journal
        self._output = output
        self._interruption = interruption
        self._service = service
        options = service.options
        self._runner = Runner(experiment, folder, journal, service.settings, options.grace)
        self._search = Search(
            experiment, folder, journal, self._runner, output, interruption, service.client, options.poll
        )

    def run(self, *, new: bool) -> RunResult:
        """Search, make the final runs, gather the facts. Whatever happens, no process is left behind."""
        self._greet(new)
        try:
            verdict = self._search.run()
            self._run_finals(verdict)
        except BaseException as error:
            self._end_trials(error)
            raise
        return self._result(verdict)

    def _greet(self, new: bool) -> None:
        trials = self._search.trials
        finished = sum(trial.condition.is_finished for trial in trials)
        name, folder = self._experiment.name, _shown(self._folder)
        if new:
            self._output.message(f"{name}: a new search in {folder}")
            for note in self._service.earlier_notes():
                self._output.message(note)
        else:
            self._output.message(f"{name}: goes on in {folder} with {finished} finished trials of {len(trials)}")

    def _run_finals(self, verdict: Verdict) -> None:
        choice = choose(self._experiment, self._search.trials)
        if not verdict.succeeded or choice is None:
            return
        finals = prepare_finals(
            self._experiment,
            choice.trial,
            self._journal,
            trial_store(self._experiment, self._folder),
            self._folder / TRIALS_FOLDER,
        )
        self._search.run_finals(finals)

    def _end_trials(self, error: BaseException) -> None:
        if self._runner.running:
            self._output.message(f"ending {len(self._runner.running)} running trials; they go on with the next start")
        try:
            names = self._runner.interrupt(lambda: self._interruption.count > 1)
            if names or isinstance(error, Interrupted):
                self._search.changed()
        except SurroundingsError as second:
            # The first error tells more; the processes have been ended.
            error.add_note(str(second))

    def _result(self, verdict: Verdict) -> RunResult:
        trials = self._search.trials
        return RunResult(
            experiment=self._experiment,
            folder=self._folder,
            verdict=verdict,
            choice=choose(self._experiment, trials),
            trials=tuple(trials),
            finals=tuple(self._journal.trials(Kind.FINAL)),
            facts=search_facts(self._experiment, self._journal, trial_store(self._experiment, self._folder)),
        )


def trial_store(experiment: Experiment, folder: Path) -> Store:
    """The store that the trials write to: their container's ``RANKWISE_STORE``, else the run folder's."""
    environment: Mapping[str, str] = experiment.container_env
    uri = environment.get("RANKWISE_STORE") or str(folder / STORE_FOLDER)
    return open_store(uri, {**os.environ, **environment})


def _shown(path: Path) -> str:
    """A path as a person would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
