"""The access log of a whole relay: one line for each request, with nothing in it that should not be."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from culvert_protocol.codes import ResetCode
from culvert_protocol.heads import Framing, ResponseHead

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KEYS = {
    "time", "request_id", "traceparent", "visitor", "scheme", "method", "host", "path", "status", "error_source",
    "error", "aborted", "received_bytes", "sent_bytes", "duration_seconds", "first_byte_seconds", "issuer", "tunnel",
    "connector",
}  # fmt: skip


@pytest.fixture
def log(world: Any) -> Any:
    """Turns the log on; the lines that are in the file so far, once there are `count`."""
    file = world.folder / "access.log"
    configure(world, "accessLog: {output: ./access.log}")

    async def lines(count: int) -> list[dict[str, Any]]:
        def text() -> str:
            return file.read_text() if file.exists() else ""

        deadline = asyncio.get_running_loop().time() + 10
        while text().count("\n") < count:
            assert asyncio.get_running_loop().time() < deadline, f"only: {text()}"
            await asyncio.sleep(0.005)
        found = [json.loads(line) for line in text().splitlines()]
        assert len(found) == count
        return found

    return lines


def configure(world: Any, text: str) -> None:
    file: Path = world.folder / "relay.yml"
    file.write_text(file.read_text() + text + "\n")


def test_it_is_off_unless_asked_for(play: Any) -> None:
    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        response = await (await world.visitor()).get("app.example.com", extra="X-Request-Id: mine\r\n")
        assert response.field("x-request-id") is None
        assert world.edge.access_log is None
        assert not list(world.folder.glob("*.log"))

    play(scenario)


def test_a_request_is_one_line_with_everything_about_it(play: Any, log: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(
            ["app.example.com"], handler=lambda request: request.fin and request.respond(201, b"12345")
        )
        visitor = await world.visitor()
        visitor.send(
            b"POST /a/b?token=SECRET HTTP/1.1\r\nHost: App.Example.Com\r\nContent-Length: 3\r\nTraceparent: "
            + PARENT.encode()
            + b"\r\nAuthorization: Bearer SECRET\r\nCookie: session=SECRET\r\n\r\nabc"
        )
        response = await visitor.response()
        (line,) = await log(1)
        assert set(line) == KEYS
        assert line["method"] == "POST"
        assert line["host"] == "app.example.com"
        assert line["path"] == "/a/b"
        assert line["status"] == 201
        assert (line["error_source"], line["error"], line["aborted"]) == ("none", None, False)
        assert (line["received_bytes"], line["sent_bytes"]) == (3, 5)
        assert (line["issuer"], line["tunnel"]) == ("demo", "main")
        assert line["visitor"] == "127.0.0.1"
        assert line["traceparent"] == PARENT
        assert 0 < line["first_byte_seconds"] <= line["duration_seconds"] < 10
        (session,) = world.relay.tunnels.sessions()
        assert line["connector"] == session.connector
        assert "SECRET" not in json.dumps(line)
        # One id at the origin, in the response and in the log.
        (request,) = connector.requests
        assert request.fields["x-request-id"] == response.field("x-request-id") == line["request_id"]
        assert request.fields["traceparent"] == PARENT

    play(scenario)


def test_the_query_is_logged_only_when_asked_for(play: Any, world: Any, log: Any) -> None:
    configure(world, "")
    file = world.folder / "relay.yml"
    file.write_text(file.read_text().replace("access.log}", "access.log, query: true}"))

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        await (await world.visitor()).get("app.example.com", "/a?b=c&d")
        (line,) = await log(1)
        assert (line["path"], line["query"]) == ("/a", "b=c&d")

    play(scenario)


def test_every_kind_of_end_has_one_line_that_blames_the_right_one(play: Any, log: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        def handler(request: Any) -> None:
            path = request.head.target
            if path == b"/cut":
                request.stream.send_head(ResponseHead(200, Framing.LENGTH, 10), b"123")
                request.stream.reset(ResetCode.ORIGIN_PROTOCOL, "origin_reset")
            elif path == b"/refused":
                request.stream.reset(ResetCode.ORIGIN_UNREACHABLE, "connection_refused")
            elif path == b"/own":
                request.respond(404, b"", fields=b"Culvert-Error: connector; no_rule\r\n")

        await world.connector(["app.example.com"], handler=handler)
        seen = 0

        async def last() -> dict[str, Any]:
            nonlocal seen
            seen += 1
            return dict((await log(seen))[-1])

        visitor = await world.visitor()
        assert (await visitor.get("app.example.com", "/own")).status == 404
        line = await last()
        assert (line["status"], line["error_source"], line["aborted"]) == (404, "connector", False)

        visitor.send(b"POST /refused HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 0\r\n\r\n")
        assert (await visitor.response()).status == 502
        line = await last()
        assert (line["status"], line["error_source"], line["error"]) == (502, "origin", "connection_refused")
        assert line["tunnel"] == "main"

        assert (await visitor.get("gone.example.com")).status == 503
        line = await last()
        assert (line["error_source"], line["error"], line["tunnel"]) == ("relay", "no_session", None)

        assert (await visitor.get("example.org")).status == 404
        line = await last()
        assert (line["error_source"], line["error"], line["host"]) == ("visitor", "unknown_host", "example.org")

        visitor.send(b"nonsense\r\n\r\n")
        await visitor.response()
        line = await last()
        assert (line["status"], line["error_source"], line["method"]) == (400, "visitor", None)

        visitor = await world.visitor()
        visitor.send(b"GET /cut HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        line = await last()
        assert (line["status"], line["error_source"], line["aborted"]) == (200, "origin", True)
        assert line["sent_bytes"] == 3

        visitor = await world.visitor()
        visitor.send(b"GET /never HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        (session,) = world.relay.tunnels.sessions()
        await wait_until(lambda: len(session.streams) == 1, "the request's stream")
        visitor.reset()
        line = await last()
        assert (line["status"], line["error_source"], line["aborted"]) == (None, "visitor", True)

        tally = world.edge.counters.tunnels.of(session.tunnel)
        assert tally.aborted == {"origin": 1, "visitor": 1}

    play(scenario)


def test_a_stranger_cannot_write_lines_or_break_them(play: Any, log: Any) -> None:
    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        visitor = await world.visitor()
        path = "/%0a','path':'x\\"
        visitor.send(f"GET {path} HTTP/1.1\r\nHost: app.example.com\r\nX-A: \xff\r\n\r\n".encode("latin-1"))
        await visitor.response()
        visitor.send(b'G"ET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n')
        await visitor.response()
        first, second = await log(2)
        assert first["path"] == path
        assert second["method"] is None

    play(scenario)


def test_lines_that_are_left_are_written_when_the_relay_ends(play: Any, log: Any, world: Any) -> None:
    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"], handler=lambda request: None)
        visitor = await world.visitor()
        visitor.send(b"GET /slow HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        (session,) = world.relay.tunnels.sessions()
        deadline = asyncio.get_running_loop().time() + 10
        while not session.streams:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.005)

    play(scenario)
    (line,) = [json.loads(text) for text in (world.folder / "access.log").read_text().splitlines()]
    assert (line["path"], line["aborted"], line["error_source"]) == ("/slow", True, "relay")


def test_a_body_that_has_to_wait_for_its_origin_is_counted_as_a_stall(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        def hold(request: Any) -> None:
            request.consume = False
            if request.fin:
                request.respond(200, b"")

        connector = await world.connector(["app.example.com"], handler=hold)
        visitor = await world.visitor()
        visitor.send(b"POST / HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000))
        (session,) = world.relay.tunnels.sessions()
        await wait_until(lambda: session.tally.stalls >= 1, "the stall")
        (request,) = connector.requests
        assert len(request.body) < 300_000
        assert session.tally.received < 300_000
        assert session.tally.labels == ("demo", "main")

    play(scenario)


def test_a_trusted_proxys_request_id_and_visitor_are_taken_over(play: Any, world: Any, log: Any) -> None:
    configure(world, 'trustedProxies: ["127.0.0.1"]')

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        fields = "X-Request-Id: from-the-proxy\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
        response = await (await world.visitor()).get("app.example.com", extra=fields)
        (line,) = await log(1)
        assert line["request_id"] == response.field("x-request-id") == "from-the-proxy"
        assert connector.requests[0].fields["x-request-id"] == "from-the-proxy"
        assert (line["visitor"], line["scheme"]) == ("192.0.2.7", "https")

    play(scenario)
