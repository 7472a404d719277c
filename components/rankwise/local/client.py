"""Asks a suggestion service over Katib's gRPC API, exactly as Katib's controller does.

Every request holds the whole history. Trials without metrics and trials that were stopped early before their first
value are not sent; running ones are sent with an empty observation. Settings of a reply are kept and sent with the next
request. The values are Katib's texts, not our numbers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.katib_api import api_pb2, api_pb2_grpc
from rankwise.local.experiment import Experiment
from rankwise.local.interruption import Interruption
from rankwise.local.records import Condition, TrialRecord
from rankwise.retry import Backoff, call
from rankwise.suggest.convert import experiment_message, objective_message

DEADLINE_SECONDS = 60.0
"""Katib's deadline of one call."""
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_TEMPORARY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PROBLEM = re.compile(r"(?P<path>\S.*?): got (?P<value>'.*?'|\".*?\"); allowed: (?P<allowed>.+)")
_CONDITIONS = {
    Condition.CREATED: api_pb2.TrialStatus.CREATED,
    Condition.INTERRUPTED: api_pb2.TrialStatus.RUNNING,
    Condition.RUNNING: api_pb2.TrialStatus.RUNNING,
    Condition.SUCCEEDED: api_pb2.TrialStatus.SUCCEEDED,
    Condition.FAILED: api_pb2.TrialStatus.FAILED,
    Condition.EARLY_STOPPED: api_pb2.TrialStatus.EARLYSTOPPED,
}


class UnexpectedReply(Exception):
    """The service's reply is not what Katib's controller would accept."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One suggested configuration: the trial's name, its assignments in the order of the parameters, its labels."""

    trial_name: str
    assignments: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """A service's answer: suggestions, and every setting that was written back so far."""

    suggestions: tuple[Suggestion, ...]
    settings: Mapping[str, str]


