"""From an OPEN to whatever serves it: the one place where a stream meets the configuration.

Responsible for matching, for the answers that the connector gives itself, and for counting every request once under
its rule and class of status.

Must not know: sessions' lives, how a connection to an origin is made, how configurations change.

Invariant: every stream that is opened gets a listener and exactly one outcome. Hot path: no task, no log line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from culvert_connector.configuration import Applied
from culvert_connector.metrics import Counters
from culvert_connector.origins import request
from culvert_connector.origins.exchange import Connections, Exchange
from culvert_connector.origins.targets import AnswerTarget, OriginTarget
from culvert_http1.path import PathError
from culvert_protocol.codes import ResetCode
from culvert_protocol.heads import Framing, Kind, Open, ResponseHead
from culvert_protocol.stream import Stream

# Looking up a member of an Enum costs 0.1 µs on CPython 3.11; what the hot path needs has names of its own.
_UPGRADE = int(Kind.UPGRADE)
"""Kinds up to this one are requests; a stream of another kind is bytes."""


class Requests:
    """Serves streams by the configuration that `current` returns at their OPEN."""

    def __init__(self, *, current: Callable[[], Applied | None], connections: Connections, counters: Counters) -> None:
        self._current = current
        self._connections = connections
        self._counters = counters
        self._counts: dict[str, Callable[[int], None]] = {}

    def open(self, stream: Stream, head: Open, body: bytes, fin: bool) -> None:
        """A request has arrived on a session."""
        applied = self._current()
        if applied is None:
            _refuse(stream, ResetCode.REFUSED, "no_configuration")
            return
        if head.kind > _UPGRADE:
            _refuse(stream, ResetCode.UNAVAILABLE, "tcp_not_supported")
            return
        problem = request.problem(head)
        if problem is not None:
            _refuse(stream, ResetCode.BAD_REQUEST, problem)
            return
        try:
            host = head.host.decode("ascii")
            path = request.matching_path(head) if applied.router.host_has_paths(host) else b"/"
        except UnicodeDecodeError:
            _refuse(stream, ResetCode.BAD_REQUEST, "bad_host")
            return
        except PathError as error:
            _refuse(stream, ResetCode.BAD_REQUEST, error.reason)
            return
        target = applied.target(host, path)
        count = self._counts.get(target.rule_id)
        if count is None:
            count = self._counts[target.rule_id] = functools.partial(self._counters.request, target.rule_id)
        if isinstance(target, OriginTarget):
            Exchange(stream, head, target, self._connections, count).begin(body, fin)
        else:
            count(target.status)
            _answer(stream, target, upload_ended=fin, bodiless=head.method == b"HEAD")

    def forget_rules(self, kept: set[str]) -> None:
        """Drops what is remembered of rules that are no longer configured, so that ids do not pile up."""
        self._counts = {rule: count for rule, count in self._counts.items() if rule in kept}
        self._counters.keep_rules(kept)


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


def _refuse(stream: Stream, code: ResetCode, reason: str) -> None:
    stream.listener = Deaf(stream)
    stream.reset(code, reason)
