"""A service of suggestions for the engine's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.local_runs import FakeSuggestions, serving


@pytest.fixture
def service() -> FakeSuggestions:
    return FakeSuggestions()


@pytest.fixture
def endpoint(service: FakeSuggestions) -> Iterator[str]:
    with serving(service) as address:
        yield address
