"""WebSocket and what looks like it: a checked handshake, then a transparent pipe with half-close."""

import asyncio
import base64
import contextlib
import hashlib

import pytest

from culvert_connector.origins.upgrade import Pipe, accept_for, switch_problem
from culvert_http1.response import parse_response_head
from culvert_protocol.codes import ResetCode
from culvert_protocol.heads import Kind
from culvert_transport.traffic import Traffic

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 1.3
ASK = b"Sec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: 13\r\n"


def switched(*, accept: bytes = ACCEPT, upgrade: bytes = b"websocket", extra: bytes = b"") -> bytes:
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n" + extra + b"\r\n"
    )


def test_the_accept_value_is_rfc_6455s():
    assert accept_for(KEY) == ACCEPT
    digest = hashlib.sha1(b"x258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    assert accept_for(b"x") == base64.b64encode(digest)


@pytest.mark.parametrize(
    ("request_fields", "answer", "problem"),
    [
        (ASK, switched(), None),
        (ASK, switched(accept=b"wrong"), "wrong_websocket_accept"),
        (ASK, switched(upgrade=b"h2c"), "switched_to_another_protocol"),
        (b"", switched(), "wrong_websocket_accept"),
        (ASK, switched(extra=b"Sec-WebSocket-Protocol: chat\r\n"), "wrong_websocket_protocol"),
        (ASK + b"Sec-WebSocket-Protocol: a, chat\r\n", switched(extra=b"Sec-WebSocket-Protocol: chat\r\n"), None),
        (ASK + b"Sec-WebSocket-Protocol: a\r\n", switched(), None),
    ],
)
def test_c02_only_the_right_101_is_a_switch(request_fields, answer, problem):
    head = parse_response_head(answer, method=b"GET")
    assert switch_problem(request_fields, head) == problem


def ask(world, **options):
    return world.relay.request("/chat", kind=Kind.UPGRADE, fields=ASK, **options)


async def echo(client):
    head = await client.head()
    assert "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in head
    await client.send(switched())
    while data := await client.reader.read(65536):
        await client.send(data)
    await client.send(b"bye")


def test_c01_bytes_pass_both_ways_and_half_close_is_kept(tools):
    async def main():
        async with tools.world() as world:
            await world.origin(echo)
            call = ask(world)
            head = await call.answered()
            assert head.status == 101
            assert b"Upgrade:" not in head.fields
            for message in (b"\x81\x05hello", b"\x00" * 1000, bytes(range(256))):
                call.body.clear()
                call.send(message)
                await tools.until(lambda message=message: call.body == message, "the echo")
            call.body.clear()
            call.send(b"last", fin=True)
            assert await call.complete() == b"lastbye"
            await tools.until(lambda: world.connector.origins.open == 0, "the connection's end")

    tools.run(main())


def test_c03_bytes_around_the_switch_are_neither_lost_nor_reordered(tools):
    async def main():
        seen = asyncio.Event()

        async def handler(client):
            await client.head()
            await seen.wait()
            await client.send(switched() + b"first")
            assert await client.body(5) == b"early"
            await client.send(b"second")

        async with tools.world() as world:
            origin = await world.origin(handler)
            call = ask(world)
            await tools.until(lambda: origin.clients and origin.clients[0].requests, "the handshake")
            call.send(b"early")
            seen.set()
            assert (await call.answered()).status == 101
            assert await call.complete() == b"firstsecond"

    tools.run(main())


def test_c02_an_origin_that_declines_answers_as_usual_and_gets_no_stray_bytes(tools):
    async def main():
        stray = []

        async def handler(client):
            await client.head()
            await client.send(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno")
            stray.append(await client.reader.read())

        async with tools.world() as world:
            await world.origin(handler)
            call = ask(world)
            call.send(b"not http")
            assert (await call.answered()).status == 426
            await tools.until(lambda: call.done, "the end")
            assert call.body == b"no"
            await tools.until(lambda: stray, "the connection's end")
            assert stray == [b""]

    tools.run(main())


def test_c02_a_wrong_switch_is_the_origins_error(tools):
    async def main():
        async with tools.world() as world:
            await world.origin(tools.answering(switched(accept=b"wrong")))
            assert await ask(world).broken() == (ResetCode.ORIGIN_PROTOCOL, "wrong_websocket_accept")
            # Ordinary requests do not become pipes either.
            assert (await world.relay.request().broken())[0] == ResetCode.ORIGIN_PROTOCOL

    tools.run(main())


def test_a_pipe_that_breaks_is_a_reset_and_a_visitor_who_leaves_ends_it(tools):
    async def main():
        go = asyncio.Event()
        gone = asyncio.Event()

        async def handler(client):
            head = await client.head()
            await client.send(switched())
            if "die" in head:
                await go.wait()
                client.rst()
            else:
                with contextlib.suppress(ConnectionError):
                    await client.reader.read()
                gone.set()

        async with tools.world() as world:
            await world.origin(handler)
            call = world.relay.request("/die", kind=Kind.UPGRADE, fields=ASK)
            await call.answered()
            go.set()
            assert await call.broken() == (ResetCode.ORIGIN_PROTOCOL, "origin_reset")
            other = ask(world)
            await other.answered()
            other.stream.reset(ResetCode.CANCEL, "left")
            await asyncio.wait_for(gone.wait(), 2)

    tools.run(main())


def test_an_origin_that_closes_while_the_visitor_keeps_on_ends_both(tools):
    async def main():
        async def handler(client):
            await client.head()
            await client.send(switched() + b"x" * 200_000)

        async with tools.world() as world:
            await world.origin(handler)
            call = ask(world)
            await call.answered()
            await tools.until(lambda: call.ended, "the origin's end")
            assert len(call.body) == 200_000
            # The origin's socket is gone for good: what the visitor sends must end the stream, not vanish.
            while not call.reset:
                call.send(b"anybody?" * 1000)
                await asyncio.sleep(0.01)

    tools.run(main())


def test_what_an_origin_said_last_is_not_lost_when_its_connection_breaks_afterwards():
    class Held:
        """A stream whose last bytes still wait for credit."""

        def __init__(self):
            self.sent_fin = False
            self.resets = []
            self.written = b""

        def write(self, data, *, fin=False):
            self.written += data
            self.blocked = True

        def reset(self, code, reason):
            self.resets.append(code)

    class Connection:
        def pause(self):
            pass

    stream = Held()
    pipe = Pipe(stream, Connection(), Traffic("web"))
    pipe.on_body(b"last words", True)
    pipe.on_failed(ResetCode.ORIGIN_PROTOCOL, "origin_reset", False)
    assert stream.resets == []
    pipe.on_data(b"what nobody reads any more")
    stream.sent_fin = True
    pipe.on_writable()
    assert stream.resets == [ResetCode.NO_ERROR]


def test_pipes_over_tls_end_too(tools, certificates):
    async def main():
        async def handler(client):
            await client.head()
            await client.send(switched() + b"hello")
            await client.body(5)

        async with tools.world() as world:
            context = certificates.server_context()
            await world.origin(handler, context=context, scheme="https", ca=certificates.ca)
            call = ask(world)
            await call.answered()
            call.send(b"world")
            await tools.until(lambda: call.ended, "the origin's end")
            assert call.body == b"hello"
            await tools.until(lambda: world.connector.origins.open == 0, "the connection's end")

    tools.run(main())


def test_a_pipe_with_a_slow_reader_is_bounded(tools):
    async def main():
        sent = 0

        async def handler(client):
            nonlocal sent
            await client.head()
            await client.send(switched())
            for _ in range(512):
                await client.send(b"p" * 65536)
                sent += 65536

        async with tools.world() as world:
            await world.origin(handler)
            call = ask(world)
            call.consume = False
            await tools.until(lambda: len(call.body) == 65536, "one window")
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.3)
            assert sent < 16 << 20
            call.consume = True
            call.stream.consumed(65536)
            await tools.until(lambda: call.ended, "the rest")
            assert len(call.body) == 512 * 65536

    tools.run(main())
