"""The operator's way to tell relays of a revocation, with real relays."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from culvert_ingress.document import RelayTarget
from culvert_operator.revoking.delivery import deliver
from culvert_protocol.statements import sign_revocation


async def ok(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def lookup(host: str, port: int) -> list[str]:
    return ["127.0.0.1"] if host == "relay.test" else ["127.0.0.1", "127.0.0.2"]


def without_proxy(host: str) -> None:
    return None


def revocation(tunnel: Any, issuer: Any = None) -> str:
    now = int(time.time()) + 1
    return sign_revocation((issuer or tunnel.issuer).key, subject=tunnel.tunnel_id, not_before=now, issued_at=now)


def target(tunnel: Any, *addresses: str, **changes: Any) -> RelayTarget:
    return RelayTarget(addresses, **{"server_name": "localhost", "ca": tunnel.ca.read_text(), **changes})


def test_d22_every_relay_hears_of_it_and_ends_the_sessions_within_five_seconds(tunnel: Any, wait_for: Any) -> None:
    async def scenario() -> None:
        await tunnel.start(relays=2)
        async with tunnel.origin(ok):
            assert (await tunnel.get()).status == 200
            # One by its tunnel address, one by the address that visitors use too.
            relay = target(tunnel, f"relay.test:{tunnel.relays[0].tunnel}", f"relay.test:{tunnel.relays[1].https}")
            start = time.monotonic()
            told = await deliver(revocation(tunnel), relay, resolve=lookup, proxy_of=without_proxy)
            assert told == dict.fromkeys(relay.addresses, "")

            async def ended() -> bool:
                return not any([await one.sessions() for one in tunnel.relays])

            await wait_for(ended, "the sessions have ended")
            assert time.monotonic() - start < 5
            assert (await tunnel.get()).blame == "relay; no_session"

    asyncio.run(scenario())


def test_why_a_relay_has_not_confirmed_is_a_sentence_for_each(tunnel: Any, tmp_path: Any) -> None:
    async def scenario() -> None:
        await tunnel.start()
        here = f"relay.test:{tunnel.relay.tunnel}"

        async def why(relay: RelayTarget, token: str = "") -> str:
            told = await deliver(token or revocation(tunnel), relay, resolve=lookup, proxy_of=without_proxy)
            (said,) = told.values()
            return said

        stranger = type(tunnel.issuer)(tmp_path, "stranger")
        assert "issuer in its relay.yml" in await why(target(tunnel, here), revocation(tunnel, stranger))
        assert "not accepted for localhost" in await why(target(tunnel, here, ca=None))
        assert "not accepted for other.test" in await why(target(tunnel, here, server_name="other.test"))
        assert "cannot be read" in await why(target(tunnel, here, ca="nothing"))
        assert "cannot be reached" in await why(target(tunnel, f"relay.test:{tunnel.port('nobody')}"))
        # Its name has two addresses, and at one of them is nobody: a relay that was not told is not passed over.
        assert "cannot be reached" in await why(target(tunnel, f"two.test:{tunnel.relay.tunnel}"))
        assert len(await tunnel.relay.sessions()) == 0, "the relay at the other address was told"

    asyncio.run(scenario())


def test_the_tunnels_proxy_is_the_way_there(tunnel: Any) -> None:
    async def scenario() -> None:
        await tunnel.start()
        asked: list[str] = []
        async with connect_proxy(asked, tunnel.relay.tunnel) as port:
            relay = target(tunnel, "relay.invalid:7443", proxy=f"http://127.0.0.1:{port}")
            # The name is the proxy's to resolve, and it goes before what the environment says.
            told = await deliver(revocation(tunnel), relay, resolve=lookup, proxy_of=lambda host: "http://127.0.0.1:1")
            assert told == {"relay.invalid:7443": ""}
            assert asked == ["CONNECT relay.invalid:7443 HTTP/1.1"]
        told = await deliver(revocation(tunnel), relay, resolve=lookup, proxy_of=without_proxy)
        assert "cannot be reached" in told["relay.invalid:7443"], "never past the proxy"

    asyncio.run(scenario())


@asynccontextmanager
async def connect_proxy(asked: list[str], port: int) -> AsyncIterator[int]:
    """An HTTP proxy on loopback that takes CONNECT to anything as one to `port`; yields its own port."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[0])
        onward, upstream = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with suppress(OSError):
            await asyncio.gather(pump(reader, upstream), pump(onward, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
