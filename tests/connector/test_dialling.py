"""When and where to dial: the pure decisions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_connector.dialling.addresses import (
    Address,
    Record,
    RelayName,
    behind,
    choose,
    crowded,
    good,
    heaviest,
    merge,
    next_good,
    parse,
    rested_at,
    uncovered,
    wanted,
)
from culvert_connector.dialling.backoff import Failures, delay, grace
from culvert_connector.dialling.pacing import wait_before_dial
from culvert_connector.dialling.spreading import Spread

ONE, TWO = RelayName("one.test", 443), RelayName("two.test", 443)
A, B, C = Address("10.0.0.1", 443, ONE), Address("10.0.0.2", 443, ONE), Address("10.0.0.3", 443, TWO)


def test_the_schedule_of_retries():
    longest = [delay(failures, 1.0) for failures in range(9)]
    assert longest == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0]
    assert delay(10_000, 1.0) == 4.0
    assert [delay(failures, 0.0) for failures in range(9)] == [0.0] * 9


@given(st.integers(0, 1000), st.floats(0, 1, exclude_max=True))
def test_no_retry_waits_longer_than_four_seconds(failures, random):
    assert 0 <= delay(failures, random) <= 4.0


def test_only_a_session_that_outlived_its_grace_starts_a_new_row_of_failures():
    needed = grace(0.5)
    assert 5 <= grace(0.0) < grace(0.99) <= 15
    failures = Failures()
    for count in range(1, 5):
        failures = failures.after(lived=needed - 0.1, needed=needed)
        assert failures.count == count
    assert failures.after(lived=None, needed=0.0).count == 5
    assert failures.after(lived=needed, needed=needed).count == 1


def test_the_first_dial_goes_alone_then_the_rest_follow_one_by_one():
    def wait(now, **state):
        return wait_before_dial(now=now, **{"last_start": None, "under_way": (), "connected": 0, **state})

    assert wait(10.0) == 0
    assert wait(10.2, last_start=10.0, under_way=[10.0]) == pytest.approx(0.8)
    assert wait(11.0, last_start=10.0, under_way=[10.0]) == 0
    assert wait(10.02, last_start=10.0, under_way=[10.0], connected=1) == pytest.approx(0.03)
    assert wait(10.2, last_start=10.0, under_way=[10.0], connected=1) == 0
    assert wait(10.06, last_start=10.0, under_way=()) == 0
    assert 0 < wait_before_dial(now=0.0, last_start=0.0, under_way=(), connected=4) <= 0.1


def test_sessions_go_where_there_are_fewest():
    used = []
    for _ in range(6):
        address = choose([A, B, C], in_use=used, records={}, now=0.0)
        used.append(address)
    assert sorted(map(str, used)) == sorted(map(str, [A, A, B, B, C, C]))
    assert used[:3] == [A, B, C]


def test_an_address_that_failed_comes_last_and_one_that_rests_not_at_all():
    records = {A: Record(failed_at=9.5, failures=1), B: Record(resting_until=20.0)}
    assert choose([A, B, C], in_use=[C, C, C], records=records, now=10.0) == C
    assert choose([A, B], in_use=[], records=records, now=10.0) == A
    assert choose([B], in_use=[], records=records, now=10.0) is None
    assert choose([B], in_use=[], records=records, now=20.0) == B
    assert rested_at([A, B], records) == 0.0
    assert rested_at([B], records) == 20.0
    assert rested_at([], records) is None
    both = {A: Record(failed_at=9.9, failures=1), C: Record(failed_at=9.8, failures=1)}
    assert choose([A, C], in_use=[], records=both, now=10) == C


def test_an_address_that_failed_once_is_soon_like_any_other_and_one_that_keeps_failing_later_and_later():
    record = Record().failed(10.0)
    assert good([A, C], {A: record}, now=10.5) == [C]
    assert next_good([A, C], {A: record}, now=10.5) == 11.0
    assert choose([A, C], in_use=[C], records={A: record}, now=10.5) == C
    assert good([A, C], {A: record}, now=11.0) == [A, C]
    assert next_good([A, C], {A: record}, now=11.0) is None
    assert choose([A, C], in_use=[C], records={A: record}, now=11.0) == A  # it has no session
    # Every slot that meets the same outage counts as one failure.
    assert record.failed(10.1) == record.failed(10.9) == record
    lasts = []
    for _ in range(8):
        lasts.append(record.avoided_until - record.failed_at)
        record = record.failed(record.avoided_until)
    assert lasts == [1, 2, 4, 8, 16, 30, 30, 30]
    assert record.rests(500.0).avoided_until == record.avoided_until


@given(
    st.lists(st.sampled_from([A, B, C]), max_size=12),
    st.dictionaries(
        st.sampled_from([A, B, C]),
        st.builds(Record, st.floats(0, 100), st.floats(0, 100), st.integers(0, 9)),
        max_size=3,
    ),
    st.floats(0, 100),
)
def test_a_choice_is_never_one_that_rests(in_use, records, now):
    chosen = choose([A, B, C], in_use=in_use, records=records, now=now)
    resting = {one for one, record in records.items() if record.resting_until > now}
    assert chosen not in resting
    assert (chosen is None) == (len(resting) == 3)


def test_names_are_mixed_and_addresses_counted_once():
    found = merge([ONE, TWO], {ONE: ["10.0.0.1", "10.0.0.2"], TWO: ["10.0.0.3", "10.0.0.1"]})
    assert [one.ip for one in found] == ["10.0.0.1", "10.0.0.3", "10.0.0.2"]
    assert merge([ONE, TWO], {ONE: ["10.0.0.1"]}) == (A,)


def test_how_many_sessions_are_wanted():
    assert wanted(4, addresses=2, relay_ids=1) == 4
    assert wanted(4, addresses=6, relay_ids=1) == 6
    assert wanted(2, addresses=1, relay_ids=3) == 3
    assert wanted(1, addresses=100_000, relay_ids=0) == 64


def test_who_moves_when_an_address_or_a_relay_has_no_session():
    held = {0: (A, "r1"), 1: (A, "r1"), 2: (B, "r2")}
    assert uncovered(held, addresses=[A, B], relay_ids=["r1", "r2"]) == frozenset()
    assert uncovered(held, addresses=[A, B, C], relay_ids=["r1", "r3"]) == {"10.0.0.3:443", "r3"}
    assert crowded(held, addresses=[A, B, C]) == 1
    # Nobody can be spared.
    assert crowded({0: (A, "r1"), 1: (B, "r2")}, addresses=[A, B, C]) is None
    # An address that is gone from DNS is left first.
    assert crowded({0: (A, "r1"), 1: (A, "r1"), 2: (B, "r1")}, addresses=[A, C]) == 2


def test_the_newest_session_of_the_fullest_address_moves_to_one_that_is_behind():
    held = {0: (A, "r1"), 1: (B, "r2"), 2: (A, "r1"), 3: (A, "r1")}
    assert behind(held, addresses=[A, B]) == {"10.0.0.2:443"}
    assert heaviest(held, addresses=[A, B]) == 3
    for alike in ({0: (A, "r1"), 1: (B, "r2")}, {0: (A, "r1"), 1: (B, "r2"), 2: (A, "r1")}, {}):
        assert not behind(alike, addresses=[A, B])
        assert heaviest(alike, addresses=[A, B]) is None
    # Three workers behind one address, each with its only session: none of them can go.
    each_alone = {0: (A, "w1"), 1: (A, "w2"), 2: (A, "w3"), 3: (B, "r2")}
    assert behind(each_alone, addresses=[A, B]) == {"10.0.0.2:443"}
    assert heaviest(each_alone, addresses=[A, B]) is None


def test_sessions_move_until_the_addresses_have_as_many_and_then_rest():
    spread, held, moves = Spread(), dict.fromkeys(range(4), (A, "r1")), []
    for now in range(100):
        moving = spread.moving(held, addresses=[A, B], relay_ids=[], now=float(now), every=15.0)
        if moving is not None:
            moves.append(now)
            del held[moving]
            held[10 + now] = (B, "r2")
    assert moves == [0, 1]
    assert sorted(relay for _, relay in held.values()) == ["r1", "r1", "r2", "r2"]


def test_moves_that_do_not_help_become_rare():
    spread, held = Spread(), {0: (A, "r1"), 1: (A, "r1"), 2: (A, "r1"), 3: (B, "r2")}
    asked = [spread.moving(held, addresses=[A, B], relay_ids=[], now=float(now), every=15.0) for now in range(120)]
    assert [now for now, moving in enumerate(asked) if moving is not None] == [0, 15, 45, 105]


def test_relay_addresses_as_people_write_them():
    assert parse("relay.example.com:7443") == RelayName("relay.example.com", 7443)
    assert parse("[2001:db8::1]:443") == RelayName("2001:db8::1", 443)
    assert str(parse("[2001:db8::1]:443")) == "[2001:db8::1]:443"
    with pytest.raises(ValueError, match="port"):
        parse("relay.example.com")
