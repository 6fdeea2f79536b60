"""Whose fault it was: every answer that no origin gave says so, on time, and a response that broke off looks broken."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest


def test_a21_an_unknown_host_is_a_404_of_the_relays(shared: Any) -> None:
    async def scenario() -> None:
        for host in ("app.example.org", "example.com", "evilexample.com", "127.0.0.1"):
            response = await shared.get(host=host)
            assert (response.status, response.blame) == (404, "relay; unknown_host")
            assert response.field("cache-control") == "no-store"

    asyncio.run(scenario())


def test_a21_a_host_of_an_issuer_without_a_session_is_a_503_to_try_again(tunnel: Any) -> None:
    async def scenario() -> None:
        await tunnel.start(connectors=0)
        response = await tunnel.get(host="anything.example.com")
        assert (response.status, response.blame) == (503, "relay; no_session")
        assert int(response.field("retry-after")) > 0
        assert response.field("cache-control") == "no-store"
        assert (await tunnel.get(host="anything.example.org")).status == 404

    asyncio.run(scenario())


def test_a_host_without_a_rule_and_a_path_without_one_are_the_connectors_404(shared: Any) -> None:
    async def scenario() -> None:
        response = await shared.get(host="norule.example.com")
        assert (response.status, response.blame) == (404, "connector; http_status")
        assert (await shared.get("/other", host="page.example.com")).status == 404
        page = await shared.get("/only", host="page.example.com")
        assert (page.status, page.blame) == (200, None)

    asyncio.run(scenario())


def test_a_path_that_could_be_read_in_two_ways_matches_no_rule(shared: Any) -> None:
    async def scenario() -> None:
        for path in ("/only%2f..%2fother", "/x/..%5conly", "/%6fnly/../../only%00"):
            response = await shared.get(path, host="page.example.com")
            assert response.status in (400, 404)
            assert str(response.blame).startswith("connector; ")
        assert (await shared.get("/x/../%6Fnly", host="page.example.com")).status == 200

    asyncio.run(scenario())


@pytest.fixture
def refused(shared: Any) -> Iterator[None]:
    """Holds the port of the origin "refused" without listening on it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", shared.port("refused")))
        yield


@pytest.mark.usefixtures("refused")
def test_a17_an_origin_that_refuses_is_a_502_for_every_method(shared: Any) -> None:
    async def scenario() -> None:
        async with shared.visitor() as visitor:
            for method, extra in (("GET", ""), ("POST", "Content-Length: 0\r\n"), ("HEAD", "")):
                response = await visitor.get(host="refused.example.com", method=method, extra=extra)
                assert (response.status, response.blame) == (502, "origin; connection_refused")

    asyncio.run(scenario())


def test_a17_an_origin_whose_backlog_is_full_is_a_504_after_its_connect_timeout(shared: Any) -> None:
    async def scenario() -> None:
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", shared.port("silent")))
            listener.listen(0)
            loop = asyncio.get_running_loop()
            while True:  # until the kernel takes no more: then a connection attempt gets no answer at all
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                try:
                    await asyncio.wait_for(loop.sock_connect(filler, listener.getsockname()), 0.5)
                except TimeoutError:
                    break
            start = loop.time()
            response = await shared.get(host="silent.example.com")
            assert (response.status, response.blame) == (504, "origin; connect_timeout")
            assert loop.time() - start >= 0.5

    asyncio.run(scenario())


BEGINNINGS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5_000,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "until close": b"HTTP/1.1 200 OK\r\n\r\nhello",
}


# A FIN is how a response that lasts until the connection closes ends: for that framing only a RST is a death.
DEATHS = [
    (framing, end) for framing in BEGINNINGS for end in ("FIN", "RST") if (framing, end) != ("until close", "FIN")
]


@pytest.mark.parametrize(("framing", "end"), DEATHS)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a16_an_origin_that_dies_within_a_response_is_seen_by_the_visitor(
    shared: Any, framing: str, end: str, tls: bool
) -> None:
    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(BEGINNINGS[framing])
        await writer.drain()
        await asyncio.wait_for(seen.wait(), 60)
        if end == "RST":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    seen = asyncio.Event()

    async def scenario() -> None:
        async with (
            shared.raw_origin(answer),
            shared.browser("raw.example.com", tls=tls) as browser,
            browser.get("/") as response,
        ):
            assert response.status == 200
            assert await response.content.readany()
            seen.set()
            with pytest.raises(aiohttp.ClientError):
                await response.read()

    asyncio.run(scenario())


def test_a16_an_http_1_0_visitor_for_whom_a_fin_is_the_end_sees_a_reset(shared: Any) -> None:
    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(BEGINNINGS["chunked"])
        await writer.drain()
        await asyncio.wait_for(seen.wait(), 60)
        writer.close()

    seen = asyncio.Event()

    async def scenario() -> None:
        async with shared.raw_origin(answer), shared.visitor() as visitor:
            visitor.send(b"GET / HTTP/1.0\r\nHost: raw.example.com\r\n\r\n")
            assert (await visitor.head()).field("connection") == "close"
            assert await visitor.exactly(5) == b"hello"
            seen.set()
            with pytest.raises(ConnectionResetError):
                await visitor.rest()

    asyncio.run(scenario())


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a17_an_origin_that_dies_before_its_response_is_a_502_and_is_not_asked_again(
    shared: Any, method: bytes
) -> None:
    """The connection was a fresh one and the request was read: nothing says that it may be sent again."""

    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def scenario() -> None:
        async with shared.raw_origin(answer) as origin, shared.visitor() as visitor:
            visitor.send(method + b" / HTTP/1.1\r\nHost: raw.example.com\r\nContent-Length: 2\r\n\r\nhi")
            response = await visitor.response()
            assert response.status == 502
            assert str(response.blame).startswith("origin; ")
            assert [heard.body for heard in origin.requests] == [b"hi"]

    asyncio.run(scenario())


def test_a18_a_kept_connection_that_has_died_loses_no_request(shared: Any) -> None:
    """The origin closes after every answer without saying so, as a server does whose keep-alive time is over."""

    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(heard.body), heard.body))
        await writer.drain()
        writer.close()
        heard_of.append((heard.method, heard.target))

    heard_of: list[tuple[str, str]] = []

    async def scenario() -> None:
        async with shared.raw_origin(answer), shared.visitor() as visitor:
            for number in range(20):
                get = await visitor.get(f"/{number}", host="raw.example.com")
                assert get.status == 200
                visitor.send(b"POST /%d HTTP/1.1\r\nHost: raw.example.com\r\nContent-Length: 2\r\n\r\nhi" % number)
                assert (await visitor.response()).body == b"hi"
            posts = [target for method, target in heard_of if method == "POST"]
            assert posts == [f"/{number}" for number in range(20)]

    asyncio.run(scenario())
