"""The calls of Katib's ``Suggestion`` service.

The algorithm knows nothing of gRPC: a request becomes a :class:`~rankwise.strategies.base.SuggestRequest`, the strategy
answers, the answer becomes a reply. What this module adds is that there always is an answer: Katib repeats a failed
call for ever and tells nobody, so a strategy that fails or is late is replaced by the next points of a Sobol sequence.
Where a repetition is what helps, it is asked for, with UNAVAILABLE: while the service stops, while it has too many
calls at once, and while a small space is being embedded or earlier searches are being read (see
:class:`~rankwise.strategies.base.NotReady`).
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import grpc

from rankwise import logs
from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.katib_api import api_pb2, api_pb2_grpc
from rankwise.space.trial import Trial
from rankwise.strategies.base import (
    FALLBACK_REASONS,
    SETTINGS_PATH,
    Closable,
    NotReady,
    Strategy,
    Suggestions,
    SuggestRequest,
)
from rankwise.strategies.seeds import own_settings
from rankwise.suggest import convert, naming, outstanding
from rankwise.suggest.earlier import SETTING as EARLIER_SETTING
from rankwise.suggest.earlier import EarlierNotReady, EarlierSearches, Pins, Resolved, dump_pins, load_pins
from rankwise.suggest.library import StoreLibrary
from rankwise.suggest.outstanding import Outstanding
from rankwise.suggest.reading import Search, read_search, sentence
from rankwise.suggest.tally import Tally
from rankwise.suggest.workers import TimeLimitReached, Workers

log = logging.getLogger(__name__)

FALLBACK = "sobol"
"""The strategy that answers in place of one that failed or is late."""


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How the service behaves; the same for every Experiment."""

    deadline: float = 45.0
    """Seconds that one call may take. Katib's controller gives up after 60 s and has one worker for suggestions in the
    whole cluster, so a slow call blocks everybody. A client's own, shorter deadline counts as well."""
    fits: int = 1
    """Strategies that compute at the same time; see :mod:`rankwise.suggest.workers`."""
    calls: int = 10
    """Requests for suggestions that are handled at the same time; further ones are sent away at once."""
    postpone: bool = False
    """Whether the caller repeats a request that gets UNAVAILABLE for as long as it takes to embed a small space.
    Katib's controller does, with growing pauses."""
    scope: str | None = "local"
    """What tells our Experiment from others of the same name, its namespace; goes into the trials' names. None: the
    controller shall name the trials, for two Experiments of the same name would share names and so their metrics."""

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        if not 0 < self.deadline < 60:
            problems.append(Problem("--deadline", str(self.deadline), "seconds greater than 0 and less than 60"))
        if self.fits < 1:
            problems.append(Problem("--fits", str(self.fits), "a whole number of at least 1"))
        if self.calls < 1:
            problems.append(Problem("--threads", str(self.calls), "a whole number of at least 1"))
        if problems:
            raise InvalidInput(problems)


# Parts of the time of a call. The strategy is told to be ready after the first; after the second nobody waits for it
# any more; what is left is for the fallback (milliseconds) and the way back.
_STRATEGY_SHARE = 0.85
_WAIT_SHARE = 0.92
_NAMES_LOGGED = 100
"""Names of issued trials in one log line; Katib seldom asks for more than ten at once."""


