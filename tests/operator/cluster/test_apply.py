"""Carrying out operations: preconditions, conflicts, and that own writes are seen at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from culvert_operator.cluster import kinds
from culvert_operator.cluster.apply import Hand, Outcome
from culvert_operator.cluster.events import event_body, post
from culvert_operator.cluster.texts import ConfigMapText, Contents
from culvert_operator.cluster.world import World
from culvert_operator.dns.provider import ProviderError
from culvert_operator.keys import ChildKey, ObjectKey
from culvert_operator.options import Options
from culvert_operator.world import Apply, ClaimCreate, ClaimDelete, ClaimUpdate, Event, FinalizerOp, StatusPatch

TUNNEL = ObjectKey("ns", "main")


@dataclass
class Bench:
    """A server, its client, a world that was filled from it once, and a hand."""

    server: Any
    client: Any
    world: World
    hand: Hand
    marked: list[ObjectKey]
    outcome: Outcome

    async def fill(self) -> None:
        for store in self.world.stores():
            listed = [raw for key, raw in self.server.objects.items() if key[0] == store.kind.plural]
            store.replace(listed, began=store.begin_list(), scope=None)


def run(api_server: Any, scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def bounded() -> None:
        server = api_server()
        async with asyncio.timeout(30), server.running() as client:
            marked: list[ObjectKey] = []
            world = World(Options(namespace="ns", image="x", tunnel_namespaces=("*",)), marked.append)
            await scenario(Bench(server, client, world, Hand(client, world), marked, Outcome()))

    asyncio.run(bounded())


def finalizer(uid: str, *finalizers: str) -> FinalizerOp:
    return FinalizerOp("Tunnel", TUNNEL, uid, finalizers)


def test_a_finalizer_is_added_beside_others_and_taken_away_alone(api_server: Any) -> None:
    async def scenario(bench: Bench) -> None:
        raw = await bench.server.put(kinds.TUNNEL, "main", "ns")
        raw["metadata"]["finalizers"] = ["other/one"]
        await bench.fill()
        uid = raw["metadata"]["uid"]
        assert await bench.hand.finalizer(finalizer(uid, "other/one"), bench.outcome, add=True)
        both = bench.server.objects["tunnels", "ns", "main"]["metadata"]["finalizers"]
        assert both == ["other/one", "culvert.dev/cleanup"]
        held = bench.world.tunnels.get(TUNNEL)
        assert held is not None
        assert held.meta.finalizers == tuple(both)
        assert await bench.hand.finalizer(finalizer(uid, *both), bench.outcome, add=False)
        assert bench.server.objects["tunnels", "ns", "main"]["metadata"]["finalizers"] == ["other/one"]

    run(api_server, scenario)


def test_d03_a_finalizer_never_makes_an_object_nor_touches_a_successor(api_server: Any) -> None:
    async def scenario(bench: Bench) -> None:
        raw = await bench.server.put(kinds.TUNNEL, "main", "ns")
        await bench.fill()
        await bench.server.remove(kinds.TUNNEL, "main", "ns")
        assert not await bench.hand.finalizer(finalizer(raw["metadata"]["uid"]), bench.outcome, add=True)
        assert bench.server.objects == {}
        assert bench.world.tunnels.get(TUNNEL) is None
        await bench.server.put(kinds.TUNNEL, "main", "ns")
        assert not await bench.hand.finalizer(finalizer(raw["metadata"]["uid"]), bench.outcome, add=True)
        assert "finalizers" not in bench.server.objects["tunnels", "ns", "main"]["metadata"]

    run(api_server, scenario)


def test_taking_the_last_finalizer_of_what_is_being_deleted_forgets_it_at_once(api_server: Any) -> None:
    async def scenario(bench: Bench) -> None:
        raw = await bench.server.put(kinds.TUNNEL, "main", "ns")
        raw["metadata"] |= {"finalizers": ["culvert.dev/cleanup"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
        await bench.fill()
        op = finalizer(raw["metadata"]["uid"], "culvert.dev/cleanup")
        assert await bench.hand.finalizer(op, bench.outcome, add=False)
        assert bench.world.tunnels.get(TUNNEL) is None
        assert TUNNEL in bench.marked

    run(api_server, scenario)


def test_of_two_who_create_a_claim_the_second_sees_the_firsts(api_server: Any) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.server.put(kinds.CLAIM, "h-1", spec={"hostname": "a.example.com", "tunnel": "other/t"})
        mine = {"metadata": {"name": "h-1"}, "spec": {"hostname": "a.example.com", "tunnel": "ns/main"}}
        await bench.hand.claim(ClaimCreate("h-1", mine), bench.outcome)
        assert (bench.outcome.written, bench.outcome.errors) == (1, [])
        held = bench.world.claims.get(ObjectKey("", "h-1"))
        assert held is not None
        assert held.tunnel == ObjectKey("other", "t")

    run(api_server, scenario)


def test_d03_a_claim_that_changed_meanwhile_is_neither_replaced_nor_deleted(api_server: Any) -> None:
    async def scenario(bench: Bench) -> None:
        old = await bench.server.put(kinds.CLAIM, "h-1", spec={"hostname": "a.example.com"})
        stale = {**old, "metadata": dict(old["metadata"])}
        await bench.fill()
        new = await bench.server.put(kinds.CLAIM, "h-1", spec={"hostname": "a.example.com", "tunnel": "other/t"})
        await bench.hand.claim(ClaimUpdate("h-1", stale), bench.outcome)
        meta = stale["metadata"]
        await bench.hand.claim(ClaimDelete("h-1", meta["uid"], meta["resourceVersion"]), bench.outcome)
        assert bench.server.objects["hostnameclaims", "", "h-1"] == new
        assert bench.world.claims.raw(ObjectKey("", "h-1")) == new
        assert bench.outcome.errors == []
        fresh = new["metadata"]
        await bench.hand.claim(ClaimDelete("h-1", fresh["uid"], fresh["resourceVersion"]), bench.outcome)
        assert bench.server.objects == {}
        assert len(bench.world.claims) == 0

    run(api_server, scenario)


def child(version: str = "") -> Apply:
    metadata: dict[str, Any] = {"name": "main-connector", "namespace": "ns", "labels": {"culvert.dev/tunnel": "main"}}
    if version:
        metadata["resourceVersion"] = version
    return Apply(ChildKey("Role", "main-connector"), "ns", {"kind": "Role", "metadata": metadata, "rules": []})


def test_a_child_is_seen_as_soon_as_it_was_applied_and_an_apply_that_changes_nothing_is_no_write(
    api_server: Any,
) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.hand.apply(child(), bench.outcome)
        raw = bench.world.children["Role"].raw(ObjectKey("ns", "main-connector"))
        assert raw is not None
        assert bench.outcome.written == 1
        assert bench.marked == [TUNNEL]
        await bench.hand.apply(child(raw["metadata"]["resourceVersion"]), bench.outcome)
        assert bench.outcome.written == 1

    run(api_server, scenario)


def test_a_stale_apply_reads_again_and_a_refusal_for_good_is_remembered(api_server: Any) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.hand.apply(child(), bench.outcome)
        await bench.server.put(kinds.ROLE, "main-connector", "ns", rules=["somebody's"])
        await bench.hand.apply(child("1"), bench.outcome)
        raw = bench.world.children["Role"].raw(ObjectKey("ns", "main-connector"))
        assert raw is not None
        assert raw["rules"] == ["somebody's"]
        assert (bench.outcome.written, bench.outcome.errors) == (2, [])
        bench.server.refusals.append((403, {}))
        await bench.hand.apply(child(), bench.outcome)
        assert bench.outcome.refused == {ChildKey("Role", "main-connector"): "refused with 403"}
        bench.server.refusals.append((429, {"Retry-After": "3"}))
        await bench.hand.apply(child(), bench.outcome)
        assert len(bench.outcome.refused) == 1
        assert bench.outcome.retry_after == 3
        assert len(bench.outcome.errors) == 2

    run(api_server, scenario)


def test_a_status_of_an_object_that_changed_is_not_written(api_server: Any) -> None:
    async def scenario(bench: Bench) -> None:
        old = await bench.server.put(kinds.TUNNEL, "main", "ns")
        meta = {"uid": old["metadata"]["uid"], "resourceVersion": old["metadata"]["resourceVersion"]}
        await bench.fill()
        await bench.server.put(kinds.TUNNEL, "main", "ns", spec={"new": True})
        patch = StatusPatch("Tunnel", TUNNEL, {"metadata": meta, "status": {"stale": True}})
        assert not await bench.hand.status(patch, bench.outcome)
        assert "status" not in bench.server.objects["tunnels", "ns", "main"]
        assert bench.outcome.written == 1  # gathering again is due
        raw = bench.world.tunnels.raw(TUNNEL)
        assert raw is not None
        fresh = StatusPatch("Tunnel", TUNNEL, {"metadata": {"uid": meta["uid"]}, "status": {"good": True}})
        assert await bench.hand.status(fresh, bench.outcome)
        assert bench.server.objects["tunnels", "ns", "main"]["status"] == {"good": True}

    run(api_server, scenario)


EVENT = Event("Tunnel", TUNNEL, "uid-1", "Warning", "ServiceNotFound", "é" * 2000)


def test_an_events_note_fits_and_names_what_it_is_about() -> None:
    body = event_body(EVENT, now=1.8e9, suffix="abc", instance="pod-1")
    assert len(body["note"].encode()) <= 1024
    assert body["regarding"]["uid"] == "uid-1"
    assert body["eventTime"] == "2027-01-15T08:00:00.000000Z"


def test_an_event_that_cannot_be_written_holds_up_nothing(api_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        bench.server.refusals.append((403, {}))
        await post(bench.client, EVENT, now=1.8e9, instance="pod-1")
        await post(bench.client, EVENT, now=1.8e9, instance="pod-1")
        assert len(bench.server.objects) == 1

    run(api_server, scenario)
    assert "an Event could not be written" in caplog.text


ZONE = ObjectKey("ns", "zone")


def test_a_config_maps_text_is_replaced_only_as_it_was_read(api_server: Any) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.server.put(kinds.CONFIG_MAP, "zone", "ns", data={"db": "old", "other": "kept"})
        await bench.fill()
        contents = Contents(bench.client, bench.world.config_maps)
        text = ConfigMapText(contents, ZONE, "db")
        read, version = await text.read()
        asked = len(bench.server.requests)
        assert await text.read() == (read, version)
        assert len(bench.server.requests) == asked  # kept while the watch tells no other version
        assert await text.replace("new", version=version)
        assert await text.read() == ("new", str(bench.server.version))
        assert not await text.replace("late", version=version)
        raw = bench.server.objects["configmaps", "ns", "zone"]
        assert raw["data"] == {"db": "new", "other": "kept"}

    run(api_server, scenario)


def test_a_config_map_that_is_not_there_or_lacks_the_key_is_an_error_and_no_empty_text(api_server: Any) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.server.put(kinds.CONFIG_MAP, "zone", "ns", data={})
        contents = Contents(bench.client, bench.world.config_maps)
        with pytest.raises(ProviderError, match="does not exist"):
            await ConfigMapText(contents, ZONE, "db").read()
        await bench.fill()
        with pytest.raises(ProviderError, match="no key 'db'"):
            await ConfigMapText(contents, ZONE, "db").read()
        contents.forget(ZONE)
        bench.server.refusals.append((403, {}))
        with pytest.raises(ProviderError, match="cannot be read"):
            await ConfigMapText(contents, ZONE, "db").read()

    run(api_server, scenario)
