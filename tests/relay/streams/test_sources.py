"""allowedSources of hostnames: HTTP visitors are refused before anything reaches the tunnel."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from culvert_protocol.messages import Routes
from culvert_protocol.statements import GrantedName, sign_grant

Play = Callable[..., None]
Wait = Callable[[Callable[[], bool], str], Awaitable[None]]
HANDSHAKE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


def grant(world: Any, sources: tuple[str, ...], *, version: int = 1) -> str:
    now = int(time.time())
    names = [GrantedName("app.example.com", 1, sources), GrantedName("open.example.com", 1)]
    passed = [GrantedName("db.example.com", 1)]
    return sign_grant(
        world.issuer.key, subject="main", version=version, names=names, tls_names=passed, issued_at=now,
        expires_at=now + 3600,
    )  # fmt: skip


@pytest.mark.parametrize("sni", [None, "app.example.com"])
@pytest.mark.parametrize("extra", ["", HANDSHAKE])
def test_a_visitor_from_elsewhere_gets_403_and_the_tunnel_hears_nothing(
    play: Play, wait_until: Wait, sni: str | None, extra: str
) -> None:
    async def scenario(world: Any) -> None:
        end = await world.connector([], grant=grant(world, ("192.0.2.0/24", "2001:db8::/32")))
        visitor = await world.visitor(sni=sni)
        refused = await visitor.get("app.example.com", extra=extra)
        assert (refused.status, refused.field("culvert-error")) == (403, "relay; source_not_allowed")
        assert end.requests == []
        assert world.edge.counters.refused_sources == 1
        visitor = await world.visitor()
        assert (await visitor.get("open.example.com")).status == 200
        end.session.routes(Routes(grant(world, ("127.0.0.1/32",), version=2)))
        await wait_until(lambda: len(end.results) == 2, "the wider grant")
        visitor = await world.visitor(sni=sni)
        assert (await visitor.get("app.example.com")).status == 200

    play(scenario)


def test_a_visitor_cannot_pretend_to_come_from_an_allowed_address(play: Play) -> None:
    async def scenario(world: Any) -> None:
        end = await world.connector([], grant=grant(world, ("192.0.2.0/24",)))
        visitor = await world.visitor()
        extra = "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\n"
        assert (await visitor.get("app.example.com", extra=extra)).status == 403
        assert end.requests == []

    play(scenario)


def test_a_name_that_is_passed_through_is_no_http_host(play: Play) -> None:
    async def scenario(world: Any) -> None:
        end = await world.connector([], grant=grant(world, ()))
        visitor = await world.visitor()
        answer = await visitor.get("db.example.com")
        assert (answer.status, answer.field("culvert-error")) == (404, "relay; not_http")
        assert end.requests == []

    play(scenario)
