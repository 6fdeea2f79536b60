"""Who may come: networks of addresses, asked for each visitor."""

import pytest

from culvert_protocol.granted import GrantedName, GrantedPort
from culvert_protocol.statements import TunnelId, TunnelIdentity
from culvert_relay.issuers import Issuer, judge
from culvert_relay.routing.pools import Pool
from culvert_relay.routing.table import Table
from culvert_relay.routing.terms import OPEN_TO_ALL, Sources, Terms, terms_of

ISSUER = Issuer("demo", "i", (), ("*.example.com",), ((20000, 20099),))


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        (b"192.0.2.7", True),
        (b"192.0.3.7", False),
        (b"2001:db8::1", True),
        (b"2001:db9::1", False),
        (b"::ffff:192.0.2.7", True),
        (b"::ffff:192.0.3.7", False),
        (b"unknown", False),
        (b"", False),
        (b"\xff", False),
    ],
)
def test_addresses_are_compared_as_networks(address: bytes, allowed: bool) -> None:
    sources = Sources(["192.0.2.0/24", "2001:db8::/32"])
    assert sources.allow(address) is allowed
    assert sources.allow(address) is allowed  # as remembered


def test_what_is_remembered_is_bounded() -> None:
    sources = Sources(["10.0.0.0/8"])
    for number in range(20_000):
        assert sources.allow(b"10.0.%d.%d" % (number >> 8, number & 255))
    assert len(sources._known) <= 4096


def test_the_newest_grants_terms_hold() -> None:
    tunnel = TunnelIdentity("i", TunnelId("t"))
    table = Table()
    old = Pool(tunnel, 1, {"a.example.com": 1})
    table.add(old)
    entry = table.find(b"a.example.com")
    assert entry is not None
    assert entry.terms == OPEN_TO_ALL
    narrow = terms_of(("10.0.0.0/8",), passthrough=True)
    new = Pool(tunnel, 2, {"a.example.com": 1}, {"a.example.com": narrow})
    table.add(new)
    assert (entry.terms, table.passing) == (narrow, 1)
    table.remove(new)
    assert (entry.terms, table.passing) == (OPEN_TO_ALL, 0)


def test_ports_are_held_like_names_and_no_host_reaches_them() -> None:
    table = Table()
    pool = Pool(TunnelIdentity("i", TunnelId("t")), 1, {"tcp:20000": 1, "a.example.com": 1})
    table.add(pool)
    entry = table.port(20000)
    assert entry is not None
    assert entry.pools == (pool,)
    assert table.find(b"tcp:20000") is None
    assert table.ports() == [20000]
    assert (sorted(table.names()), len(table)) == (["a.example.com", "tcp:20000"], 1)
    assert table.held(pool) == {"tcp:20000": True, "a.example.com": True}
    table.remove(pool)
    assert (table.port(20000), table.ports()) == (None, [])


def test_a_grants_ports_and_restrictions_are_judged() -> None:
    verdict = judge(
        [GrantedName("a.example.com", 1, ("10.0.0.0/8",)), GrantedName("A.example.com", 1)],
        ISSUER,
        tls_names=[GrantedName("db.example.com", 2)],
        tcp_ports=[GrantedPort(20000, 3, ("10.0.0.0/8",)), GrantedPort(20001, 4), GrantedPort(22, 5)],
    )
    assert verdict.claims == {"a.example.com": 1, "db.example.com": 2, "tcp:20000": 3, "tcp:20001": 4}
    assert verdict.refused == {"A.example.com": "invalid_hostname", "tcp:22": "not_in_issuer"}
    narrow = Sources(["10.0.0.0/8"])
    assert verdict.terms == {
        "a.example.com": Terms(narrow),
        "db.example.com": Terms(passthrough=True),
        "tcp:20000": Terms(narrow),
    }
