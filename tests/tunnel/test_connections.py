"""Requests on one connection: kept, pipelined in order, and nothing but requests that the relay understood in full
ever reaches an origin (cases B: what the relay let through is compared with what the origin heard)."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

HOST = b"Host: raw.example.com\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: raw.example.com\r\n\r\n"


async def ok(heard: Any, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(heard.target), heard.target.encode()))


def test_a_connection_serves_many_requests_and_so_does_the_origins(shared: Any) -> None:
    async def scenario() -> None:
        async with shared.raw_origin(ok) as origin, shared.visitor() as visitor:
            for number in range(200):
                response = await visitor.get(f"/{number}", host="raw.example.com")
                assert response.body == f"/{number}".encode()
                assert response.field("connection") is None
            assert len(origin.requests) == 200
            assert origin.connections == 1

    asyncio.run(scenario())


def test_one_connection_serves_several_hosts(shared: Any) -> None:
    async def app(request: web.Request) -> web.Response:
        return web.Response(text=f"app {request.host}")

    async def scenario() -> None:
        async with shared.raw_origin(ok), shared.origin(app), shared.visitor() as visitor:
            for _ in range(5):
                assert (await visitor.get("/x", host="raw.example.com")).body == b"/x"
                assert (await visitor.get("/x", host="APP.Example.com.:80")).body == b"app APP.Example.com.:80"

    asyncio.run(scenario())


def test_b07_pipelined_requests_are_answered_in_order(shared: Any) -> None:
    """The first is answered last by its origin; bodies between the requests keep their place."""
    go = asyncio.Event()

    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        if heard.target == "/0":
            await asyncio.wait_for(go.wait(), 60)
        body = heard.target.encode() + heard.body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def scenario() -> None:
        async with shared.raw_origin(answer) as origin, shared.visitor() as visitor:
            wire = b""
            for number in range(50):
                if number % 3 == 1:
                    wire += b"POST /%d HTTP/1.1\r\n%bContent-Length: 3\r\n\r\nabc" % (number, HOST)
                elif number % 3 == 2:
                    wire += b"POST /%d HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n" % (
                        number,
                        HOST,
                    )
                else:
                    wire += b"GET /%d HTTP/1.1\r\n%b\r\n" % (number, HOST)
            for start in range(0, len(wire), 997):  # cut anywhere
                visitor.send(wire[start : start + 997])
                await visitor.writer.drain()
            go.set()
            for number in range(50):
                body = b"" if number % 3 == 0 else b"abc"
                assert (await visitor.response()).body == b"/%d%b" % (number, body)
            assert [heard.target for heard in origin.requests] == [f"/{number}" for number in range(50)]

    asyncio.run(scenario())


ATTACKS = {
    "two lengths": b"POST /a HTTP/1.1\r\n%bContent-Length: 0\r\nContent-Length: 44\r\n\r\n" % HOST,
    "equal lengths twice": b"POST /a HTTP/1.1\r\n%bContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello" % HOST,
    "list of lengths": b"POST /a HTTP/1.1\r\n%bContent-Length: 5, 6\r\n\r\nhello" % HOST,
    "plus length": b"POST /a HTTP/1.1\r\n%bContent-Length: +5\r\n\r\nhello" % HOST,
    "hex length": b"POST /a HTTP/1.1\r\n%bContent-Length: 0x5\r\n\r\nhello" % HOST,
    "underscore length": b"POST /a HTTP/1.1\r\n%bContent-Length: 1_0\r\n\r\nhellohello" % HOST,
    "huge length": b"POST /a HTTP/1.1\r\n%bContent-Length: 99999999999999999999\r\n\r\n" % HOST,
    "length and chunked": b"POST /a HTTP/1.1\r\n%bContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    % HOST,
    "obscure coding": b"POST /a HTTP/1.1\r\n%bTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" % HOST,
    "coding in a list": b"POST /a HTTP/1.1\r\n%bTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" % HOST,
    "coding twice": b"POST /a HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    % HOST,
    "coding with space before the colon": b"POST /a HTTP/1.1\r\n%bTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" % HOST,
    "chunked in 1.0": b"POST /a HTTP/1.0\r\n%bTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % HOST,
    "folded field": b"GET /a HTTP/1.1\r\n%bX-A: b\r\n Content-Length: 40\r\n\r\n" % HOST,
    "bare lf": b"GET /a HTTP/1.1\n%b\n" % HOST.replace(b"\r\n", b"\n"),
    "bare cr in a value": b"GET /a HTTP/1.1\r\n%bX-A: b\rContent-Length: 40\r\n\r\n" % HOST,
    "nul in a value": b"GET /a HTTP/1.1\r\n%bX-A: b\x00c\r\n\r\n" % HOST,
    "two hosts": b"GET /a HTTP/1.1\r\n%bHost: app.example.com\r\n\r\n" % HOST,
    "no host": b"GET /a HTTP/1.1\r\n\r\n",
    "other authority": b"GET http://app.example.com/a HTTP/1.1\r\n%b\r\n" % HOST,
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http/0.9": b"GET /a\r\n",
    "connect": b"CONNECT raw.example.com:80 HTTP/1.1\r\n%b\r\n" % HOST,
    "trace": b"TRACE /a HTTP/1.1\r\n%b\r\n" % HOST,
    "tls on the http port": bytes.fromhex("16030100c8010000c40303") + bytes(180),
}
BROKEN_CHUNKS = {
    "size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size with plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "size with space": b" 5\r\nhello\r\n0\r\n\r\n",
    "negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "seventeen digits": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    "no crlf behind the data": b"5\r\nhelloX0\r\n\r\n",
    "lf alone": b"5\nhello\n0\n\n",
    "long extension": b"5;" + b"x" * 300 + b"\r\nhello\r\n0\r\n\r\n",
    "control byte in an extension": b"5;a\x01\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_b01_a_head_with_two_meanings_is_refused_and_what_follows_is_never_heard(shared: Any, name: str) -> None:
    async def scenario() -> None:
        async with shared.raw_origin(ok) as origin:
            async with shared.visitor() as visitor:
                visitor.send(ATTACKS[name] + SMUGGLED)
                response = await visitor.response()
                assert response.status in ((405, 501) if name in ("connect", "trace") else (400, 501, 505))
                assert response.blame is not None
                assert response.blame.startswith("relay; ")
                assert response.field("connection") == "close"
                assert await visitor.rest() == b""
            assert (await shared.get("/later", host="raw.example.com")).status == 200
            assert [heard.target for heard in origin.requests] == ["/later"]

    asyncio.run(scenario())


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
def test_b02_a_broken_chunk_ends_the_request_and_the_connection(shared: Any, name: str) -> None:
    async def scenario() -> None:
        async with shared.raw_origin(ok) as origin:
            async with shared.visitor() as visitor:
                visitor.send(
                    b"POST /a HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n" % HOST + BROKEN_CHUNKS[name] + SMUGGLED
                )
                response = await visitor.response()
                assert response.status == 400
                assert await visitor.rest() == b""
            assert (await shared.get("/later", host="raw.example.com")).status == 200
            # No complete request but the later one; the broken one's chunks never became a whole body.
            assert [heard.target for heard in origin.requests] == ["/later"]
            assert b"smuggled" not in origin.received

    asyncio.run(scenario())


def test_b03_the_body_of_a_post_that_asks_for_an_upgrade_is_never_a_request(shared: Any) -> None:
    async def scenario() -> None:
        async with shared.raw_origin(ok) as origin, shared.visitor() as visitor:
            visitor.send(
                b"POST /a HTTP/1.1\r\n%bConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: %d\r\n\r\n%b"
                % (HOST, len(SMUGGLED), SMUGGLED)
            )
            assert (await visitor.response()).body == b"/a"
            assert (await visitor.get("/b", host="raw.example.com")).body == b"/b"
            assert [(heard.method, heard.target, heard.body) for heard in origin.requests] == [
                ("POST", "/a", SMUGGLED),
                ("GET", "/b", b""),
            ]

    asyncio.run(scenario())


def test_b08_bodies_of_get_and_delete_are_framed_like_others(shared: Any) -> None:
    async def scenario() -> None:
        async with shared.raw_origin(ok) as origin, shared.visitor() as visitor:
            for method in (b"GET", b"DELETE", b"MKCALENDAR"):
                visitor.send(
                    b"%b /a HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (method, HOST, len(SMUGGLED), SMUGGLED)
                )
                assert (await visitor.response()).body == b"/a"
            assert [(heard.method, heard.body) for heard in origin.requests] == [
                ("GET", SMUGGLED),
                ("DELETE", SMUGGLED),
                ("MKCALENDAR", SMUGGLED),
            ]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokX",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-A: b\x00c\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\r\n",
    ],
)
def test_b11_a_response_with_two_meanings_is_a_502(shared: Any, answer: bytes) -> None:
    async def write(heard: Any, writer: asyncio.StreamWriter) -> None:
        if heard.target == "/bad":
            writer.write(answer)
        else:
            await ok(heard, writer)

    async def scenario() -> None:
        async with shared.raw_origin(write) as origin, shared.visitor() as visitor:
            response = await visitor.get("/bad", host="raw.example.com")
            assert response.status == 502
            assert str(response.blame).startswith("origin; ")
            assert (await visitor.get("/good", host="raw.example.com")).body == b"/good"
            assert origin.connections == 2  # nothing more is read from the first one

    asyncio.run(scenario())


def test_b08_bytes_behind_a_response_never_become_the_next_one(shared: Any) -> None:
    async def write(heard: Any, writer: asyncio.StreamWriter) -> None:
        extra = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged" if heard.target == "/two" else b""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + extra)

    async def scenario() -> None:
        async with shared.raw_origin(write) as origin, shared.visitor() as visitor:
            for _ in range(5):
                assert (await visitor.get("/two", host="raw.example.com")).body == b"ok"
                assert (await visitor.get("/one", host="raw.example.com")).body == b"ok"
            assert origin.connections >= 5

    asyncio.run(scenario())
