"""WebSocket through the tunnel: a transparent pipe after 101, an ordinary response without it."""

import asyncio
import base64
import hashlib
import random
from typing import Any

import aiohttp
import pytest
from aiohttp import web

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()  # noqa: S324 - RFC 6455
HANDSHAKE = (
    f"GET /ws HTTP/1.1\r\nHost: raw.example.com\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
).encode()
SWITCH = (
    f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n"
).encode()


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(max_msg_size=0, protocols=["chat"])
    await socket.prepare(request)
    async for message in socket:
        if message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)
    return socket


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_c01_ten_thousand_messages_and_a_large_one_come_back_unchanged(shared: Any, tls: bool) -> None:
    large = random.Random(1).randbytes(1 << 20)

    async def scenario() -> None:
        async with (
            shared.origin(echo),
            shared.browser(tls=tls) as browser,
            browser.ws_connect("/ws", max_msg_size=0, protocols=["other", "chat"], compress=15) as socket,
        ):
            assert socket.protocol == "chat"

            async def send() -> None:
                for number in range(10_000):
                    await socket.send_str(f"message {number}")
                await socket.send_bytes(large)

            sending = asyncio.create_task(send())
            for number in range(10_000):
                assert await socket.receive_str() == f"message {number}"
            assert await socket.receive_bytes() == large
            await sending

    asyncio.run(scenario())


def test_c01_large_messages_in_both_directions_at_once(shared: Any) -> None:
    data = random.Random(2).randbytes(16 << 20)

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        sending = asyncio.create_task(socket.send_bytes(data))
        assert await socket.receive_bytes() == data
        await sending
        await socket.send_str("both")
        return socket

    async def scenario() -> None:
        async with (
            shared.origin(handler),
            shared.browser() as browser,
            browser.ws_connect("/ws", max_msg_size=0) as socket,
        ):
            sending = asyncio.create_task(socket.send_bytes(data))
            assert await socket.receive_bytes() == data
            await sending
            assert await socket.receive_str() == "both"

    asyncio.run(scenario())


@pytest.mark.parametrize("by", ["visitor", "origin"])
def test_c01_close_codes_are_the_same_at_both_ends(shared: Any, by: str) -> None:
    """Each end says why in a code of its own, and the other end reads exactly that."""
    seen: asyncio.Queue[tuple[int | None, Any]] = asyncio.Queue()

    async def close(socket: Any, *, first: bool) -> None:
        if first:
            await socket.close(code=4321, message=b"I leave")
            await seen.put((socket.close_code, None))
        else:
            message = await socket.receive()
            assert message.type is aiohttp.WSMsgType.CLOSE
            await seen.put((message.data, message.extra))
            await socket.close(code=4567, message=b"so do I")

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoclose=False)
        await socket.prepare(request)
        await close(socket, first=by == "origin")
        return socket

    async def scenario() -> None:
        async with (
            shared.origin(handler),
            shared.browser() as browser,
            browser.ws_connect("/ws", autoclose=False) as socket,
        ):
            await close(socket, first=by == "visitor")
            assert await asyncio.wait_for(seen.get(), 60) == (4321, "I leave")
            assert await asyncio.wait_for(seen.get(), 60) == (4567, None)

    asyncio.run(scenario())


def test_c03_bytes_before_101_are_held_and_arrive_behind_it_in_order(shared: Any) -> None:
    early = random.Random(3).randbytes(30_000)

    async def scenario() -> None:
        heads: asyncio.Queue[bytes] = asyncio.Queue()
        go = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.put_nowait(await reader.readuntil(b"\r\n\r\n"))
            await go.wait()
            writer.write(SWITCH + b"\r\nearly from the origin")
            writer.write(await reader.readexactly(len(early) + 4))
            await reader.read(-1)
            writer.write(b"after your half-close")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", shared.port("raw"))
        try:
            async with shared.visitor() as visitor:
                visitor.send(HANDSHAKE + b"\r\n" + early)
                head = await asyncio.wait_for(heads.get(), 60)
                assert head.lower().count(b"upgrade: websocket") == 1
                assert b"keep-alive" not in head
                visitor.send(b"more")
                go.set()
                switched = await visitor.head()
                assert switched.status == 101
                assert switched.field("sec-websocket-accept") == ACCEPT
                assert switched.field("upgrade") == "websocket"
                assert await visitor.exactly(21) == b"early from the origin"
                assert await visitor.exactly(len(early) + 4) == early + b"more"
                visitor.writer.write_eof()
                assert await visitor.rest() == b"after your half-close"
        finally:
            server.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [b"200 OK", b"403 Forbidden", b"426 Upgrade Required"])
def test_c02_a_handshake_that_is_not_switched_gets_an_ordinary_response(shared: Any, status: bytes) -> None:
    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        if heard.target == "/ws":
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nno" % status)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")

    async def scenario() -> None:
        async with shared.raw_origin(answer) as origin:
            async with shared.visitor() as visitor:
                visitor.send(HANDSHAKE + b"\r\n")
                response = await visitor.response()
                assert (response.status, response.body) == (int(status[:3]), b"no")
                assert (await visitor.get("/next", host="raw.example.com")).body == b"next"
            async with shared.visitor() as visitor:  # bytes behind the handshake are never a request
                visitor.send(HANDSHAKE + b"\r\nGET /smuggled HTTP/1.1\r\nHost: raw.example.com\r\n\r\n")
                response = await visitor.response()
                assert response.status == int(status[:3])
                assert response.field("connection") == "close"
                assert await visitor.rest() == b""
            assert [heard.target for heard in origin.requests] == ["/ws", "/next", "/ws"]
            assert b"smuggled" not in origin.received

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (SWITCH.replace(ACCEPT.encode(), b"d3Jvbmc="), "wrong_websocket_accept"),
        (SWITCH.replace(b"Upgrade: websocket", b"Upgrade: h2c"), "switched_to_another_protocol"),
        (SWITCH + b"Sec-WebSocket-Protocol: never-asked\r\n", "wrong_websocket_protocol"),
    ],
)
def test_c02_a_101_that_does_not_answer_the_handshake_is_a_502(shared: Any, answer: bytes, reason: str) -> None:
    async def write(_: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(answer + b"\r\nbytes that must not pass")

    async def scenario() -> None:
        async with shared.raw_origin(write), shared.visitor() as visitor:
            visitor.send(HANDSHAKE + b"\r\n")
            response = await visitor.response()
            assert (response.status, response.blame) == (502, f"origin; {reason}")
            assert b"must not pass" not in response.body

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "request_head",
    [
        HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        HANDSHAKE.replace(b"keep-alive, Upgrade", b"keep-alive"),
        HANDSHAKE.replace(b"GET", b"POST"),
        HANDSHAKE.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    ],
    ids=["1.0", "no connection option", "post", "h2c"],
)
def test_c03_what_is_no_handshake_is_an_ordinary_request_without_upgrade(shared: Any, request_head: bytes) -> None:
    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def scenario() -> None:
        async with shared.raw_origin(answer) as origin, shared.visitor() as visitor:
            visitor.send(request_head + b"\r\n")
            assert (await visitor.response()).body == b"ok"
            (heard,) = origin.requests
            assert "upgrade" not in heard.fields
            assert "connection" not in heard.fields

    asyncio.run(scenario())
