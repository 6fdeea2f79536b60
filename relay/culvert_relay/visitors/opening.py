"""A visitor's request as OPEN carries it.

Responsible for what the connector learns of a request: the normalised host and path for matching, and the field
block with the forwarding fields replaced by the relay's own. Pure. Must not know sessions or connections.
Invariant: `X-Forwarded-*`, `X-Real-IP` and `Forwarded` that an origin sees were written by this relay.
"""

from typing import Final

from culvert_http1.path import PathError, normalise_path
from culvert_http1.request import RequestHead
from culvert_protocol.heads import REMEMBERED, Kind, Open, encode_open

# Plain integers: looking a member up in an enumeration costs a call in Python 3.11.
_HTTP: Final = int(Kind.HTTP)
_UPGRADE: Final = int(Kind.UPGRADE)
UNMATCHABLE: Final = b"?"
"""Sent as the path for matching when a path has no one meaning: no rule's path matches it, so a host whose rules look
at paths refuses it, while a host without such rules passes the target on untouched."""


class Forwarding:
    """What origins are told about one visitor: its address, `http` or `https`, the Host it asked for.

    The fields of the last authority are kept: a connection mostly asks for one. `said`: an authority and its fields
    that were made otherwise (`vouching`). So is the last OPEN: `sent` is what it was made of, `payload` its bytes.
    """

    __slots__ = ("_authority", "_fields", "address", "payload", "scheme", "sent")

    def __init__(self, address: bytes, *, scheme: int, said: tuple[bytes | None, bytes] = (None, b"")) -> None:
        self.address = address
        self.scheme = scheme
        self._authority, self._fields = said
        self.sent: tuple[RequestHead, int] | None = None
        self.payload = b""

    def fields(self, authority: bytes) -> bytes:
        """The field lines for a request to this authority."""
        if authority != self._authority:
            self._authority = authority
            self._fields = (
                b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nX-Real-IP: %b\r\n"
                % (self.address, b"https" if self.scheme else b"http", authority, self.address)
            )
        return self._fields


def matching_path(path: bytes) -> bytes:
    """The path that rules match on: b"" when it is the same as the target's own."""
    try:
        normal = normalise_path(path)
    except PathError:
        return UNMATCHABLE
    return b"" if normal == path else normal


def opening(
    head: RequestHead,
    *,
    forwarding: Forwarding,
    scheme: int,
    local_port: int,
    attempt: int,
    version: int,
    pin: bytes = b"",
) -> bytes:
    """OPEN's record for a request; `version` is the grant's under which the session serves the host, `pin` the line
    that names a pinned visitor.

    `forwarding` is of one connection, whose `scheme` and `local_port` never change.
    """
    sent = forwarding.sent
    if sent is not None and sent[0] is head and sent[1] == version and not attempt and not pin:
        return forwarding.payload
    record = (
        _UPGRADE if head.upgrade else _HTTP,
        attempt,
        scheme,
        head.framing,
        head.content_length,
        local_port,
        version,
        head.method,
        forwarding.address,
        head.host,
        head.authority,
        matching_path(head.path),
        head.target,
        pin + head.block + forwarding.fields(head.authority),
    )
    payload = encode_open(tuple.__new__(Open, record))
    if len(payload) <= REMEMBERED and not attempt and not pin:
        forwarding.sent = (head, version)
        forwarding.payload = payload
    return payload
