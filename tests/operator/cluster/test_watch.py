"""A store stays true whatever happens to its watch (cases D3 to D5)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from culvert_operator.backoff import Backoff
from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import Client
from culvert_operator.cluster.stores import Store
from culvert_operator.cluster.watch import Reflector
from culvert_operator.keys import ObjectKey


def names(store: Store[Any]) -> set[str]:
    return {key.name for key in store.keys}


class Watched:
    """A store of Services with its reflector, and a way to wait for the store."""

    def __init__(self, client: Client, **options: Any) -> None:
        self.store: Store[Any] = Store(kinds.SERVICE, lambda raw: raw["metadata"]["name"])
        self.changed = asyncio.Event()
        self.told: list[tuple[Any, Any]] = []
        self.store.listen(self._on)
        self.delays: list[float] = []
        self.slept = asyncio.Event()
        backoff = Backoff(first=0.01, most=0.05, random=lambda: 1.0)
        options.setdefault("watch_seconds", 30)
        self.reflector = Reflector(client, self.store, backoff=backoff, sleep=self._sleep, **options)

    async def _sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        self.slept.set()
        await asyncio.sleep(seconds)

    def _on(self, before: Any, after: Any) -> None:
        self.told.append((before.value if before else None, after.value if after else None))
        self.changed.set()

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def watching(client: Client, **options: Any) -> AsyncIterator[Watched]:
    watched = Watched(client, **options)
    task = asyncio.create_task(watched.reflector.run())
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def watches(requests: list[tuple[str, str]]) -> int:
    return sum(method == "WATCH" for method, _ in requests)


def lists(requests: list[tuple[str, str]]) -> int:
    return sum(method == "GET" for method, _ in requests)


def test_it_lists_in_pages_and_follows(api_server: Any) -> None:
    async def scenario() -> None:
        server = api_server(page_limit=2)
        async with server.running() as client:
            for i in range(5):
                await server.put(kinds.SERVICE, f"s{i}", "ns")
            async with watching(client) as watched:
                await watched.store.synced.wait()
                assert names(watched.store) == {f"s{i}" for i in range(5)}
                assert lists(server.requests) == 3
                await server.put(kinds.SERVICE, "new", "ns")
                await server.remove(kinds.SERVICE, "s0", "ns")
                await watched.until(lambda: "new" in names(watched.store) and "s0" not in names(watched.store))
                assert lists(server.requests) == 3

    asyncio.run(scenario())


def test_listed_objects_say_their_kind_as_watched_ones_do(api_server: Any) -> None:
    async def scenario() -> None:
        server = api_server()
        async with server.running() as client:
            raw = await server.put(kinds.SERVICE, "a", "ns")
            async with watching(client) as watched:
                await watched.store.synced.wait()
                assert watched.store.raw(ObjectKey("ns", "a")) == raw

    asyncio.run(scenario())


FAULTS = ["410", "error410", "error500", "500", "403", "429", "truncate", "garbage", "silence", "close", "twice", ""]


@pytest.mark.parametrize("fault", FAULTS)
def test_d05_a_change_during_any_fault_of_the_watch_is_seen(api_server: Any, fault: str) -> None:
    async def scenario() -> None:
        server = api_server()
        async with server.running() as client:
            await server.put(kinds.SERVICE, "stays", "ns")
            await server.put(kinds.SERVICE, "goes", "ns")
            server.faults.append(fault)
            async with watching(client, quiet=0.3) as watched:
                await server.asked(lambda requests: watches(requests) >= 1)
                await server.put(kinds.SERVICE, "comes", "ns")
                await server.remove(kinds.SERVICE, "goes", "ns")
                await watched.until(lambda: names(watched.store) == {"stays", "comes"})

    asyncio.run(scenario())


def test_d03_an_object_deleted_in_a_gap_that_the_history_no_longer_tells_is_gone(api_server: Any) -> None:
    async def scenario() -> None:
        server = api_server()
        async with server.running() as client:
            await server.put(kinds.SERVICE, "goes", "ns")
            await server.put(kinds.SERVICE, "stays", "ns")
            server.faults.append("close")
            async with watching(client) as watched:
                await server.asked(lambda requests: watches(requests) >= 1)
                await server.remove(kinds.SERVICE, "goes", "ns")
                server.compact()
                await watched.until(lambda: names(watched.store) == {"stays"})
                assert ("goes", None) in watched.told

    asyncio.run(scenario())


def test_a_watch_that_ends_as_asked_goes_on_from_the_last_version_without_a_list(api_server: Any) -> None:
    async def scenario() -> None:
        server = api_server()
        async with server.running() as client:
            async with watching(client, watch_seconds=1) as watched:
                await server.asked(lambda requests: watches(requests) >= 1)
                await server.put(kinds.SERVICE, "a", "ns")
                await watched.until(lambda: names(watched.store) == {"a"})
                await server.asked(lambda requests: watches(requests) >= 3)
                await server.put(kinds.SERVICE, "b", "ns")
                await watched.until(lambda: names(watched.store) == {"a", "b"})
            assert lists(server.requests) == 1
            assert len(watched.told) == 2  # nothing was told twice

    asyncio.run(scenario())


def test_bookmarks_carry_a_quiet_watch_over_a_compaction(api_server: Any) -> None:
    async def scenario() -> None:
        server = api_server()
        async with server.running() as client:
            server.faults.extend(["bookmark", ""])
            async with watching(client, watch_seconds=1) as watched:
                await server.asked(lambda requests: watches(requests) >= 1)
                await server.put(kinds.CONFIG_MAP, "other-kind", "ns")
                await server.asked(lambda requests: watches(requests) >= 2)
                server.compact()
                await server.put(kinds.SERVICE, "a", "ns")
                await watched.until(lambda: names(watched.store) == {"a"})
            assert lists(server.requests) == 1

    asyncio.run(scenario())


def test_a_first_410_lists_at_once_and_a_server_that_always_says_it_is_not_hammered(api_server: Any) -> None:
    async def scenario() -> None:
        server = api_server()
        async with server.running() as client:
            server.faults.extend(["410"] * 4)
            async with watching(client) as watched:
                await server.asked(lambda requests: watches(requests) >= 5)
            assert watched.delays[0] == 0.0
            assert watched.delays[1:4] == [0.02, 0.04, 0.05]

    asyncio.run(scenario())


def test_d07_retry_after_is_honoured(api_server: Any) -> None:
    async def scenario() -> None:
        server = api_server()
        async with server.running() as client:
            server.refusals.append((429, {"Retry-After": "1"}))
            async with watching(client) as watched:
                await watched.store.synced.wait()
            assert watched.delays[0] == 1.0

    asyncio.run(scenario())


def test_a_server_that_comes_up_late_is_waited_for(api_server: Any) -> None:
    async def scenario() -> None:
        server = api_server()
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        server.url = f"http://127.0.0.1:{port}"
        client = Client(server.log_in)
        try:
            async with watching(client) as watched:
                async with asyncio.timeout(10):
                    await watched.slept.wait()
                assert not watched.store.synced.is_set()
                await server.put(kinds.SERVICE, "a", "ns")
                async with server.running(port=port):
                    async with asyncio.timeout(10):
                        await watched.store.synced.wait()
                    assert names(watched.store) == {"a"}
        finally:
            await client.close()

    asyncio.run(scenario())


def test_a_failing_listener_does_not_end_the_watch(api_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        server = api_server()
        async with server.running() as client, watching(client) as watched:
            await watched.store.synced.wait()
            failures = [ValueError("a bug")]

            def listener(before: object, after: object) -> None:
                if failures:
                    raise failures.pop()

            watched.store.listen(listener)
            await server.asked(lambda requests: watches(requests) >= 1)
            await server.put(kinds.SERVICE, "a", "ns")
            await server.asked(lambda requests: lists(requests) >= 2)
            await server.put(kinds.SERVICE, "b", "ns")
            await watched.until(lambda: names(watched.store) == {"a", "b"})

    asyncio.run(scenario())
    assert "watching failed" in caplog.text


def test_selectors_and_scopes_restrict_what_is_held(api_server: Any) -> None:
    async def scenario() -> None:
        server = api_server()
        async with server.running() as client:
            await server.put(kinds.SERVICE, "mine", "here", labels={"a": "b"})
            await server.put(kinds.SERVICE, "unlabelled", "here")
            await server.put(kinds.SERVICE, "elsewhere", "there", labels={"a": "b"})
            async with watching(client, namespace="here", selector="a=b") as watched:
                await server.asked(lambda requests: watches(requests) >= 1)
                assert set(watched.store.keys) == {ObjectKey("here", "mine")}

    asyncio.run(scenario())


@pytest.mark.parametrize("gone", [True, False])
def test_d12_a_namespace_that_went_with_the_operators_rights_is_empty_and_one_that_is_there_is_waited_for(
    api_server: Any, gone: bool
) -> None:
    async def scenario() -> None:
        server = api_server()
        async with server.running() as client:
            server.refusals.extend([(403, {})] * 2)
            await server.put(kinds.SERVICE, "a", "ns")
            store: Store[Any] = Store(kinds.SERVICE, lambda raw: raw["metadata"]["name"], scopes=("ns",))
            told: list[float] = []
            slept = asyncio.Event()

            async def sleep(seconds: float) -> None:
                told.append(seconds)
                if len(told) == 2:
                    assert store.synced.is_set() is gone
                    slept.set()
                await asyncio.sleep(0)

            backoff = Backoff(first=0.01, most=0.05, random=lambda: 1.0)
            reflector = Reflector(client, store, namespace="ns", backoff=backoff, sleep=sleep, gone=lambda: gone)
            task = asyncio.create_task(reflector.run())
            async with asyncio.timeout(10):
                await slept.wait()
                # Made anew, with the rights: it is watched like any other.
                while names(store) != {"a"}:  # noqa: ASYNC110 (the store has no event for its first list)
                    await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
