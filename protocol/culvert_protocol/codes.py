"""What goes wrong between the two ends, as codes on the wire and as the exception inside.

Responsible for the RESET codes, their meaning and the answer a visitor gets for each. Knows no frame layout.
"""

from enum import IntEnum
from typing import Final


class ResetCode(IntEnum):
    """Why a stream ended early. Travels in RESET; SESSION_LOST is only ever said locally."""

    NO_ERROR = 0
    """The answer is complete and the rest of the upload is not wanted."""
    REFUSED = 1
    """Nothing reached an origin: any request, whatever its method, may be sent again elsewhere."""
    CANCEL = 2
    """The visitor went away, or the sender no longer wants the stream."""
    PROTOCOL_ERROR = 3
    FLOW_CONTROL = 4
    ORIGIN_UNREACHABLE = 5
    ORIGIN_TIMEOUT = 6
    ORIGIN_PROTOCOL = 7
    """The origin answered with something that is not HTTP/1.1, or broke off in the middle."""
    UNAVAILABLE = 8
    """The rule exists but cannot be served now (a missing Service, a connection limit)."""
    INTERNAL = 9
    BAD_REQUEST = 10
    SESSION_LOST = 11


VISITOR_STATUS: Final[dict[int, int]] = {
    ResetCode.NO_ERROR: 502,
    ResetCode.REFUSED: 503,
    ResetCode.CANCEL: 502,
    ResetCode.PROTOCOL_ERROR: 502,
    ResetCode.FLOW_CONTROL: 502,
    ResetCode.ORIGIN_UNREACHABLE: 502,
    ResetCode.ORIGIN_TIMEOUT: 504,
    ResetCode.ORIGIN_PROTOCOL: 502,
    ResetCode.UNAVAILABLE: 503,
    ResetCode.INTERNAL: 502,
    ResetCode.BAD_REQUEST: 400,
    ResetCode.SESSION_LOST: 502,
}
"""The status a visitor gets when a stream is reset before any response head. Unknown codes: 502."""

SOURCE: Final[dict[int, str]] = {
    ResetCode.ORIGIN_UNREACHABLE: "origin",
    ResetCode.ORIGIN_TIMEOUT: "origin",
    ResetCode.ORIGIN_PROTOCOL: "origin",
    ResetCode.UNAVAILABLE: "connector",
    ResetCode.INTERNAL: "connector",
    ResetCode.BAD_REQUEST: "connector",
    ResetCode.REFUSED: "connector",
    ResetCode.SESSION_LOST: "session",
}
"""Which part `Culvert-Error` names for a code; anything else is the session's."""


class ProtocolError(Exception):
    """The peer broke the protocol; the session ends with this reason (ASCII, one sentence)."""


class SessionBusy(Exception):
    """No new stream can be opened here now: closed, draining, at its stream limit or out of ids."""
