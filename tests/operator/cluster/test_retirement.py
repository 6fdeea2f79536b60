"""Retirement: every finalizer of culvert's is taken off, nothing else changes, and what stays is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import APIError, Client
from culvert_operator.options import Options
from culvert_operator.retirement import left_behind, retire, uninstalling

OURS = "culvert.dev/cleanup"
EVERYWHERE = Options(namespace="ns", image="")
RECORDS = [{"tunnel": "ns/main", "name": name, "type": "CNAME"} for name in ("b.example.com", "a.example.com")]


def run(api_server: Any, scenario: Callable[[Any, Client], Awaitable[None]]) -> None:
    async def bounded() -> None:
        server = api_server()
        async with asyncio.timeout(30), server.running() as client:
            await scenario(server, client)

    asyncio.run(bounded())


async def put(
    server: Any, kind: kinds.Kind, name: str, *finalizers: str, namespace: str = "ns", **content: Any
) -> None:
    raw = await server.put(kind, name, namespace, **content)
    if finalizers:
        raw["metadata"]["finalizers"] = list(finalizers)
        await server.store((kind.plural, namespace, name), raw)


def finalizers(server: Any, kind: kinds.Kind, name: str, namespace: str = "ns") -> list[str]:
    return list(server.objects[kind.plural, namespace, name]["metadata"].get("finalizers", []))


def told(server: Any) -> dict[str, str]:
    return {raw["regarding"]["name"]: raw["note"] for (kind, _, _), raw in server.objects.items() if kind == "events"}


def test_only_culverts_finalizer_goes_and_every_object_is_told_what_stays(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        await put(server, kinds.TUNNEL, "main", "else/one", OURS, spec={"kept": 1})
        await put(server, kinds.BINDING, "web", OURS, status={"publishedRecords": RECORDS})
        await put(server, kinds.BINDING, "bare")
        assert await retire(client, EVERYWHERE, now=0.0, instance="it") == (2, 0)
        assert finalizers(server, kinds.TUNNEL, "main") == ["else/one"]
        assert finalizers(server, kinds.BINDING, "web") == []
        assert server.objects["tunnels", "ns", "main"]["spec"] == {"kept": 1}
        assert told(server).keys() == {"main", "web"}
        assert "a.example.com CNAME, b.example.com CNAME" in told(server)["web"]
        assert await retire(client, EVERYWHERE, now=0.0, instance="it") == (0, 0), (
            "a second time there is nothing to do"
        )
        assert len(told(server)) == 2

    run(api_server, scenario)


def test_an_operator_of_a_few_namespaces_lets_go_of_its_own_objects_and_asks_for_no_others(api_server: Any) -> None:
    def of(tunnel: str) -> dict[str, Any]:
        return {"tunnelRef": {"name": "main", "namespace": tunnel}, "rules": []}

    async def scenario(server: Any, client: Client) -> None:
        for namespace in ("ns", "shop", "other"):
            await put(server, kinds.BINDING, "web", OURS, namespace=namespace, spec=of("ns"))
            await put(server, kinds.TUNNEL, "main", OURS, namespace=namespace)
        await put(server, kinds.BINDING, "theirs", OURS, namespace="shop", spec=of("other"))
        left = {"tunnels": ["ns/main"]}
        await put(server, kinds.BINDING, "changed", OURS, namespace="shop", spec=of("other"), status=left)
        options = Options(namespace="ns", image="", watch_namespaces=("shop",))
        assert await retire(client, options, now=0.0, instance="it") == (5, 0)
        assert finalizers(server, kinds.BINDING, "changed", "shop") == []
        for kind, name, namespace in ((kinds.TUNNEL, "main", "other"), (kinds.BINDING, "web", "other")):
            assert finalizers(server, kind, name, namespace) == [OURS]
        assert finalizers(server, kinds.BINDING, "theirs", "shop") == [OURS], (
            "another operator's, in a watched namespace"
        )
        assert {path for verb, path in server.requests if verb == "GET"} == {
            f"/apis/culvert.dev/v1alpha1/namespaces/{namespace}/{plural}"
            for namespace in ("ns", "shop")
            for plural in ("tunnels", "tunnelbindings")
        }

    run(api_server, scenario)


def test_a_namespace_that_cannot_be_read_keeps_back_no_other_one(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        options = Options(namespace="ns", image="", watch_namespaces=("shop",))
        await server.put(kinds.NAMESPACE, "ns")
        await put(server, kinds.BINDING, "web", OURS, namespace="shop", status={"tunnels": ["ns/main"]})
        server.refusals.append((403, {}))
        with pytest.raises(APIError, match="403"):
            await retire(client, options, now=0.0, instance="it")
        assert finalizers(server, kinds.BINDING, "web", "shop") == []

    run(api_server, scenario)


def test_every_page_is_read(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        server.page_limit = 2
        for number in range(5):
            await put(server, kinds.BINDING, f"b{number}", OURS)
        assert await retire(client, EVERYWHERE, now=0.0, instance="it") == (5, 0)

    run(api_server, scenario)


def test_an_object_that_changes_meanwhile_is_read_again_and_one_that_cannot_be_released_is_counted(
    api_server: Any,
) -> None:
    async def scenario(server: Any, client: Client) -> None:
        await put(server, kinds.BINDING, "web", OURS)
        real, calls = client.patch, []

        async def patch(kind: Any, namespace: Any, name: Any, body: Any, **options: Any) -> Any:
            if not calls:
                raw = server.objects["tunnelbindings", "ns", "web"]
                raw["metadata"]["finalizers"] = ["else/one", OURS]
                await server.store(("tunnelbindings", "ns", "web"), raw)
            calls.append(name)
            return await real(kind, namespace, name, body, **options)

        client.patch = patch  # type: ignore[method-assign]
        assert await retire(client, EVERYWHERE, now=0.0, instance="it") == (1, 0)
        assert finalizers(server, kinds.BINDING, "web") == ["else/one"]
        assert len(calls) == 2
        await put(server, kinds.BINDING, "stuck", OURS)
        # Every read between the tries is answered, every write refused.
        client.patch = refuse(server, real)  # type: ignore[method-assign]
        assert await retire(client, EVERYWHERE, now=0.0, instance="it") == (0, 1)
        assert finalizers(server, kinds.BINDING, "stuck") == [OURS]

    run(api_server, scenario)


def refuse(server: Any, real: Any) -> Any:
    async def patch(*arguments: Any, **options: Any) -> Any:
        server.refusals.append((500, {}))
        return await real(*arguments, **options)

    return patch


@pytest.mark.parametrize("kind", [kinds.SECRET, kinds.CONFIG_MAP], ids=lambda kind: kind.name)
def test_a_hook_that_was_applied_with_a_rendered_chart_finds_no_uninstallation(
    api_server: Any, kind: kinds.Kind
) -> None:
    async def scenario(server: Any, client: Client) -> None:
        helm = {"owner": "helm", "name": "culvert"}
        assert not await uninstalling(client, "ns", "culvert")
        await server.put(kind, "sh.helm.release.v1.culvert.v1", "ns", labels={**helm, "status": "deployed"})
        await server.put(
            kind, "sh.helm.release.v1.other.v1", "ns", labels={**helm, "name": "x", "status": "uninstalling"}
        )
        assert not await uninstalling(client, "ns", "culvert")
        await server.put(kind, "sh.helm.release.v1.culvert.v1", "ns", labels={**helm, "status": "uninstalling"})
        assert await uninstalling(client, "ns", "culvert")

    run(api_server, scenario)


def test_what_stays_is_a_sentence() -> None:
    assert "Nothing of this object stays" in left_behind("TunnelBinding", {})
    ends = {"status": {"credential": {"expiresAt": "2026-01-01T00:00:00Z"}}}
    assert "2026-01-01T00:00:00Z" in left_behind("Tunnel", ends)
    assert "carry on as they are." in left_behind("Tunnel", {})
