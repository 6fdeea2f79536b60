"""The server name in a TLS ClientHello, read without taking part in the handshake.

Responsible for cutting the first handshake message out of its records and for the server_name extension (RFC 8446
section 4.1.2, RFC 6066 section 3). Pure: bytes in, a verdict out. Must not know certificates or names' meaning.
Invariants: nothing is believed beyond the bytes at hand; what is not a ClientHello is said to be none at once, so that
the TLS stack answers it as it always does; at most LIMIT bytes are ever asked for.
"""

from typing import Final, NamedTuple

__all__ = ["LIMIT", "Hello", "read_hello"]

LIMIT: Final = 16_384
"""Bytes within which a ClientHello must be complete."""
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
_MAX_RECORD: Final = 16_384


class Hello(NamedTuple):
    """A complete ClientHello. `name` is its host name in lower case without trailing dot, b"" when it names none."""

    name: bytes


class _Short(Exception):
    """The bytes end too early."""


def read_hello(data: bytes) -> Hello | bool | None:
    """The ClientHello at the start of `data`: None when more bytes are needed, False when it is none or too long."""
    try:
        message = _message(data)
    except ValueError:
        return False
    if message is None:
        return None if len(data) < LIMIT else False
    try:
        return Hello(_name(message))
    except _Short:
        return False


def _message(data: bytes) -> bytes | None:
    """The body of the ClientHello, out of one or several records; None when it is not complete."""
    body = b""
    start = 0
    while True:
        header = data[start : start + 5]
        if (header and header[0] != _HANDSHAKE) or (len(header) > 1 and header[1] != 3):
            raise ValueError
        if len(header) < 5:
            return None
        size = header[3] << 8 | header[4]
        if not 0 < size <= _MAX_RECORD:
            raise ValueError
        body += data[start + 5 : start + 5 + size]
        start += 5 + size
        if body and body[0] != _CLIENT_HELLO:
            raise ValueError
        if len(body) >= 4:
            length = int.from_bytes(body[1:4], "big")
            if length > LIMIT:
                raise ValueError
            if len(body) >= 4 + length:
                return body[4 : 4 + length]
        if start > len(data):
            return None


def _name(message: bytes) -> bytes:
    reader = _Reader(message)
    reader.take(2 + 32)  # version, random
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        reader.block(width)
    if reader.done:
        return b""
    extensions = _Reader(reader.block(2))
    while not extensions.done:
        kind = int.from_bytes(extensions.take(2), "big")
        content = extensions.block(2)
        if kind == _SERVER_NAME:
            names = _Reader(_Reader(content).block(2))
            while not names.done:
                name_type = names.take(1)[0]
                name = names.block(2)
                if name_type == _HOST_NAME:
                    return name.lower().removesuffix(b".")
            return b""
    return b""


class _Reader:
    """Takes pieces off the front of some bytes."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at >= len(self._data)

    def take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) < size:
            raise _Short
        self._at += size
        return piece

    def block(self, width: int) -> bytes:
        """A piece behind its own length of `width` bytes."""
        return self.take(int.from_bytes(self.take(width), "big"))
