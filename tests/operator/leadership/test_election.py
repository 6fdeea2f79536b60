"""The election's decisions: from what a candidate saw to what it does, with no clock but its own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_operator.leadership.election import MAX_DURATION, Move, Sighting, Terms, decide, lease, read, released

TERMS = Terms()
WHERE: dict[str, Any] = {"name": "lease", "namespace": "ns"}


def held(by: str, *, wall: float = 1000.0, version: str = "1") -> Any:
    made = lease(None, **WHERE, identity=by, terms=TERMS, wall=wall)
    return {**made, "metadata": {**made["metadata"], "uid": "u", "resourceVersion": version}}


def test_a_missing_lease_is_made_and_ones_own_is_renewed() -> None:
    assert decide(Sighting(None, 5.0), identity="a", now=5.0)[0] is Move.CREATE
    assert decide(Sighting(read(held("a")), 5.0), identity="a", now=500.0)[0] is Move.RENEW


def test_anothers_lease_is_taken_only_after_it_was_seen_unchanged_for_its_whole_duration() -> None:
    seen = Sighting(None, 0.0).again(read(held("b")), 100.0)
    assert decide(seen, identity="a", now=100.0) == (Move.WAIT, 15.0)
    assert decide(seen, identity="a", now=114.9)[0] is Move.WAIT
    assert decide(seen, identity="a", now=115.0)[0] is Move.TAKE
    # A renewal starts the wait anew; the same Lease seen again does not.
    assert seen.again(read(held("b")), 110.0) is seen
    renewed = seen.again(read(held("b", version="2")), 110.0)
    assert decide(renewed, identity="a", now=115.0) == (Move.WAIT, 10.0)


@given(skew=st.floats(-1e8, 1e8))
def test_the_clocks_of_others_do_not_matter(skew: float) -> None:
    seen = Sighting(read(held("b", wall=1e9 + skew)), 100.0)
    assert decide(seen, identity="a", now=114.0) == (Move.WAIT, 1.0)


def test_a_released_lease_is_taken_at_once_and_counts_as_a_transition() -> None:
    given_back = released(read(held("b")), **WHERE, wall=1001.0)  # type: ignore[arg-type]
    record = read(given_back)
    assert record is not None
    assert decide(Sighting(record, 100.0), identity="a", now=100.0)[0] is Move.TAKE
    taken = lease(record, **WHERE, identity="a", terms=TERMS, wall=1002.0)
    assert taken["spec"]["leaseTransitions"] == 1
    assert taken["metadata"]["resourceVersion"] == "1"


def test_a_renewal_keeps_since_when_it_is_held_and_names_what_it_replaces() -> None:
    before = read(held("a", wall=1000.0, version="7"))
    renewed = lease(before, **WHERE, identity="a", terms=TERMS, wall=1005.0)
    assert renewed["spec"]["acquireTime"] == "1970-01-01T00:16:40.000000Z"
    assert renewed["spec"]["renewTime"] == "1970-01-01T00:16:45.000000Z"
    assert renewed["spec"]["leaseTransitions"] == 0
    assert (renewed["metadata"]["uid"], renewed["metadata"]["resourceVersion"]) == ("u", "7")


@pytest.mark.parametrize("duration", [10**9, -5, None, "15", True])
def test_a_lease_that_somebody_edited_keeps_nobody_out_for_ever(duration: Any) -> None:
    raw = held("b")
    raw["spec"]["leaseDurationSeconds"] = duration
    seen = Sighting(read(raw), 0.0)
    assert decide(seen, identity="a", now=float(MAX_DURATION))[0] is Move.TAKE


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (Terms(lease=10, renew=10), "shorter than the lease duration"),
        (Terms(retry=10), "shorter than the renew deadline"),
        (Terms(retry=0), "retry period"),
        (Terms(lease=15.5), "whole number"),
        (Terms(lease=4000, renew=10), "whole number"),
    ],
)
def test_terms_under_which_two_could_write_are_refused(terms: Terms, said: str) -> None:
    assert said in (terms.problem() or "")
    assert TERMS.problem() is None
