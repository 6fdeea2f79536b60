"""What every provider owes: whole reads, changes done whole or not at all, and other people's records intact."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from culvert_ingress.hostnames import normalise
from culvert_operator.dns.endpoint import Endpoint, Published
from culvert_operator.dns.plan import DNSPlan, State, plan_zones
from culvert_operator.dns.policies import Action
from culvert_operator.dns.provider import ChangeResult, Result
from culvert_operator.dns.registry import Registry

OWNER, SHOP, BLOG = "installation-1", "tunnelbinding/shop/shop", "tunnelbinding/blog/blog"

Found = TypeVar("Found")
TARGETS = {"A": "192.0.2.{}", "AAAA": "2001:db8::{}", "CNAME": "r{}.example.net"}


def run(ground: Any, doing: Coroutine[Any, Any, Found]) -> Found:
    """Run a scenario in a loop of its own; the provider's connections end with it."""

    async def whole() -> Found:
        try:
            return await doing
        finally:
            await ground.provider.close()

    return asyncio.run(whole())


def wanted(name: str, kind: str = "A", *targets: str, ttl: int = 300, resource: str = SHOP) -> Endpoint:
    default = ("relay.example.net",) if kind == "CNAME" else ("2001:db8::1",) if kind == "AAAA" else ("192.0.2.1",)
    return Endpoint(name, kind, targets or default, ttl, "", resource)


def entry(one: Endpoint) -> Published:
    return Published(one.name, one.type, one.resource)


async def planned(registry: Registry, desired: Sequence[Endpoint], listed: Sequence[Published], **more: Any) -> DNSPlan:
    view = await registry.view([e.name for e in (*desired, *listed)])
    assert view.error is None, view.error
    return plan_zones(desired, listed=listed, view=view, owner=OWNER, **more)


def step(ground: Any, desired: Sequence[Endpoint], *formers: Endpoint, **more: Any) -> list[ChangeResult]:
    """Plan and carry out once, with every desired and former endpoint listed; afterwards a second plan is empty."""

    async def once() -> list[ChangeResult]:
        registry = Registry(ground.provider)
        listed = [entry(e) for e in {*desired, *formers}]
        results = list(await registry.apply((await planned(registry, desired, listed, **more)).changes))
        if all(r.result is Result.DONE for r in results):
            assert (await planned(registry, desired, listed, **more)).changes == ()
        return results

    return run(ground, once())


def done(results: list[ChangeResult]) -> list[Action]:
    assert all(r.result is Result.DONE for r in results), results
    return [r.action for r in results]


def test_a_read_returns_every_record_set(ground: Any) -> None:
    async def read() -> dict[tuple[str, str], Any]:
        assert ground.zone in await ground.provider.zones([f"shop.{ground.zone}"])
        found = await ground.provider.records(ground.zone)
        assert len({(r.name, r.type) for r in found}) == len(found)
        return {(r.name, r.type): (r.ttl, r.values) for r in found if r.type != "SOA"}

    found, truth = run(ground, read()), ground.foreign()
    assert found == truth
    assert len(found) >= 13


@pytest.mark.parametrize("kind", ["A", "AAAA", "CNAME"])
def test_a_record_and_its_marker_come_change_and_go_together(ground: Any, kind: str) -> None:
    name = f"shop.{ground.zone}"
    marker = f"{kind.lower()}._culvert.{name}"
    before = ground.foreign()
    assert done(step(ground, [wanted(name, kind)])) == [Action.CREATE]
    held = ground.read()
    assert held[name, kind].ttl == 300
    assert OWNER in held[marker, "TXT"].values[0]
    other = {"A": "192.0.2.77", "AAAA": "2001:db8::77", "CNAME": "other.example.net"}[kind]
    assert done(step(ground, [wanted(name, kind, other, ttl=60)])) == [Action.UPDATE]
    held = ground.read()
    assert (held[name, kind].ttl, held[name, kind].values[0].rstrip(".")) == (60, other)
    assert ground.foreign([name]) == before
    assert done(step(ground, [], wanted(name, kind))) == [Action.DELETE]
    assert ground.foreign() == before


