"""The body of one request, cut out of the bytes that arrive.

Responsible for where a body ends, by length or in chunks, and for how fast it comes. Must not know connections or
where the bytes go. Invariant: what `feed` calls `rest` belongs to the next request, and nothing else does.
"""

from contextlib import suppress
from typing import Final, NamedTuple

from culvert_http1.chunked import ChunkedDecoder
from culvert_http1.errors import HTTPError
from culvert_http1.framing import Framing
from culvert_http1.request import RequestHead

_NONE: Final = Framing.NONE
_CHUNKED: Final = Framing.CHUNKED


class Piece(NamedTuple):
    """Decoded body bytes, whether they are the last, and what came behind the body."""

    body: bytes
    fin: bool
    rest: bytes


class Upload:
    """A body under way since tick `now`; `limit` bytes of it at most, 0 for any number."""

    __slots__ = ("_decoded", "_decoder", "_limit", "_looked", "_marked", "_received", "_remaining")

    def __init__(self, head: RequestHead, *, limit: int = 0, now: int = 0) -> None:
        if limit and head.content_length > limit:
            raise too_large(limit)
        self._limit = limit
        self._decoded = 0
        self._decoder = ChunkedDecoder() if head.framing is _CHUNKED else None
        self._remaining = head.content_length
        self._received = 0
        self._marked = 0
        self._looked = now

    def feed(self, data: bytes) -> Piece:
        """Takes bytes of the connection; raises HTTPError when they break the chunked coding or cross the limit."""
        self._received += len(data)
        decoder = self._decoder
        if decoder is None:
            remaining = self._remaining
            size = len(data)
            if size <= remaining:
                self._remaining = remaining - size
                return Piece(data, remaining == size, b"")
            self._remaining = 0
            return Piece(data[:remaining], True, data[remaining:])
        pieces = decoder.feed(data)
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._limit:
            self._decoded += len(body)
            if self._decoded > self._limit:
                raise too_large(self._limit)
        return Piece(body, decoder.done, decoder.leftover)

    @property
    def chunked(self) -> bool:
        """Whether its end is told by its bytes."""
        return self._decoder is not None

    def lacks(self, unread: int) -> bool:
        """Whether a body whose length was announced is not complete with so many bytes more."""
        return self._decoder is None and self._remaining > unread

    def broken_off(self, unread: bytes) -> bool:
        """Whether a body in chunks is not complete with these bytes, which stay to be fed."""
        if self._decoder is None:
            return False
        decoder = self._decoder.twin()
        with suppress(HTTPError):  # told when it is fed
            decoder.feed(unread)
            return not decoder.done
        return False

    def too_slow(self, now: int, *, every: int, least: float) -> bool:
        """Whether fewer than `least` bytes have come in the `every` ticks since the last judgement.

        A look that comes sooner judges nothing.
        """
        if now - self._looked < every:
            return False
        slow = self._received - self._marked < least
        self._marked = self._received
        self._looked = now
        return slow


def too_large(limit: int) -> HTTPError:
    """413: for a length that is announced, or a chunked body that crosses the limit."""
    return HTTPError(413, "body_too_large", f"The request's body is over {limit} bytes; send less.")


def has_body(head: RequestHead) -> bool:
    """Whether body bytes follow a head."""
    return head.framing is not _NONE
