"""The body of one request, cut out of the bytes that arrive.

Responsible for where a body ends, by length or in chunks, and for how fast it comes. Must not know connections or
where the bytes go. Invariant: what `feed` calls `rest` belongs to the next request, and nothing else does.
"""

from typing import Final, NamedTuple

from culvert_http1.chunked import ChunkedDecoder
from culvert_http1.framing import Framing
from culvert_http1.request import RequestHead

MIN_BYTES: Final = 1_500
"""Bytes that must arrive between two looks while the body is being read (every 15 s: 100 a second)."""

_NONE: Final = Framing.NONE
_CHUNKED: Final = Framing.CHUNKED


class Piece(NamedTuple):
    """Decoded body bytes, whether they are the last, and what came behind the body."""

    body: bytes
    fin: bool
    rest: bytes


class Upload:
    """A body under way."""

    __slots__ = ("_decoder", "_marked", "_received", "_remaining")

    def __init__(self, head: RequestHead) -> None:
        self._decoder = ChunkedDecoder() if head.framing is _CHUNKED else None
        self._remaining = head.content_length
        self._received = 0
        self._marked = 0

    def feed(self, data: bytes) -> Piece:
        """Takes bytes of the connection; raises HTTPError when they break the chunked coding."""
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
        return Piece(body, decoder.done, decoder.leftover)

    def too_slow(self) -> bool:
        """Whether too little has come since the last look, which this is."""
        slow = self._received - self._marked < MIN_BYTES
        self._marked = self._received
        return slow


def has_body(head: RequestHead) -> bool:
    """Whether body bytes follow a head."""
    return head.framing is not _NONE
