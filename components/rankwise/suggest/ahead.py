"""Embedding of a search's configurations before a request needs them, while the first trials train.

The first configurations come from a Sobol sequence and need no vectors; until the first of them has been trained, the
service has nothing to do. So after each request the space's vectors are made in the background. A request has
precedence: while one is answered, the background stands still (it would take the cores from the fit, and the model from
the embedding that the request itself does).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from rankwise import logs
from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.language.cached import STORED_AT_ONCE
from rankwise.language.prompt import describe_all
from rankwise.language.text_encoder import EmbeddingIncomplete, TextEncoder, embedding_order
from rankwise.strategies.base import SuggestRequest
from rankwise.strategies.language_bo import embedding_plan

log = logging.getLogger(__name__)

REMEMBERED = 64
"""Searches whose vectors are known to be made; those of an older one would be looked for once more."""
_STOP_SECONDS = 5.0


class _WhileUndisturbed(Deadline):
    """A deadline that comes when somebody else wants the model."""

    def __init__(self, disturbed: Callable[[], bool]) -> None:
        super().__init__(0.0)
        self._disturbed = disturbed

    def remaining(self) -> float:
        return 0.0 if self._disturbed() else threading.TIMEOUT_MAX


class EmbedAhead:
    """Makes vectors in a thread that lives only as long as there is something to do.

    Args:
        encoders: (reference, pooling) -> encoder that keeps what it computes.
    """

    def __init__(self, encoders: Callable[[str, str], TextEncoder]) -> None:
        self._encoders = encoders
        self._condition = threading.Condition()
        self._requests = 0
        self._closed = False
        self._done: dict[Hashable, None] = {}
        self._waiting: dict[Hashable, SuggestRequest] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While a request is answered."""
        with self._condition:
            self._requests += 1
        try:
            yield
        finally:
            with self._condition:
                self._requests -= 1
                self._condition.notify_all()

    def want(self, request: SuggestRequest) -> None:
        """Make the vectors of the request's search, unless that has been done. Returns at once."""
        key = (request.experiment, request.space, tuple(sorted(request.settings.items())))
        with self._condition:
            if self._closed or key in self._done or key in self._waiting:
                return
            self._waiting[key] = request
            if self._thread is None:
                # The beginning of its name says that it computes, as for the threads of the fits.
                self._thread = threading.Thread(target=self._run, name="fit-ahead", daemon=True)
                self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until everything wanted is made or was given up; whether that came within ``seconds``."""
        with self._condition:
            return self._condition.wait_for(lambda: self._thread is None, seconds)

    def close(self) -> bool:
        """Stop; whether nothing is computing any more."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        return self.wait(_STOP_SECONDS)

    def _run(self) -> None:
        while True:
            with self._condition:
                if self._closed or not self._waiting:
                    self._thread = None
                    self._condition.notify_all()
                    return
                key, request = next(iter(self._waiting.items()))
            with logs.about(experiment=request.experiment):
                finished = self._embed(request)
            with self._condition:
                self._waiting.pop(key)
                if finished:
                    self._done[key] = None
                    while len(self._done) > REMEMBERED:
                        self._done.pop(next(iter(self._done)))

    def _embed(self, request: SuggestRequest) -> bool:
        """Make the vectors of one search; whether all of them are made."""
        try:
            self._undisturbed()
            plan = embedding_plan(request)
            encoder = self._encoders(plan.embedder, plan.pooling)
            prompt = plan.prompt(encoder.form)
            # In the encoder's own order: texts that share most, or are of like length, go together.
            texts = sorted(set(describe_all(prompt, plan.points.space, plan.points)), key=embedding_order(encoder.form))
            for start in range(0, len(texts), STORED_AT_ONCE):
                part = texts[start : start + STORED_AT_ONCE]
                while self._undisturbed() and not self._encode(encoder, part):
                    pass
        except (InvalidInput, SurroundingsError) as error:
            # The request itself has been told, or will be.
            log.info("the search space is not embedded ahead: %s", error)
            return False
        except Exception:
            log.exception("the search space is not embedded ahead")
            return False
        if self._closed:
            return False
        log.info("the search space is embedded", extra={"configurations": len(texts)})
        return True

    def _undisturbed(self) -> bool:
        """Wait until no request is being answered; False when it is the end."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or not self._requests)
            return not self._closed

    def _encode(self, encoder: TextEncoder, texts: list[str]) -> bool:
        """One try; False when a request came. What was made until then is kept."""
        try:
            encoder.encode(texts, _WhileUndisturbed(lambda: self._closed or self._requests > 0))
        except EmbeddingIncomplete:
            return False
        return True