class SuggestionService(api_pb2_grpc.SuggestionServicer):
    """Katib's two calls, over the given strategies. Safe to be called by many threads; keeps no state between calls.

    Args:
        strategies: by algorithm name; one of them is :data:`FALLBACK`.
        options: how to behave.
        earlier: where earlier searches are looked up that settings name; without it, none is found.

    Attributes:
        options: how it behaves.
        tally: what it counts.
    """

    def __init__(
        self,
        strategies: Mapping[str, Strategy],
        options: ServiceOptions | None = None,
        earlier: EarlierSearches | None = None,
    ) -> None:
        if FALLBACK not in strategies:
            raise ValueError(f"strategies must hold {FALLBACK!r}, got {sorted(strategies)}")
        self._strategies = dict(strategies)
        self.options = options or ServiceOptions()
        self.tally = Tally()
        self._earlier = earlier or EarlierSearches(StoreLibrary({}, None))
        self._workers = Workers(self.options.fits)
        self._condition = threading.Condition()
        self._running = 0
        self._validating = 0
        self._draining = False

    # -- the calls -----------------------------------------------------------------------------------------------

    def GetSuggestions(  # noqa: N802 - the method's name on the wire
        self, request: api_pb2.GetSuggestionsRequest, context: grpc.ServicerContext
    ) -> api_pb2.GetSuggestionsReply:
        """Exactly ``current_request_number`` configurations."""
        with self._about(request.experiment), self._call(context):
            try:
                return self._suggest(request, self._budget(context))
            except InvalidInput as error:
                self.tally.count("invalid")
                message = sentence(error.problems)
                log.warning("refused a request: %s", message, extra=self._fact(request.experiment))
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
            except NotReady as error:
                self.tally.count("postponed-earlier" if isinstance(error, EarlierNotReady) else "postponed-vectors")
                log.info("postponed: %s", error, extra=self._fact(request.experiment))
                context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            except Exception as error:
                self.tally.count("internal")
                log.exception("could not answer", extra=self._fact(request.experiment))
                context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}; the service's log tells more")

    def ValidateAlgorithmSettings(  # noqa: N802 - the method's name on the wire
        self, request: api_pb2.ValidateAlgorithmSettingsRequest, context: grpc.ServicerContext
    ) -> api_pb2.ValidateAlgorithmSettingsReply:
        """Nothing, or INVALID_ARGUMENT with every mistake: Katib takes most other codes for "valid"."""
        with self._about(request.experiment):
            try:
                message = self._mistakes(request.experiment, self._budget(context))
            except Exception as error:
                log.exception("could not validate", extra=self._fact(request.experiment))
                message = f"the Experiment could not be checked: {type(error).__name__}; the service's log tells more"
            if message:
                self.tally.count("invalid")
                log.warning("refused an Experiment: %s", message, extra=self._fact(request.experiment))
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
            log.info("accepted an Experiment", extra=self._fact(request.experiment))
            return api_pb2.ValidateAlgorithmSettingsReply()

    # -- life ----------------------------------------------------------------------------------------------------

    @property
    def counts(self) -> dict[str, int]:
        """What happened so far; the names are those of :class:`~rankwise.suggest.tally.Tally`."""
        return dict(self.tally.figures().counts)

    @property
    def busy(self) -> bool:
        """Whether a strategy is computing, perhaps for a caller that went away."""
        return self._workers.busy

    def refuse(self) -> None:
        """From now on answer requests for suggestions with UNAVAILABLE: the controller asks again."""
        with self._condition:
            self._draining = True

    def drain(self, seconds: float) -> bool:
        """Wait for the running requests for suggestions; whether all of them ended within ``seconds``."""
        with self._condition:
            return self._condition.wait_for(lambda: self._running == 0, timeout=seconds)

    def close(self) -> bool:
        """Let the worker threads end; whether nothing computes any more."""
        self._workers.close()
        ended = [strategy.close() for strategy in self._strategies.values() if isinstance(strategy, Closable)]
        return all(ended) and not self.busy

    @contextmanager
    def _call(self, context: grpc.ServicerContext) -> Iterator[None]:
        with self._condition:
            stopping, busy = self._draining, self._running >= self.options.calls
            if not (stopping or busy):
                self._running += 1
        if stopping:
            self.tally.count("postponed-stopping")
            context.abort(grpc.StatusCode.UNAVAILABLE, "the service is shutting down; its successor will answer")
        if busy:
            # To let it wait would take the thread that the next health check needs.
            self.tally.count("postponed-busy")
            log.warning("sent a request away: %d are being answered", self.options.calls)
            context.abort(grpc.StatusCode.UNAVAILABLE, "too many requests at once; ask again")
        try:
            yield
        finally:
            with self._condition:
                self._running -= 1
                self._condition.notify_all()

    def _about(self, experiment: api_pb2.Experiment) -> AbstractContextManager[None]:
        return logs.about(**self._fact(experiment))

    def _fact(self, experiment: api_pb2.Experiment, **more: object) -> dict[str, object]:
        return {"experiment": experiment.name, "namespace": self.options.scope, **more}

    def _budget(self, context: grpc.ServicerContext) -> Deadline:
        client = context.time_remaining()
        return Deadline(min(self.options.deadline, math.inf if client is None else client))

    # -- validation ----------------------------------------------------------------------------------------------

    def _mistakes(self, experiment: api_pb2.Experiment, budget: Deadline) -> str:
        """Every mistake of the Experiment as one message; empty when there is none."""
        try:
            search = read_search(experiment, self._strategies)
            with self._one_validation() as seconds:
                problems = self._workers.run(
                    lambda: search.strategy.validate(search.space, search.objective, search.settings),
                    min(seconds, budget.share(_WAIT_SHARE).remaining()),
                )
        except InvalidInput as error:
            return sentence(error.problems)
        except SurroundingsError as error:
            log.exception("what the algorithm needs is not there", extra=self._fact(experiment))
            return sentence([Problem(SETTINGS_PATH, experiment.spec.algorithm.algorithm_name, str(error))])
        except TimeLimitReached:
            # To say "invalid" would end the Experiment; the requests for suggestions have a fallback.
            log.warning("accepted without the last checks: no time left", extra=self._fact(experiment))
            return ""
        return sentence(problems)

    @contextmanager
    def _one_validation(self) -> Iterator[float]:
        """Seconds that a validation may wait: none where there are many at once, which would keep all threads.

        It cannot be sent away as a request can: the codes that would say so end the Experiment, or mean "valid"."""
        with self._condition:
            self._validating += 1
            crowd = self._validating > self.options.calls
        try:
            yield 0.0 if crowd else math.inf
        finally:
            with self._condition:
                self._validating -= 1

    # -- suggestions ---------------------------------------------------------------------------------------------

    def _suggest(self, message: api_pb2.GetSuggestionsRequest, budget: Deadline) -> api_pb2.GetSuggestionsReply:
        count = message.current_request_number
        self.tally.count("requests")
        if count <= 0:
            return api_pb2.GetSuggestionsReply()
        start = budget.remaining()
        search = read_search(message.experiment, self._strategies)
        read = convert.trials(
            message.trials, search.space, search.objective, experiment=search.experiment, scope=self.options.scope
        )
        issued = max(0, message.total_request_number - count)
        state = outstanding.load(search.state, search.space, issued)
        if search.state and not state:
            log.debug("no use in what came back of the last reply", extra=self._fact(message.experiment))
        kept, missing = outstanding.match(state, read.trials, search.space)
        resolved = self._earlier.resolve(
            search.settings,
            load_pins(search.pins),
            search.experiment,
            search.objective,
            budget,
            postpone=self.options.postpone,
        )
        request = SuggestRequest(
            experiment=search.experiment,
            space=search.space,
            objective=search.objective,
            settings=search.settings,
            trials=read.trials + missing,
            count=count,
            issued=issued,
            max_trials=search.max_trials,
            deadline=budget.share(_STRATEGY_SHARE),
            postpone=self.options.postpone,
            earlier=resolved.searches,
        )
        self.tally.saw_trials(search.experiment, [trial.state for trial in request.trials])
        self.tally.count("foreign", len(read.foreign))
        if read.foreign:
            log.debug("trials that are not of this search: %s", ", ".join(read.foreign[:20]))
        answer = self._with_earlier(self._answer(search, request, budget), resolved, request)
        reply = self._reply(search, request, answer, kept, resolved.pins)
        seconds = start - budget.remaining()
        self.tally.count("suggestions", count)
        self.tally.answered(seconds, _fit_seconds(answer.details))
        names = [one.trial_name for one in reply.parameter_assignments if one.trial_name]
        log.info(
            "answered",
            extra=self._fact(
                message.experiment,
                trials=names[:_NAMES_LOGGED] or None,
                algorithm=search.strategy.name,
                count=count,
                issued=issued,
                **_states(request.trials),
                foreign=len(read.foreign),
                missing=len(missing),
                repeated=answer.repeated,
                fallback=answer.fallback,
                seconds=round(seconds, 3),
                details={name: round(value, 4) for name, value in answer.details.items()} or None,
            ),
        )
        return reply

    def _answer(self, search: Search, request: SuggestRequest, budget: Deadline) -> _Answer:
        """The strategy's suggestions, or the fallback's."""
        seconds = budget.share(_WAIT_SHARE).remaining()
        try:
            result = self._workers.run(lambda: search.strategy.suggest(request), seconds)
            _check(result.assignments, request)
        except (InvalidInput, NotReady):
            raise
        except TimeLimitReached:
            reason = "deadline"
            log.error(
                "%s did not answer within %.1f s; %s answers in its place",
                search.strategy.name,
                seconds,
                FALLBACK,
                extra=self._of(request),
            )
        except Exception:
            reason = "error"
            log.exception("%s failed; %s answers in its place", search.strategy.name, FALLBACK, extra=self._of(request))
        else:
            return self._own(request, result)
        self.tally.count(reason)
        return self._fall_back(request, reason)

    def _own(self, request: SuggestRequest, result: Suggestions) -> _Answer:
        """The strategy's answer, which may be a fallback of its own."""
        if result.fallback is None:
            return _Answer(result.assignments, None, result.repeated, result.details)
        reason = result.reason if result.reason in FALLBACK_REASONS else "strategy"
        log.warning("%s", result.fallback, extra=self._of(request))
        self.tally.count(reason)
        return _Answer(result.assignments, reason, result.repeated, result.details)

    def _with_earlier(self, answer: _Answer, resolved: Resolved, request: SuggestRequest) -> _Answer:
        """The answer with what is to be said of earlier searches; another fallback says more than theirs."""
        if not (resolved.pins or resolved.problems):
            return answer
        answer = replace(answer, details={**answer.details, **resolved.details})
        if not resolved.problems:
            return answer
        log.warning(
            "the search goes on without all that its earlier searches found: %s",
            "; ".join(resolved.problems),
            extra=self._of(request),
        )
        if answer.fallback is not None:
            return answer
        self.tally.count("earlier")
        return replace(answer, fallback="earlier")

    def _of(self, request: SuggestRequest) -> dict[str, object]:
        return {"experiment": request.experiment, "namespace": self.options.scope}

    def _fall_back(self, request: SuggestRequest, reason: str) -> _Answer:
        """The next points of a Sobol sequence that were not tried; in the caller's own thread, since it is quick."""
        try:
            # What of the settings is not the strategy's own: seeds are no part of a configuration here either.
            plain = replace(request, settings=own_settings(request.settings), deadline=Deadline.never())
            result = self._strategies[FALLBACK].suggest(plain)
            _check(result.assignments, request)
        except Exception:
            log.exception("%s failed too; its bare points are used", FALLBACK, extra=self._of(request))
            points = request.space.sobol(request.count, seed=0, skip=request.issued)
            return _Answer(tuple(points.assignments(i) for i in range(len(points))), reason, 0, {})
        return _Answer(result.assignments, reason, result.repeated, {})

    def _reply(
        self, search: Search, request: SuggestRequest, answer: _Answer, kept: Sequence[Outstanding], pins: Pins
    ) -> api_pb2.GetSuggestionsReply:
        scope = self.options.scope
        parameter_assignments = []
        entries = list(kept)
        taken = {trial.name for trial in request.trials}
        for index, assignments in enumerate(answer.assignments, start=request.issued):
            entries.append(Outstanding(index, assignments))
            name = "" if scope is None else naming.trial_name(request.experiment, scope, index, assignments, taken)
            parameter_assignments.append(
                api_pb2.GetSuggestionsReply.ParameterAssignments(
                    assignments=convert.assignment_messages(assignments, search.space.names),
                    trial_name=name,
                    labels=naming.labels(index, answer.fallback),
                )
            )
        state = {outstanding.SETTING: outstanding.dump(entries, search.space)}
        if pins:
            state[EARLIER_SETTING] = dump_pins(pins)
        return api_pb2.GetSuggestionsReply(
            parameter_assignments=parameter_assignments,
            algorithm=api_pb2.AlgorithmSpec(
                algorithm_name=search.strategy.name,
                algorithm_settings=[api_pb2.AlgorithmSetting(name=name, value=text) for name, text in state.items()],
            ),
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    """Suggestions, and the reason when they are not the strategy's own."""

    assignments: tuple[dict[str, str], ...]
    fallback: str | None
    repeated: int
    details: Mapping[str, float]


def _check(assignments: Sequence[Mapping[str, str]], request: SuggestRequest) -> None:
    """Raises:
    RuntimeError: the strategy broke its contract; Katib would refuse the whole reply, for ever.
    """
    if len(assignments) != request.count:
        raise RuntimeError(f"{len(assignments)} suggestions instead of {request.count}")
    for point in assignments:
        if not request.space.contains(point):
            raise RuntimeError(f"a suggestion is not in the search space: {dict(point)}")


def _fit_seconds(details: Mapping[str, float]) -> float | None:
    """Seconds that fitting the models took; None where none was fitted."""
    parts = [details[name] for name in ("seconds_language", "seconds_numeric") if name in details]
    return sum(parts) if parts else None


def _states(trials: Sequence[Trial]) -> dict[str, int]:
    return dict(sorted(Counter(trial.state.value for trial in trials).items()))
