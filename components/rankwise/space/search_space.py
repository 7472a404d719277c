"""The search space: all parameters together, and points of it in bulk."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankwise.errors import InvalidInput
from rankwise.space.parameter import Parameter, ParameterText
from rankwise.space.parsing import parse_parameters
from rankwise.space.scale import Array

ENUMERATION_LIMIT = 2**22
"""More points are not enumerated (4,194,304 points of 8 parameters take 512 MB)."""

_SLACK = 1e-9  # A position may leave [0, 1] by rounding, not by more.


def parse_space(parameters: Sequence[ParameterText], path: str = "spec.parameters") -> SearchSpace:
    """Make a search space from the parameters of an Experiment or a request.

    Args:
        parameters: the raw texts.
        path: where the list stands in the user's file, for the messages.

    Raises:
        InvalidInput: with every mistake in any parameter.
    """
    parsed, problems = parse_parameters(parameters, path)
    if problems:
        raise InvalidInput(problems)
    return SearchSpace(parsed)


class SearchSpace:
    """An immutable list of parameters. Equal and hashed by content.

    Args:
        parameters: at least one, with different names (see :func:`parse_space`).
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = tuple(parameters)
        self.names = tuple(parameter.name for parameter in self.parameters)
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"a space needs parameters with different names, got {list(self.names)}")
        self.dimension = len(self.names)
        sizes = [parameter.size for parameter in self.parameters]
        self.size: int | None = None if None in sizes else math.prod(size for size in sizes if size is not None)
        """Number of points; None where it is infinite."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self.parameters == other.parameters

    def __hash__(self) -> int:
        return hash(self.parameters)

    def __repr__(self) -> str:
        return f"SearchSpace({', '.join(self.names)}; size={self.size})"

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the parameters' canonical definitions; ``3e-4`` and ``0.0003`` as a bound give the same."""
        definitions = [json.loads(parameter.definition) for parameter in self.parameters]
        text = json.dumps(definitions, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    # -- single points -------------------------------------------------------------------------------------------

    def contains(self, assignments: Mapping[str, str]) -> bool:
        """Whether the names are exactly ours and every value is valid."""
        return len(assignments) == self.dimension and all(
            name in assignments and parameter.contains(assignments[name])
            for name, parameter in zip(self.names, self.parameters, strict=True)
        )

    def key(self, assignments: Mapping[str, str]) -> tuple[Hashable, ...]:
        """One identity for all spellings of the same point.

        Raises:
            ValueError: the point is not contained.
        """
        self._check_names(assignments)
        return tuple(
            parameter.canonical(assignments[name]) for name, parameter in zip(self.names, self.parameters, strict=True)
        )

    def _check_names(self, assignments: Mapping[str, str]) -> None:
        if assignments.keys() != set(self.names):
            raise ValueError(f"assignments must name {sorted(self.names)}, got {sorted(assignments)}")

    # -- the encoder ---------------------------------------------------------------------------------------------

    def encode(self, points: Sequence[Mapping[str, str]]) -> NDArray[np.float64]:
        """Positions of points in the unit cube.

        Returns:
            (n, D) in [0, 1].

        Raises:
            ValueError: a point is not contained.
        """
        units = np.empty((len(points), self.dimension))  # (n, D)
        for assignments in points:
            self._check_names(assignments)
        for j, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
            known: dict[str, float] = {}
            for i, assignments in enumerate(points):
                text = assignments[name]
                if text not in known:
                    known[text] = parameter.to_unit(text)
                units[i, j] = known[text]
        return units

    def decode(self, units: ArrayLike) -> list[dict[str, str]]:
        """The points at positions of the unit cube: each the value whose bin holds the position.

        Args:
            units: (n, D) in [0, 1].

        Raises:
            ValueError: another shape, or a position outside of [0, 1].
        """
        checked = self._positions(units)
        columns = [parameter.axis.texts(checked[:, j]) for j, parameter in enumerate(self.parameters)]
        return [dict(zip(self.names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _positions(self, units: ArrayLike) -> Array:
        array = np.asarray(units, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != self.dimension:
            raise ValueError(f"units must have shape (n, {self.dimension}), got {array.shape}")
        if not np.all((array >= -_SLACK) & (array <= 1 + _SLACK)):  # NaN fails both comparisons
            raise ValueError("units must lie in [0, 1]")
        return np.clip(array, 0.0, 1.0)

    # -- points in bulk ------------------------------------------------------------------------------------------

    def at(self, units: ArrayLike) -> Candidates:
        """The points at positions of the unit cube, snapped to their values.

        Raises:
            ValueError: as :meth:`decode`.
        """
        checked = self._positions(units)  # (n, D)
        snapped = np.empty_like(checked)
        indices = np.full(checked.shape, -1, dtype=np.int64)
        for j, parameter in enumerate(self.parameters):
            if (table := parameter.table) is not None:
                indices[:, j] = table.indices(checked[:, j])
                snapped[:, j] = table.centres[indices[:, j]]
            else:
                snapped[:, j] = parameter.axis.snap(checked[:, j])
        return Candidates(self, snapped, indices)

    def enumerate(self) -> Candidates:
        """Every point of a finite space, the last parameter changing fastest.

        Raises:
            ValueError: the space is infinite or has more than :data:`ENUMERATION_LIMIT` points.
        """
        if self.size is None or self.size > ENUMERATION_LIMIT:
            raise ValueError(f"a space of size {self.size} cannot be enumerated; at most {ENUMERATION_LIMIT} points")
        return self._from_flat(np.arange(self.size))

    def _from_flat(self, flat: NDArray[np.int64]) -> Candidates:
        """Points by their number in :meth:`enumerate`'s order."""
        tables = [parameter.table for parameter in self.parameters]
        finite = [table for table in tables if table is not None]
        shape = tuple(len(table.values) for table in finite)
        indices = np.stack(np.unravel_index(flat, shape), axis=1).astype(np.int64)  # (n, D)
        units = np.stack([table.centres[indices[:, j]] for j, table in enumerate(finite)], axis=1)
        return Candidates(self, units, indices)

    def sobol(self, n: int, seed: int, skip: int = 0) -> Candidates:
        """Points ``skip`` … ``skip + n − 1`` of a scrambled Sobol sequence, snapped; some may be equal.

        The sequence is a function of the space's dimension and the seed alone: longer ones begin with shorter ones.

        Raises:
            ValueError: ``n`` or ``skip`` is negative.
        """
        if n < 0 or skip < 0:
            raise ValueError(f"n and skip must be at least 0, got {n} and {skip}")
        # Imported here: scipy.stats takes a second that the command line need not wait for.
        from scipy.stats import qmc

        sequence = qmc.Sobol(self.dimension, scramble=True, rng=np.random.default_rng(seed))
        # Whole powers of two are drawn, since scipy warns of every other first draw, and cut.
        drawn = sequence.random_base2(math.ceil(math.log2(max(skip + n, 1))))
        return self.at(drawn[skip : skip + n])

    def candidates(self, limit: int, seed: int) -> Candidates:
        """At most ``limit`` different points that cover the space.

        All of a space that is not larger; otherwise the first different points of a Sobol sequence. A finite space
        always yields exactly ``min(limit, size)``; an infinite one fewer only when its values hardly differ.

        Raises:
            ValueError: ``limit`` is less than 1.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        if self.size is not None and self.size <= min(limit, ENUMERATION_LIMIT):
            return self.enumerate()
        if self.size is not None and self.size <= min(4 * limit, ENUMERATION_LIMIT):
            # A sequence would have to be drawn many times over to meet most points of so small a space.
            flat = np.random.default_rng(seed).permutation(self.size)[:limit]
            return self._from_flat(np.sort(flat))
        for factor in (1, 2, 4, 8):
            points = self.sobol(factor * limit, seed)
            first = points.first_occurrences()
            if len(first) >= limit:
                break
        points = points.take(first[:limit])
        if self.size is None or len(points) == limit:
            return points
        # Under a narrow distribution a sequence meets the same few points again and again.
        return self._filled(points, limit, seed)

    def _filled(self, points: Candidates, limit: int, seed: int) -> Candidates:
        """Different points of a finite space, and random further ones until there are ``limit``."""
        tables = [table for parameter in self.parameters if (table := parameter.table) is not None]
        sizes = [len(table.values) for table in tables]
        generator = np.random.default_rng(seed)
        while len(points) < limit:
            drawn = generator.integers(0, sizes, size=(limit, len(sizes)))  # (limit, D)
            rows = np.concatenate([points.indices, drawn])
            units = np.stack([table.centres[rows[:, j]] for j, table in enumerate(tables)], axis=1)
            points = Candidates(self, units, rows)
            points = points.take(points.first_occurrences()[:limit])
        return points


class Candidates:
    """Many points of a space; texts are made when they are asked for.

    Attributes:
        space: the space.
        units: positions, those of the values themselves.  # (N, D)
        indices: number of the value in ``parameters[j].values``; −1 for parameters without a table.  # (N, D)
    """

    def __init__(self, space: SearchSpace, units: NDArray[np.float64], indices: NDArray[np.int64]) -> None:
        self.space = space
        self.units = units
        self.indices = indices
        units.flags.writeable = False
        indices.flags.writeable = False

    def __len__(self) -> int:
        return len(self.units)

    def __iter__(self) -> Iterator[dict[str, str]]:
        columns = [self.column(j) for j in range(self.space.dimension)]
        return (dict(zip(self.space.names, row, strict=True)) for row in zip(*columns, strict=True))

    def assignments(self, i: int) -> dict[str, str]:
        """Parameter name -> text of point ``i``.

        Raises:
            IndexError: there is no point ``i``.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"point {i} of {len(self)}")
        return next(iter(self.take([i])))

    def column(self, j: int) -> list[str]:
        """Texts of parameter ``j`` at all points."""
        parameter = self.space.parameters[j]
        if (table := parameter.table) is not None:
            return [table.values[k] for k in self.indices[:, j].tolist()]
        return parameter.axis.texts(self.units[:, j])

    @cached_property
    def keys(self) -> list[tuple[Hashable, ...]]:
        """:meth:`SearchSpace.key` of every point."""
        columns: list[list[Hashable]] = []
        for j, parameter in enumerate(self.space.parameters):
            if (table := parameter.table) is not None:
                columns.append([table.identity[k] for k in self.indices[:, j].tolist()])
            else:
                columns.append(parameter.axis.identities(self.units[:, j]))
        return list(zip(*columns, strict=True))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Candidates:
        """The points at the given places, in the given order."""
        rows = np.asarray(indices, dtype=np.int64)
        return Candidates(self.space, self.units[rows], self.indices[rows])

    def first_occurrences(self) -> list[int]:
        """Places of the points that do not equal an earlier one."""
        first: dict[tuple[Hashable, ...], int] = {}
        for i, key in enumerate(self.keys):
            first.setdefault(key, i)
        return list(first.values())

    def without(self, keys: Collection[tuple[Hashable, ...]]) -> Candidates:
        """The points whose key is not among ``keys``."""
        excluded = frozenset(keys)
        return self.take([i for i, key in enumerate(self.keys) if key not in excluded])
