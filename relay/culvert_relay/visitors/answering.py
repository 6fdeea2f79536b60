"""How exchanges on a visitor's connection end: answered, refused, cut off.

Responsible for the states of a connection and for what may come after an answer: the next request, or nothing ever
again. Must not know how requests are read (`connection`) or how a socket is closed (`line`). Callbacks only: this is
the hot path. Invariant: a connection is used again only when its request was read whole and its answer is complete.
"""

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from culvert_http1.request import RequestHead
from culvert_relay.access.log import Said
from culvert_relay.visitors import answers
from culvert_relay.visitors.answers import Answer, render
from culvert_relay.visitors.exchange import Exchange
from culvert_relay.visitors.line import BY_STREAM, VisitorLine

if TYPE_CHECKING:
    from culvert_relay.admission import Place
    from culvert_relay.edge import Edge
    from culvert_relay.visitors.opening import Forwarding

HEAD: Final = 0
"""Between requests, or within a request's head."""
BODY: Final = 1
"""Within a request's body."""
RESPONSE: Final = 2
"""The request has been read; its response is under way. What arrives is held."""
UPGRADE: Final = 3
"""A WebSocket handshake waits for its response. What arrives is held."""
PIPE: Final = 4
OVER: Final = 5
"""The line is being ended; what arrives is dropped."""

logger = logging.getLogger(__name__)


class AnsweringConnection(VisitorLine, ABC):
    """A connection's state, and the ends of its exchanges."""

    __slots__ = ("_exchange", "_head", "_held", "_state", "forwarding", "request_id", "scheme")

    def __init__(self, edge: "Edge", place: "Place | None", forwarding: "Forwarding", *, scheme: int) -> None:
        super().__init__(edge, place)
        self.forwarding = forwarding
        self.scheme = scheme
        self._state = HEAD
        self._exchange: Exchange | None = None
        self._head: RequestHead | None = None
        self._held = bytearray()
        self.request_id = b""

    @abstractmethod
    def next_request(self) -> None:
        """Goes on with what was held while the last exchange ran."""

    @property
    def may_persist(self) -> bool:
        """Whether this connection could serve another request after this one."""
        head = self._head
        if head is None or not head.keep_alive or self.edge.draining:
            return False
        if self._eof and not self._held:
            return False
        if self._state == UPGRADE:
            # Bytes that came with a handshake are never read as a request.
            return not self._held
        return self._state == RESPONSE

    def answered(self, keep_alive: bool) -> None:
        """The response has been written."""
        if self._exchange is not None:
            self._over()
        self._head = None
        state = self._state
        if state == OVER:
            return
        edge = self.edge
        if not keep_alive or state not in (RESPONSE, UPGRADE) or edge.draining:
            unread = state != RESPONSE or bool(self._held)
            self._state = OVER
            self._held.clear()
            if unread:
                self.linger()
            else:
                self.close()
            return
        self._state = HEAD
        if self._paused:
            # Its stream took no more and is gone: nobody else would ever read the next request.
            self.resume(BY_STREAM if self._held else self._paused)
        # Only put off, never brought forward: the wheel looks at this number when the bucket comes up.
        self.deadline = edge.wheel.now + edge.idle_ticks
        if self._held:
            edge.loop.call_soon(self.next_request)

    def answer(self, answer: Answer, *, close: bool = False) -> None:
        """The relay answers itself instead of an origin; `close` when the connection must not be used again."""
        keep_alive = self.may_persist and not close
        head = self._head
        self._said(answer.status, answer.blame, answer.reason)
        body = head is None or head.method != b"HEAD"
        self.write(render(answer, close=not keep_alive, body=body, request_id=self.request_id))
        self.answered(keep_alive)

    def failed(self, answering: bool) -> None:
        """The relay itself failed, told in an `except` block: the visitor hears it, or is cut off when `answering`."""
        logger.exception("a request failed in an unforeseen way")
        self.edge.counters.failures += 1
        if answering:
            self.cut()
        elif self._state != OVER:
            self._refuse(answers.RELAY_ERROR)
        else:
            self._over()

    def cut(self) -> None:
        """The response has to be visibly incomplete."""
        self._over()
        self._state = OVER
        self.sever()

    def drain(self) -> None:
        """The relay is shutting down: an idle connection closes, one with a request under way after its response."""
        if self._state == HEAD and not self._held:
            self._state = OVER
            self.close()

    def abort(self, by: str = "relay") -> None:
        """Ends whatever is under way, without a clean end of a response."""
        if self._exchange is not None:
            self._exchange.abandon(by)
        self.cut()

    @property
    def busy(self) -> bool:
        """Whether a request is under way, or the last answer still needs the connection."""
        return self._exchange is not None or super().busy

    def _refuse(self, answer: Answer) -> None:
        """The connection ends with this answer; nothing that follows is read as a request."""
        request_id = self.request_id if self._head is not None else b""
        self._said(answer.status, answer.blame, answer.reason)
        self._head = None
        self._state = OVER
        self._held.clear()
        self.write(render(answer, close=True, request_id=request_id))
        self.linger()

    # -- what is counted and logged -----------------------------------------------------------------------------------

    def _said(self, status: int, blame: str, reason: str = "") -> None:
        """The relay gives this answer itself, to the exchange's request if there is one."""
        exchange = self._exchange
        tally = self.edge.counters.tunnels.nobody if exchange is None else exchange.tally
        tally.answers.add(status, blame)
        self._over(Said(status, blame, reason))

    def _over(self, said: Said | None = None) -> Exchange | None:
        """The request, and its exchange if it came to one, is over; `said` is the relay's own answer."""
        exchange, self._exchange = self._exchange, None
        log = self.edge.access_log
        if log is not None and (exchange is not None or said is not None):
            log.add(self, self._head, exchange, said)
        return exchange
