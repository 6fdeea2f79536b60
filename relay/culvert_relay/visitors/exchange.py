"""One request of a visitor and its stream: placed, sent again where that is safe, answered or aborted.

Responsible for what happens between OPEN and the end of the response. Must not know how requests are parsed or how a
visitor's transport works (`Visitor` is all it sees). Callbacks only: this is the hot path.
Invariants: exactly one final head reaches the visitor; body bytes are counted against what that head announced, and a
connector that breaks this loses its session while the visitor's connection is cut, never ended cleanly; credit goes
back only while the visitor's transport takes what it is given.
"""

from typing import TYPE_CHECKING, Final

from culvert_http1.chunked import LAST_CHUNK
from culvert_http1.request import RequestHead
from culvert_protocol.codes import SOURCE, ProtocolError, ResetCode, SessionBusy
from culvert_protocol.heads import Kind, ResponseHead
from culvert_protocol.statements import TunnelIdentity
from culvert_protocol.stream import Stream
from culvert_relay.access.marking import answer_fields
from culvert_relay.routing.placement import place, place_elsewhere
from culvert_relay.routing.table import Entry
from culvert_relay.visitors.account import Account
from culvert_relay.visitors.answers import (
    BAD_RESPONSE,
    DRAINING,
    NO_SESSION,
    SESSIONS_BUSY,
    Answer,
    answer_to_reset,
)
from culvert_relay.visitors.framing import (
    CHUNKED,
    COUNTED,
    NOTHING,
    checked_fields,
    final_head,
    informational_head,
    switching_head,
)
from culvert_relay.visitors.opening import opening
from culvert_relay.visitors.retries import MAX_RETAINED, may_retry
from culvert_relay.visitors.visitor import Visitor

if TYPE_CHECKING:
    from culvert_relay.routing.pools import Member
    from culvert_relay.tunnels.session import TunnelSession

MAX_INFORMATIONAL: Final = 16
"""1xx heads of one request: they do not count against a window, so they must be few."""
GATHER: Final = 16_384
"""Response bytes that are gathered into one write before the loop turn is over."""

# Plain integers: looking a member up in an enumeration costs a call in Python 3.11.
_HTTP: Final = int(Kind.HTTP)
_UPGRADE: Final = int(Kind.UPGRADE)
# What has become of the response.
_WAITING: Final = 0
_BODY: Final = 1
_PIPE: Final = 2
_OVER: Final = 3


