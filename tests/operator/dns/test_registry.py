"""Ownership in TXT records, over the memory provider."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_operator.dns.endpoint import Endpoint, Published, RecordSet
from culvert_operator.dns.plan import Change, DNSView, ZoneChanges, plan_zones
from culvert_operator.dns.policies import Action
from culvert_operator.dns.provider import ChangeResult, ProviderConfig, ProviderError, RecordChange, Result, provider
from culvert_operator.dns.providers.memory import MemoryProvider
from culvert_operator.dns.registry import Registry, endpoints_of, record_sets_of

OWNER = "installation-1"
SHOP = "tunnelbinding/shop/shop"
wanted = Endpoint("shop.example.com", "A", ("192.0.2.1",), 300, "", SHOP)
listed = Published("shop.example.com", "A", SHOP)
MARKER = ("a._culvert.shop.example.com", "TXT")

names = st.sampled_from(["example.com", "a.example.com", "*.example.com", "*.b.example.com", "c.b.example.com"])
owned = st.lists(
    st.builds(
        Endpoint,
        names,
        st.sampled_from(["A", "AAAA"]),
        st.sampled_from([("192.0.2.1",), ("192.0.2.1", "192.0.2.2")]),
        st.integers(1, 1000),
        st.sampled_from(["", OWNER, "other"]),
        st.just(""),
    ).map(lambda e: replace(e, resource=SHOP if e.owner else "")),
    unique_by=lambda e: e.key,
)


@given(owned)
def test_endpoints_read_back_from_their_records_and_markers(endpoints: list[Endpoint]) -> None:
    records = [record for one in endpoints for record in record_sets_of(one)]
    assert sorted(endpoints_of(records), key=lambda e: e.key) == sorted(endpoints, key=lambda e: e.key)


def test_a_marker_without_its_record_is_an_endpoint_without_targets() -> None:
    marker = record_sets_of(replace(wanted, owner=OWNER))[1:]
    assert endpoints_of(marker) == (Endpoint("shop.example.com", "A", (), 0, OWNER, SHOP),)


@pytest.mark.parametrize("values", [('"something else"',), ('"heritage=external-dns,external-dns/owner=a"',) * 2])
def test_a_txt_that_is_no_clear_marker_gives_no_ownership(values: tuple[str, ...]) -> None:
    values = tuple(f"{v}" if i == 0 else f'"x{i}"' for i, v in enumerate(values))
    found = endpoints_of([RecordSet(*MARKER, 300, values), RecordSet("shop.example.com", "A", 300, ("192.0.2.1",))])
    assert {e.owner for e in found} == {""}
    assert ("a._culvert.shop.example.com", "TXT") in {e.key for e in found}


def over(records: Sequence[RecordSet]) -> tuple[Registry, dict[tuple[str, str], RecordSet]]:
    zone = {(r.name, r.type): r for r in records}
    return Registry(MemoryProvider({"example.com": zone})), zone


async def step(registry: Registry, desired: Sequence[Endpoint], entries: Sequence[Published]) -> list[ChangeResult]:
    plan = plan_zones(desired, listed=entries, view=await registry.view(), owner=OWNER)
    return list(await registry.apply(plan.changes))


def test_record_and_marker_come_and_go_together() -> None:
    registry, zone = over([])
    assert [r.result for r in asyncio.run(step(registry, [wanted], [listed]))] == [Result.DONE]
    assert set(zone) == {("shop.example.com", "A"), MARKER}
    assert [r.action for r in asyncio.run(step(registry, [], [listed]))] == [Action.DELETE]
    assert zone == {}


def test_foreign_records_are_identical_after_any_of_our_changes() -> None:
    foreign = [
        RecordSet("example.com", "MX", 300, ("10 mail.example.com.",)),
        RecordSet("other.example.com", "A", 300, ("192.0.2.9",)),
        RecordSet("a._culvert.other.example.com", "TXT", 7, ('"heritage=external-dns,external-dns/owner=other"',)),
    ]
    registry, zone = over(foreign)
    intruder = replace(wanted, name="other.example.com")
    entries = [listed, Published("other.example.com", "A", SHOP)]
    asyncio.run(step(registry, [wanted, intruder], entries))
    asyncio.run(step(registry, [], entries))
    assert list(zone.values()) == foreign


def test_a_marker_as_external_dns_would_write_it_is_ours_and_can_be_changed() -> None:
    text = f'"heritage=external-dns,external-dns/owner={OWNER},external-dns/resource={SHOP},external-dns/x=y"'
    registry, zone = over([RecordSet("shop.example.com", "A", 300, ("192.0.2.8",)), RecordSet(*MARKER, 17, (text,))])
    assert [r.result for r in asyncio.run(step(registry, [wanted], [listed]))] == [Result.DONE]
    assert zone["shop.example.com", "A"].values == ("192.0.2.1",)


def test_a_zone_that_changed_since_it_was_read_is_not_written() -> None:
    registry, zone = over([])

    async def late() -> list[ChangeResult]:
        plan = plan_zones([wanted], listed=[listed], view=await registry.view(), owner=OWNER)
        zone["shop.example.com", "A"] = RecordSet("shop.example.com", "A", 300, ("192.0.2.66",))
        return list(await registry.apply(plan.changes))

    assert [r.result for r in asyncio.run(late())] == [Result.CONFLICT]
    assert set(zone) == {("shop.example.com", "A")}


def test_a_change_planned_on_an_older_reading_than_the_registrys_is_refused() -> None:
    registry, zone = over([])

    async def late() -> list[ChangeResult]:
        ours = replace(wanted, owner=OWNER)
        await registry.view()
        stale = Change(ours.name, (replace(ours, targets=("192.0.2.5",)),), (ours,))
        return list(await registry.apply([ZoneChanges("example.com", (stale,))]))

    assert [r.result for r in asyncio.run(late())] == [Result.CONFLICT]
    assert zone == {}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("shop.example.org", "A"), ("shop.example.com", "MX"), ("x" * 64 + ".example.com", "A")],
    ids=["outside the zone", "foreign type", "label too long"],
)
def test_the_last_check_before_a_write_holds_back_what_must_not_be_written(name: str, kind: str) -> None:
    registry, zone = over([])
    change = Change(name, (), (Endpoint(name, kind, ("192.0.2.1",), 300, OWNER, SHOP),))
    fine = Change(wanted.name, (), (replace(wanted, owner=OWNER),))

    async def both() -> list[ChangeResult]:
        await registry.view()
        return list(await registry.apply([ZoneChanges("example.com", (change, fine))]))

    assert {r.name: r.result for r in asyncio.run(both())} == {name: Result.FAILED, wanted.name: Result.DONE}
    assert set(zone) == {("shop.example.com", "A"), MARKER}


class Unreadable(MemoryProvider):
    """Serves one zone and fails on the second."""

    async def zones(self, names: Collection[str]) -> tuple[str, ...]:
        return ("example.com", "example.org")

    async def apply(self, zone: str, changes: Sequence[RecordChange]) -> tuple[ChangeResult, ...]:
        raise ProviderError("the server is away.")


def test_a_partial_read_is_a_failed_one() -> None:
    view = asyncio.run(Registry(Unreadable({"example.com": {}})).view())
    assert view == DNSView(error="there is no zone 'example.org' in memory.")


def test_a_zone_that_cannot_be_written_fails_its_names_with_the_providers_sentence() -> None:
    fine = Change(wanted.name, (), (replace(wanted, owner=OWNER),))
    results = asyncio.run(Registry(Unreadable({"example.com": {}})).apply([ZoneChanges("example.com", (fine,))]))
    assert [(r.result, r.message) for r in results] == [(Result.FAILED, "the server is away.")]


def test_providers_are_found_by_entry_point_and_an_unknown_one_names_those_there_are() -> None:
    made = provider("memory", ProviderConfig({"instance": "by entry point"}, ("example.com",)))
    again = provider("memory", ProviderConfig({"instance": "by entry point"}, ("example.com",)))
    ours = replace(wanted, owner=OWNER)

    async def shared() -> tuple[RecordSet, ...]:
        registry = Registry(made)
        await registry.view()
        await registry.apply([ZoneChanges("example.com", (Change(ours.name, (), (ours,)),))])
        return await again.records("example.com")

    assert len(asyncio.run(shared())) == 2
    with pytest.raises(ProviderError, match=r"there are: .*memory.*zonefile"):
        provider("route53", ProviderConfig())
