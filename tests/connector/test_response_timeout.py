"""An origin that takes a request and never answers: 504 on time, and nothing is left of it."""

import asyncio
import contextlib
from typing import Any

from culvert_connector.origins.targets import OriginTarget, compile_rule
from culvert_connector.origins.waits import Waits
from culvert_ingress.rules import HTTPService, OriginRequest, Rule
from culvert_protocol.codes import ResetCode


def test_a17_an_origin_that_never_answers_is_a_timeout_and_is_left(tools: Any) -> None:
    async def main() -> None:
        async with tools.world() as world:
            left = asyncio.Event()

            async def silent(client: Any) -> None:
                await client.head()
                assert await client.reader.read() == b""
                left.set()

            await world.origin(silent, response_timeout=700)
            started = asyncio.get_running_loop().time()
            call = world.relay.request()
            assert await call.broken() == (ResetCode.ORIGIN_TIMEOUT, "response_timeout")
            assert 0.6 < asyncio.get_running_loop().time() - started < 8
            await asyncio.wait_for(left.wait(), 10)
            assert len(world.connector.origins._waits) == 0

    tools.run(main())


def test_a17_the_time_begins_with_the_end_of_the_request(tools: Any) -> None:
    async def main() -> None:
        async with tools.world() as world:

            async def patient(client: Any) -> None:
                await client.head()
                assert await client.body(4) == b"abcd"
                await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

            await world.origin(patient, response_timeout=600)
            call = world.relay.request(method="POST", content_length=4, body=b"ab", fin=False)
            await asyncio.sleep(1.5)  # longer than the time that the origin would have; nothing must happen in it
            assert not call.done
            call.send(b"cd", fin=True)
            assert await call.complete() == b"ok"

    tools.run(main())


def test_a_response_that_has_begun_may_take_its_time(tools: Any) -> None:
    async def main() -> None:
        async with tools.world() as world:
            go = asyncio.Event()

            async def slow(client: Any) -> None:
                await client.head()
                await client.send(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
                await go.wait()
                await client.send(b"k")

            await world.origin(slow, response_timeout=500)
            call = world.relay.request()
            await call.answered()
            await asyncio.sleep(1.2)  # longer than the time for a head
            go.set()
            assert await call.complete() == b"ok"

    tools.run(main())


BIG = bytes(64 << 20)
"""More than sockets and windows on the way take."""


def test_a14_an_origin_that_takes_nothing_of_an_upload_is_left_after_the_same_time(tools: Any) -> None:
    async def main() -> None:
        async with tools.world() as world:
            left = asyncio.Event()

            async def deaf(client: Any) -> None:
                await client.head()
                client.reader._transport.pause_reading()
                while not client.writer.transport.is_closing():
                    await asyncio.sleep(0.05)
                    with contextlib.suppress(OSError):
                        # A FIN or RST is only seen by whoever writes, or reads what came before it.
                        client.writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n") if call.done else None
                left.set()

            await world.origin(deaf, response_timeout=700)
            call = world.relay.request(method="POST", content_length=len(BIG), body=b"", fin=False)
            call.send(BIG, fin=True)
            assert await call.broken() == (ResetCode.ORIGIN_TIMEOUT, "upload_timeout")
            assert len(world.connector.origins._waits) == 0
            await asyncio.wait_for(left.wait(), 10)

    tools.run(main())


def test_an_origin_that_reads_slowly_but_steadily_is_waited_for(tools: Any) -> None:
    async def main() -> None:
        async with tools.world() as world:
            size = 64 << 20

            async def slow(client: Any) -> None:
                await client.head()
                for _ in range(10):  # together far longer than the time in which each piece comes
                    await client.body(1 << 20)
                    await asyncio.sleep(0.3)
                await client.body(size - (10 << 20))
                await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

            await world.origin(slow, response_timeout=1200)
            call = world.relay.request(method="POST", content_length=size, body=b"", fin=False)
            call.send(bytes(size), fin=True)
            assert await call.complete() == b"ok"

    tools.run(main())


def test_of_those_who_wait_the_due_ones_are_found_in_order() -> None:
    waits: Waits[str] = Waits()
    for moment, name in enumerate(("a", "b", "c")):
        waits.begin(name, 10, now=moment)
    waits.begin("x", 1, now=5)
    assert waits.shortest() == 1
    waits.end("b", 10)
    waits.end("nobody", 10)
    waits.end("nobody", 99)
    assert waits.due(now=5.9) == []
    assert waits.due(now=10) == ["a", "x"]
    assert waits.shortest() == 10
    waits.begin("c", 10, now=11)
    assert waits.due(now=20.9) == []
    assert waits.due(now=21) == ["c"]
    assert len(waits) == 0
    assert waits.shortest() is None


def test_the_default_is_long_and_can_be_switched_off() -> None:
    for options, seconds in ((OriginRequest(), 100), (OriginRequest(response_timeout=0), 0)):
        rule = Rule("r", "", None, HTTPService("http", "localhost", 80), options)
        target = compile_rule(rule, policy="any", hello_world=b"")
        assert isinstance(target, OriginTarget)
        assert target.response_timeout == seconds
