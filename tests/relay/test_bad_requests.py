"""Raw bytes that are no good request: an answer, the end of the connection, and nothing reaches the tunnel."""

from typing import Any

import pytest

HOST = b"Host: app.example.com\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: app.example.com\r\n\r\n"


def post(framing: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + framing + b"\r\n" + body


BAD: list[tuple[str, bytes, int]] = [
    ("lengths that differ", post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello"), 400),
    ("lengths that agree", post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"), 400),
    ("a list of lengths", post(b"Content-Length: 5, 6\r\n", b"hello"), 400),
    ("a signed length", post(b"Content-Length: +5\r\n", b"hello"), 400),
    ("a hexadecimal length", post(b"Content-Length: 0x5\r\n", b"hello"), 400),
    ("a length with an underscore", post(b"Content-Length: 5_0\r\n", b"hello"), 400),
    ("an empty length", post(b"Content-Length:\r\n", b"hello"), 400),
    ("a negative length", post(b"Content-Length: -1\r\n"), 400),
    ("a length over 2^63", post(b"Content-Length: 9223372036854775808\r\n"), 400),
    ("a length in other digits", post("Content-Length: ５\r\n".encode(), b"hello"), 400),
    ("length and coding", post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    ("two codings", post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    ("the coding twice", post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    ("an obfuscated coding", post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), 400),
    ("another coding", post(b"Transfer-Encoding: identity\r\n"), 501),
    ("a coding in 1.0", b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("a chunk size of 17 digits", post(b"Transfer-Encoding: chunked\r\n", b"1" * 17 + b"\r\n"), 400),
    ("a signed chunk size", post(b"Transfer-Encoding: chunked\r\n", b"+1\r\na\r\n0\r\n\r\n"), 400),
    ("a chunk size ended by LF", post(b"Transfer-Encoding: chunked\r\n", b"1\na\r\n0\r\n\r\n"), 400),
    ("a chunk without CRLF", post(b"Transfer-Encoding: chunked\r\n", b"1\r\nab\r\n0\r\n\r\n"), 400),
    ("a long extension", post(b"Transfer-Encoding: chunked\r\n", b"1;" + b"a" * 300 + b"\r\na\r\n0\r\n\r\n"), 400),
    ("obs-fold", b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\r\n c\r\n\r\n", 400),
    ("a space before the colon", b"GET / HTTP/1.1\r\nHost : app.example.com\r\n\r\n", 400),
    ("an empty name", b"GET / HTTP/1.1\r\n" + HOST + b": a\r\n\r\n", 400),
    ("no colon", b"GET / HTTP/1.1\r\n" + HOST + b"X-A\r\n\r\n", 400),
    ("a bare CR", b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\rc\r\n\r\n", 400),
    ("a bare LF", b"GET / HTTP/1.1\n" + HOST + b"\n", 400),
    ("a NUL", b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\0c\r\n\r\n", 400),
    ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("two hosts", b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    ("a list of hosts", b"GET / HTTP/1.1\r\nHost: app.example.com, other.example.com\r\n\r\n", 400),
    ("a host with a user", b"GET / HTTP/1.1\r\nHost: me@app.example.com\r\n\r\n", 400),
    ("a host with a path", b"GET / HTTP/1.1\r\nHost: app.example.com/a\r\n\r\n", 400),
    ("a host with a bad port", b"GET / HTTP/1.1\r\nHost: app.example.com:70000\r\n\r\n", 400),
    ("a host in UTF-8", "GET / HTTP/1.1\r\nHost: äpp.example.com\r\n\r\n".encode(), 400),
    ("another authority", b"GET http://other.example.com/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (
        "a large head",
        b"GET / HTTP/1.1\r\n"
        + HOST
        + b"X-A: "
        + b"a" * 9000
        + b"\r\n" * 1
        + (b"X-B: " + b"b" * 9000 + b"\r\n") * 3
        + b"\r\n",
        431,
    ),
    ("a large field", b"GET / HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    ("201 fields", b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 200 + b"\r\n", 431),
    ("a long target", b"GET /" + b"a" * 10_240 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    ("CONNECT", b"CONNECT app.example.com:443 HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    ("TRACE", b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 505),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    ("HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("TLS on the HTTP port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50 + b"\r\n\r\n", 400),
    ("another expectation", b"GET / HTTP/1.1\r\n" + HOST + b"Expect: a-miracle\r\n\r\n", 417),
]


@pytest.mark.parametrize(("data", "status"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_b01_b02_b04_b05_b06_a_bad_request_gets_its_answer_and_nothing_reaches_the_tunnel(
    play: Any, data: bytes, status: int
) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com", "other.example.com"])
        visitor = await world.visitor()
        visitor.send(data + SMUGGLED)
        response = await visitor.response()
        assert response.status == status
        assert (response.field("culvert-error") or "").startswith("relay; ")
        assert response.field("connection") == "close"
        assert await visitor.rest() == b""
        # A broken body may have opened a stream before it broke; no request was completed and none followed it.
        assert not [request for request in connector.requests if request.fin]
        assert all(request.head.target != b"/smuggled" for request in connector.requests)

    play(scenario)


@pytest.mark.parametrize(
    "request_line",
    [b"GET /" + b"a" * 7_990 + b" HTTP/1.1", b"BREW / HTTP/1.1", b"GET http://app.example.com/x HTTP/1.1"],
    ids=["a target of 8,000 bytes", "an unknown method", "absolute form"],
)
def test_unusual_requests_pass(play: Any, request_line: bytes) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        visitor.send(request_line + b"\r\n" + HOST + b"\r\n")
        assert (await visitor.response()).status == 200
        assert len(connector.requests) == 1

    play(scenario)


@pytest.mark.parametrize(
    "fields",
    [
        b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 45\r\n",
        b"Upgrade: websocket\r\nContent-Length: 45\r\n",
    ],
)
def test_b03_the_body_of_a_post_with_upgrade_is_never_the_next_request(play: Any, fields: bytes) -> None:
    body = b"GET /smuggled HTTP/1.1\r\nHost: app.example.com"

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        length = b"" if b"Content-Length" in fields else b"Content-Length: 45\r\n"
        visitor.send(b"POST /real HTTP/1.1\r\n" + HOST + fields + length + b"\r\n" + body)
        assert (await visitor.response()).body == b"POST /real " + body
        assert [request.head.target for request in connector.requests] == [b"/real"]
        assert "upgrade" not in connector.requests[0].fields

    play(scenario)
