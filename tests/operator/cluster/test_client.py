"""The client: errors as values, logging in again, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import APIError, Client
from culvert_operator.cluster.connection import Access, LoginError, access, credentials


def run(api_server: Any, scenario: Callable[[Any, Client], Awaitable[None]]) -> None:
    async def bounded() -> None:
        server = api_server()
        async with asyncio.timeout(30), server.running() as client:
            await scenario(server, client)

    asyncio.run(bounded())


def test_what_does_not_exist_is_none_and_other_refusals_are_errors(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        assert await client.get(kinds.SECRET, "ns", "none") is None
        server.refusals.append((403, {}))
        with pytest.raises(APIError, match="refused with 403") as refused:
            await client.get(kinds.SECRET, "ns", "none")
        assert refused.value.final
        server.refusals.append((503, {"Retry-After": "7"}))
        with pytest.raises(APIError) as later:
            await client.get(kinds.SECRET, "ns", "none")
        assert not later.value.final
        assert later.value.retry_after == 7

    run(api_server, scenario)


def test_creating_twice_and_deleting_another_are_conflicts(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        made = await client.create(kinds.CLAIM, None, {"metadata": {"name": "a"}})
        with pytest.raises(APIError) as twice:
            await client.create(kinds.CLAIM, None, {"metadata": {"name": "a"}})
        assert (twice.value.conflict, twice.value.reason) == (True, "AlreadyExists")
        with pytest.raises(APIError) as another:
            await client.delete(kinds.CLAIM, None, "a", uid="somebody-else's")
        assert another.value.conflict
        await client.delete(kinds.CLAIM, None, "a", uid=made["metadata"]["uid"])
        assert server.objects == {}

    run(api_server, scenario)


def test_a_token_that_was_replaced_is_read_again_and_the_request_made_again(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        await client.get(kinds.SECRET, "ns", "a")
        server.tokens.append("second")
        assert await client.get(kinds.SECRET, "ns", "a") is None
        assert len(server.requests) == 3

    run(api_server, scenario)


def test_a_token_that_stays_refused_is_an_error_after_two_tries(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        async def wrong() -> Access:
            return Access(server.url, None, {"Authorization": "Bearer wrong"})

        other = Client(wrong)
        with pytest.raises(APIError) as refused:
            await other.get(kinds.SECRET, "ns", "a")
        await other.close()
        assert refused.value.status == 401
        assert len(server.requests) == 2

    run(api_server, scenario)


def test_a_token_is_read_again_after_a_minute() -> None:
    async def scenario() -> None:
        now, reads = [0.0], 0

        async def log_in() -> Access:
            nonlocal reads
            reads += 1
            return Access("http://127.0.0.1:1", None, {})

        client = Client(log_in, clock=lambda: now[0])
        for moment in (0.0, 30.0, 61.0, 62.0):
            now[0] = moment
            with pytest.raises(APIError) as away:
                await client.get(kinds.SECRET, "ns", "a")
            assert away.value.status == 0
        await client.close()
        assert reads == 2

    asyncio.run(scenario())


def test_a_secret_header_shows_in_no_repr() -> None:
    assert "hunter2" not in repr(Access("https://x", None, {"Authorization": "Bearer hunter2"}))


def test_a_kubeconfig_is_read_and_a_missing_one_is_a_sentence(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(LoginError, match="kubeconfig"):
        credentials()
    (tmp_path / "config").write_text(
        "current-context: c\n"
        "contexts: [{name: c, context: {cluster: k, user: u, namespace: n}}]\n"
        "clusters: [{name: k, cluster: {server: 'https://127.0.0.1:6443/'}}]\n"
        "users: [{name: u, user: {token: t}}]\n"
    )
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    found = access(credentials())
    assert (found.server, found.namespace) == ("https://127.0.0.1:6443", "n")
    assert found.headers == {"Authorization": "Bearer t"}
    assert found.tls is not None