class SuggestionClient:
    """A connection to one suggestion service.

    Args:
        endpoint: ``host:port``, plaintext.
        experiment: what is searched for.
        interruption: ends a waiting call.
        backoff: retries of calls that find no service or run into the deadline.
        deadline: seconds for one call.
    """

    def __init__(
        self,
        endpoint: str,
        experiment: Experiment,
        interruption: Interruption,
        backoff: Backoff | None = None,
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        self._endpoint = endpoint
        self._experiment = experiment
        self._interruption = interruption
        self._backoff = backoff or Backoff()
        self._deadline = deadline
        self._channel = grpc.insecure_channel(
            endpoint,
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                # The service is a neighbour: a proxy for the internet must not stand between.
                ("grpc.enable_http_proxy", 0),
            ],
        )
        self._stub: Any = api_pb2_grpc.SuggestionStub(self._channel)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._channel.close()

    def validate(self) -> None:
        """Have the service check the algorithm's settings. As in Katib, other codes than the ones below mean valid.

        Raises:
            InvalidInput: the service refuses them (INVALID_ARGUMENT).
            SurroundingsError: the service cannot be reached or failed itself (UNKNOWN).
            Interrupted: the run was asked to end.
        """
        request = api_pb2.ValidateAlgorithmSettingsRequest(experiment=self._message({}))
        try:
            self._call(self._stub.ValidateAlgorithmSettings, request)
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
            if code is grpc.StatusCode.INVALID_ARGUMENT:
                raise InvalidInput(self._problems(details)) from error
            if code is grpc.StatusCode.UNKNOWN or code in _TEMPORARY:
                raise SurroundingsError(
                    f"the suggestion service at {self._endpoint} cannot check the Experiment ({_said(error)});"
                    " nothing was started"
                ) from error

    def suggest(
        self, trials: Sequence[TrialRecord], count: int, issued: int, settings: Mapping[str, str], saved: str
    ) -> Reply:
        """Ask for further configurations.

        Args:
            trials: every trial of the search.
            count: how many are wanted now.
            issued: how many were handed out before.
            settings: what earlier replies wrote back.
            saved: clause for the error's message on what was saved.

        Raises:
            SurroundingsError: after bounded retries there is no reply that Katib's controller would accept.
            Interrupted: the run was asked to end.
        """
        request = api_pb2.GetSuggestionsRequest(
            experiment=self._message(settings),
            trials=self._trials(trials),
            current_request_number=count,
            total_request_number=issued + count,
        )

        taken = {trial.name for trial in trials}

        def ask() -> Reply:
            reply = self._read(self._once(self._stub.GetSuggestions, request), count, issued, settings)
            names = [suggestion.trial_name for suggestion in reply.suggestions]
            if len(taken.union(names)) != len(taken) + count:
                raise UnexpectedReply(f"it gave two trials one name: {', '.join(names)}")
            return reply

        try:
            return call(ask, is_temporary=_is_temporary, backoff=self._backoff, sleep=self._interruption.sleep)
        except (grpc.RpcError, UnexpectedReply) as error:
            reason = _said(error) if isinstance(error, grpc.RpcError) else str(error)
            raise SurroundingsError(
                f"the suggestion service at {self._endpoint} gave no usable suggestion ({reason}); {saved}"
            ) from error

    # -- requests -----------------------------------------------------------------------------------------------------

    def _message(self, settings: Mapping[str, str]) -> api_pb2.Experiment:
        experiment = self._experiment
        message = experiment_message(
            experiment.name,
            experiment.parameters,
            experiment.objective,
            experiment.algorithm_name,
            {**experiment.algorithm_settings, **settings},
            parallel_trials=experiment.parallel_trial_count,
            max_trials=experiment.max_trial_count,
        )
        if experiment.early_stopping is not None:
            message.spec.early_stopping.algorithm_name = experiment.early_stopping.algorithm_name
            for name, value in experiment.early_stopping.settings.items():
                message.spec.early_stopping.algorithm_settings.add(name=name, value=value)
        return message

    def _trials(self, trials: Sequence[TrialRecord]) -> list[api_pb2.Trial]:
        messages = []
        for trial in trials:
            observation = self._observation(trial)
            if trial.condition is Condition.METRICS_UNAVAILABLE:
                continue
            if trial.condition is Condition.EARLY_STOPPED and not observation.metrics:
                continue
            messages.append(
                api_pb2.Trial(
                    name=trial.name,
                    spec=api_pb2.TrialSpec(
                        objective=objective_message(self._experiment.objective),
                        parameter_assignments=api_pb2.TrialSpec.ParameterAssignments(
                            assignments=[
                                api_pb2.ParameterAssignment(name=name, value=value)
                                for name, value in trial.assignments.items()
                            ]
                        ),
                    ),
                    status=api_pb2.TrialStatus(
                        start_time=trial.start_time or "",
                        completion_time=trial.completion_time or "",
                        condition=_CONDITIONS[trial.condition],
                        observation=observation,
                    ),
                )
            )
        return messages

    def _observation(self, trial: TrialRecord) -> api_pb2.Observation:
        if trial.condition not in (Condition.SUCCEEDED, Condition.EARLY_STOPPED):
            return api_pb2.Observation()
        metric = self._experiment.objective.metric
        strategies = self._experiment.metric_strategies
        if trial.value(metric, strategies[metric]) is None:
            return api_pb2.Observation()
        return api_pb2.Observation(
            metrics=[
                api_pb2.Metric(name=summary.name, value=summary.extract(strategies[summary.name]))
                for summary in trial.summaries
            ]
        )

    # -- calls and replies --------------------------------------------------------------------------------------------

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        return call(
            lambda: self._once(method, request),
            is_temporary=_is_temporary,
            backoff=self._backoff,
            sleep=self._interruption.sleep,
        )

    def _once(self, method: Any, request: Any) -> Any:
        future = method.future(request, timeout=self._deadline)
        while True:
            try:
                return future.result(timeout=0.1)
            except grpc.FutureTimeoutError:
                if self._interruption.requested:
                    future.cancel()
                    self._interruption.check()

    def _read(self, reply: Any, count: int, issued: int, settings: Mapping[str, str]) -> Reply:
        answers = reply.parameter_assignments
        if len(answers) != count:
            raise UnexpectedReply(f"it answered {len(answers)} configurations where {count} were asked for")
        names = [parameter.name for parameter in self._experiment.parameters]
        suggestions = []
        for offset, answer in enumerate(answers):
            values = {assignment.name: assignment.value for assignment in answer.assignments}
            if len(answer.assignments) != len(names) or set(values) != set(names):
                given = ", ".join(assignment.name for assignment in answer.assignments)
                raise UnexpectedReply(f"it answered the parameters {given or 'none'} where {', '.join(names)} are due")
            trial_name = answer.trial_name or _default_name(self._experiment.name, issued + offset)
            if _NAME.fullmatch(trial_name) is None:
                raise UnexpectedReply(f"{trial_name!r} is no name for a trial (DNS-1123 label)")
            ordered = {name: values[name] for name in names}
            suggestions.append(Suggestion(trial_name, ordered, dict(answer.labels)))
        written = {setting.name: setting.value for setting in reply.algorithm.algorithm_settings}
        return Reply(tuple(suggestions), {**settings, **written})

    def _problems(self, details: str) -> list[Problem]:
        """The service's sentences as problems: those in our own form taken apart, others as they are."""
        problems = []
        for line in filter(None, map(str.strip, details.splitlines())):
            match = _PROBLEM.fullmatch(line)
            if match is None:
                problems.append(Problem("spec.algorithm", self._experiment.algorithm_name, line))
            else:
                problems.append(Problem(match["path"], match["value"][1:-1], match["allowed"]))
        return problems or [Problem("spec.algorithm", self._experiment.algorithm_name, "what the algorithm takes")]


def _default_name(experiment: str, position: int) -> str:
    """``<experiment>-<8 characters>`` as Katib's, but the same for the same place in the same search."""
    digest = hashlib.sha256(f"{experiment}/{position}".encode()).hexdigest()[:8]
    return f"{experiment[:54].rstrip('-.')}-{digest}"


def _is_temporary(error: Exception) -> bool:
    return isinstance(error, UnexpectedReply) or (isinstance(error, grpc.RpcError) and error.code() in _TEMPORARY)


def _said(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details() or 'no details'}"
