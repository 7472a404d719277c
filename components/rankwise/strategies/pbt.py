"""``rankwise-pbt``: population-based training, asynchronous and without a state of its own.

Jaderberg et al. 2017 ("Population Based Training of Neural Networks", arXiv 1711.09846). A population of P members is
trained; a trial is one *generation* of one member: a training of fixed length that begins with the weights of a
*parent*, an ended trial. What a member does when its last trial has ended (algorithm 1 of the paper):

- *exploit* (truncation selection, section 4.1.1): if the member is among the worst part of the population and one of
  the best part is strictly better, it takes over weights and configuration of a member drawn from the best part;
- *explore*: a configuration that was taken over is perturbed (:mod:`rankwise.strategies.perturbation`);
- otherwise it goes on with its own weights and its configuration as it is.

There is no barrier: a member goes on as soon as its own last trial has ended, those with the fewest generations first.
It is compared with what the others had reached after as many generations, as far as that is known; so nobody wins by
having trained longer, and what is inherited has been trained for as long as what it replaces.

A member is *lost* when its last trial ended without a value (failed, killed, diverged, no metric). It takes over one of
the best, perturbed; as long as nobody has a value it begins anew. So a lost member costs its training, and never stalls
the search. Where more trials run at once than the population has members, further members are begun.

Which member and generation a trial is does not follow from the trial. Each suggestion carries a note,
``MEMBER.GENERATION``, which the caller keeps and shows again (:attr:`SuggestRequest.notes`); the parent's name is a
label of the suggestion (:mod:`rankwise.strategies.lineage`), which the training reads. A trial without a note
(suggested by a fallback, or the notes were lost) belongs to nobody, and may be taken over like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rankwise.errors import InvalidInput, Problem
from rankwise.space import Goal, Objective, SearchSpace, Trial, TrialState
from rankwise.strategies.base import RANDOM_STATE, SETTINGS_PATH, Suggestions, SuggestRequest, mistakes, seed_of
from rankwise.strategies.design import PlausibleSequence
from rankwise.strategies.knowledge import rules_of
from rankwise.strategies.lineage import ALGORITHM, GENERATION_LABEL, MEMBER_LABEL, PARENT_LABEL, Lineage
from rankwise.strategies.options import Option, OptionTable, ParsedOptions
from rankwise.strategies.perturbation import Perturbation, read_names
from rankwise.strategies.sequence import (
    Key,
    PointSequence,
    RandomSequence,
    SobolSequence,
    continue_sequence,
    repeat_least_tried,
)
from rankwise.surrogate.observations import read_trials

PERTURBED = "perturbed"
_DRAWS = 16
"""How often a perturbed configuration is drawn again that was tried already: two trainings with one parent and one
configuration would be the same training."""
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)

OPTIONS = OptionTable(
    [
        Option(
            "population",
            int,
            8,
            "number of members: maxTrialCount / population is the number of generations, and a training of full length "
            "takes as many times the steps of one trial",
            2,
            256,
        ),
        Option(
            "truncation",
            float,
            0.2,
            "part of the population that is replaced by members of an equally large best part; at least one member",
            0.01,
            0.5,
        ),
        Option("factor_down", float, 0.8, "a perturbed value is multiplied with this factor or the other", 0.01, 1.0),
        Option("factor_up", float, 1.2, "the other factor", 1.0, 100.0),
        Option(
            "resample_probability",
            float,
            0.25,
            "probability that a value is drawn from the parameter's distribution in place of being multiplied",
            0.0,
            1.0,
        ),
        Option(
            PERTURBED,
            str,
            "",
            "parameters that change when a member is replaced, separated by commas; by default all numbers but rank, "
            "alpha, batch size, seed and the length of a training, which go with the weights",
        ),
        Option(
            "initial_design",
            str,
            "plausible",
            "where the members begin: `plausible` (spread where the literature expects the best), `sobol` or `random`",
            choices=("plausible", "sobol", "random"),
        ),
        Option(
            "model_width",
            int,
            None,
            "hidden size of the model that the trials train, for the plausible design: the smaller the model, the "
            "larger its best learning rates; by default about 2,000",
            1,
            1_000_000,
        ),
        RANDOM_STATE,
    ]
)


@dataclass(frozen=True, slots=True)
class _Ended:
    """A trial that a member may go on from; ``value``: smaller is better."""

    value: float
    key: Key
    name: str
    point: Mapping[str, str]
    generation: int

    @property
    def order(self) -> tuple[float, str, str]:
        """The better one first; of equals one that does not depend on names, as long as the content differs."""
        return self.value, repr(self.key), self.name


@dataclass(slots=True)
class _Member:
    """A member: its newest generation, whether that one's trial still runs, and its trials with a value."""

    generation: int = -1
    running: bool = False
    ended: list[_Ended] = field(default_factory=list)

    def reached(self, generation: int) -> _Ended | None:
        """Its newest trial with a value up to a generation."""
        known = [one for one in self.ended if one.generation <= generation]
        return max(known, key=lambda one: (one.generation, -one.value, repr(one.key))) if known else None


