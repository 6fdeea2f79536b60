"""Tunnels are told apart up to a bound, whatever comes and goes."""

from hypothesis import given
from hypothesis import strategies as st

from culvert_protocol.statements import TunnelId, TunnelIdentity
from culvert_relay.tallies import Tallies, Tally
from culvert_transport.instruments import OTHER


def tunnel(number: int) -> TunnelIdentity:
    return TunnelIdentity("demo", TunnelId(f"tunnel-{number}"))


def enter(tallies: Tallies, number: int) -> Tally:
    return tallies.enter(tunnel(number), issuer="main")


def test_a_tunnels_sessions_share_its_numbers() -> None:
    tallies = Tallies()
    first = enter(tallies, 1)
    assert enter(tallies, 1) is first
    assert enter(tallies, 2) is not first
    assert tallies.of(tunnel(1)) is first
    assert first.labels == ("main", "tunnel-1")


def test_beyond_the_bound_tunnels_are_counted_together_until_one_leaves() -> None:
    tallies = Tallies(limit=2)
    first, second = enter(tallies, 1), enter(tallies, 2)
    crowd = enter(tallies, 3)
    assert crowd is tallies.other
    assert crowd.labels == (OTHER, OTHER)
    assert tallies.of(tunnel(3)) is tallies.other
    tallies.leave(first)
    third = enter(tallies, 3)
    assert third.labels == ("main", "tunnel-3")
    assert tallies.of(tunnel(1)) is tallies.other
    assert tallies.of(tunnel(2)) is second


def test_a_tunnel_whose_sessions_all_left_keeps_its_numbers_while_there_is_room() -> None:
    tallies = Tallies(limit=2)
    first = enter(tallies, 1)
    first.sent = 5
    tallies.leave(first)
    assert enter(tallies, 1).sent == 5


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=60))
def test_there_are_never_more_than_the_bound_and_none_with_sessions_is_forgotten(moves: list[tuple[int, bool]]) -> None:
    tallies = Tallies(limit=3)
    live: list[tuple[int, Tally]] = []
    for number, leaves in moves:
        if leaves and live:
            tallies.leave(live.pop(number % len(live))[1])
        else:
            live.append((number, enter(tallies, number)))
        known = list(tallies)
        assert len(known) <= 3 + 2
        for owner, tally in live:
            assert tally in known
            if tally is not tallies.other:
                assert tally.labels == ("main", tunnel(owner).subject)
