"""Why sessions end, as few tokens for metrics.

Responsible for sorting the sentences that sessions end with, which the logs show whole, into bounded classes. Must not
know who ends a session. Invariant: whatever the sentence, the token is one of ENDINGS.
"""

from typing import Final

_BEGINNINGS: Final = (
    ("connection lost", "connection_lost"),
    ("connection closed", "peer_closed"),
    ("the peer closed the connection", "peer_closed"),
    ("nothing heard", "timeout"),
    ("its data path is stuck", "timeout"),
    ("no HELLO", "timeout"),
    ("the relay sent no HELLO", "timeout"),
    ("replaced by generation", "replaced"),
    ("drained", "drained"),
    ("too many sessions drain", "drained"),
    ("the relay is shutting down", "shutdown"),
    ("the connector stops", "shutdown"),
    ("the credential has been revoked", "revoked"),
    ("the credential has expired", "expired"),
    ("the issuer's key", "issuer_removed"),
    ("the peer does not read", "not_reading"),
)
PROTOCOL_ERROR: Final = "protocol_error"
ENDINGS: Final = (*dict.fromkeys(token for _, token in _BEGINNINGS), PROTOCOL_ERROR)
"""Every token. `peer_closed`: the other end closed in order; it has the reason."""


def ending(sentence: str) -> str:
    """The token for a session's last sentence; one that is not listed tells of a peer that broke the protocol."""
    for beginning, token in _BEGINNINGS:
        if sentence.startswith(beginning):
            return token
    return PROTOCOL_ERROR
