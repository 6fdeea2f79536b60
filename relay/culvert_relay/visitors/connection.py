"""One visitor's connection: a state machine over the bytes that arrive.

Responsible for the order of requests on a connection: one exchange at a time, heads and bodies cut out of the bytes,
pipelined ones held and bounded, deadlines, back-pressure from the stream. Must not know frames, how exchanges end
(`answering`) or how a socket is closed (`line`). Callbacks only: this is the hot path.
Invariants: after any error nothing of the connection is read as a request any more; at most HELD bytes and what one
read brings are kept of pipelined requests; reading pauses while a stream takes no more.
"""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from culvert_http1.errors import HTTPError
from culvert_http1.repeated import RequestHeads
from culvert_http1.request import RequestHead
from culvert_relay.certificates import NamedSSLObject
from culvert_relay.routing.table import Entry
from culvert_relay.visitors import answers
from culvert_relay.visitors.answering import BODY, HEAD, OVER, PIPE, RESPONSE, UPGRADE, AnsweringConnection
from culvert_relay.visitors.answers import NO_SESSION, Answer, answer_to_error, render_options
from culvert_relay.visitors.departures import peek, unread
from culvert_relay.visitors.directing import direct
from culvert_relay.visitors.exchange import Exchange
from culvert_relay.visitors.line import BY_HELD, BY_STREAM, CLOSED, OPEN
from culvert_relay.visitors.opening import Forwarding
from culvert_relay.visitors.pinning import Pin, pin_for
from culvert_relay.visitors.redirecting import redirect
from culvert_relay.visitors.upload import Piece, Upload, has_body
from culvert_relay.visitors.vouching import vouched
from culvert_transport.sockets import await_slow_readers

if TYPE_CHECKING:
    from culvert_relay.accepting import Arrival
    from culvert_relay.edge import Edge
    from culvert_relay.listeners import Door

HELD: Final = 65_536
"""Pipelined bytes, or bytes ahead of a 101, after which reading pauses."""
HELD_BY_TLS: Final = 1 << 20
"""More than TLS keeps of what it has read and nobody takes."""


