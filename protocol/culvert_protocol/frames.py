"""The frame layer: an 8-byte header and a payload, cut out of a byte stream.

Header, little-endian `<IHBB`: stream id u32, payload length u16 (at most 65,535), type u8, flags u8.
Responsible for layout, types, flags and per-type size limits. Knows nothing of what a payload means.
Invariant: a reader never holds more than one unfinished frame, and refuses an oversized one at its header.
"""

from enum import IntEnum
from struct import Struct
from typing import Final

from culvert_protocol.codes import ProtocolError

HEADER: Final = Struct("<IHBB")
HEADER_SIZE: Final = 8
MAX_PAYLOAD: Final = 65_535
MAX_DATA: Final = 16_384
"""Body bytes that one DATA frame carries at most when we write it: one TLS record, so streams interleave."""
MAX_MESSAGE: Final = 1 << 20
"""ROUTES, ROUTES_RESULT and CREDENTIAL continued by MORE: bytes in all."""
MAX_STREAM_ID: Final = (1 << 31) - 2

FIN: Final = 0x01
HEAD: Final = 0x02
MORE: Final = 0x04
IGNORABLE: Final = 0x80


class FrameType(IntEnum):
    """Frame types of version 1. A type that is not here is skipped if IGNORABLE is set, else an error."""

    HELLO = 1
    ROUTES = 2
    ROUTES_RESULT = 3
    OPEN = 4
    DATA = 5
    WINDOW = 6
    RESET = 7
    PING = 8
    PONG = 9
    DRAIN = 10
    DRAIN_ACK = 11
    CREDENTIAL = 12
    CREDENTIAL_RESULT = 13
    REVOKE = 14


PAYLOAD_LIMITS: Final[tuple[int, ...]] = (
    0,  # type 0 does not exist
    16_384,  # HELLO
    MAX_PAYLOAD,  # ROUTES
    MAX_PAYLOAD,  # ROUTES_RESULT
    MAX_PAYLOAD,  # OPEN
    MAX_PAYLOAD,  # DATA
    4,  # WINDOW
    66,  # RESET
    8,  # PING
    8,  # PONG
    256,  # DRAIN
    0,  # DRAIN_ACK
    MAX_PAYLOAD,  # CREDENTIAL
    1024,  # CREDENTIAL_RESULT
    MAX_PAYLOAD,  # REVOKE
)
"""Largest payload per type number."""

FLAGS_ALLOWED: Final[tuple[int, ...]] = (
    0,
    0,
    MORE,
    MORE,
    FIN,
    FIN | HEAD,
    0,
    0,
    0,
    0,
    0,
    0,
    MORE,
    0,
    0,
)
"""Flags that mean something per type number; IGNORABLE is always allowed. Any other flag is an error."""

CONNECTION_LEVEL: Final = frozenset(
    t for t in FrameType if t not in (FrameType.OPEN, FrameType.DATA, FrameType.WINDOW, FrameType.RESET)
)
"""Types that belong to the session and so carry stream id 0."""

PING_HEAD: Final = HEADER.pack(0, 8, FrameType.PING, 0)
PONG_HEAD: Final = HEADER.pack(0, 8, FrameType.PONG, 0)
BEAT_SIZE: Final = 16
"""Bytes of a whole PING or PONG."""

_pack = HEADER.pack
_unpack_from = HEADER.unpack_from


def encode_frame(stream_id: int, type_: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """One frame as bytes. `payload` is at most 65,535 bytes long; longer raises ValueError."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a frame's payload is at most {MAX_PAYLOAD} bytes, not {len(payload)}")
    return _pack(stream_id, len(payload), type_, flags) + payload


def split_message(type_: int, payload: bytes) -> list[bytes]:
    """A session-level message as frames continued by MORE; raises ValueError beyond MAX_MESSAGE."""
    if len(payload) > MAX_MESSAGE:
        raise ValueError(f"a message is at most {MAX_MESSAGE} bytes, not {len(payload)}")
    frames = []
    while len(payload) > MAX_PAYLOAD:
        frames.append(encode_frame(0, type_, payload[:MAX_PAYLOAD], MORE))
        payload = payload[MAX_PAYLOAD:]
    frames.append(encode_frame(0, type_, payload))
    return frames


class FrameReader:
    """Cuts frames out of arriving bytes.

    `read(data)` returns the frames that are complete as `(stream id, type, flags, payload)`. A segment that
    completes nothing is only noted, so that byte-by-byte delivery costs linear, not quadratic, time.
    """

    __slots__ = ("_have", "_need", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._have = 0
        self._need = HEADER_SIZE

    def read(self, data: bytes) -> list[tuple[int, int, int, bytes]]:
        """Frames completed by `data`; raises ProtocolError at the header of a frame that may not be."""
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
        elif not isinstance(data, bytes):
            data = bytes(data)
        frames = []
        position = 0
        end = len(data)
        need = HEADER_SIZE
        while end - position >= HEADER_SIZE:
            stream_id, length, type_, flags = _unpack_from(data, position)
            if type_ < len(PAYLOAD_LIMITS):
                if length > PAYLOAD_LIMITS[type_] or type_ == 0:
                    raise ProtocolError(f"frame of type {type_} with {length} bytes is too large")
                if flags & ~(FLAGS_ALLOWED[type_] | IGNORABLE):
                    raise ProtocolError(f"frame of type {type_} with flags {flags:#04x}")
            elif not flags & IGNORABLE:
                raise ProtocolError(f"unknown frame type {type_}")
            start = position + HEADER_SIZE
            stop = start + length
            if stop > end:
                need = HEADER_SIZE + length
                break
            position = stop
            frames.append((stream_id, type_, flags, data[start:stop]))
        if position < end:
            rest = data[position:] if position else data
            self._parts.append(rest)
            self._have = len(rest)
        else:
            self._have = 0
        self._need = need
        return frames

    @property
    def pending(self) -> int:
        """Bytes of the unfinished frame that are held."""
        return self._have
