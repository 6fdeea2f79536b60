"""What an origin may believe of a visitor: forwarding fields are the relay's, culvert's own names nobody else's."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

LIES = (
    "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\nX-FORWARDED-PROTO: gopher\r\nX-Forwarded-Host: bank\r\n"
    "X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\n"
    "Culvert-Error: relay; lies\r\nculvert-anything: x\r\nProxy-Authorization: Basic x\r\nTE: trailers\r\n"
    "Keep-Alive: 5\r\nConnection: close, X-Listed, Host\r\nX-Listed: gone\r\nX-Kept: yes\r\nUpgrade: h2c\r\n"
    "HTTP2-Settings: AAMAAABkAAQAAP__\r\n"
)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_b10_forwarding_fields_are_the_relays_own(shared: Any, tls: bool) -> None:
    async def scenario() -> None:
        heard: list[Any] = []

        async def handler(request: web.Request) -> web.Response:
            heard.append(list(request.raw_headers))
            return web.Response(text="ok")

        async with shared.origin(handler), shared.browser(tls=tls) as browser:
            lies = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher", "X-Real-Ip": "6.6.6.6"}
            async with browser.get("/", headers=lies) as response:
                assert await response.text() == "ok"
            fields = [(name.lower(), value) for name, value in heard[0]]
            said = {name: [value for key, value in fields if key == name] for name, _ in fields}
            assert said[b"x-forwarded-for"] == [b"127.0.0.1"]
            assert said[b"x-real-ip"] == [b"127.0.0.1"]
            assert said[b"x-forwarded-proto"] == [b"https" if tls else b"http"]
            assert said[b"x-forwarded-host"] == [b"app.example.com"]
            assert said[b"host"] == [b"app.example.com"]

    asyncio.run(scenario())


def test_b09_b10_what_a_visitor_says_in_the_relays_or_a_hops_name_never_arrives(shared: Any) -> None:
    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def scenario() -> None:
        async with shared.raw_origin(answer) as origin, shared.visitor() as visitor:
            assert (await visitor.get("/a?b=%20c", host="raw.example.com:80", extra=LIES)).status == 200
            assert await visitor.rest() == b""
            (heard,) = origin.requests
            assert heard.target == "/a?b=%20c"
            assert sorted(heard.names) == sorted(
                ["host", "x-kept", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip"]
            )
            assert heard.fields["host"] == "raw.example.com:80"
            assert heard.fields["x-forwarded-for"] == "127.0.0.1"
            for lie in (b"6.6.6.6", b"7.7.7.7", b"gopher", b"bank", b"lies"):
                assert lie not in origin.received

    asyncio.run(scenario())


def test_b10_an_origin_cannot_speak_in_the_relays_name(shared: Any) -> None:
    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 503 Service Unavailable\r\nCulvert-Error: relay; lies\r\nCULVERT-Nonce: x\r\nX-Kept: yes\r\n"
            b"Content-Length: 0\r\n\r\n"
        )

    async def scenario() -> None:
        async with shared.raw_origin(answer), shared.visitor() as visitor:
            response = await visitor.get(host="raw.example.com")
            assert response.status == 503
            assert response.field("x-kept") == "yes"
            assert not [name for name, _ in response.fields if name.lower().startswith("culvert")]

    asyncio.run(scenario())