def test_a_name_changes_its_type_in_one_change(ground: Any) -> None:
    name, before = f"shop.{ground.zone}", ground.foreign()
    first = [wanted(name, "A", "192.0.2.1", "192.0.2.2"), wanted(name, "AAAA")]
    second = [wanted(name, "CNAME")]
    assert done(step(ground, first)) == [Action.CREATE]
    assert done(step(ground, second, *first)) == [Action.UPDATE]
    assert {k for k in ground.read() if k[0] == name} == {(name, "CNAME")}
    assert done(step(ground, first, *second)) == [Action.UPDATE]
    assert {k for k in ground.read() if k[0] == name} == {(name, "A"), (name, "AAAA")}
    step(ground, [], *first, *second)
    assert ground.foreign() == before


def test_wildcards_the_apex_and_long_owners_are_published(ground: Any) -> None:
    before = ground.foreign()
    resource = f"tunnelbinding/{'n' * 63}/{'b' * 253}"
    ours = [
        wanted(f"*.{ground.zone}", "CNAME"),
        wanted(ground.zone, "A", resource=resource),
        wanted(ground.zone, "AAAA", resource=resource),
        wanted(f"*.deep.{ground.zone}", "A"),
    ]
    assert len(done(step(ground, ours))) == 3
    assert ground.read()[f"*.{ground.zone}", "CNAME"].values == ("relay.example.net.",)
    assert len(done(step(ground, [], *ours))) == 3
    assert ground.foreign() == before


def test_d34_an_international_name_is_published_as_a_labels(ground: Any) -> None:
    name, before = f"{normalise('Grüße-Straße')}.{ground.zone}", ground.foreign()
    assert name.startswith("xn--")
    assert done(step(ground, [wanted(name)])) == [Action.CREATE]
    assert ground.read()[name, "A"].values == ("192.0.2.1",)
    assert OWNER in ground.read()[f"a._culvert.{name}", "TXT"].values[0]
    assert done(step(ground, [], wanted(name))) == [Action.DELETE]
    assert ground.foreign() == before


@pytest.mark.parametrize("taken", ["people", "www", "edns", "theirs", "mail"])
def test_a_name_with_somebodys_record_is_left_byte_for_byte(ground: Any, taken: str) -> None:
    before = ground.foreign()
    name = f"{taken}.{ground.zone}"
    for kind in ("A", "AAAA", "CNAME"):
        assert step(ground, [wanted(name, kind)]) == []
        assert step(ground, [], wanted(name, kind)) == []
    assert ground.foreign() == before


def test_d09_a_record_edited_by_a_person_after_the_read_is_not_overwritten(ground: Any) -> None:
    name = f"shop.{ground.zone}"

    async def late(desired: list[Endpoint], listed: list[Endpoint], kind: str, *values: str) -> list[ChangeResult]:
        registry = Registry(ground.provider)
        plan = await planned(registry, desired, [entry(e) for e in listed])
        await asyncio.to_thread(ground.edit, name, kind, values)
        return list(await registry.apply(plan.changes))

    one, alias = wanted(name), wanted(name, "CNAME")
    for desired, kind, value in [(one, "A", "192.0.2.66"), (one, "AAAA", "2001:db8::66"), (alias, "TXT", '"x"')]:
        results = run(ground, late([desired], [desired], kind, value))
        assert [r.result for r in results] == [Result.CONFLICT]
        assert {k for k in ground.read() if name in k[0]} == {(name, kind)}
        ground.edit(name, kind, ())
    assert done(step(ground, [one])) == [Action.CREATE]
    for change in ([wanted(name, "A", "192.0.2.2")], []):
        results = run(ground, late(change, [one], "A", "192.0.2.66"))
        assert [r.result for r in results] == [Result.CONFLICT]
        assert ground.read()[name, "A"].values == ("192.0.2.66",)
        ground.edit(name, "A", ["192.0.2.1"])


def test_d10_a_record_of_ours_that_a_person_edited_is_made_as_it_should_be(ground: Any) -> None:
    one, before = wanted(f"shop.{ground.zone}"), ground.foreign()
    assert done(step(ground, [one])) == [Action.CREATE]
    ground.edit(one.name, "A", ["192.0.2.66"])
    assert done(step(ground, [one])) == [Action.UPDATE]
    assert ground.read()[one.name, "A"].values == ("192.0.2.1",)
    ground.edit(one.name, "A", ())  # only the marker is left
    assert done(step(ground, [one])) == [Action.CREATE]
    assert ground.read()[one.name, "A"].values == ("192.0.2.1",)
    assert done(step(ground, [], one)) == [Action.DELETE]
    assert ground.foreign() == before


