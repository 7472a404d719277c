"""A stand-in for Katib's controller and for a strategy, to test the suggestion service over a real socket."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rankwise.errors import Problem
from rankwise.katib_api import api_pb2, api_pb2_grpc
from rankwise.space import Goal, Objective, ParameterText, SearchSpace
from rankwise.strategies.base import Suggestions, SuggestRequest
from rankwise.strategies.options import Option, OptionTable
from rankwise.suggest.convert import experiment_message
from rankwise.suggest.server import SuggestionServer
from rankwise.suggest.service import ServiceOptions, SuggestionService

Status = api_pb2.TrialStatus

AIM = Objective("loss", Goal.MINIMIZE)
PARAMETERS = (
    ParameterText("lora_rank", "int", min="4", max="64", step="4", distribution="uniform"),
    ParameterText("learning_rate", "double", min="1e-5", max="1e-2", distribution="logUniform"),
    ParameterText("dropout", "discrete", list=("0", "0.05", "0.10", "2e-1"), distribution="uniform"),
    ParameterText("variant", "categorical", list=("lora", "DoRA", "a b"), distribution="uniform"),
)
SMALL = (
    ParameterText("lora_rank", "int", min="1", max="4", distribution="uniform"),
    ParameterText("variant", "categorical", list=("lora", "dora"), distribution="uniform"),
)
"""A space of 8 points."""


class FakeStrategy:
    """Hands out a Sobol sequence and writes down what it was asked.

    Args:
        name: algorithm name.
        behaviour: what to do instead.
        problems: what ``validate`` finds.
    """

    def __init__(
        self,
        name: str = "fake",
        behaviour: Callable[[SuggestRequest], Suggestions] | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        self.name = name
        self.options = OptionTable(
            [Option("patience", int, 5, "a made-up option of the fake strategy", low=1, high=100)]
        )
        self.requests: list[SuggestRequest] = []
        self.validated: list[Mapping[str, str]] = []
        self._behaviour = behaviour
        self._problems = list(problems)

    def validate(self, _space: SearchSpace, _objective: Objective, settings: Mapping[str, str]) -> list[Problem]:
        self.validated.append(dict(settings))
        return list(self._problems)

    def suggest(self, request: SuggestRequest) -> Suggestions:
        self.requests.append(request)
        return self._behaviour(request) if self._behaviour is not None else points(request)


def points(request: SuggestRequest) -> Suggestions:
    """The next points of a Sobol sequence."""
    chosen = request.space.sobol(request.count, seed=7, skip=request.issued)
    assignments = tuple(chosen.assignments(i) for i in range(len(chosen)))
    return Suggestions(assignments=assignments, fallback=None, repeated=0, details={})


def experiment(
    name: str = "quickstart",
    algorithm: str = "fake",
    settings: Mapping[str, str] | None = None,
    parameters: Sequence[ParameterText] = PARAMETERS,
) -> api_pb2.Experiment:
    return experiment_message(name, parameters, AIM, algorithm, settings, parallel_trials=3, max_trials=30)


class FakeController:
    """Keeps an Experiment's trials and settings as Katib's controller does, and speaks with the service.

    Args:
        address: ``host:port`` of the service.
        message: the Experiment.
    """

    def __init__(self, address: str, message: api_pb2.Experiment) -> None:
        self.address = address
        self.message = message
        self.trials: dict[str, api_pb2.Trial] = {}
        self.suggested: list[api_pb2.GetSuggestionsReply.ParameterAssignments] = []
        self.settings: dict[str, str] = {}
        self._order = random.Random(0)

    def request(self, count: int) -> api_pb2.GetSuggestionsRequest:
        """The next request: the stored settings laid over the user's, trials without a metric left out, no order."""
        message = api_pb2.Experiment()
        message.CopyFrom(self.message)
        settings = {one.name: one.value for one in message.spec.algorithm.algorithm_settings} | self.settings
        del message.spec.algorithm.algorithm_settings[:]
        for name, value in settings.items():
            message.spec.algorithm.algorithm_settings.add(name=name, value=value)
        trials = [trial for trial in self.trials.values() if self._is_sent(trial)]
        self._order.shuffle(trials)
        return api_pb2.GetSuggestionsRequest(
            experiment=message,
            trials=trials,
            current_request_number=count,
            total_request_number=len(self.suggested) + count,
        )

    @staticmethod
    def _is_sent(trial: api_pb2.Trial) -> bool:
        condition = trial.status.condition
        stopped = condition == Status.EARLYSTOPPED and not trial.status.observation.metrics
        return condition != Status.METRICSUNAVAILABLE and not stopped

    def ask(self, count: int, *, conflict: bool = False) -> api_pb2.GetSuggestionsReply:
        """Ask for suggestions and store the reply, unless a conflict makes the controller throw it away."""
        reply = call(self.address, self.request(count))
        assert len(reply.parameter_assignments) == count, "The response contains unexpected trials"
        if not conflict:
            self.suggested.extend(reply.parameter_assignments)
            self.settings |= {one.name: one.value for one in reply.algorithm.algorithm_settings}
        return reply

    def create(self) -> list[str]:
        """Make the trials of all suggestions that have none; their names."""
        made = []
        for number, suggestion in enumerate(self.suggested):
            name = suggestion.trial_name or f"{self.message.name}-random{number:04d}"
            if name not in self.trials:
                self.trials[name] = trial(name, pairs(suggestion), Status.RUNNING)
                made.append(name)
        return made

    def finish(self, name: str, condition: int = Status.SUCCEEDED, **metrics: str) -> None:
        """End a trial."""
        self.trials[name].status.condition = condition  # type: ignore[assignment]
        self.trials[name].status.observation.CopyFrom(observation(metrics))


