"""What rules change on the way: paths, fields, server names, bodies without a length."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_connector.origins import collecting
from culvert_connector.origins.targets import OriginTarget, compile_rule
from culvert_connector.origins.treatment import FieldEditor, PathEditor, treatment_of
from culvert_http1.fields import REQUEST_ENDING_HERE, check_fields
from culvert_http1.path import PathError, normalise_path
from culvert_http1.websocket import accept_for
from culvert_ingress.header_edits import HeaderEditError, check_header_edits
from culvert_ingress.rules import HeaderEdits, HTTPService, OriginRequest, PathMatch, PathRewrite, PathType, Rule
from culvert_protocol.codes import ResetCode
from culvert_protocol.heads import Framing, Kind

STRIP = PathRewrite("/api")
API = PathMatch(PathType.PREFIX, "/api")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: x\r\nX-Kept: 1\r\n\r\nok"


@pytest.mark.parametrize(
    ("rewrite", "target", "expected"),
    [
        (STRIP, b"/api/x?a=/api", b"/x?a=/api"),
        (STRIP, b"/api", b"/"),
        (STRIP, b"/api?", b"/?"),
        (STRIP, b"/api/", b"/"),
        (STRIP, b"/api?x=1", b"/?x=1"),
        (STRIP, b"/api/a%20b/%C3%a9;v=1", b"/a%20b/%C3%a9;v=1"),
        (STRIP, b"/%61pi/%7euser", b"/%7euser"),  # the visitor's own bytes behind the prefix
        (STRIP, b"//api//x", b"/x"),
        (STRIP, b"/api//evil.example/", b"/evil.example/"),
        (STRIP, b"/./api/./x", b"/./x"),
        (STRIP, b"/other/../api/x", b"/x"),
        (STRIP, b"/api/../api/x", b"/x"),
        (STRIP, b"/api/../api/y/../x", b"/y/../x"),
        (STRIP, b"/api/%2e%2e/api/x", b"/x"),
        (PathRewrite("/a/b"), b"/a/x/../b/c", b"/c"),
        (PathRewrite("/api", "/v2"), b"/api/x?q", b"/v2/x?q"),
        (PathRewrite("/api", "/v2"), b"/api", b"/v2"),
        (PathRewrite("", "/v2"), b"/", b"/v2/"),
        (PathRewrite("", "/v2"), b"/x/../y", b"/v2/x/../y"),
        (PathRewrite("", "/v2"), b"//x", b"/v2/x"),
        (PathRewrite(None, "/docs/"), b"/d%6fcs?x", b"/docs/?x"),
    ],
)
def test_a_path_is_rewritten_by_whole_segments(rewrite: PathRewrite, target: bytes, expected: bytes) -> None:
    assert PathEditor(rewrite).apply(target) == expected


@pytest.mark.parametrize("target", [b"/../x", b"/%2e%2e/x", b"/x\\..\\y", b"/a%2Fb", b"*", b"/a/..;/b", b"/%zz"])
def test_a_path_that_has_no_one_meaning_is_not_rewritten(target: bytes) -> None:
    with pytest.raises(PathError):
        PathEditor(PathRewrite("", "/v2")).apply(target)


PIECES = st.lists(
    st.sampled_from([b"api", b"%61pi", b"x", b"", b".", b"..", b"%2e%2E", b"%2e", b"a%20b", b"v2"]), max_size=8
)


@given(PIECES, st.sampled_from(["/api", "/api/x", ""]), st.sampled_from(["", "/v2"]))
def test_the_remainder_means_what_it_meant(pieces: list[bytes], prefix: str, replacement: str) -> None:
    target = b"/" + b"/".join(pieces)
    try:
        normal = normalise_path(target)
    except PathError:
        return
    head = prefix.encode()
    if normal != head and not normal.startswith(head + b"/"):
        return
    found = PathEditor(PathRewrite(prefix, replacement)).apply(target)
    assert found[:1] == b"/"
    assert found[:2] != b"//"
    expected = replacement.encode() + normal[len(head) :]
    assert normalise_path(found) == (expected or b"/")


@pytest.mark.parametrize(
    ("edits", "fields", "expected"),
    [
        (HeaderEdits(set=(("X-A", "2"),)), b"x-a: 1\r\nB: 1\r\nX-A: 3\r\n", b"B: 1\r\nX-A: 2\r\n"),
        (HeaderEdits(set=(("X-A", "2"),)), b"", b"X-A: 2\r\n"),
        (HeaderEdits(add=(("X-A", "2"), ("X-A", "3"))), b"X-A: 1\r\n", b"X-A: 1\r\nX-A: 2\r\nX-A: 3\r\n"),
        (HeaderEdits(remove=("X-A",)), b"X-A:1\r\nX-AB: 1\r\nAX-A: X-A: 1\r\n", b"X-AB: 1\r\nAX-A: X-A: 1\r\n"),
        (HeaderEdits(remove=("X.A",)), b"X-A: 1\r\nx.a: 1\r\n", b"X-A: 1\r\n"),
        (HeaderEdits(set=(("X-A", r"\1 \g<0> %b {}"),)), b"X-A: 1\r\n", b"X-A: \\1 \\g<0> %b {}\r\n"),
    ],
)
def test_d19_fields_are_left_out_and_appended(edits: HeaderEdits, fields: bytes, expected: bytes) -> None:
    found = FieldEditor(edits).apply(fields)
    assert found == expected
    assert check_fields(found, request=True)


def test_nothing_that_ends_at_this_hop_can_be_named() -> None:
    for name in REQUEST_ENDING_HERE:
        with pytest.raises(HeaderEditError):
            check_header_edits(HeaderEdits(add=((name.decode().replace("*", "x"), "v"),)))


def test_a_rule_that_changes_nothing_costs_nothing() -> None:
    assert treatment_of(OriginRequest(), names_host=True) is None


def target_of(hostname: str, **options: Any) -> OriginTarget:
    rule = Rule("r", hostname, None, HTTPService("https", "10.0.0.1", 443), OriginRequest(**options))
    found = compile_rule(rule, policy="any", hello_world=b"")
    assert isinstance(found, OriginTarget)
    return found


@pytest.mark.parametrize(
    ("hostname", "options", "name", "treated"),
    [
        ("app.example.com", {}, "10.0.0.1", False),
        ("app.example.com", {"match_sni_to_host": True}, "app.example.com", False),
        ("app.example.com", {"match_sni_to_host": True, "http_host_header": "in.test:8443"}, "in.test", False),
        ("*.example.com", {"match_sni_to_host": True, "http_host_header": "in.test"}, "in.test", False),
        ("*.example.com", {"match_sni_to_host": True}, "*.example.com", True),
        ("", {"match_sni_to_host": True}, "", True),
    ],
)
def test_the_server_name_is_known_beforehand_where_it_can_be(
    hostname: str, options: dict[str, Any], name: str, treated: bool
) -> None:
    found = target_of(hostname, **options)
    assert found.key.tls is not None
    assert found.key.tls.server_name == name
    assert (found.treatment is not None) is treated


# -- a whole connector ------------------------------------------------------------------------------------------------


def test_the_origin_gets_the_changed_request_and_the_visitor_the_changed_response(tools: Any) -> None:
    async def main() -> None:
        async with tools.world() as world:
            heads = []

            async def handler(client: Any) -> None:
                while head := await client.head():
                    heads.append(head)
                    await client.send(OK)

            await world.origin(
                handler,
                path=API,
                path_rewrite=STRIP,
                request_headers=HeaderEdits(set=(("X-Team", "shop"),), remove=("Cookie",)),
                response_headers=HeaderEdits(add=(("X-Frame-Options", "DENY"),), remove=("Server",)),
            )
            call = world.relay.request("/api/x?q=1", fields=b"cookie: a\r\nAccept: */*\r\n")
            assert await call.complete() == b"ok"
            assert heads[0].startswith("GET /x?q=1 HTTP/1.1\r\nHost: app.example.com\r\n")
            assert "Accept: */*\r\nX-Team: shop\r\n" in heads[0]
            assert "cookie" not in heads[0].lower()
            assert call.head.fields == b"X-Kept: 1\r\nX-Frame-Options: DENY\r\n"
            assert await world.relay.request("/api/y").complete() == b"ok"
            assert heads[1].startswith("GET /y ")
            again = world.relay.request("/api/x")
            assert await again.complete() == b"ok"
            assert again.head.fields == call.head.fields, "the same head of the origin's, edited once"
            broken = world.relay.request("/api/%2e%2e/%2e%2e/x")
            assert await broken.broken() == (ResetCode.BAD_REQUEST, "escapes_root")
            assert len(heads) == 3

    tools.run(main())


def test_a_websocket_goes_the_same_way(tools: Any) -> None:
    key = base64.b64encode(b"0123456789abcdef")

    async def main() -> None:
        async with tools.world() as world:
            heads = []

            async def handler(client: Any) -> None:
                heads.append(await client.head())
                await client.send(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    b"Sec-WebSocket-Accept: %b\r\nServer: x\r\n\r\n" % accept_for(key)
                )
                await client.send(await client.body(4))

            await world.origin(
                handler,
                path=API,
                path_rewrite=PathRewrite("/api", "/v2"),
                request_headers=HeaderEdits(set=(("X-Team", "shop"),)),
                response_headers=HeaderEdits(remove=("Server",)),
            )
            asked = b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\n" % key
            call = world.relay.request("/api/chat", kind=Kind.UPGRADE, fields=asked)
            assert (await call.answered()).status == 101
            assert call.head.fields == b"Sec-WebSocket-Accept: %b\r\n" % accept_for(key)
            call.send(b"ping")
            await tools.until(lambda: call.body == b"ping", "the echo")
            assert heads[0].startswith("GET /v2/chat HTTP/1.1\r\n")
            assert "X-Team: shop\r\n" in heads[0]
            call.send(b"", fin=True)

    tools.run(main())


def test_a_response_that_grows_too_large_is_the_origins_fault(tools: Any) -> None:
    async def main() -> None:
        async with tools.world() as world:
            line = b"X-Large: " + b"a" * 15_000 + b"\r\n"
            large = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + line * 2 + b"\r\n"
            edits = HeaderEdits(add=tuple((f"X-{n}", "b" * 1000) for n in range(3)))
            await world.origin(tools.answering(large), response_headers=edits)
            assert await world.relay.request().broken() == (ResetCode.ORIGIN_PROTOCOL, "response_head_too_large")

    tools.run(main())


def test_the_server_name_is_the_requests_host(tools: Any) -> None:
    async def main() -> None:
        async with tools.world() as world:
            context = world.certificates.server_context()
            names = []
            context.sni_callback = lambda sock, name, context: names.append(name)
            origin = await tools.Origin(tools.answering(OK)).start(context=context)
            world.origins.append(origin)
            rule = tools.rule(
                origin.service("https"), hostname="*.example.com", match_sni_to_host=True, no_tls_verify=True
            )
            await world.serve(rule)
            for host in ("a.example.com", "b.example.com", "a.example.com"):
                assert await world.relay.request(host=host).complete() == b"ok"
            assert names == ["a.example.com", "b.example.com"], (
                "one connection for each name, kept for the next request"
            )
            # And the certificate is held against it.
            await world.serve(
                tools.rule(
                    origin.service("https"), hostname="*.example.com", match_sni_to_host=True, ca=world.certificates.ca
                )
            )
            code, reason = await world.relay.request(host="c.example.com").broken()
            assert (code, reason) == (ResetCode.ORIGIN_UNREACHABLE, "certificate_not_trusted")

    tools.run(main())


def test_a_body_without_a_length_is_sent_with_one(tools: Any) -> None:
    async def main() -> None:
        async with tools.world() as world:
            seen = []

            async def handler(client: Any) -> None:
                while head := await client.head():
                    length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
                    seen.append((head, await client.body(length)))
                    await client.send(OK)

            origin = await world.origin(handler, disable_chunked_encoding=True)
            call = world.relay.request(method="POST", framing=Framing.CHUNKED, fields=b"Expect: 100-continue\r\n")
            await tools.until(lambda: call.informational, "100 Continue")
            piece = b"x" * 50_000
            for _ in range(6):  # more than the first window
                call.send(piece)
            assert not origin.clients, "nothing is asked before the body is whole"
            call.send(b"end", fin=True)
            assert await call.complete() == b"ok"
            head, body = seen[0]
            assert "content-length: 300003\r\n" in head.lower()
            assert "transfer-encoding" not in head.lower()
            assert body == piece * 6 + b"end"
            # One that has a length is not held.
            assert await world.relay.request(method="POST", body=b"abc").complete() == b"ok"
            assert seen[1][1] == b"abc"
            assert world.connector.requests._held.size == 0

    tools.run(main())


def test_a_body_without_a_length_has_its_bounds(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "MAX_BODY", 100_000)

    async def main() -> None:
        async with tools.world() as world:
            origin = await world.origin(tools.answering(OK), disable_chunked_encoding=True)
            held = world.connector.requests._held
            call = world.relay.request(method="POST", framing=Framing.CHUNKED)
            call.send(b"x" * 60_000)
            await tools.until(lambda: held.size == 60_000, "the first part")
            call.send(b"x" * 60_000)
            assert (await call.answered()).status == 413
            assert call.fields()["culvert-error"] == "connector; body_too_large"
            assert held.size == 0
            held._most = 50_000
            call = world.relay.request(method="POST", framing=Framing.CHUNKED)
            call.send(b"x" * 60_000)
            assert (await call.answered()).status == 503
            assert call.fields()["culvert-error"] == "connector; collecting_full"
            call = world.relay.request(method="POST", framing=Framing.CHUNKED)
            call.send(b"x" * 10_000)
            await tools.until(lambda: held.size == 10_000, "a part")
            call.stream.reset(ResetCode.CANCEL, "visitor_left")
            await tools.until(lambda: held.size == 0, "nothing held for a visitor who left")
            assert not origin.clients

    tools.run(main())


def test_two_visitors_of_one_rule_do_not_mix(tools: Any) -> None:
    async def main() -> None:
        async with tools.world() as world:
            bodies = []

            async def handler(client: Any) -> None:
                while head := await client.head():
                    length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
                    bodies.append(await client.body(length))
                    await client.send(OK)

            await world.origin(handler, disable_chunked_encoding=True)
            calls = [world.relay.request(method="POST", framing=Framing.CHUNKED) for _ in range(4)]
            for n, call in enumerate(calls):
                call.send(b"%d" % n * 1000)
            for n, call in reversed(list(enumerate(calls))):
                call.send(b"%d" % n, fin=True)
            await asyncio.gather(*(call.complete() for call in calls))
            assert sorted(bodies) == [b"%d" % n * 1001 for n in range(4)]

    tools.run(main())
