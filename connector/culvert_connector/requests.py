"""From an OPEN to whatever serves it: the one place where a stream meets the configuration.

Responsible for matching, for the answers that the connector gives itself, and for counting every request once under
its rule and class of status.

Must not know: sessions' lives, how a connection to an origin is made, how configurations change.

Invariant: every stream that is opened gets a listener and exactly one outcome. Hot path: no task, no log line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Final

from culvert_connector.configuration import Applied
from culvert_connector.metrics import Counters
from culvert_connector.origins import basic_auth, collecting, request
from culvert_connector.origins.bridge import Bridge, handshake_problem
from culvert_connector.origins.collecting import Collection
from culvert_connector.origins.exchange import Connections, Exchange
from culvert_connector.origins.passage import Passage
from culvert_connector.origins.pinning import pinned, take_visitor
from culvert_connector.origins.targets import AnswerTarget, OriginTarget, Target, naming_host, own_answer
from culvert_connector.origins.treated import TreatedExchange
from culvert_connector.origins.treatment import Treatment
from culvert_http1.path import PathError
from culvert_protocol.codes import SOURCE, VISITOR_STATUS, ResetCode
from culvert_protocol.heads import Framing, Kind, Open, ResponseHead
from culvert_protocol.stream import Stream
from culvert_transport.traffic import Traffic

NOT_HTTP: Final = b"This service is not HTTP: reach it by its port, or with 'culvert access tcp --hostname NAME'.\n"

UNAUTHORIZED: Final = b"401 This service asks for a user name and password.\n"

TOO_LARGE: Final = b"413 This upload has no length and is too large for that: send it with Content-Length.\n"
FULL: Final = b"503 Too many uploads without a length are under way: send it with Content-Length.\n"

Ready = tuple[OriginTarget, Traffic, bytes]
"""What a request without a body comes to: whom it goes to, where it is counted, and its head as the origin gets it."""
MAX_READY: Final = 512
REMEMBERED: Final = 2048
"""Bytes of a head up to which it is remembered what it comes to."""
# Looking up a member of an Enum costs 0.1 µs on CPython 3.11; what the hot path needs has names of its own.
_NONE = int(Framing.NONE)
_LENGTH = int(Framing.LENGTH)
_CHUNKED = int(Framing.CHUNKED)
_UPGRADE = int(Kind.UPGRADE)
"""Kinds up to this one are requests; a stream of another kind is bytes."""


class Requests:
    """Serves streams by the configuration that `current` returns at their OPEN."""

    def __init__(self, *, current: Callable[[], Applied | None], connections: Connections, counters: Counters) -> None:
        self._current = current
        self._connections = connections
        self._counters = counters
        self._rules = counters.rules
        self._held = collecting.Held()
        self._ready_for: Applied | None = None
        self._ready: dict[Open, Ready] = {}

    def open(self, stream: Stream, head: Open, body: bytes, fin: bool) -> None:
        """A request has arrived on a session."""
        applied = self._current()
        if applied is None:
            self._refuse(stream, ResetCode.REFUSED, "no_configuration")
            return
        if head.kind > _UPGRADE:
            self._passage(applied, stream, head, body, fin)
            return
        if applied is not self._ready_for:
            self._ready_for = applied
            self._ready.clear()
        ready = self._ready.get(head)
        if ready is not None:
            origin, counted, encoded = ready
            Exchange(stream, head, origin, self._connections, counted, encoded).begin(body, fin)
            return
        whole = head
        head, visitor = take_visitor(head)
        problem = request.problem(head)
        if problem is not None:
            self._refuse(stream, ResetCode.BAD_REQUEST, problem)
            return
        try:
            host = head.host.decode("ascii")
            path = request.matching_path(head) if applied.router.host_has_paths(host) else b"/"
        except UnicodeDecodeError:
            self._refuse(stream, ResetCode.BAD_REQUEST, "bad_host")
            return
        except PathError as error:
            self._refuse(stream, ResetCode.BAD_REQUEST, error.reason)
            return
        target = applied.target(host, path)
        traffic = self._rules.of(target.rule_id)
        if target.users:
            if basic_auth.accepts(head.fields, target.users):
                head = head._replace(fields=basic_auth.without(head.fields))
            else:
                target = own_answer(target.rule_id, 401, UNAUTHORIZED, reason="unauthorized")
                target = replace(target, fields=target.fields + basic_auth.CHALLENGE)
        if isinstance(target, OriginTarget) and target.pipe:
            if head.kind == Kind.UPGRADE:
                problem = handshake_problem(head.fields)
                if problem is None:
                    Bridge(stream, head, target, self._connections, traffic).begin()
                    return
                target = own_answer(target.rule_id, 400, NOT_HTTP, reason=problem)
            else:
                target = own_answer(target.rule_id, 400, NOT_HTTP, reason="not_http")
        if isinstance(target, OriginTarget):
            if target.treatment is not None:
                self._treated(stream, head, target, target.treatment, traffic, visitor, body, fin)
                return
            plain = target
            target = pinned(target, head, session=stream.session, visitor=visitor)
            encoded = request.encode(head, host=target.host_header)
            if target is plain and head is whole and head.framing == _NONE and len(encoded) <= REMEMBERED:
                self._remember(head, (target, traffic, encoded))
            Exchange(stream, head, target, self._connections, traffic, encoded).begin(body, fin)
        else:
            self._answer(stream, head, target, traffic, body, fin)

    def _remember(self, head: Open, ready: Ready) -> None:
        """A request like this one, to the byte, needs no second look while the configuration is the same."""
        if len(self._ready) >= MAX_READY:
            self._ready.clear()
        self._ready[head] = ready

    def _treated(
        self,
        stream: Stream,
        head: Open,
        target: OriginTarget,
        treatment: Treatment,
        traffic: Traffic,
        visitor: int | None,
        body: bytes,
        fin: bool,
    ) -> None:
        """A request of a rule that changes requests or responses."""
        try:
            head = treatment.request(head)
        except PathError as error:
            self._refuse(stream, ResetCode.BAD_REQUEST, error.reason)
            return
        if treatment.names_host:
            target = naming_host(target, head)
        target = pinned(target, head, session=stream.session, visitor=visitor)

        def serve(head: Open, body: bytes, fin: bool) -> None:
            if treatment.response_fields is None:
                exchange = Exchange(stream, head, target, self._connections, traffic)
            else:
                exchange = TreatedExchange(stream, head, target, self._connections, traffic)
                exchange.editor = treatment.response_fields
            exchange.begin(body, fin)

        if not treatment.collects or head.framing != _CHUNKED or head.kind == _UPGRADE:
            serve(head, body, fin)
            return

        def whole(body: bytes) -> None:
            serve(head._replace(framing=_LENGTH, content_length=len(body)), body, True)

        def refused(reason: str) -> None:
            if reason == collecting.FULL:
                answer = own_answer(target.rule_id, 503, FULL, reason="collecting_full")
            else:
                answer = own_answer(target.rule_id, 413, TOO_LARGE, reason="body_too_large")
            self._answer(stream, head, answer, traffic, b"", False)

        collection = Collection(stream, self._held, traffic, whole=whole, refused=refused)
        collection.begin(body, fin, expected=request.expects_continue(head))

    def _answer(
        self, stream: Stream, head: Open, target: AnswerTarget, traffic: Traffic, body: bytes, fin: bool
    ) -> None:
        """An answer of the connector's own."""
        traffic.answers.add(target.status, "connector" if target.status >= 400 else "none")
        traffic.received += len(body)
        if head.method != b"HEAD":
            traffic.sent += len(target.body)
        _answer(stream, target, upload_ended=fin, bodiless=head.method == b"HEAD")

    def _passage(self, applied: Applied, stream: Stream, head: Open, body: bytes, fin: bool) -> None:
        """A connection of one of the relay's TCP ports, or one with a TLS server name."""
        if head.host:
            target: Target | None = applied.target(head.host.decode("ascii", "replace"), b"/")
        else:
            target = applied.port_target(head.local_port)
        if not isinstance(target, OriginTarget) or not target.pipe or target.by_name != bool(head.host):
            self._refuse(stream, ResetCode.UNAVAILABLE, "no_rule")
            return
        traffic = self._rules.of(target.rule_id)
        ended = partial(self._counters.connection, traffic.labels[0])
        Passage(stream, head, target, self._connections, traffic, ended).begin(body, fin)

    def forget_rules(self, kept: set[str]) -> None:
        """Drops what is remembered of rules that are no longer configured, so that ids do not pile up."""
        self._counters.keep_rules(kept)
        self._ready.clear()

    def under_way(self, streams: Iterable[Stream]) -> dict[str, int]:
        """How many of these streams each rule serves at the moment, for the metrics."""
        counts = {traffic.labels[0]: 0 for traffic in self._rules if traffic.used}
        for stream in streams:
            traffic = getattr(stream.listener, "traffic", None)
            if isinstance(traffic, Traffic):
                counts[traffic.labels[0]] = counts.get(traffic.labels[0], 0) + 1
        return counts

    def _refuse(self, stream: Stream, code: ResetCode, reason: str) -> None:
        self._rules.nobody.answers.add(VISITOR_STATUS[code], SOURCE[code])
        stream.listener = Deaf(stream)
        stream.reset(code, reason)


class Deaf:
    """The listener of a stream that has had its answer: whatever still comes is dropped."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def on_head(self, head: ResponseHead) -> None:
        """Nothing to do."""

    def on_data(self, data: bytes) -> None:
        """Nothing to do: the credit is not given back, so the upload stops by itself."""

    def on_end(self) -> None:
        """Nothing to do."""

    def on_reset(self, code: int, reason: str) -> None:
        """Nothing to do."""

    def on_writable(self) -> None:
        """Held bytes have left: now the upload can be stopped without losing them."""
        if self._stream.sent_fin and not self._stream.closed:
            self._stream.reset(ResetCode.NO_ERROR, "answered_by_the_connector")


def _answer(stream: Stream, target: AnswerTarget, *, upload_ended: bool, bodiless: bool) -> None:
    listener = Deaf(stream)
    stream.listener = listener
    head = ResponseHead(target.status, Framing.LENGTH, len(target.body), not upload_ended, target.fields)
    stream.send_head(head, b"" if bodiless else target.body, fin=True)
    if not upload_ended:
        listener.on_writable()