class Exchange(Account):
    """A request and the stream that carries it at the moment."""

    __slots__ = (
        "_attempts", "_body_size", "_entry", "_gathering", "_head", "_informational", "_keep_alive", "_member",
        "_mode", "_pending", "_remaining", "_request_sent", "_retained", "_state", "_stream", "_tried", "_uncredited",
        "_visitor",
    )  # fmt: skip

    def __init__(self, visitor: Visitor, head: RequestHead, entry: Entry) -> None:
        super().__init__(visitor.edge.counters.tunnels.nobody)
        self._visitor = visitor
        self._head = head
        self._entry = entry
        self._stream: Stream | None = None
        self._member: TunnelSession | None = None
        self._tried: set[TunnelSession] | None = None
        self._attempts = 0
        self._state = _WAITING
        self._mode = NOTHING
        self._remaining = 0
        self._keep_alive = False
        self._informational = 0
        self._pending = b""
        self._gathering = False
        self._uncredited = 0
        self._retained: list[bytes] | None = None
        self._body_size = 0
        self._request_sent = False

    # -- towards the connector -------------------------------------------------------------------------------

    @property
    def blocked(self) -> bool:
        """Whether the source of request bytes must pause."""
        stream = self._stream
        return stream is not None and stream.blocked

    def start(self, body: bytes, fin: bool) -> None:
        """Sends the request with the body bytes at hand; `fin` says that they are all."""
        self._request_sent = fin
        if body:
            self._body_size = len(body)
            self._retained = [body] if self._body_size <= MAX_RETAINED else None
        else:
            self._retained = []
        self._open(body, None)
        if body:
            self.received = self._body_size
            self.tally.received += self._body_size
            if self.blocked:
                self.tally.stalls += 1

    def feed(self, data: bytes, fin: bool) -> None:
        """More of the request's body, or of a pipe's bytes; `fin` ends that direction."""
        self._request_sent = fin
        size = len(data)
        self.received += size
        self.tally.received += size
        retained = self._retained
        if retained is not None and data:
            self._body_size += size
            if self._body_size > MAX_RETAINED:
                self._retained = None
            else:
                retained.append(data)
        stream = self._stream
        if stream is not None:
            stream.write(data, fin=fin)
            if stream.blocked:
                self.tally.stalls += 1

    def abandon(self, by: str = "visitor") -> None:
        """The visitor is gone, or broke the rules in the middle of its request: nobody wants the response.

        `by` is who is to blame in the metrics; how a pipe ends is nobody's fault.
        """
        stream, self._stream = self._stream, None
        if self._state != _PIPE:
            self.count_break(by)
        self._state = _OVER
        if stream is not None:
            stream.reset(ResetCode.CANCEL, "visitor_gone")

    @property
    def tunnel(self) -> TunnelIdentity | None:
        """Whose host it asks for."""
        return self._entry.tunnel

    @property
    def member(self) -> "TunnelSession | None":
        """The session that carries the request, or the last one that did."""
        return self._member

    @property
    def answering(self) -> bool:
        """Whether a final head has been sent to the visitor."""
        return self._state != _WAITING

    def _open(self, body: bytes, failed: Answer | None) -> None:
        """Places the request; `failed` is the answer of the attempt before, given when there is no other session."""
        visitor, head = self._visitor, self._head
        edge = visitor.edge
        tried = self._tried
        while True:
            pools = self._entry.pools
            pin = visitor.pin
            random = edge.random
            member: Member | None = pin.member(self._entry.tunnel) if pin is not None and not tried else None
            if member is None:
                member = place_elsewhere(pools, tried, random=random) if tried else place(pools, random=random)
            if member is None:
                self._no_session(failed)
                return
            session: TunnelSession = member  # type: ignore[assignment]  # the registry holds nothing else
            try:
                self._stream = session.session.open_encoded(
                    _UPGRADE if head.upgrade else _HTTP,
                    opening(
                        head,
                        forwarding=visitor.forwarding,
                        scheme=visitor.scheme,
                        local_port=visitor.local_port,
                        attempt=self._attempts,
                        version=session.grant_version,
                        pin=pin.line if pin is not None and session.pins else b"",
                    ),
                    self,
                    body,
                    fin=self._request_sent,
                )
            except SessionBusy:
                tried = self._exclude(session)
            except ProtocolError as error:
                # The session's peer does not read: it is as good as dead.
                session.end(str(error))
                tried = self._exclude(session)
            else:
                self._member = session
                self.tally = session.tally
                self._attempts += 1
                if pin is not None:
                    pin.place(session)
                return

    def _exclude(self, session: "TunnelSession") -> "set[TunnelSession]":
        tried = self._tried = self._tried or set()
        tried.add(session)
        return tried

    def _no_session(self, failed: Answer | None) -> None:
        self._state = _OVER
        self.tally = self._visitor.edge.counters.tunnels.of(self._entry.tunnel)
        if self._visitor.edge.draining:
            failed = DRAINING
        elif failed is None:
            sessions = (session for pool in self._entry.pools for session in pool.sessions())
            failed = SESSIONS_BUSY if any(session.usable for session in sessions) else NO_SESSION
        self._visitor.answer(failed)

    # -- from the connector: StreamListener --------------------------------------------------------------------
    # What goes wrong in one of these is this request's misfortune, not that of its session's other streams.

    def on_head(self, head: ResponseHead) -> None:
        """A 1xx head, or the final one."""
        try:
            self._on_head(head)
        except Exception:
            self._broke()

    def on_data(self, data: bytes) -> None:
        """Body bytes of the response, or of the pipe."""
        try:
            self._on_data(data)
        except Exception:
            self._broke()

    def on_end(self) -> None:
        """The response, or the origin's direction of the pipe, is complete."""
        try:
            self._on_end()
        except Exception:
            self._broke()

    def on_reset(self, code: int, reason: str) -> None:
        """The stream is gone: try elsewhere, answer, or cut what has begun."""
        try:
            self._on_reset(code, reason)
        except Exception:
            self._broke()

    def on_writable(self) -> None:
        """The stream takes request bytes again."""
        self._visitor.resume_request()

    def _on_head(self, head: ResponseHead) -> None:
        self._retained = None
        member = self._member
        if member is not None:
            member.heard = True
        visitor = self._visitor
        checked = checked_fields(head.fields)
        if checked is None:
            self._violation("a response head is not well-formed")
            return
        fields, source = checked
        status = head.status
        if status < 200:
            self._early_head(status, fields)
            return
        if visitor.request_id:
            fields = answer_fields(fields, visitor.request_id)
        request = self._head
        stream = self._stream
        if request.upgrade and stream is not None and not self._request_sent:
            # An ordinary response: the pipe that the visitor hoped for ends here.
            self._request_sent = True
            stream.finish()
        data, self._mode, self._remaining, self._keep_alive = final_head(
            head, fields, method=request.method, minor=request.minor, keep_alive=visitor.may_persist
        )
        self._state = _BODY
        self.count_head(status, source)
        self._pending = data
        self._gathering = True
        visitor.edge.unflushed.append(self)

    def _on_data(self, data: bytes) -> None:
        stream, visitor = self._stream, self._visitor
        if stream is None:
            return
        size = len(data)
        mode = self._mode
        self.sent += size
        self.tally.sent += size
        if mode == CHUNKED:
            self._pending = pending = b"%b%x\r\n%b\r\n" % (self._pending, size, data)
            if len(pending) > GATHER:
                self._pending = b""
                visitor.write(pending)
            elif not self._gathering:
                self._gathering = True
                visitor.edge.unflushed.append(self)
        elif mode == COUNTED:
            self._remaining = remaining = self._remaining - size
            if remaining < 0:
                self._violation("a response is longer than it declared")
                return
            pending, self._pending = self._pending, b""
            visitor.write(pending + data if pending else data)
            if not remaining:
                return  # the stream's end follows: credit is of no use any more
        elif mode == NOTHING and self._state != _PIPE:
            self._violation("a response without a body has one")
            return
        else:
            pending, self._pending = self._pending, b""
            visitor.write(pending + data if pending else data)
        if visitor.congested:
            self._uncredited += size
        else:
            stream.consumed(size)

    def _on_end(self) -> None:
        visitor = self._visitor
        if self._state == _PIPE:
            visitor.pipe_ended()
            return
        if self._mode == COUNTED and self._remaining:
            self._violation("a response is shorter than it declared")
            return
        pending = self._pending
        if self._mode == CHUNKED:
            pending += LAST_CHUNK
        self._pending = b""
        self._state = _OVER
        stream, self._stream = self._stream, None
        if stream is not None and not stream.sent_fin:
            # The rest of the upload is not wanted, be it still to come (RFC 9112 section 9.3: then the connection
            # cannot persist) or held here for want of credit.
            stream.reset(ResetCode.NO_ERROR, "answered")
        if pending:
            visitor.write(pending)
        visitor.answered(self._keep_alive)

    def _on_reset(self, code: int, reason: str) -> None:
        stream, self._stream = self._stream, None
        if self._state == _OVER or stream is None:
            return
        visitor = self._visitor
        if self._state != _WAITING:
            self.flush()
            self._state = _OVER
            self.count_break(SOURCE.get(code, "session"))
            visitor.cut()
            return
        head, retained, member = self._head, self._retained, self._member
        answer = answer_to_reset(code, reason)
        if retained is not None and may_retry(code, method=head.method, attempts=self._attempts):
            visitor.edge.counters.retries += 1
            if member is not None:
                self._exclude(member)
            self._open(b"".join(retained), answer)
            if not self.blocked:
                visitor.resume_request()
            return
        self._state = _OVER
        visitor.answer(answer)

    # -- from the visitor's transport ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Writes what has been gathered: the loop turn's frames have all been read."""
        self._gathering = False
        pending = self._pending
        if pending:
            self._pending = b""
            self._visitor.write(pending)

    def drained(self) -> None:
        """The visitor's transport takes bytes again: their credit goes back."""
        size, self._uncredited = self._uncredited, 0
        if size and self._stream is not None:
            self._stream.consumed(size)

    # -- inside --------------------------------------------------------------------------------------------------

    def _early_head(self, status: int, fields: bytes) -> None:
        visitor, request = self._visitor, self._head
        if status == 101:
            if not request.upgrade:
                self._violation("a 101 answers a request that asked for none")
                return
            self._state = _PIPE
            visitor.edge.counters.upgrades += 1
            self.count_head(101, "none")
            visitor.write(switching_head(fields))
            visitor.switched()
            return
        self._informational += 1
        if self._informational > MAX_INFORMATIONAL:
            self._violation("a response has too many 1xx heads")
        elif request.minor and (status != 100 or request.expect_continue):
            visitor.write(informational_head(status, fields))

    def _broke(self) -> None:
        """A fault of the relay's own: this stream ends, and the visitor hears of it."""
        answering = self.answering
        if answering:
            self.count_break("relay")
        self._pending = b""
        stream, self._stream = self._stream, None
        self._state = _OVER
        if stream is not None and not stream.closed:
            stream.reset(ResetCode.INTERNAL, "relay_error")
        self._visitor.failed(answering)

    def _violation(self, sentence: str) -> None:
        """The connector broke the protocol of responses: its session ends, and no other visitor sees a byte of it."""
        visitor = self._visitor
        visitor.edge.counters.violations += 1
        waiting = self._state == _WAITING
        if not waiting:
            self.count_break("connector")
        self._state = _OVER
        self._pending = b""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.reset(ResetCode.PROTOCOL_ERROR, "bad_response")
        if waiting:
            visitor.answer(BAD_RESPONSE, close=True)
        else:
            visitor.cut()
        if self._member is not None:
            self._member.end(sentence)
