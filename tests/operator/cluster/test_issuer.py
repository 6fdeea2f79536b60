"""The issuer's key and the relay's certificate: made once, kept, published, and nothing written when in place."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import Client
from culvert_operator.issuer import IssuerError, ensure_issuer
from culvert_operator.relay_certificate import ensure_relay_certificate
from culvert_protocol.keys import generate_issuer_key, load_issuer_public

NAMES = ("relay.ns.svc",)
DAY = 86400.0


def run(api_server: Any, scenario: Callable[[Any, Client], Awaitable[None]]) -> None:
    async def bounded() -> None:
        server = api_server()
        async with asyncio.timeout(30), server.running() as client:
            await scenario(server, client)

    asyncio.run(bounded())


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_key_is_made_once_and_published(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        first = await ensure_issuer(client, "ns", "culvert-issuer")
        version = server.version
        second = await ensure_issuer(client, "ns", "culvert-issuer")
        assert (first.key, first.installation) == (second.key, second.installation)
        assert server.version == version
        published = server.objects["configmaps", "ns", "culvert-issuer"]["data"]["issuer.pub"]
        assert load_issuer_public(published.encode())[0].thumbprint == first.public.thumbprint

    run(api_server, scenario)


def test_two_operators_at_once_end_with_one_key(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        found = await asyncio.gather(*(ensure_issuer(client, "ns", "culvert-issuer") for _ in range(5)))
        assert len({(issuer.key.seed, issuer.installation) for issuer in found}) == 1

    run(api_server, scenario)


def test_a_key_that_somebody_brought_is_kept_and_its_installation_named(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        key = generate_issuer_key()
        await server.put(kinds.SECRET, "mine", "ns", data={"issuer.key": encoded(key.pem())})
        found = await asyncio.gather(*(ensure_issuer(client, "ns", "mine") for _ in range(3)))
        assert {issuer.key.seed for issuer in found} == {key.seed}
        assert len({issuer.installation for issuer in found}) == 1

    run(api_server, scenario)


def test_a_successor_speaks_for_the_first_key(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        old, new = generate_issuer_key(), generate_issuer_key()
        public = old.public.pem() + new.public.pem()
        data = {"issuer.key": new.pem(), "issuer.pub": public, "installation-id": b"x"}
        await server.put(kinds.SECRET, "mine", "ns", data={k: encoded(v) for k, v in data.items()})
        issuer = await ensure_issuer(client, "ns", "mine")
        assert issuer.public.thumbprint == new.public.thumbprint
        assert issuer.public.issuer_id == old.public.thumbprint
        assert server.objects["configmaps", "ns", "culvert-issuer"]["data"]["issuer.pub"].encode() == public

    run(api_server, scenario)


@pytest.mark.parametrize(
    "data",
    [
        {"installation-id": b"x"},
        {"installation-id": b"x", "issuer.key": b"hunter2"},
        {"installation-id": b"\xff", "issuer.key": generate_issuer_key().pem()},
        {
            "installation-id": b"x",
            "issuer.key": generate_issuer_key().pem(),
            "issuer.pub": generate_issuer_key().public.pem(),
        },
    ],
    ids=["no key", "no PEM", "no text", "another key's public half"],
)
def test_a_secret_that_cannot_be_used_is_told_without_its_content_and_never_replaced(
    api_server: Any, data: dict[str, bytes]
) -> None:
    async def scenario(server: Any, client: Client) -> None:
        raw = await server.put(kinds.SECRET, "mine", "ns", data={k: encoded(v) for k, v in data.items()})
        with pytest.raises(IssuerError, match="ns/mine") as error:
            await ensure_issuer(client, "ns", "mine")
        assert "hunter2" not in str(error.value)
        assert server.objects["secrets", "ns", "mine"] == raw

    run(api_server, scenario)


def test_the_relays_certificate_is_made_renewed_in_time_and_otherwise_left_alone(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        now = 1_800_000_000.0
        ends = await ensure_relay_certificate(client, "ns", NAMES, now=now)
        assert ends == pytest.approx(now + 90 * DAY, abs=2)
        version = server.version
        assert await ensure_relay_certificate(client, "ns", NAMES, now=now + 30 * DAY) == ends
        assert server.version == version
        authority = server.objects["secrets", "ns", "culvert-relay-ca"]["data"]
        assert await ensure_relay_certificate(client, "ns", NAMES, now=now + 70 * DAY) > ends
        assert server.objects["secrets", "ns", "culvert-relay-ca"]["data"] == authority
        published = server.objects["configmaps", "ns", "culvert-relay-ca"]["data"]
        assert encoded(published["ca.crt"].encode()) == authority["ca.crt"]
        assert set(published) == {"ca.crt"}
        assert set(server.objects["secrets", "ns", "culvert-relay-tls"]["data"]) == {"tls.crt", "tls.key"}

    run(api_server, scenario)


def test_two_operators_at_once_end_with_one_ca(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        await asyncio.gather(*(ensure_relay_certificate(client, "ns", NAMES, now=1.8e9) for _ in range(4)))
        await ensure_relay_certificate(client, "ns", NAMES, now=1.8e9)
        version = server.version
        await ensure_relay_certificate(client, "ns", NAMES, now=1.8e9)
        assert server.version == version

    run(api_server, scenario)
