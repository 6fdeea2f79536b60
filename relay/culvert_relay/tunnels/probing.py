"""Probes: whether a session carries data, not just heartbeats.

Responsible for one session's probe: a stream through the same queues as data, echoed by the peer. Must not know what
follows from the outcome. Invariant: at most one probe is under way; a session that has carried a response since the
last look needs none.
"""

from typing import TYPE_CHECKING, Final

from culvert_protocol.codes import ProtocolError, SessionBusy
from culvert_protocol.heads import ResponseHead
from culvert_protocol.stream import Stream

if TYPE_CHECKING:
    from culvert_relay.tunnels.session import TunnelSession

EVERY: Final = 4
"""Seconds between looks; a probe that is still out at the next look has failed: out within 8 seconds."""
TOKEN: Final = b"probe"


class Probe:
    """The probes of one session. `passed` is the last outcome; a new session is trusted until one fails."""

    __slots__ = ("_session", "_stream", "passed")

    def __init__(self, session: "TunnelSession") -> None:
        self._session = session
        self._stream: Stream | None = None
        self.passed = True

    def look(self) -> None:
        """Judges the probe that is under way, or sends one if nothing else has proved the path."""
        session = self._session
        if self._stream is not None:
            self._outcome(False)
            return
        if session.heard and self.passed:
            session.heard = False
            return
        try:
            self._stream = session.session.probe(self, TOKEN)
        except (SessionBusy, ProtocolError):
            return

    def on_head(self, head: ResponseHead) -> None:
        """A probe's answer has no head: the session's tables refuse it."""

    def on_data(self, data: bytes) -> None:
        """The echo."""
        if self._stream is not None:
            self._stream.consumed(len(data))

    def on_end(self) -> None:
        """The echo is complete: the path works."""
        self._stream = None
        self._outcome(True)

    def on_reset(self, code: int, reason: str) -> None:
        """The peer refused the probe, or the session is gone."""
        self._stream = None
        self._outcome(False)

    def on_writable(self) -> None:
        """A probe never waits."""

    def _outcome(self, passed: bool) -> None:
        if passed != self.passed:
            self.passed = passed
            self._session.update()
