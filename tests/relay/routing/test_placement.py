"""Which session gets the next stream: pure, over sessions that are plain values."""

import random
from dataclasses import dataclass, field

from culvert_protocol.statements import TunnelId, TunnelIdentity
from culvert_relay.routing.placement import LITTLE_QUEUED, pick, place, place_elsewhere
from culvert_relay.routing.pools import Pool


@dataclass(eq=False)
class Session:
    connector: str = "c"
    slot: int = 0
    usable: bool = True
    streams: list[int] = field(default_factory=list)
    stream_limit: int = 512
    queued: int = 0
    bulk_streams: int = 0


def pool(*sessions: Session, version: int = 1) -> Pool:
    made = Pool(TunnelIdentity("i", TunnelId("t")), version, {})
    for session in sessions:
        made.add(session)
    return made


def test_sessions_of_a_connector_are_filled_in_slot_order() -> None:
    second, first = Session(slot=1), Session(slot=0)
    assert place([pool(second, first)], random=random.random) is first


def test_a_session_with_much_queued_or_bulk_is_passed_over() -> None:
    queued, bulk, free = Session(queued=LITTLE_QUEUED), Session(slot=1, bulk_streams=1), Session(slot=2)
    assert pick([queued, bulk, free]) is free
    assert pick([queued, bulk]) is bulk
    assert pick([Session(queued=LITTLE_QUEUED - 1), free]) is not free


def test_when_all_are_busy_the_least_queued_gets_it() -> None:
    sessions = [Session(slot=n, queued=queued, bulk_streams=1) for n, queued in enumerate((900_000, 70_000, 80_000))]
    assert pick(sessions) is sessions[1]


def test_unusable_full_and_excluded_sessions_get_nothing() -> None:
    broken, full, tried = Session(usable=False), Session(streams=[1], stream_limit=1), Session()
    assert pick([broken, full, tried], {tried}) is None
    assert place([pool(broken, full)], random=random.random) is None
    assert place([], random=random.random) is None
    assert place([pool()], random=random.random) is None


def test_of_two_random_connectors_the_one_with_fewer_streams_gets_it() -> None:
    busy, idle = Session("a", streams=[1, 2, 3]), Session("b", streams=[1])
    for draw in (0.0, 0.3, 0.6, 0.99):
        assert place([pool(busy, idle)], random=lambda draw=draw: draw) is idle  # type: ignore[misc]


def test_two_different_connectors_are_always_compared() -> None:
    sessions = [Session(str(n), streams=[0] * (0 if n == 1 else 5)) for n in range(3)]
    drawn = random.Random(1)
    chosen = [place([pool(*sessions)], random=drawn.random) for _ in range(300)]
    # The idle one is in two of three pairs: were the same one drawn twice, its share would be less.
    assert 180 <= sum(session is sessions[1] for session in chosen) <= 220


def test_every_replica_gets_load() -> None:
    sessions = [Session(str(n)) for n in range(5)]
    drawn = random.Random(2)
    for _ in range(500):
        session = place([pool(*sessions)], random=drawn.random)
        assert isinstance(session, Session)
        session.streams.append(1)
    assert all(80 <= len(session.streams) <= 120 for session in sessions)


def test_a_usable_session_is_found_wherever_it_is() -> None:
    sessions = [Session(str(n), usable=n == 4) for n in range(5)]
    drawn = random.Random(3)
    assert {place([pool(*sessions)], random=drawn.random) for _ in range(50)} == {sessions[4]}
    pools = [pool(*sessions[:2]), pool(*sessions[2:], version=2)]
    assert {place(pools, random=drawn.random) for _ in range(50)} == {sessions[4]}


def test_elsewhere_is_another_connector_if_there_is_one_else_a_sibling() -> None:
    lost, sibling, other = Session("a"), Session("a", slot=1), Session("b", streams=[1] * 9)
    for _ in range(20):
        assert place_elsewhere([pool(lost, sibling, other)], {lost}, random=random.random) is other
    assert place_elsewhere([pool(lost, sibling)], {lost}, random=random.random) is sibling
    assert place_elsewhere([pool(lost)], {lost}, random=random.random) is None


def test_a_pool_forgets_a_connector_with_its_last_session() -> None:
    one, two = Session("a"), Session("a", slot=1)
    made = pool(one, two)
    made.remove(one)
    assert [connector.id for connector in made.connectors] == ["a"]
    made.remove(two)
    made.remove(two)
    assert made.connectors == []
