"""Paths, headers and framing changed by a rule of `config.yml`, through real processes, with a relay that checks."""

import asyncio
from typing import Any

from aiohttp import web

OPTIONS = {
    "pathRewrite": {"stripPrefix": "/api"},
    "requestHeaders": {"set": [{"name": "X-Team", "value": "shop"}], "remove": ["Cookie"]},
    "responseHeaders": {
        "set": [{"name": "Server", "value": "hidden"}],
        "add": [{"name": "Strict-Transport-Security", "value": "max-age=31536000"}],
    },
    "disableChunkedEncoding": True,
}


def test_a_rule_changes_what_the_origin_and_the_visitor_see(tunnel: Any) -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.raw_path, dict(request.headers), await request.read()))
        return web.Response(text="inside")

    async def scenario() -> None:
        rule = {"path": "^/api(/|$)", "service": tunnel.url("app"), "originRequest": OPTIONS}
        await tunnel.start(ingress=[rule, {"service": "http_status:404"}])
        async with tunnel.origin(handler), tunnel.visitor() as visitor:
            answer = await visitor.get("/api/%7Ea//b?q=/api", extra="Cookie: a=1\r\nX-Team: mine\r\n")
            assert (answer.status, answer.body) == (200, b"inside")
            assert answer.all("server") == ["hidden"]
            assert answer.all("strict-transport-security") == ["max-age=31536000"]
            path, fields, _ = seen[0]
            assert path == "/%7Ea//b?q=/api"
            assert fields["X-Team"] == "shop"
            assert "Cookie" not in fields
            assert fields["X-Forwarded-For"] == "127.0.0.1"
            visitor.send(
                b"POST /api HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                % tunnel.host.encode()
            )
            assert (await visitor.response(method="POST")).status == 200
            path, fields, body = seen[1]
            assert (path, fields["Content-Length"], body) == ("/", "5", b"hello")
            assert "Transfer-Encoding" not in fields
            escaping = await visitor.get("/api/../../x")
            assert (escaping.status, escaping.blame) == (400, "connector; escapes_root")
            assert (await visitor.get("/apis")).status == 404
            assert len(seen) == 2

    asyncio.run(scenario())
