"""PROXY protocol to origins, through real processes: TCP, HTTP, and before TLS."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

WAIT = 60.0
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


@contextlib.asynccontextmanager
async def server(port: int, serve: Callable[..., Awaitable[None]]) -> AsyncIterator[None]:
    listening = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        listening.close()


def test_c04_origins_learn_the_visitors_address_when_they_ask_for_it(tunnel: Any) -> None:
    lines: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(await reader.readline())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"GET ")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")  # kept alive, as far as it is concerned
        await reader.read(-1)
        writer.close()

    async def binary(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        header = await reader.readexactly(16)
        body = await reader.readexactly(int.from_bytes(header[14:], "big"))
        lines.append(header + body)
        writer.write(b"ready")
        writer.close()

    async def scenario() -> None:
        options = {"proxyProtocol": "V1"}
        await tunnel.start(
            ingress=[
                {"hostname": "app.example.com", "service": tunnel.url("app"), "originRequest": options},
                {
                    "relayPort": tunnel.tcp_port,
                    "service": f"tcp://127.0.0.1:{tunnel.port('tcp')}",
                    "originRequest": {"proxyProtocol": "V2"},
                },
                {"service": "http_status:404"},
            ]
        )
        async with server(tunnel.port("app"), serve), server(tunnel.port("tcp"), binary):
            async with tunnel.visitor() as visitor:
                for _ in range(2):  # a connection each, although visitor and origin would keep theirs
                    assert (await visitor.get()).body == b"ok"
            assert lines == [b"PROXY TCP4 127.0.0.1 0.0.0.0 0 %d\r\n" % tunnel.relay.http] * 2
            lines.clear()
            reader, writer = await asyncio.open_connection("127.0.0.1", tunnel.tcp_port)
            assert await asyncio.wait_for(reader.readexactly(5), WAIT) == b"ready"
            port = writer.get_extra_info("sockname")[1]
            await tunnel.hang_up(writer.transport)
            ports = port.to_bytes(2, "big") + tunnel.tcp_port.to_bytes(2, "big")
            assert lines == [SIGNATURE + b"\x21\x11\x00\x0c" + bytes((127, 0, 0, 1)) * 2 + ports]

    asyncio.run(scenario())
