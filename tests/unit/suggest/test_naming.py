"""Names of trials: valid in Kubernetes, unique, the same at a repeated request, and telling namespaces apart."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.suggest import naming

DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")


@given(st.text(max_size=80), st.text(max_size=20), st.integers(0, 10**6), st.dictionaries(st.text(), st.text()))
def test_a_name_is_a_dns_label_of_at_most_63_characters(
    experiment: str, scope: str, index: int, assignments: dict[str, str]
) -> None:
    name = naming.trial_name(experiment, scope, index, assignments)
    assert DNS_1123.fullmatch(name)
    assert len(name) <= 63
    assert not naming.is_of_other_scope(name, experiment, scope)
    assert naming.is_of_this_scope(name, experiment, scope)
    assert not naming.is_of_this_scope(f"{name}x", experiment, scope)


def test_a_name_is_a_function_of_its_arguments() -> None:
    # Pinned: trials of a search that is running keep their names over an update of the service.
    assert naming.trial_name("quickstart", "team-a", 3, {"rank": "8"}) == "quickstart-" + PINNED
    assert naming.trial_name("e", "s", 0, {"a": "1", "b": "2"}) == naming.trial_name("e", "s", 0, {"b": "2", "a": "1"})


PINNED = "e204370ce8b4"


@pytest.mark.parametrize(
    ("experiment", "scope", "index", "assignments"),
    [
        ("other", "team-a", 3, {"rank": "8"}),
        ("quickstart", "team-b", 3, {"rank": "8"}),
        ("quickstart", "team-a", 4, {"rank": "8"}),
        ("quickstart", "team-a", 3, {"rank": "16"}),
        ("quickstart", "team-a", 3, {"alpha": "8"}),
    ],
)
def test_another_argument_another_name(experiment: str, scope: str, index: int, assignments: dict[str, str]) -> None:
    assert naming.trial_name("quickstart", "team-a", 3, {"rank": "8"}) != naming.trial_name(
        experiment, scope, index, assignments
    )


def test_a_name_that_is_taken_is_not_given_again() -> None:
    first = naming.trial_name("e", "s", 0, {})
    second = naming.trial_name("e", "s", 0, {}, taken={first})
    third = naming.trial_name("e", "s", 0, {}, taken={first, second})
    assert len({first, second, third}) == 3
    assert not naming.is_of_other_scope(third, "e", "s")


def test_long_names_that_begin_alike_stay_apart() -> None:
    long = "x" * 70
    assert naming.trial_name(long + "a", "s", 0, {}) != naming.trial_name(long + "b", "s", 0, {})


def test_names_of_another_namespace_are_known() -> None:
    theirs = naming.trial_name("quickstart", "team-b", 0, {"rank": "8"})
    assert naming.is_of_other_scope(theirs, "quickstart", "team-a")


@pytest.mark.parametrize("name", ["quickstart-k8x2m9qa", "mine", "", "quickstart-", "other-0123456789ab"])
def test_names_that_we_did_not_make_are_not_called_foreign(name: str) -> None:
    assert not naming.is_of_other_scope(name, "quickstart", "team-a")


@pytest.mark.parametrize("fallback", [None, "deadline", "error", "strategy"])
def test_labels_are_valid_in_kubernetes(fallback: str | None) -> None:
    labels = naming.labels(17, fallback)
    assert labels["rankwise.dev/suggestion"] == "17"
    assert labels.get("rankwise.dev/fallback") == fallback
    for key, value in labels.items():
        prefix, name = key.split("/")
        assert all(DNS_1123.fullmatch(part) for part in prefix.split("."))
        assert LABEL_VALUE.fullmatch(name)
        assert LABEL_VALUE.fullmatch(value)
        assert len(name) <= 63
        assert len(value) <= 63
