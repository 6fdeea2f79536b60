"""What a stranger may take of the relay: the size of a head, and time."""

import asyncio
import time
from typing import Any

import pytest
from aiohttp import web


async def ok(request: web.Request) -> web.Response:
    return web.Response(text=str(len(request.raw_path)))


@pytest.mark.parametrize(
    ("request_line", "fields", "status"),
    [
        ("GET /" + "a" * 10_240, "", 414),
        ("GET /", "X-A: " + "b" * 20_480 + "\r\n", 431),
        ("GET /", "X-A: b\r\n" * 250, 431),
        ("GET /", ("X-A: " + "b" * 8_000 + "\r\n") * 5, 431),
    ],
    ids=["10 KiB target", "20 KiB field", "250 fields", "40 KiB of head"],
)
def test_b06_a_head_beyond_the_limits_is_refused_by_the_relay(
    shared: Any, request_line: str, fields: str, status: int
) -> None:
    async def scenario() -> None:
        async with shared.origin(ok), shared.visitor() as visitor:
            visitor.send(f"{request_line} HTTP/1.1\r\nHost: app.example.com\r\n{fields}\r\n".encode())
            response = await visitor.response()
            assert response.status == status
            assert str(response.blame).startswith("relay; ")
            assert await visitor.rest() == b""

    asyncio.run(scenario())


def test_b06_an_8000_byte_target_and_a_large_head_pass(shared: Any) -> None:
    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        body = str(len(heard.target)).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def scenario() -> None:
        async with shared.raw_origin(answer), shared.visitor() as visitor:
            fields = "".join(f"X-{number}: {'v' * 100}\r\n" for number in range(190))
            response = await visitor.get("/" + "a" * 7_999, host="raw.example.com", extra=fields)
            assert (response.status, response.body) == (200, b"8000")

    asyncio.run(scenario())


def test_b12_a_slow_head_is_a_408_after_ten_seconds_whatever_trickles_in(shared: Any) -> None:
    """The deadline is the whole head's: a byte now and then does not put it off."""

    async def drip(visitor: Any) -> None:
        while not visitor.reader.at_eof():
            visitor.send(b"x")
            await asyncio.sleep(0.5)

    async def scenario() -> None:
        async with (
            shared.origin(ok),
            shared.visitor() as silent,
            shared.visitor() as dripping,
            shared.visitor() as mute,
        ):
            start = time.monotonic()
            silent.send(b"GET / HTTP/1.1\r\nHost: app.exam")
            dripping.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\nX-A: ")
            dripper = asyncio.create_task(drip(dripping))
            try:
                for slow in (silent, dripping):
                    response = await slow.response()
                    assert (response.status, response.blame) == (408, "relay; head_timeout")
                    assert response.field("connection") == "close"
                assert await mute.rest() == b""  # nothing was asked, so nothing is answered
            finally:
                dripper.cancel()
            assert 9.9 < time.monotonic() - start < 40

    asyncio.run(scenario())
