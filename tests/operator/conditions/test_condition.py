"""Conditions: shape, times, and the table of their reasons."""

from __future__ import annotations

import re

import pytest

from culvert_operator.conditions.condition import Condition, bounded, is_true, merge
from culvert_operator.conditions.reasons import BY_NAME, EVENTS, REASONS, troubleshooting, warns

READY = Condition("Ready", "True", "Ready", "All is well.")


def test_the_transition_time_moves_only_when_the_status_does() -> None:
    first = merge({}, [READY], generation=1, now=1000)
    assert first[0]["lastTransitionTime"] == "1970-01-01T00:16:40Z"
    again = merge({"conditions": first}, [Condition("Ready", "True", "Other", "x")], generation=2, now=2000)
    assert again[0]["lastTransitionTime"] == first[0]["lastTransitionTime"]
    assert (again[0]["reason"], again[0]["observedGeneration"]) == ("Other", 2)
    flipped = merge({"conditions": again}, [Condition("Ready", "False", "Other", "x")], generation=2, now=3000)
    assert flipped[0]["lastTransitionTime"] == "1970-01-01T00:50:00Z"


def test_merging_what_is_there_changes_nothing() -> None:
    first = merge({}, [READY, Condition("Accepted", "Unknown", "Pending", "")], generation=1, now=1)
    both = [READY, Condition("Accepted", "Unknown", "Pending", "")]
    assert merge({"conditions": first}, both, generation=1, now=99) == first


def test_conditions_of_other_writers_are_kept() -> None:
    theirs = {"type": "example.com/Checked", "status": "True", "reason": "X", "message": ""}
    assert merge({"conditions": [theirs]}, [READY], generation=1, now=1)[1] == theirs


@pytest.mark.parametrize("status", [{}, {"conditions": None}, {"conditions": ["x", {}, {"status": "True"}]}])
def test_a_status_of_any_shape_can_be_merged_over(status: dict[str, object]) -> None:
    assert merge(status, [READY], generation=1, now=1)[0]["type"] == "Ready"


def test_messages_are_one_bounded_line() -> None:
    text = bounded("a\nb\x1b[31m\u202e" + "x" * 5000)
    assert len(text) == 1024
    assert text.isprintable()


def test_true_counts_for_its_generation_only() -> None:
    status = {"conditions": merge({}, [READY], generation=3, now=1)}
    assert is_true(status, "Ready", generation=3)
    assert not is_true(status, "Ready", generation=4)
    assert not is_true(status, "Accepted", generation=3)


def test_the_table_is_one_row_per_state_and_every_row_helps() -> None:
    assert len(BY_NAME) == len(REASONS)
    for row in REASONS:
        assert re.fullmatch("[A-Z][A-Za-z]+", row.reason)
        assert row.when.endswith(".")
        assert row.remedy.rstrip("`").endswith((".", "true"))
    page = troubleshooting()
    assert all(f"| {row.reason} |" in page for row in REASONS)
    assert all(event[1] in page for event in EVENTS)


def test_passing_states_do_not_warn() -> None:
    assert not any(row.warns for row in REASONS if row.reason in ("Pending", "Ready", "Accepted"))
    assert warns("TunnelBinding", "Accepted", "HostnameConflict")
    assert not warns("TunnelBinding", "Accepted", "Unheard")
