"""The DNS side of Tunnels: one registry per settings, failures remembered, zones left alone for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from culvert_operator.api.tunnel import Tunnel, parse_tunnel
from culvert_operator.cluster import kinds
from culvert_operator.cluster.stores import Store
from culvert_operator.cluster.texts import Contents
from culvert_operator.dns.endpoint import Endpoint
from culvert_operator.dns.metrics import Figures
from culvert_operator.dns.plan import Change, ZoneChanges
from culvert_operator.dns.provider import Result
from culvert_operator.keys import ObjectKey
from culvert_operator.metrics import Metrics
from culvert_operator.publishing import Publishing

KEY = ObjectKey("ns", "main")
ZONE = "@ 60 IN SOA ns h 1 1 1 1 1\n"


def tunnel(dns: Any) -> Tunnel:
    spec = {"relay": {"addresses": ["r:443"]}} | ({"dns": dns} if dns else {})
    return parse_tunnel({"metadata": {"namespace": "ns", "name": "main"}, "spec": spec})


IN_FILE = tunnel({"zonefile": {"configMapRef": {"name": "zone", "key": "db"}, "zone": "example.com"}})


def change(name: str) -> Change:
    return Change(name, (), (Endpoint(name, "A", ("192.0.2.1",), 60, "owner", "tunnelbinding/a/b"),))


class Bench:
    """A server with a zone's ConfigMap, and publishing over it with a clock of the test's."""

    def __init__(self, server: Any, client: Any) -> None:
        self.server = server
        self.now = 0.0
        self.metrics = Metrics()
        self.versions: Store[str] = Store(kinds.CONFIG_MAP, lambda raw: str(raw["metadata"]["resourceVersion"]))
        contents = Contents(client, self.versions)
        self.publishing = Publishing(contents, metrics=self.metrics.dns, clock=lambda: self.now, now=lambda: 1.8e9)

    async def zone(self, text: str) -> None:
        self.versions.event("MODIFIED", await self.server.put(kinds.CONFIG_MAP, "zone", "ns", data={"db": text}))

    def text(self) -> str:
        return str(self.server.objects["configmaps", "ns", "zone"]["data"]["db"])


def run(api_server: Any, scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def bounded() -> None:
        server = api_server()
        async with asyncio.timeout(30), server.running() as client:
            bench = Bench(server, client)
            await scenario(bench)
            await bench.publishing.close()

    asyncio.run(bounded())


def test_a_tunnel_without_dns_has_no_view_and_one_whose_zone_is_missing_has_an_error(api_server: Any) -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.publishing.view(tunnel(None), KEY) is None
        assert await bench.publishing.view(None, KEY) is None
        view = await bench.publishing.view(IN_FILE, KEY)
        assert view is not None
        assert view.error is not None
        assert "does not exist" in view.error

    run(api_server, scenario)


def test_changes_are_written_and_counted(api_server: Any) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.zone(ZONE)
        await bench.publishing.view(IN_FILE, KEY)
        results, wait = await bench.publishing.apply(KEY, [ZoneChanges("example.com", (change("a.example.com"),))])
        assert [r.result for r in results] == [Result.DONE]
        assert wait == 0
        assert "a.example.com.\t60\tIN\tA\t192.0.2.1\n" in bench.text()
        told = bench.metrics.exposition().decode()
        assert 'culvert_dns_changes_total{action="create",result="success"} 1.0' in told
        assert 'culvert_dns_last_success_timestamp_seconds{namespace="ns",tunnel="main"} 1.8e+09' in told
        assert 'culvert_dns_provider_duration_seconds_count{operation="read"} 1.0' in told
        assert 'culvert_dns_provider_duration_seconds_count{operation="write"} 1.0' in told
        bench.metrics.dns.figures(KEY, Figures(owned=3, refused=2, held=1))
        told = bench.metrics.exposition().decode()
        for name, count in (("names_owned", 3), ("names_refused", 2), ("deletions_held", 1)):
            assert f'culvert_dns_{name}{{namespace="ns",tunnel="main"}} {count}.0' in told
        await bench.publishing.view(None, KEY)
        assert 'tunnel="main"' not in bench.metrics.exposition().decode()

    run(api_server, scenario)


def test_after_a_failure_the_zone_is_left_alone_for_a_growing_while(api_server: Any) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.zone(ZONE)
        planned = [ZoneChanges("example.com", (change("a.example.com"),))]
        waits = []
        for _ in range(3):
            await bench.publishing.view(IN_FILE, KEY)
            bench.server.refusals.append((500, {}))
            results, wait = await bench.publishing.apply(KEY, planned)
            assert [r.result for r in results] == [Result.FAILED]
            view = await bench.publishing.view(IN_FILE, KEY)
            assert view is not None
            assert "cannot be written" in view.failures["a.example.com"]
            asked = len(bench.server.requests)
            assert (await bench.publishing.apply(KEY, planned))[0] == ()
            assert len(bench.server.requests) == asked
            waits.append(wait)
            bench.now += wait
        assert waits[0] < waits[1] < waits[2]
        await bench.publishing.view(IN_FILE, KEY)
        results, _ = await bench.publishing.apply(KEY, planned)
        assert [r.result for r in results] == [Result.DONE]
        view = await bench.publishing.view(IN_FILE, KEY)
        assert view is not None
        assert view.failures == {}

    run(api_server, scenario)


def test_other_settings_are_another_provider(api_server: Any) -> None:
    async def scenario(bench: Bench) -> None:
        first = await bench.publishing.view(tunnel({"memory": {}, "zones": ["a.example"]}), KEY)
        second = await bench.publishing.view(tunnel({"memory": {}, "zones": ["B.Example."]}), KEY)
        assert first is not None
        assert second is not None
        assert [z.zone for z in first.zones] == ["a.example"]
        assert [z.zone for z in second.zones] == ["b.example"]

    run(api_server, scenario)


def test_a_credentials_expiry_is_told_per_tunnel_and_goes_with_it() -> None:
    metrics = Metrics()
    metrics.credential(KEY, 1.8e9)
    assert 'expiry_timestamp_seconds{namespace="ns",tunnel="main"} 1.8e+09' in metrics.exposition().decode()
    metrics.credential(KEY, None)
    metrics.credential(KEY, None)
    assert 'tunnel="main"' not in metrics.exposition().decode()
