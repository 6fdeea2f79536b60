"""Who holds a hostname: pure, over pools that hold nothing but claims."""

from hypothesis import given
from hypothesis import strategies as st

from culvert_protocol.statements import TunnelId, TunnelIdentity
from culvert_relay.routing.pools import Pool
from culvert_relay.routing.table import Table


def pool(subject: str, claims: dict[str, int], *, version: int = 1, issuer: str = "i") -> Pool:
    return Pool(TunnelIdentity(issuer, TunnelId(subject)), version, claims)


def holder(table: Table, host: str) -> str | None:
    entry = table.find(host.encode())
    return entry.tunnel.subject if entry is not None and entry.tunnel is not None else None


def test_exact_names_win_over_wildcards_and_longer_wildcards_over_shorter() -> None:
    table = Table()
    table.add(pool("wide", {"*.example.com": 1}))
    table.add(pool("deep", {"*.b.example.com": 9}))
    table.add(pool("exact", {"a.b.example.com": 9}))
    assert holder(table, "a.b.example.com") == "exact"
    assert holder(table, "c.b.example.com") == "deep"
    assert holder(table, "b.example.com") == "wide"
    assert holder(table, "x.y.z.example.com") == "wide"
    assert holder(table, "example.com") is None
    assert holder(table, "evilexample.com") is None
    assert holder(table, "com") is None


def test_the_older_claim_wins_then_issuer_then_subject() -> None:
    table = Table()
    table.add(pool("b", {"x.test": 5}))
    assert holder(table, "x.test") == "b"
    table.add(pool("a", {"x.test": 5}))
    assert holder(table, "x.test") == "a"
    table.add(pool("z", {"x.test": 5}, issuer="a"))
    assert holder(table, "x.test") == "z"
    table.add(pool("y", {"x.test": 4}))
    assert holder(table, "x.test") == "y"


def test_touched_pools_are_those_whose_outcome_changed() -> None:
    table = Table()
    young, old = pool("young", {"x.test": 2, "y.test": 2}), pool("old", {"x.test": 1})
    bystander = pool("third", {"x.test": 9})
    assert table.add(young) == set()
    assert table.add(bystander) == set()
    assert table.add(old) == {young}
    assert table.held(young) == {"x.test": False, "y.test": True}
    assert table.remove(old) == {young}
    assert table.held(young) == {"x.test": True, "y.test": True}
    assert table.held(bystander) == {"x.test": False}


def test_two_versions_of_one_tunnel_serve_a_name_together_newest_first() -> None:
    table = Table()
    one, two = pool("t", {"x.test": 1, "gone.test": 1}, version=1), pool("t", {"x.test": 1}, version=2)
    table.add(one)
    table.add(two)
    entry = table.find(b"x.test")
    assert entry is not None
    assert entry.pools == (two, one)
    table.remove(one)
    assert table.find(b"gone.test") is None
    assert entry.pools == (two,)


def test_nothing_is_left_of_pools_that_went() -> None:
    table = Table()
    pools = [pool(str(number), {"x.test": number, f"*.{number}.test": 1}) for number in range(5)]
    for item in pools:
        table.add(item)
    assert len(table) == 6
    for item in pools:
        table.remove(item)
    assert len(table) == 0
    assert list(table.names()) == []


NAMES = st.sampled_from(["a.test", "*.test", "b.a.test", "*.a.test", "c.b.a.test"])
CLAIMS = st.dictionaries(NAMES, st.integers(0, 3), min_size=1)


@given(st.lists(st.tuples(st.sampled_from("xyz"), CLAIMS), max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_arrival_decides_nothing(tunnels: list[tuple[str, dict[str, int]]], random: object) -> None:
    pools = [pool(subject, claims, version=number) for number, (subject, claims) in enumerate(tunnels)]
    shuffled = list(pools)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, two = Table(), Table()
    for item in pools:
        one.add(item)
    for item in shuffled:
        two.add(item)
    hosts = ["a.test", "b.a.test", "c.b.a.test", "z.z.a.test", "q.test", "test"]
    assert [holder(one, host) for host in hosts] == [holder(two, host) for host in hosts]
