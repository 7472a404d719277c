"""Which numeric parameters belong on a logarithmic scale."""

from __future__ import annotations

import pytest

from rankwise.space.spacing import log_spaced


@pytest.mark.parametrize(
    ("distribution", "low", "numbers", "expected"),
    [
        ("uniform", 0.1, (), False),
        ("normal", 0.1, (), False),
        ("logUniform", 1e-5, (), True),
        ("logNormal", 1e-5, (), True),
        ("logUniform", 0.0, (), False),  # nothing to take the logarithm of
        ("logUniform", -1.0, (), False),
        ("logUniform", None, (), False),
        ("uniform", 8.0, (8.0, 16.0, 32.0, 64.0), True),
        ("uniform", 0.1, (0.1, 0.2, 0.3), False),
        ("uniform", 1.0, (1.0, 10.0), True),
        ("uniform", 1.0, (1.0, 9.0), False),
        ("uniform", 3.0, (3.0,), False),
    ],
)
def test_spacing(distribution: str, low: float | None, numbers: tuple[float, ...], expected: bool) -> None:
    assert log_spaced(distribution, low, numbers) is expected
