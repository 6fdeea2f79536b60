"""One request's or pipe's two directions inside a session.

Responsible for credit, held bytes and the receiving state of a single stream. It must not know what the bytes
mean. Invariants: never more than the peer's credit is under way; bytes that have no credit (or whose session
is backed up) are held here and `blocked` is True until they left, so the owner must pause its source meanwhile.
"""

from typing import TYPE_CHECKING

from culvert_protocol.codes import ProtocolError, ResetCode
from culvert_protocol.credit import INITIAL_WINDOW, RETURN_AT, Window, granted
from culvert_protocol.frames import FIN, HEAD, HEADER, MAX_DATA, FrameType
from culvert_protocol.heads import Kind, ResponseHead, decode_response_head, encode_response_head
from culvert_protocol.listeners import StreamListener
from culvert_protocol.states import RECEIVING, Arrival, Receiving

if TYPE_CHECKING:
    from culvert_protocol.session import Session

_pack = HEADER.pack
_DATA = int(FrameType.DATA)
# Looking up a member of an Enum costs 0.1 µs on CPython 3.11; what the hot path needs has names of its own.
_BODY = Receiving.BODY
_ENDED = Receiving.ENDED
_ERROR = Receiving.ERROR
_INFORMATIONAL = Arrival.INFORMATIONAL
_FINAL = Arrival.FINAL
_BYTES = Arrival.BYTES
_FIN_ROW = Arrival.FIN
_UPGRADE = int(Kind.UPGRADE)


