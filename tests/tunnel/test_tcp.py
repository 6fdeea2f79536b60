"""TCP by a port of the relay, through real processes: what one side does, the other sees, byte for byte."""

import asyncio
import contextlib
import hashlib
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

WAIT = 60.0
SIZE = (1024 if os.environ.get("CULVERT_WHOLE_NUMBERS") else 32) << 20
"""`make faults` carries a GiB each way, `make test` 32 MiB."""


@contextlib.asynccontextmanager
async def visit(tunnel: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A visitor's connection to the TCP port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", tunnel.tcp_port, limit=1 << 18)
    try:
        yield reader, writer
    finally:
        await tunnel.hang_up(writer.transport)


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def within(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, WAIT)


def test_c04_the_visitors_half_close_reaches_the_origin_whose_answer_still_comes(shared: Any) -> None:
    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.read(-1)
            writer.write(b"heard " + data)

        async with shared.tcp_origin(serve), visit(shared) as (reader, writer):
            writer.write(b"all of it")
            writer.write_eof()
            assert await within(reader.read(-1)) == b"heard all of it"

    asyncio.run(scenario())


def test_c04_the_origins_half_close_reaches_the_visitor_who_may_go_on(shared: Any) -> None:
    async def scenario() -> None:
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"that was all")
            writer.write_eof()
            heard.put_nowait(await reader.read(-1))

        async with shared.tcp_origin(serve), visit(shared) as (reader, writer):
            assert await within(reader.read(-1)) == b"that was all"
            writer.write(b"but not from here")
            writer.write_eof()
            assert await within(heard.get()) == b"but not from here"

    asyncio.run(scenario())


def test_c04_a_connection_without_a_byte_ends_as_one(shared: Any) -> None:
    async def scenario() -> None:
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.put_nowait(await reader.read(-1))

        async with shared.tcp_origin(serve):
            for _ in range(20):
                async with visit(shared) as (reader, writer):
                    writer.write_eof()
                    assert await within(reader.read(-1)) == b""
                    assert await within(heard.get()) == b""

    asyncio.run(scenario())


def test_c04_the_server_may_speak_first_and_alone(shared: Any) -> None:
    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 ready\r\n")
            await reader.read(-1)

        async with shared.tcp_origin(serve):
            for _ in range(20):
                async with visit(shared) as (reader, _):
                    assert await within(reader.readline()) == b"220 ready\r\n"

    asyncio.run(scenario())


def test_c04_the_visitors_reset_reaches_the_origin_as_a_reset(shared: Any) -> None:
    async def scenario() -> None:
        heard: asyncio.Queue[object] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(5))
            try:
                heard.put_nowait(await reader.read(-1))
            except ConnectionResetError as error:
                heard.put_nowait(type(error))

        async with shared.tcp_origin(serve), visit(shared) as (reader, writer):
            writer.write(b"hello")
            assert await within(reader.readexactly(5)) == b"hello"
            reset(writer)
            assert await within(heard.get()) is ConnectionResetError

    asyncio.run(scenario())


def test_c04_the_origins_reset_and_its_absence_reach_the_visitor_as_a_reset(shared: Any) -> None:
    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(5)
            reset(writer)

        async with shared.tcp_origin(serve), visit(shared) as (reader, writer):
            writer.write(b"hello")
            with pytest.raises(ConnectionResetError):
                await within(reader.read(-1))
        with pytest.raises(ConnectionResetError):  # nobody listens any more: it may be there before connect is through
            async with visit(shared) as (reader, _):
                await within(reader.read(-1))

    asyncio.run(scenario())


@pytest.mark.parametrize("direction", ["down", "up", "both"])
def test_c04_a_large_transfer_is_exact(shared: Any, direction: str) -> None:
    piece = random.Random(7).randbytes(1 << 16)
    count = SIZE // len(piece)
    wanted = hashlib.sha256()
    for _ in range(count):
        wanted.update(piece)

    async def send(writer: asyncio.StreamWriter) -> None:
        for _ in range(count):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()

    async def receive(reader: asyncio.StreamReader) -> str:
        found = hashlib.sha256()
        while data := await reader.read(1 << 18):
            found.update(data)
        return found.hexdigest()

    async def scenario() -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if direction != "up":
                sending = asyncio.create_task(send(writer))
            heard.put_nowait(await receive(reader))
            if direction != "up":
                await sending

        async with shared.tcp_origin(serve), visit(shared) as (reader, writer):
            if direction == "down":
                writer.write_eof()
            else:
                sending = asyncio.create_task(send(writer))
            if direction != "up":
                assert await asyncio.wait_for(receive(reader), 280) == wanted.hexdigest()
            if direction != "down":
                await sending
                assert await asyncio.wait_for(heard.get(), 280) == wanted.hexdigest()

    asyncio.run(scenario())


def test_an_origin_that_does_not_read_holds_the_visitor_back_and_nobody_else(
    shared: Any, wait_for: Callable[..., Awaitable[Any]]
) -> None:
    """Both processes stay small, a second connection is served meanwhile, and in the end every byte is there."""

    def memory(pid: int) -> int:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def scenario() -> None:
        go = asyncio.Event()
        heard: asyncio.Queue[int] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if await reader.readexactly(4) == b"echo":
                writer.write(await reader.readexactly(4))
                return
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await go.wait()
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            size = 0
            while data := await reader.read(1 << 18):
                size += len(data)
            heard.put_nowait(size)

        processes = [shared.relay.pid, shared.connectors[0].pid]
        async with shared.tcp_origin(serve), visit(shared) as (_, writer):
            before = [memory(pid) for pid in processes]
            writer.write(b"bulk")
            piece = bytes(1 << 18)
            sent = 0
            while True:
                writer.write(piece)
                sent += len(piece)
                try:
                    await asyncio.wait_for(writer.drain(), 1.0)
                except TimeoutError:
                    break
                assert sent < 256 << 20, "nothing holds the visitor back"
            grown = [now - then for now, then in zip(map(memory, processes), before, strict=True)]
            assert max(grown) < 32 << 20, grown
            async with visit(shared) as (other_reader, other_writer):
                other_writer.write(b"echoping")
                assert await within(other_reader.readexactly(4)) == b"ping"
            go.set()
            await within(writer.drain())
            writer.write_eof()
            assert await within(heard.get()) == sent

    asyncio.run(scenario())


def test_an_ordinary_request_to_a_tcp_rule_is_told_how_to_come(shared: Any) -> None:
    async def scenario() -> None:
        response = await shared.get(host="tcp.example.com")
        assert response.status == 400
        assert response.blame == "connector; not_http"
        assert b"culvert access tcp" in response.body

    asyncio.run(scenario())
