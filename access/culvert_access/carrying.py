"""Bytes of a local connection as WebSocket messages, and back.

Responsible for both directions with their ends and back-pressure. Must not know how either side was opened.
Invariants: a direction that ends in order ends in order at the other side; whatever breaks off looks like a reset
there; at most a few buffers are held, whoever does not read.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Final, Protocol

from culvert_http1.websocket import FrameDecoder, Opcode, WebSocketError, encode

CHUNK: Final = 65_536
CLOSE_SECONDS: Final = 5.0
_BINARY: Final = int(Opcode.BINARY)


class Local(Protocol):
    """The near side."""

    async def read(self) -> bytes:
        """The next bytes; b"" at their end. Raises OSError when it broke."""

    async def write(self, data: bytes) -> None:
        """Writes, and returns once there is room for more. Raises OSError when it broke."""

    def end(self) -> None:
        """Ends the direction towards it, after what was written."""

    def reset(self) -> None:
        """Ends both directions so that it does not look like a clean end."""


async def carry(local: Local, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Carries until both directions have ended, or something broke; True after a clean end."""
    up = asyncio.create_task(_up(local, writer))
    down = asyncio.create_task(_down(local, reader, writer))
    clean = False
    try:
        done, _ = await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        if up in done and not up.exception():
            await asyncio.wait({down})
        clean = down.done() and not down.exception() and up.done() and not up.exception()
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        if clean:
            with suppress(OSError, TimeoutError):
                writer.write(encode(Opcode.CLOSE, b"\x03\xe8", key=os.urandom(4)))
                async with asyncio.timeout(CLOSE_SECONDS):
                    await writer.drain()
            writer.close()
        else:
            # No Close frame: the far side takes the end of the connection for what it is.
            writer.transport.abort()
            local.reset()
    return clean


async def _up(local: Local, writer: asyncio.StreamWriter) -> None:
    while data := await local.read():
        writer.write(encode(_BINARY, data, key=os.urandom(4)))
        await writer.drain()
    writer.write(encode(_BINARY, b"", key=os.urandom(4)))
    await writer.drain()


async def _down(local: Local, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    decoder = FrameDecoder(masked=False)
    ended = False
    while data := await reader.read(CHUNK):
        for event in decoder.feed(data):
            if event.opcode == _BINARY:
                if event.data:
                    await local.write(event.data)
                elif event.empty:
                    ended = True
                    local.end()
            elif event.opcode == Opcode.PING:
                writer.write(encode(Opcode.PONG, event.data, key=os.urandom(4)))
                await writer.drain()
            elif event.opcode == Opcode.CLOSE:
                if not ended and event.data[:2] != b"\x03\xe8":
                    raise WebSocketError("the far side gave up")
                if not ended:
                    local.end()
                return
    raise ConnectionResetError("the far side broke off")
