"""Answers that the relay gives itself: every one says who is at fault, in `Culvert-Error: <source>; <reason>`.

Responsible for the table of the relay's own answers and for their bytes. Pure. Must not know connections.
Invariant: no byte of an answer comes from a stranger, except reason tokens that were checked against a pattern and
the host and target of a redirect, which the parser has checked.
"""

import re
from dataclasses import dataclass
from typing import Final

from culvert_http1.errors import HTTPError
from culvert_http1.reasons import status_line
from culvert_http1.request import ALLOWED_METHODS
from culvert_protocol.codes import SOURCE, VISITOR_STATUS, ResetCode
from culvert_relay.access.marking import REQUEST_ID

RETRY_AFTER: Final = 2
"""Seconds that a 503 asks a visitor to wait: a restarted relay has its sessions back within five."""
_TOKEN: Final = re.compile(r"[a-z0-9_]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: `source` is who is at fault, `reason` a stable token, `sentence` what a person reads."""

    status: int
    source: str
    reason: str
    sentence: str
    retry_after: int | None = None
    location: str = ""

    @property
    def blame(self) -> str:
        """Who is to blame in metrics and logs: what the relay refuses as the visitor's fault is the visitor's."""
        if self.source != "relay" or self.status >= 500:
            return self.source
        return "visitor" if self.status >= 400 else "none"


NO_SESSION: Final = Answer(
    503,
    "relay",
    "no_session",
    "No connector of this host's tunnel is connected now. Try again in a moment.",
    RETRY_AFTER,
)
SESSIONS_BUSY: Final = Answer(
    503,
    "relay",
    "sessions_busy",
    "Every session of this host's tunnel is at its limit. Try again in a moment.",
    RETRY_AFTER,
)
UNKNOWN_HOST: Final = Answer(404, "relay", "unknown_host", "No tunnel serves this host here. Check the name.")
NOT_FOUND: Final = Answer(404, "relay", "not_found", "The relay itself serves nothing under this path.")
NO_HOST: Final = Answer(400, "relay", "bad_host", "The request names no host, so no tunnel can be found for it.")
MISDIRECTED: Final = Answer(
    421,
    "relay",
    "misdirected",
    "The TLS server name and the Host of the request belong to different tunnels.",
)
SOURCE_NOT_ALLOWED: Final = Answer(
    403, "relay", "source_not_allowed", "Visitors from your address are not allowed here."
)
NOT_HTTP: Final = Answer(404, "relay", "not_http", "This name is served as TLS by a service of its own, not as HTTP.")
HEAD_TIMEOUT: Final = Answer(408, "relay", "head_timeout", "The request's head took too long to arrive.")
BODY_TIMEOUT: Final = Answer(408, "relay", "body_timeout", "The request's body arrived too slowly.")
TOO_MANY_CONNECTIONS: Final = Answer(
    503,
    "relay",
    "too_many_connections",
    "The relay has as many connections as it takes. Try again in a moment.",
    RETRY_AFTER,
)
TOO_MANY_FROM_ADDRESS: Final = Answer(
    429,
    "relay",
    "too_many_from_address",
    "This address has as many connections to the relay as it may have. Close some, or try again in a moment.",
    RETRY_AFTER,
)
REFUSALS: Final = {"connections": TOO_MANY_CONNECTIONS, "connections_per_address": TOO_MANY_FROM_ADDRESS}
"""By the limit that keeps a connection out."""
REQUEST_TIMEOUT: Final = Answer(
    504, "relay", "request_timeout", "The request and its response took longer than the relay lets them."
)
DRAINING: Final = Answer(503, "relay", "draining", "This relay is shutting down. Try again.", RETRY_AFTER)
RELAY_ERROR: Final = Answer(
    502, "relay", "relay_error", "The relay failed at this request, which is a fault of its own. Its log says more."
)
BAD_RESPONSE: Final = Answer(
    502, "connector", "bad_response", "The tunnel's connector sent a response that is not well-formed."
)

_RESET_REASONS: Final[dict[int, tuple[str, str]]] = {
    ResetCode.NO_ERROR: ("no_response", "The connector ended the request without a response."),
    ResetCode.REFUSED: ("refused", "No connector takes this request now. Try again in a moment."),
    ResetCode.CANCEL: ("cancelled", "The connector gave the request up."),
    ResetCode.PROTOCOL_ERROR: ("protocol_error", "Relay and connector did not understand each other."),
    ResetCode.FLOW_CONTROL: ("flow_control", "Relay and connector did not understand each other."),
    ResetCode.ORIGIN_UNREACHABLE: (
        "origin_unreachable",
        "The service behind this host could not be reached.",
    ),
    ResetCode.ORIGIN_TIMEOUT: ("origin_timeout", "The service behind this host did not answer in time."),
    ResetCode.ORIGIN_PROTOCOL: (
        "origin_protocol",
        "The service behind this host sent no valid HTTP response.",
    ),
    ResetCode.UNAVAILABLE: ("unavailable", "The service behind this host is not available now."),
    ResetCode.INTERNAL: ("internal", "The tunnel's connector failed to handle the request."),
    ResetCode.BAD_REQUEST: ("bad_request", "The tunnel's connector refused the request as malformed."),
    ResetCode.SESSION_LOST: ("session_lost", "The connection to the tunnel's connector was lost."),
}


def answer_to_reset(code: int, reason: str) -> Answer:
    """The answer when a stream is reset before any response; a well-formed `reason` of the peer is passed on."""
    default, sentence = _RESET_REASONS.get(code, ("reset", "The connector ended the request."))
    status = VISITOR_STATUS.get(code, 502)
    return Answer(
        status,
        SOURCE.get(code, "session"),
        reason if code != ResetCode.SESSION_LOST and _TOKEN.match(reason) else default,
        sentence,
        RETRY_AFTER if status == 503 else None,
    )


def answer_to_error(error: HTTPError) -> Answer:
    """The answer to a request that the parser refused."""
    return Answer(error.status, "relay", error.reason, error.sentence)


def render(answer: Answer, *, close: bool, body: bool = True, request_id: bytes = b"") -> bytes:
    """The whole response as bytes; `body` False for a HEAD request. `close` announces the connection's end."""
    text = (answer.sentence + "\n").encode()
    lines = [
        status_line(answer.status),
        b"Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n",
        b"Content-Length: %d\r\n" % len(text),
    ]
    if answer.status >= 400:
        lines.append(f"Culvert-Error: {answer.source}; {answer.reason}\r\n".encode())
    if request_id:
        lines.append(b"%b: %b\r\n" % (REQUEST_ID, request_id))
    if answer.location:
        lines.append(f"Location: {answer.location}\r\n".encode())
    if answer.retry_after is not None:
        lines.append(b"Retry-After: %d\r\n" % answer.retry_after)
    if answer.status == 405:
        lines.append(b"Allow: " + ALLOWED_METHODS + b"\r\n")
    if close:
        lines.append(b"Connection: close\r\n")
    lines.append(b"\r\n")
    if body:
        lines.append(text)
    return b"".join(lines)


def render_options(*, close: bool) -> bytes:
    """The answer to `OPTIONS *`: about the relay, not about a tunnel (RFC 9110 section 9.3.7)."""
    return (
        b"HTTP/1.1 204 No Content\r\nAllow: "
        + ALLOWED_METHODS
        + (b"\r\nConnection: close\r\n\r\n" if close else b"\r\n\r\n")
    )
