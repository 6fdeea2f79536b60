"""TLS by server name and sessions over the HTTPS port, through real processes."""

import asyncio
import hashlib
import random
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WAIT = 60.0


@pytest.fixture
def origin_tls(tmp_path: Path, pair_maker: Callable[..., None]) -> ssl.SSLContext:
    """A certificate that only the origin has."""
    pair_maker(tmp_path, "localhost", ["tls.example.com"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "localhost.crt", tmp_path / "localhost.key")
    return context


def test_c04_tls_reaches_the_origin_undecrypted_beside_https_at_the_same_port(
    shared: Any, origin_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    """The visitor sees the origin's own certificate, which the relay never had, and every byte is exact."""
    data = random.Random(11).randbytes(3_000_000)

    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(len(data)))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", shared.port("tls"), ssl=origin_tls)
        client = ssl.create_default_context(cafile=tmp_path / "localhost.crt")
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(
                "127.0.0.1", shared.relay.https, ssl=client, server_hostname="tls.example.com", limit=1 << 20
            ),
            WAIT,
        )
        writer.write(data)
        answer = await asyncio.wait_for(reader.readexactly(len(data)), WAIT)
        assert hashlib.sha256(answer).digest() == hashlib.sha256(data).digest()
        assert await asyncio.wait_for(reader.read(-1), WAIT) == b""
        await shared.hang_up(writer.transport)
        server.close()

        relays_own = ssl.create_default_context(cafile=shared.ca)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", shared.relay.https, ssl=relays_own, server_hostname="page.example.com"
        )
        writer.write(b"GET /only HTTP/1.1\r\nHost: page.example.com\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), WAIT)).startswith(b"HTTP/1.1 200 ")
        await shared.hang_up(writer.transport)

    asyncio.run(scenario())


def test_sessions_and_visitors_share_the_one_open_port(tunnel: Any, client_tls: ssl.SSLContext) -> None:
    async def scenario() -> None:
        relay = tunnel.add_relay()
        await relay.ready()
        config = {"ingress": [{"service": "hello_world"}], "relay": [f"127.0.0.1:{relay.https}"]}
        connector = tunnel.add_connector(**config)
        await connector.ready()
        assert {int(one["address"].rpartition(":")[2]) for one in (await connector.status())["sessions"]} == {
            relay.https
        }
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", relay.https, ssl=client_tls, server_hostname=tunnel.host
        )
        writer.write(f"GET / HTTP/1.1\r\nHost: {tunnel.host}\r\nConnection: close\r\n\r\n".encode())
        assert (await asyncio.wait_for(reader.readline(), WAIT)).startswith(b"HTTP/1.1 200 ")
        await tunnel.hang_up(writer.transport)

    asyncio.run(scenario())


def test_allowed_sources_hold_for_hostnames_tls_names_and_ports(tunnel: Any) -> None:
    async def scenario() -> None:
        somewhere = dict.fromkeys(("app.example.com", "tls.example.com", f"tcp:{tunnel.tcp_port}"), ("192.0.2.0/24",))
        tunnel.issuer.credentials(
            tunnel.credentials_path, ["app.example.com", "open.example.com"], tls_hostnames=["tls.example.com"],
            tcp_ports=[tunnel.tcp_port], sources=somewhere,
        )  # fmt: skip
        await tunnel.start(
            ingress=[
                {"hostname": "tls.example.com", "service": f"tls://127.0.0.1:{tunnel.port('tls')}"},
                {"relayPort": tunnel.tcp_port, "service": f"tcp://127.0.0.1:{tunnel.port('tcp')}"},
                {"service": "hello_world"},
            ]
        )
        refused = await tunnel.get(host="app.example.com")
        assert (refused.status, refused.blame) == (403, "relay; source_not_allowed")
        assert (await tunnel.get(host="open.example.com")).status == 200

        async def come() -> None:
            """The reset may also come before the connection has been seen to stand."""
            reader, writer = await asyncio.open_connection("127.0.0.1", tunnel.tcp_port)
            try:
                await asyncio.wait_for(reader.read(-1), WAIT)
            finally:
                await tunnel.hang_up(writer.transport)

        with socket.socket() as listening:  # an origin that would notice
            listening.bind(("127.0.0.1", tunnel.port("tcp")))
            listening.listen()
            listening.setblocking(False)
            with pytest.raises(ConnectionResetError):
                await come()
            with pytest.raises(BlockingIOError):
                listening.accept()
        assert await tunnel.relay.metric("culvert_relay_sources_refused_total") == 2

    asyncio.run(scenario())
