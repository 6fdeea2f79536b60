"""The near side of a connection: an accepted socket, or a process's standard input and output.

Responsible for making either of them a `carrying.Local`. Must not know WebSocket.
Invariant: standard input and output may be pipes, sockets, terminals or plain files; none of them blocks the loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
import sys
from contextlib import suppress
from typing import Final

from culvert_access.carrying import CHUNK

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Accepted:
    """A connection to the local listener."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        """See `carrying.Local`, as the others."""
        return await self._reader.read(CHUNK)

    async def write(self, data: bytes) -> None:
        """Writes, waiting for room."""
        self._writer.write(data)
        await self._writer.drain()

    def end(self) -> None:
        """FIN."""
        with suppress(OSError):
            self._writer.write_eof()

    def reset(self) -> None:
        """RST."""
        sock = self._writer.get_extra_info("socket")
        if sock is not None:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._writer.transport.abort()

    def close(self) -> None:
        """Closes after what was written."""
        self._writer.close()


class StandardIO:
    """Standard input and output; `open` makes one."""

    def __init__(self, reader: asyncio.StreamReader | None, writer: asyncio.StreamWriter | None) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls) -> StandardIO:
        """Takes both over."""
        given, taken = sys.stdin.fileno(), sys.stdout.fileno()
        if _is_socket(given) and _same(given, taken):
            # As ssh may start a ProxyCommand: one socket, which only one transport may read.
            return cls(*await _socket(given))
        reader = writer = None
        if _is_socket(given):
            reader, _ = await _socket(given)
        elif not _is_file(given):
            reader = asyncio.StreamReader(limit=1 << 17)
            reading = asyncio.StreamReaderProtocol(reader)
            await asyncio.get_running_loop().connect_read_pipe(lambda: reading, sys.stdin.buffer)
        if _is_socket(taken):
            _, writer = await _socket(taken)
        elif not _is_file(taken):
            loop = asyncio.get_running_loop()
            # A reader's protocol, because it is the one that tells when everything has left.
            waiting = asyncio.StreamReaderProtocol(asyncio.StreamReader())
            transport, _ = await loop.connect_write_pipe(lambda: waiting, os.fdopen(_moved(taken), "wb", 0))
            writer = asyncio.StreamWriter(transport, waiting, None, loop)
        return cls(reader, writer)

    async def read(self) -> bytes:
        """From a file at once; else as it comes."""
        if self._reader is None:
            return os.read(sys.stdin.fileno(), CHUNK)
        return await self._reader.read(CHUNK)

    async def write(self, data: bytes) -> None:
        """To a file at once; else waiting for room."""
        if self._writer is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        self._writer.write(data)
        await self._writer.drain()

    def end(self) -> None:
        """Ends standard output, after what was written."""
        if self._writer is not None:
            self._writer.write_eof()

    def reset(self) -> None:
        """There is no reset of a pipe: the exit code says it."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def close(self) -> None:
        """Returns once everything has left."""
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()


async def _socket(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(sock=socket.socket(fileno=os.dup(descriptor)), limit=1 << 17)


def _moved(descriptor: int) -> int:
    """A copy to close when its direction ends; the original points elsewhere, or its reader would never see that."""
    copy = os.dup(descriptor)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return copy


def _same(one: int, other: int) -> bool:
    first, second = os.fstat(one), os.fstat(other)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def _is_socket(descriptor: int) -> bool:
    return stat.S_ISSOCK(os.fstat(descriptor).st_mode)


def _is_file(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not os.isatty(descriptor))  # /dev/null cannot be polled
