"""Bodies without a length, collected before the origin is asked: `disableChunkedEncoding`.

Responsible for holding such a body until its end, within bounds, so that it can be sent with Content-Length to services
that cannot read chunks (many WSGI servers). Must not know rules, origins or answers.

Invariants: of one body no more than `MAX_BODY` bytes are held, of all of a connector's no more than `MAX_HELD`; what is
beyond them is refused, never cut short. Hot path of such a rule: callbacks only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from culvert_protocol.codes import ResetCode
from culvert_protocol.heads import ResponseHead
from culvert_protocol.stream import Stream
from culvert_transport.traffic import Traffic

MAX_BODY: Final = 4 << 20
MAX_HELD: Final = 64 << 20
TOO_LARGE: Final = "body_too_large"
FULL: Final = "collecting_full"


class Held:
    """Bytes that a connector holds of bodies under way."""

    __slots__ = ("_most", "size")

    def __init__(self, most: int = MAX_HELD) -> None:
        self.size = 0
        self._most = most

    def take(self, size: int) -> bool:
        """Whether so many more may be held; they are, then."""
        if self.size + size > self._most:
            return False
        self.size += size
        return True


class Collection:
    """A stream's listener until its body has ended. `whole` gets the body, `refused` a reason token; one of them is
    called, once, unless the visitor goes first. `traffic` counts what is given up."""

    __slots__ = ("_held", "_over", "_pieces", "_refused", "_size", "_stream", "_whole", "traffic")

    def __init__(
        self,
        stream: Stream,
        held: Held,
        traffic: Traffic,
        *,
        whole: Callable[[bytes], None],
        refused: Callable[[str], None],
    ) -> None:
        self.traffic = traffic
        self._stream = stream
        self._held = held
        self._whole = whole
        self._refused = refused
        self._pieces: list[bytes] = []
        self._size = 0
        self._over = False

    def begin(self, body: bytes, fin: bool, *, expected: bool) -> None:
        """Starts with what OPEN brought. `expected`: the visitor waits for 100 before it sends more."""
        self._stream.listener = self
        if expected and not fin:
            self._stream.send_head(ResponseHead(100))
        if body:
            self.on_data(body)
        if fin and not self._over:
            self.on_end()

    def on_head(self, head: ResponseHead) -> None:
        """A relay sends no response heads: the session's tables refuse the frame before it gets here."""
        self._stop()
        self._stream.reset(ResetCode.PROTOCOL_ERROR, "unexpected_head")

    def on_data(self, data: bytes) -> None:
        """More of the body; held bytes give their credit back, because the bounds here are what counts."""
        if self._over:
            return
        size = len(data)
        if self._size + size > MAX_BODY:
            self._refuse(TOO_LARGE)
        elif not self._held.take(size):
            self._refuse(FULL)
        else:
            self._size += size
            self._pieces.append(data)
            self._stream.consumed(size)

    def on_end(self) -> None:
        """The whole body is here."""
        if not self._over:
            body = b"".join(self._pieces)
            self._stop()
            self._whole(body)

    def on_reset(self, code: int, reason: str) -> None:
        """The visitor went away, or the session was lost, before the origin heard of it."""
        if not self._over:
            self._stop()
            self.traffic.abort("session" if code == ResetCode.SESSION_LOST else "visitor")

    def on_writable(self) -> None:
        """Nothing has been written."""

    def _refuse(self, reason: str) -> None:
        self._stop()
        self._refused(reason)

    def _stop(self) -> None:
        self._over = True
        self._held.size -= self._size
        self._pieces.clear()
        self._size = 0