class Stream:
    """A stream of a session; made by `Session.open` or announced by `SessionListener.on_open`."""

    __slots__ = (
        "_credit", "_fin_held", "_held", "_held_from", "_outbox", "_owed", "_portion", "_receiving", "_room", "blocked",
        "bulk", "closed", "id", "kind", "listener", "moved", "sent_fin", "session", "window",
    )  # fmt: skip

    def __init__(
        self,
        session: "Session",
        stream_id: int,
        kind: int,
        listener: StreamListener | None,
        *,
        receiving: Receiving,
    ) -> None:
        self.session = session
        self.id = stream_id
        self.kind = kind
        self.listener: StreamListener = listener  # type: ignore[assignment]  # set in on_open at the latest
        self.blocked = False
        self.bulk = False
        self.closed = False
        self.sent_fin = False
        self.moved = False
        self.window: Window | None = None
        self._outbox = session.outbox
        self._receiving = receiving
        self._credit = session.peer_window
        self._room = INITIAL_WINDOW
        self._owed = 0
        self._portion = RETURN_AT
        self._held: list[bytes] | None = None
        self._held_from = 0
        self._fin_held = False

    # -- sending ---------------------------------------------------------------------------------------------

    def send_head(self, head: ResponseHead, body: bytes = b"", *, fin: bool = False) -> None:
        """Sends a response head record, with the body bytes at hand in the same frame when they fit."""
        if self.closed or self.sent_fin:
            return
        if body and (len(body) > MAX_DATA or len(body) > self._credit or self._outbox.backed_up):
            self._frame(encode_response_head(head), HEAD)
            self.write(body, fin=fin)
            return
        self._credit -= len(body)
        self._frame(encode_response_head(head, body), HEAD | FIN if fin else HEAD)
        if fin:
            self._sent_fin()

    def write(self, data: bytes, *, fin: bool = False) -> None:
        """Sends body bytes. What credit or the session does not take now is held and `blocked` becomes True.

        A source that ignores `blocked` grows this stream's held bytes without bound, so owners pause it.
        """
        if self.closed or self.sent_fin:
            return
        size = len(data)
        if self._held is None and size <= MAX_DATA and size <= self._credit and not self._outbox.backed_up:
            if size or fin:
                self._credit -= size
                self._frame(data, FIN if fin else 0)
                if fin:
                    self._sent_fin()
            return
        if self._held is None:
            self._held = []
        if size:
            self._held.append(data)
            self._outbox.held += size
        if fin:
            self._fin_held = True
        self.pump()

    def finish(self) -> None:
        """Sends FIN: no more bytes in this direction."""
        self.write(b"", fin=True)

    def reset(self, code: int, reason: str = "") -> None:
        """Ends the stream at once and forgets it; the listener hears nothing more.

        RESET(NO_ERROR) from the end that has already sent FIN stops the other end's upload.
        """
        if not self.closed:
            self.session.reset_stream(self, code, reason)

    def pump(self) -> None:
        """Sends held bytes as far as credit and the session's queue allow; called by the session."""
        held = self._held
        if held is None:
            return
        outbox = self._outbox
        while held:
            left = self._credit
            if left <= 0 or outbox.backed_up:
                break
            piece = held[0]
            start = self._held_from
            room = left if left < MAX_DATA else MAX_DATA
            if len(piece) - start > room:
                self._held_from = start + room
                piece = piece[start : start + room]
            else:
                held.pop(0)
                self._held_from = 0
                if start:
                    piece = piece[start:]
            self._credit -= len(piece)
            outbox.held -= len(piece)
            last = not held and self._fin_held
            self._frame(piece, FIN if last else 0)
            if last:
                self._held = None
                was_blocked, self.blocked = self.blocked, False
                self._sent_fin()
                if was_blocked and not self.closed:
                    self.listener.on_writable()
                return
        if held or (self._fin_held and outbox.backed_up):
            self.blocked = True
            if outbox.backed_up:
                outbox.waiting[self] = None
            return
        if self._fin_held:
            self._frame(b"", FIN)
            self._held = None
            was_blocked, self.blocked = self.blocked, False
            self._sent_fin()
            if was_blocked and not self.closed:
                self.listener.on_writable()
            return
        self._held = None
        if self.blocked:
            self.blocked = False
            self.listener.on_writable()

    def _frame(self, payload: bytes, flags: int) -> None:
        self._outbox.data(_pack(self.id, len(payload), _DATA, flags), payload)

    def _sent_fin(self) -> None:
        self.sent_fin = True
        if self._receiving is _ENDED:
            self.session.forget(self)

    # -- receiving -------------------------------------------------------------------------------------------

    def consumed(self, size: int) -> None:
        """Gives credit back for bytes that left towards the slow side."""
        if self.closed or self._receiving is _ENDED:
            return
        self._owed = owed = self._owed + size
        if owed >= self._portion:
            self._give_back(owed)

    def _give_back(self, owed: int) -> None:
        self._owed = 0
        session, window = self.session, self.window
        if window is None:
            window = self.window = Window()
        increment = window.give_back(owed, session.growth, len(session.streams))
        self._portion = window.portion
        self._moved()
        if increment:
            self._room += increment
            session.queue_window(self.id, increment)

    def _moved(self) -> None:
        self.moved = True
        if not self.bulk:
            self.session.mark_bulk(self)

    def _take(self, size: int) -> None:
        """Accounts for arriving body bytes; raises ProtocolError on an overrun."""
        self._room = room = self._room - size
        if room < 0:
            raise ProtocolError(f"a stream overran its window by {-room} bytes")

    def opened_with(self, size: int, *, fin: bool) -> None:
        """OPEN arrived with `size` body bytes; called by the session before on_open."""
        if size:
            self._take(size)
        if fin:
            self._receiving = _ENDED

    def opening_sent(self, size: int, *, fin: bool) -> None:
        """OPEN left with `size` body bytes; called by the session."""
        self._credit -= size
        self.sent_fin = fin

    def data_arrived(self, payload: bytes, flags: int) -> None:
        """A DATA frame for this stream; raises ProtocolError when the tables or the credit refuse it."""
        listener = self.listener
        if flags & HEAD:
            head, payload = decode_response_head(payload)
            informational = head.status < 200 and not (head.status == 101 and self.kind == _UPGRADE)
            if informational and (payload or flags & FIN):
                raise ProtocolError("a 1xx head record with a body or FIN")
            self._step(_INFORMATIONAL if informational else _FINAL)
            if payload:
                self._take(len(payload))
            listener.on_head(head)
        elif payload:
            if self._receiving is not _BODY:
                self._step(_BYTES)
            self._take(len(payload))
        if payload and not self.closed:
            listener.on_data(payload)
        if flags & FIN and not self.closed:
            self._step(_FIN_ROW)
            if self.sent_fin:
                self.session.forget(self)
            listener.on_end()

    def window_arrived(self, increment: int) -> None:
        """A WINDOW frame for this stream."""
        self._credit = granted(self._credit, increment)
        self._moved()
        self.pump()

    def lost(self, code: int, reason: str) -> None:
        """The stream ended from outside (peer's RESET, session gone); called by the session."""
        self.drop_held()
        self.closed = True
        if self.listener is not None:
            self.listener.on_reset(code, reason)

    def release_listener(self) -> None:
        """The listener hears nothing more. Each holds the other, and only a collection would find them later."""
        self.listener = None  # type: ignore[assignment]  # nothing calls it once the stream is closed

    def drop_held(self) -> None:
        """Forgets bytes that will not be sent any more."""
        if self._held:
            self._outbox.held -= sum(map(len, self._held)) - self._held_from
        self._held = None
        self.blocked = False

    @property
    def ended(self) -> bool:
        """True once the peer's FIN has arrived."""
        return self._receiving is _ENDED

    def _step(self, arrival: Arrival) -> None:
        state = RECEIVING[self._receiving][arrival]
        if state is _ERROR:
            raise ProtocolError(f"{arrival.name} on stream {self.id} in state {self._receiving.name}")
        self._receiving = state


def reset_code(value: int) -> int:
    """A code from the wire as ResetCode when known, unchanged otherwise; SESSION_LOST is never believed."""
    if value == ResetCode.SESSION_LOST:
        return ResetCode.PROTOCOL_ERROR
    try:
        return ResetCode(value)
    except ValueError:
        return value
