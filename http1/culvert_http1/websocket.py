"""WebSocket framing (RFC 6455), as far as a byte tunnel needs it: bytes in, events out, and frames made.

Responsible for frame headers, masking, and what a peer may send. Must not know sockets, or what the bytes mean.
Invariants: no frame is ever collected: payload bytes come out as they arrive, whatever length a header claims; only
control frames are held, and these have at most 125 bytes; after an error nothing more comes out.
"""

import base64
import hashlib
import struct
from enum import IntEnum
from typing import Final, NamedTuple

__all__ = ["ACCESS_PROTOCOL", "Event", "FrameDecoder", "Opcode", "WebSocketError", "accept_for", "encode", "mask"]

ACCESS_PROTOCOL: Final = "culvert.tcp.v1"
"""The subprotocol of TCP over WebSocket: binary messages carry the bytes, an empty one is the end of its direction.

Without it every message is bytes, and Close is the end of both directions."""
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_CONTROL: Final = 125
_MAX_LENGTH: Final = 1 << 62
_U16: Final = struct.Struct(">H")
_U64: Final = struct.Struct(">Q")


class Opcode(IntEnum):
    """RFC 6455 section 5.2."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class WebSocketError(Exception):
    """The peer broke the protocol; the text is a sentence for logs."""


class Event(NamedTuple):
    """Bytes of a message (`BINARY`, also for text and continuations), or a control frame.

    `end` with `BINARY`: the message is complete; `empty`: and had no byte in all its frames.
    """

    opcode: int
    data: bytes
    end: bool = False
    empty: bool = False


def accept_for(key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def encode(opcode: int, payload: bytes, *, key: bytes = b"") -> bytes:
    """One whole frame; a client gives the 4 random bytes of its `key`."""
    size = len(payload)
    masked = 0x80 if key else 0
    if size < 126:
        header = bytes((0x80 | opcode, masked | size))
    elif size < 65_536:
        header = bytes((0x80 | opcode, masked | 126)) + _U16.pack(size)
    else:
        header = bytes((0x80 | opcode, masked | 127)) + _U64.pack(size)
    return header + key + mask(payload, key, 0) if key else header + payload


def mask(data: bytes, key: bytes, offset: int) -> bytes:
    """`data` with the 4 bytes of `key` over it, the first byte being number `offset` of its frame."""
    size = len(data)
    if not size:
        return b""
    turn = offset % 4
    stream = (key[turn:] + key[:turn]) * (size // 4 + 1)
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream[:size], "big")).to_bytes(size, "big")


class FrameDecoder:
    """Reads one direction. `masked`: whether the peer is a client, which must mask (a server must not)."""

    __slots__ = ("_buffer", "_control", "_final", "_inside", "_key", "_masked", "_opcode", "_position", "_remaining",
                 "_size")  # fmt: skip

    def __init__(self, *, masked: bool) -> None:
        self._masked = masked
        self._buffer = b""
        self._remaining = -1  # payload bytes to come; -1: the next byte is a header's
        self._position = 0
        self._key = b""
        self._opcode = 0
        self._final = False
        self._inside = False  # within a message of several frames
        self._size = 0  # of the message so far
        self._control = b""

    def feed(self, data: bytes) -> list[Event]:
        """The events in these bytes. Raises WebSocketError; then the connection is over."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        events: list[Event] = []
        start = 0
        while True:
            if self._remaining < 0:
                used = self._header(data, start)
                if not used:
                    self._buffer = data[start:]
                    return events
                start += used
            piece = data[start : start + self._remaining]
            start += len(piece)
            self._remaining -= len(piece)
            if self._key and piece:
                piece, self._position = mask(piece, self._key, self._position), self._position + len(piece)
            self._payload(piece, events)
            if self._remaining:
                return events
            self._remaining = -1

    def _payload(self, piece: bytes, events: list[Event]) -> None:
        done = not self._remaining
        if self._opcode >= Opcode.CLOSE:
            self._control += piece
            if done:
                events.append(Event(self._opcode, self._control))
                self._control = b""
            return
        self._size += len(piece)
        end = done and self._final
        if piece or end:
            events.append(Event(Opcode.BINARY, piece, end, end and not self._size))
        if end:
            self._size = 0
        if done:
            self._inside = not self._final

    def _header(self, data: bytes, start: int) -> int:
        """Reads a header; returns its size, 0 when it is not complete yet."""
        if len(data) - start < 2:
            return 0
        first, second = data[start], data[start + 1]
        length = second & 0x7F
        size = 2 + (2 if length == 126 else 8 if length == 127 else 0) + (4 if second & 0x80 else 0)
        if first & 0x70:
            raise WebSocketError("a frame uses an extension that was not agreed on")
        if bool(second & 0x80) is not self._masked:
            raise WebSocketError("a frame of a client is not masked" if self._masked else "a server masks its frames")
        opcode = first & 0x0F
        final = bool(first & 0x80)
        if opcode >= Opcode.CLOSE:
            if opcode > Opcode.PONG or not final or length > _MAX_CONTROL:
                raise WebSocketError("a control frame is unknown, in pieces or too long")
        elif opcode > Opcode.BINARY or (opcode == Opcode.CONTINUATION) is not self._inside:
            raise WebSocketError("a frame is of an unknown kind, or out of its message's order")
        if len(data) - start < size:
            return 0
        if length == 126:
            length = _U16.unpack_from(data, start + 2)[0]
        elif length == 127:
            length = _U64.unpack_from(data, start + 2)[0]
            if length > _MAX_LENGTH:
                raise WebSocketError("a frame is longer than any can be")
        self._key = data[start + size - 4 : start + size] if self._masked else b""
        self._opcode = opcode
        if opcode < Opcode.CLOSE:
            self._final = final
        self._remaining = length
        self._position = 0
        return size