class VisitorConnection(AnsweringConnection):
    """A connection at one of the relay's doors for visitors."""

    __slots__ = (
        "_asked_name", "_door", "_heads", "_origin_ended", "_proxy", "_refusal", "_scanned", "_started", "_upload",
        "local_port", "pin",
    )  # fmt: skip

    def __init__(self, edge: "Edge", door: "Door", arrival: "Arrival") -> None:
        forwarding = Forwarding(arrival.address.encode(), scheme=door.scheme)
        super().__init__(edge, arrival.place, forwarding, scheme=door.scheme)
        self.local_port = door.port
        self._proxy = self.forwarding.address if edge.trusts(arrival.address) else b""
        self._refusal = arrival.refusal
        self._started = 0
        self._door = door
        self.pin: Pin | None = None
        self._asked_name = b""
        self._heads = RequestHeads(edge.limits.head)
        self._upload: Upload | None = None
        self._scanned = 0
        self._origin_ended = False

    # -- asyncio's side ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A visitor has connected; with TLS the handshake is over."""
        super().connection_made(transport)
        edge = self.edge
        edge.counters.connections += 1
        if self._refusal:
            self._refuse(answers.REFUSALS[self._refusal])
            return
        if self.scheme:
            connection = transport.get_extra_info("ssl_object")
            if isinstance(connection, NamedSSLObject):
                self._asked_name = connection.asked_name.encode("ascii", "replace")
        edge.wheel.arm(self, edge.head_ticks)

    def data_received(self, data: bytes) -> None:
        """Bytes of the visitor."""
        try:
            state = self._state
            if state == HEAD:
                self._read_head(data)
            elif state == BODY:
                self._read_body(data)
            elif state == PIPE:
                exchange = self._exchange
                if exchange is not None:
                    exchange.feed(data, False)
                    if exchange.blocked:
                        self.pause(BY_STREAM)
            elif state != OVER:
                self._hold(data)
        except Exception:
            exchange = self._exchange
            answering = exchange is not None and exchange.answering
            if exchange is not None:
                exchange.abandon("relay")
            self.failed(answering)

    def eof_received(self) -> bool:
        """The visitor has closed its side. Returns True to keep ours, for a response that is still under way."""
        self._eof = True
        state = self._state
        if state in (RESPONSE, UPGRADE):
            return not self.scheme
        if state == PIPE:
            if self._exchange is not None:
                self._exchange.feed(b"", True)
            if not self._origin_ended:
                return not self.scheme
            self._over()
        if state == BODY and self._exchange is not None:
            # A request cut short is no request: the origin must not take what came for the whole.
            self._exchange.abandon()
            self._over()
        self._state = OVER
        self.close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by whoever."""
        self._state = OVER
        self.forget()
        if self._exchange is not None:
            self._exchange.abandon()
            self._over()

    def ended(self) -> None:
        """See `VisitorLine`: a body that can never become complete ends its request now, not when it is read on."""
        super().ended()
        upload, descriptor = self._upload, self.descriptor()
        if self._state != BODY or upload is None:
            return
        with suppress(OSError):
            if self.scheme:
                cut = upload.lacks(unread(descriptor) + HELD_BY_TLS)
            else:
                waiting = peek(descriptor) if upload.chunked else None
                cut = upload.broken_off(waiting) if waiting is not None else upload.lacks(unread(descriptor))
            if cut:
                self.eof_received()

    def on_drained(self) -> None:
        """The visitor takes bytes again: credit goes back to the origin."""
        if self._exchange is not None:
            self._exchange.drained()

    # -- requests ----------------------------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        held = self._held
        whole: bytes | bytearray = data
        if held:
            held += data
            whole = held
        try:
            head = self._heads.read(whole, self._scanned)
        except HTTPError as error:
            if error.status in (414, 431):
                self.edge.counters.reach("head")
            self._refuse(answer_to_error(error))
            return
        if head is None:
            if not held:
                held += data
                self.edge.wheel.arm(self, self.edge.head_ticks)
            self._scanned = len(held)
            return
        size = head.size
        self._scanned = 0
        if self.scheme and head.host in self.edge.own_hosts:
            protocol = self._door.own(head.path)
            if protocol is not None:
                # A connector's handshake, or a revocation: the tunnels' side takes the connection over.
                self._state = OVER
                self.hand_over(protocol, bytes(whole))
                return
        rest = bytes(whole[size:]) if len(whole) > size else b""
        if held:
            held.clear()
        marking = self.edge.marking
        if marking is not None:
            block, self.request_id = marking.mark(head.block, trusted=bool(self._proxy))
            head = head.marked(block)
        self._head = head
        self._begin(head, rest)

    def _begin(self, head: RequestHead, rest: bytes) -> None:
        """A request whose head has been read; `rest` is what came behind it."""
        body = b""
        fin = True
        if head.upgrade:
            fin = False
            self._state = UPGRADE
        elif has_body(head):
            try:
                upload = Upload(head, limit=self.edge.limits.body, now=self.edge.wheel.now)
                body, fin, rest = upload.feed(rest)
            except HTTPError as error:
                self._bad_body(error)
                return
            self._state = RESPONSE if fin else BODY
            self._upload = None if fin else upload
        else:
            self._state = RESPONSE
        if rest:
            self._hold(rest)
        if head.asterisk:
            keep_alive = self.may_persist
            self._said(204, "none")
            self.write(render_options(close=not keep_alive))
            self.answered(keep_alive)
            return
        edge = self.edge
        if self._proxy:
            self.forwarding = vouched(head, self._proxy, scheme=self.scheme, trusts=edge.trusts)
        address = self.forwarding.address
        target: Entry | Answer = direct(edge, head.host, tls=self.scheme, asked_name=self._asked_name, address=address)
        if not self.scheme and edge.front.https_redirect_port and (target is NO_SESSION or isinstance(target, Entry)):
            encrypted = bool(self.forwarding.scheme)
            target = redirect(head, port=edge.front.https_redirect_port, arrived_over_https=encrypted) or target
        if isinstance(target, Answer):
            self.answer(target)
            return
        if self._state == BODY:
            self.edge.wheel.arm(self, self.edge.stall_ticks)
        if self.edge.request_ticks:
            self._started = self.edge.wheel.now
            self.edge.wheel.arm(self, min(self.edge.request_ticks, self.edge.stall_ticks))
        if self.pin is None:
            self.pin = pin_for(head.block)
        exchange = self._exchange = Exchange(self, head, target)
        exchange.start(body, fin)
        if exchange.blocked:
            self.pause(BY_STREAM)

    def _read_body(self, data: bytes) -> None:
        exchange, upload = self._exchange, self._upload
        if exchange is None or upload is None:
            return
        try:
            piece: Piece = upload.feed(data)
        except HTTPError as error:
            self._bad_body(error)
            return
        body, fin, rest = piece
        if fin:
            self._upload = None
            self._state = RESPONSE
            if rest:
                self._hold(rest)
        elif not body:
            return
        exchange.feed(body, fin)
        if exchange.blocked:
            self.pause(BY_STREAM)

    def _bad_body(self, error: HTTPError) -> None:
        if error.status == 413:
            self.edge.counters.reach("body")
        exchange = self._exchange
        if exchange is None:
            self._refuse(answer_to_error(error))
        else:
            self._end_exchange(exchange, answer_to_error(error))

    def _end_exchange(self, exchange: Exchange, answer: Answer) -> None:
        """The origin's side is cancelled, and the visitor hears why if it still can."""
        answering = exchange.answering
        exchange.abandon(answer.blame)
        if answering:
            self.cut()
        else:
            self._refuse(answer)

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > HELD:
            self.pause(BY_HELD)

    def next_request(self) -> None:
        """Goes on with what was held while the last exchange ran."""
        if self._state != HEAD or not self._held:
            return
        data = bytes(self._held)
        self._held.clear()
        self.resume(BY_HELD)
        self._read_head(data)
        if self._eof and self._state in (HEAD, BODY):
            self.eof_received()

    # -- what an exchange asks for: Visitor --------------------------------------------------------------------------

    def resume_request(self) -> None:
        """The stream takes request bytes again."""
        if self._paused:
            self.resume(BY_STREAM)

    def switched(self) -> None:
        """The origin switched protocols: what the visitor sent early goes out now."""
        self._state = PIPE
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            await_slow_readers(sock)
        held = bytes(self._held)
        self._held.clear()
        self.resume(BY_HELD)
        exchange = self._exchange
        if exchange is None:
            return
        if held or self._eof:
            exchange.feed(held, self._eof)
        if exchange.blocked:
            self.pause(BY_STREAM)

    def pipe_ended(self) -> None:
        """The origin has ended its direction of the pipe."""
        self._origin_ended = True
        if not self._eof and self._transport.can_write_eof():
            self._transport.write_eof()
            return
        exchange = self._over()
        if exchange is not None and not self._eof:
            # TLS cannot half-close here: with the origin's direction the visitor's ends too.
            exchange.feed(b"", True)
        self._state = OVER
        self.close()

    # -- time and the end ---------------------------------------------------------------------------------------------

    def on_deadline(self) -> None:
        """The wheel's word: a head, a body, a reader or an idle connection took too long."""
        state = self._state
        if self._ending == CLOSED and self.takes():
            self.edge.wheel.arm(self, self.edge.stall_ticks)
        elif state == OVER or self._ending != OPEN:
            if self._ending == CLOSED:
                self.edge.counters.reach("reader")
            self._transport.abort()
        elif state == HEAD:
            if self._held:
                self.edge.counters.reach("head_time")
                self._refuse(answers.HEAD_TIMEOUT)
            else:
                self._state = OVER
                self.close()
        else:
            self._look()

    def _look(self) -> None:
        """A look at an exchange: is it moving, and within its time?"""
        edge, exchange, upload = self.edge, self._exchange, self._upload
        after = edge.stall_ticks
        if edge.request_ticks and self._state != PIPE:
            left = self._started + edge.request_ticks - edge.wheel.now
            if left <= 0 and exchange is not None:
                edge.counters.reach("request_time")
                self._end_exchange(exchange, answers.REQUEST_TIMEOUT)
                return
            after = max(1, min(after, left))
        edge.wheel.arm(self, after)
        if self._state == PIPE:
            return  # whoever reads it may pause for as long as they like: a window of bytes waits, and no more
        if self.stuck():
            edge.counters.reach("reader")
            self.abort("visitor")
        elif self._state == BODY and not self._paused and upload is not None and exchange is not None:
            least = edge.limits.body_rate * edge.limits.stall_seconds
            if upload.too_slow(edge.wheel.now, every=edge.stall_ticks, least=least):
                edge.counters.reach("body_rate")
                self._end_exchange(exchange, answers.BODY_TIMEOUT)