@dataclass(frozen=True, slots=True)
class _Step:
    """What one suggestion does: ``parent`` None begins anew, ``explores`` perturbs what is taken over."""

    lineage: Lineage
    parent: _Ended | None = None
    explores: bool = False
    lost: bool = False


class Population:
    """The members, as trials and notes tell.

    Args:
        space: search space; trials that it does not contain are left out.
        objective: says which values are better.
        trials: in any order.
        notes: trial's name -> note.
        size: number of members.
        truncation: part that is replaced.
    """

    def __init__(
        self,
        space: SearchSpace,
        objective: Objective,
        trials: Sequence[Trial],
        notes: Mapping[str, str],
        size: int,
        truncation: float,
    ) -> None:
        self._size, self._truncation = size, truncation
        self._members: dict[int, _Member] = {}
        self._strays: list[_Ended] = []
        sign = 1.0 if objective.goal is Goal.MINIMIZE else -1.0
        lineages = {name: lineage for name, note in notes.items() if (lineage := Lineage.read(note)) is not None}
        for lineage in lineages.values():
            member = self._members.setdefault(lineage.member, _Member())
            member.generation = max(member.generation, lineage.generation)
        for trial in trials:
            if not space.contains(trial.assignments):
                continue
            own = lineages.get(trial.name)
            if own is not None and trial.state is TrialState.PENDING:
                member = self._members[own.member]
                member.running = member.running or own.generation == member.generation
            # A name that is no label's value cannot reach a training.
            if trial.value is None or _LABEL_VALUE.fullmatch(trial.name) is None:
                continue
            key, generation = space.key(trial.assignments), 0 if own is None else own.generation
            ended = _Ended(sign * trial.value, key, trial.name, dict(trial.assignments), generation)
            (self._strays if own is None else self._members[own.member].ended).append(ended)

    def next(self, index: int, generator: np.random.Generator) -> _Step:
        """What suggestion ``index`` of the search does; its member counts as running from then on.

        Args:
            index: how many suggestions were handed out before it.
            generator: draws whom a replaced member takes over.
        """
        begins = index if index < self._size and index not in self._members else None
        numbers = {*range(self._size), *self._members}
        waiting = [(self._generation(n, index), n) for n in numbers if not self._is_running(n)]
        if begins is None and not waiting:
            begins = max(numbers) + 1  # more trials at once than members
        if begins is not None:
            step = _Step(Lineage(begins, 0))
        else:
            generation, number = min(waiting)
            step = self._go_on(number, generation, generator)
        member = self._members.setdefault(step.lineage.member, _Member())
        member.generation, member.running = step.lineage.generation, True
        return step

    def _is_running(self, number: int) -> bool:
        return number in self._members and self._members[number].running

    def _generation(self, number: int, index: int) -> int:
        """A member's newest generation; of one that nobody knows of (a fallback's suggestion took its place, or its
        notes were lost) what it would have had by now."""
        return self._members[number].generation if number in self._members else index // self._size - 1

    def _go_on(self, number: int, generation: int, generator: np.random.Generator) -> _Step:
        """The next generation of a member whose newest trial, that of ``generation``, has ended."""
        lineage = Lineage(number, generation + 1)
        standing = sorted(self._standing(generation), key=lambda one: one.order)
        part = max(1, round(self._truncation * len(standing)))
        own = self._members[number].reached(generation) if number in self._members else None
        if own is None or own.generation < generation:
            best = standing[:part]
            parent = best[generator.integers(len(best))] if best else None
            return _Step(lineage, parent, explores=True, lost=True)
        part = min(part, len(standing) // 2)
        better = [one for one in standing[:part] if one.value < own.value]
        if better and own in standing[len(standing) - part :]:
            return _Step(lineage, better[generator.integers(len(better))], explores=True)
        return _Step(lineage, own)

    def _standing(self, generation: int) -> Iterator[_Ended]:
        """What everybody had reached after so many generations."""
        yield from self._strays
        for member in self._members.values():
            reached = member.reached(generation)
            if reached is not None:
                yield reached


class PopulationBasedTraining:
    """Population-based training (see the module's text). ``request.pool`` is ignored: a value depends on the weights
    that a training began with, so no table of configurations can stand for it."""

    name = ALGORITHM
    options = OPTIONS

    def validate(self, space: SearchSpace, objective: Objective, settings: Mapping[str, str]) -> list[Problem]:  # noqa: ARG002
        """See :class:`rankwise.strategies.base.Strategy`."""
        problems = mistakes(self.options, settings)
        try:
            names = read_names(settings.get(PERTURBED, ""), space, f"{SETTINGS_PATH}.{PERTURBED}")
        except InvalidInput as error:
            return problems + list(error.problems)
        if not names:
            allowed = (
                "at least one number that may change in the middle of a training, such as learning_rate or dropout"
            )
            problems.append(Problem("spec.parameters", ", ".join(space.names), allowed))
        return problems

    def suggest(self, request: SuggestRequest) -> Suggestions:
        """See :class:`rankwise.strategies.base.Strategy`.

        Raises:
            InvalidInput: the settings are wrong.
        """
        options = self.options.parse(request.settings)
        explore = Perturbation(
            read_names(options.text(PERTURBED), request.space, f"{SETTINGS_PATH}.{PERTURBED}"),
            options.number("factor_down"),
            options.number("factor_up"),
            options.number("resample_probability"),
        )
        population = Population(
            request.space,
            request.objective,
            request.trials,
            request.notes,
            options.integer("population"),
            options.number("truncation"),
        )
        observations = read_trials(request.space, request.objective, request.trials)
        batch = _Batch(request.space, _design(request, options), dict(observations.tried))
        steps = []
        for index in range(request.issued, request.issued + request.count):
            # A generator for each suggestion: a batch is what the same requests one by one would give.
            generator = np.random.default_rng(seed_of(request, options, f"suggestion {index}"))
            step = population.next(index, generator)
            steps.append(step)
            if step.parent is None:
                batch.begin(index)
            elif step.explores:
                batch.explore(step.parent.point, explore, generator)
            else:
                batch.add(step.parent.point)
        return Suggestions(
            tuple(batch.points),
            repeated=batch.repeated,
            details={
                "ignored": float(observations.ignored),
                "exploited": float(sum(step.explores and step.parent is not None for step in steps)),
                "lost": float(sum(step.lost for step in steps)),
            },
            labels=tuple(_labels(step) for step in steps),
            notes=tuple(step.lineage.note for step in steps),
        )


class _Batch:
    """The configurations of one answer.

    Args:
        space: the space.
        design: where members begin.
        tried: how often each configuration was tried.
    """

    def __init__(self, space: SearchSpace, design: PointSequence, tried: dict[Key, int]) -> None:
        self._space, self._design, self._tried = space, design, tried
        self.points: list[dict[str, str]] = []
        self.repeated = 0

    def add(self, point: Mapping[str, str]) -> None:
        key = self._space.key(point)
        self.repeated += key in self._tried
        self._tried[key] = self._tried.get(key, 0) + 1
        self.points.append(dict(point))

    def begin(self, index: int) -> None:
        """The next untried configuration of the design; the least tried one where there is none."""
        fresh = continue_sequence(self._design, index, 1, self._tried)
        if fresh:
            self.add(fresh[0][1])
        else:
            self.add(repeat_least_tried(self._design.first(len(self._tried)), self._tried, 1)[0])

    def explore(self, point: Mapping[str, str], change: Perturbation, generator: np.random.Generator) -> None:
        """A perturbed configuration, one that was not tried before if it can be had."""
        for _ in range(_DRAWS):
            changed = change(self._space, point, generator)
            if self._space.key(changed) not in self._tried:
                break
        self.add(changed)


def _design(request: SuggestRequest, options: ParsedOptions) -> PointSequence:
    seed = seed_of(request, options, "initial design")
    design = options.text("initial_design")
    if design == "random":
        return RandomSequence(request.space, seed)
    if design == "sobol":
        return SobolSequence(request.space, seed)
    width = None if options["model_width"] is None else options.integer("model_width")
    return PlausibleSequence(request.space, seed, rules_of("literature", (), width))


def _labels(step: _Step) -> dict[str, str]:
    labels = {MEMBER_LABEL: str(step.lineage.member), GENERATION_LABEL: str(step.lineage.generation)}
    if step.parent is not None:
        labels[PARENT_LABEL] = step.parent.name
    return labels
