"""``POST /.well-known/culvert/revocations``: how an issuer tells a relay that a tunnel's credentials are void.

Responsible for the text of request and answer. The body is one revocation statement, which needs no other
authentication than its own signature: anyone may deliver it, and again. Must not know what a relay does with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from culvert_protocol.handshake import HandshakeError, Refused, host_field, parse_answer, plain_host, target_of
from culvert_protocol.http_text import build_head, parse_head
from culvert_protocol.statements import MAX_REVOCATION_SIZE

REVOCATIONS_PATH: Final = "/.well-known/culvert/revocations"
CONTENT_TYPE: Final = "application/jose"  # RFC 7515 section 9.2.1: one compact JWS


@dataclass(frozen=True, slots=True)
class Delivered:
    """The relay took the revocation into account."""


@dataclass(frozen=True, slots=True)
class RevocationRequest:
    """A revocation as it came (not verified), to the relay's name ``host``; ``size`` is the request's bytes."""

    host: str
    token: str
    size: int


def build_revocation_request(server_name: str, token: str) -> bytes:
    """The request that delivers ``token``."""
    body = token.encode("ascii")
    head = build_head(
        f"POST {REVOCATIONS_PATH} HTTP/1.1",
        [
            ("Host", host_field(server_name)),
            ("Content-Type", CONTENT_TYPE),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ],
    )
    return head + body


def parse_revocation_request(data: bytes | bytearray) -> RevocationRequest | None:
    """The request in ``data``, None while it is incomplete, ``HandshakeError`` with the status to answer."""
    head = parse_head(data)
    if head is None:
        return None
    target_of(head, method="POST", path=REVOCATIONS_PATH)
    host = plain_host(head)
    length = head.content_length(most=MAX_REVOCATION_SIZE)
    if not length or "transfer-encoding" in head.fields:
        raise HandshakeError(400, "The request has no body of a declared length.")
    end = head.size + length
    if len(data) < end:
        return None
    try:
        token = bytes(data[head.size : end]).decode("ascii").strip()
    except UnicodeDecodeError:
        raise HandshakeError(400, "The body is not a compact JWS.") from None
    return RevocationRequest(host=host, token=token, size=end)


def build_revocation_accepted() -> bytes:
    """204: the relay knows the revocation now (or did already); the connection closes."""
    return build_head("HTTP/1.1 204 No Content", [("Cache-Control", "no-store"), ("Connection", "close")])


def parse_revocation_answer(data: bytes | bytearray, *, eof: bool = False) -> Delivered | Refused | None:
    """The relay's answer, None while more is needed; ``HandshakeError`` when it is not one (see ``parse_answer``)."""
    answer = parse_answer(data, eof=eof)
    if answer is None:
        return None
    if not isinstance(answer, Refused):
        raise HandshakeError(400, "The relay switched protocols where it was told of a revocation.")
    return Delivered() if answer.status == 204 else answer