def pairs(suggestion: api_pb2.GetSuggestionsReply.ParameterAssignments) -> dict[str, str]:
    """Assignments as a mapping; every name comes once."""
    result = {one.name: one.value for one in suggestion.assignments}
    assert len(result) == len(suggestion.assignments)
    return result


def observation(metrics: Mapping[str, str]) -> api_pb2.Observation:
    return api_pb2.Observation(metrics=[api_pb2.Metric(name=name, value=value) for name, value in metrics.items()])


def trial(
    name: str, assignments: Mapping[str, str], condition: int = Status.SUCCEEDED, **metrics: str
) -> api_pb2.Trial:
    return api_pb2.Trial(
        name=name,
        spec=api_pb2.TrialSpec(
            parameter_assignments=api_pb2.TrialSpec.ParameterAssignments(
                assignments=[api_pb2.ParameterAssignment(name=key, value=value) for key, value in assignments.items()]
            )
        ),
        status=Status(condition=condition, observation=observation(metrics)),  # type: ignore[arg-type]
    )


@contextmanager
def channel(address: str) -> Iterator[grpc.Channel]:
    """A channel with the controller's limits: 4 MiB for replies, none for requests."""
    with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as opened:
        yield opened


def call(
    address: str, request: api_pb2.GetSuggestionsRequest, timeout: float | None = 60.0
) -> api_pb2.GetSuggestionsReply:
    with channel(address) as opened:
        return api_pb2_grpc.SuggestionStub(opened).GetSuggestions(request, timeout=timeout)  # type: ignore[no-any-return,no-untyped-call]


def validate(address: str, message: api_pb2.Experiment, timeout: float = 60.0) -> None:
    with channel(address) as opened:
        stub = api_pb2_grpc.SuggestionStub(opened)  # type: ignore[no-untyped-call]
        stub.ValidateAlgorithmSettings(api_pb2.ValidateAlgorithmSettingsRequest(experiment=message), timeout=timeout)


def health(address: str, name: str, timeout: float = 30.0) -> str:
    """The health's status as a word."""
    with channel(address) as opened:
        reply = health_pb2_grpc.HealthStub(opened).Check(health_pb2.HealthCheckRequest(service=name), timeout=timeout)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


def without_deadline(request: SuggestRequest) -> SuggestRequest:
    """For comparing requests: a deadline is never the same."""
    return replace(request, deadline=None)  # type: ignore[arg-type]


class Running:
    """A server with fakes."""

    def __init__(self, *strategies: FakeStrategy, options: ServiceOptions | None = None, **more: object) -> None:
        self.fake = strategies[0] if strategies else FakeStrategy()
        self.fallback = FakeStrategy("sobol")
        known = {one.name: one for one in (self.fallback, *(strategies or (self.fake,)))}
        self.service = SuggestionService(known, options)
        self.server = SuggestionServer(self.service, "127.0.0.1:0", **more)  # type: ignore[arg-type]
        assert self.server.wait_ready(30)
        self.address = self.server.address

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(grace=10)


def refused(address: str, message: api_pb2.Experiment) -> str:
    """The sentence with which an Experiment is refused."""
    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT") as caught:
        validate(address, message)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    return str(caught.value.details())  # type: ignore[attr-defined]


def request_with(
    trials: list[api_pb2.Trial], count: int = 1, total: int | None = None, message: api_pb2.Experiment | None = None
) -> api_pb2.GetSuggestionsRequest:
    return api_pb2.GetSuggestionsRequest(
        experiment=message or experiment(),
        trials=trials,
        current_request_number=count,
        total_request_number=len(trials) + count if total is None else total,
    )
