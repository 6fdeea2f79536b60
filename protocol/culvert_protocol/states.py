"""The state machines as literal tables: what may arrive when.

Two rules hold everywhere: a frame that its table does not list ends the session with a reason, and frames for
streams that are already closed are dropped silently (they crossed our RESET or FIN on the way).
This file knows no bytes and keeps no state; `session` and `stream` walk these tables.
"""

from enum import IntEnum
from typing import Final

from culvert_protocol.frames import FrameType as F


class Phase(IntEnum):
    """A session's phase, as seen by one end."""

    HELLO = 0
    """Waiting for the peer's HELLO; nothing else may come first."""
    RUNNING = 1
    CLOSED = 2


_BOTH: Final = frozenset({F.OPEN, F.DATA, F.WINDOW, F.RESET, F.PING, F.PONG, F.DRAIN, F.DRAIN_ACK})

RECEIVED_BY_RELAY: Final[dict[Phase, frozenset[int]]] = {
    Phase.HELLO: frozenset({F.HELLO}),
    Phase.RUNNING: frozenset(_BOTH | {F.ROUTES, F.CREDENTIAL, F.REVOKE}),
    Phase.CLOSED: frozenset(),
}
RECEIVED_BY_CONNECTOR: Final[dict[Phase, frozenset[int]]] = {
    Phase.HELLO: frozenset({F.HELLO}),
    Phase.RUNNING: frozenset(_BOTH | {F.ROUTES_RESULT, F.CREDENTIAL_RESULT}),
    Phase.CLOSED: frozenset(),
}


class Receiving(IntEnum):
    """What one end still expects to receive on a stream."""

    HEAD = 0
    """A response's head records; 1xx ones may come before the one final record."""
    BODY = 1
    """Body or pipe bytes until FIN."""
    ENDED = 2
    ERROR = 3


class Arrival(IntEnum):
    """What a DATA frame (or OPEN's FIN) brings."""

    INFORMATIONAL = 0
    FINAL = 1
    BYTES = 2
    FIN = 3


_ERROR = Receiving.ERROR
RECEIVING: Final[tuple[tuple[Receiving, ...], ...]] = (
    #  INFORMATIONAL    FINAL            BYTES            FIN
    (Receiving.HEAD, Receiving.BODY, _ERROR, _ERROR),  # HEAD
    (_ERROR, _ERROR, Receiving.BODY, Receiving.ENDED),  # BODY
    (_ERROR, _ERROR, _ERROR, _ERROR),  # ENDED
    (_ERROR, _ERROR, _ERROR, _ERROR),  # ERROR
)