def test_of_two_writers_with_one_owner_id_the_slower_is_refused(ground: Any) -> None:
    one = wanted(f"shop.{ground.zone}")

    async def race() -> tuple[list[ChangeResult], list[ChangeResult]]:
        first, second = Registry(ground.provider), Registry(ground.provider)
        plans = [await planned(r, [one], [entry(one)]) for r in (first, second)]
        early = list(await first.apply(plans[0].changes))
        late = list(await second.apply(plans[1].changes))
        return early, late

    early, late = run(ground, race())
    assert [r.result for r in early] == [Result.DONE]
    assert [r.result for r in late] == [Result.CONFLICT]


def test_one_names_trouble_does_not_hold_up_the_others(ground: Any) -> None:
    names = [f"n{i}.{ground.zone}" for i in range(5)]

    async def late() -> list[ChangeResult]:
        registry = Registry(ground.provider)
        ones = [wanted(n) for n in names]
        plan = await planned(registry, ones, [entry(e) for e in ones])
        await asyncio.to_thread(ground.edit, names[2], "A", ["192.0.2.66"])
        return list(await registry.apply(plan.changes))

    results = {r.name: r.result for r in run(ground, late())}
    assert results == {n: Result.CONFLICT if n == names[2] else Result.DONE for n in names}


def test_adoption_takes_over_a_record_with_our_value_and_nothing_else(ground: Any) -> None:
    name = f"found.{ground.zone}"
    ground.edit(name, "A", ["192.0.2.1"])
    before = ground.foreign([name])
    assert step(ground, [wanted(name)]) == []
    assert step(ground, [wanted(name, "A", "192.0.2.2")], adopt=True) == []
    assert done(step(ground, [wanted(name)], adopt=True)) == [Action.UPDATE]
    assert done(step(ground, [], wanted(name))) == [Action.DELETE]
    assert ground.foreign() == before


def test_d09_any_sequence_of_wishes_leaves_other_peoples_records_identical_and_none_of_ours(
    ground: Any, record_property: Any
) -> None:
    chance = random.Random(20)
    zone, before = ground.zone, ground.foreign()
    names = [f"a.{zone}", f"b.{zone}", f"*.{zone}", zone, f"people.{zone}", f"theirs.{zone}", f"x.wild.{zone}"]

    async def trial() -> int:
        registry, listed, written = Registry(ground.provider), set[Published](), 0
        for turn in range(30):
            desired = []
            for name in names if turn < 29 else []:
                kinds = chance.choice([[], ["A"], ["A", "AAAA"], ["CNAME"]])
                kinds = ["A"] if kinds == ["CNAME"] and name == zone else kinds
                resource = chance.choice([SHOP, BLOG])
                for kind in kinds:
                    number = chance.randrange(1, 4)
                    target = {"A": "192.0.2.{}", "AAAA": "2001:db8::{}", "CNAME": "r{}.example.net"}[kind].format(
                        number
                    )
                    desired.append(wanted(name, kind, target, ttl=chance.choice([60, 300]), resource=resource))
            listed |= {entry(e) for e in desired}
            plan = await planned(registry, desired, sorted(listed, key=str))
            results = await registry.apply(plan.changes)
            assert all(r.result is Result.DONE for r in results), results
            written += len(results)
            again = await planned(registry, desired, sorted(listed, key=str))
            assert again.changes == ()
            refused = {f"people.{zone}", f"theirs.{zone}"}
            for (name, _), verdict in again.verdicts.items():
                assert verdict.state is (State.NOT_OWNER if name in refused else State.IN_PLACE)
            listed = {e for e in listed if again.listed[e].state is not State.GONE}
        assert listed == set()
        return written

    written = run(ground, trial())
    assert written > 40
    assert ground.foreign() == before
    record_property(
        f"dns: {ground.kind}", f"30 rounds of wishes, {written} changes, 0 foreign records changed, 0 leaked"
    )
