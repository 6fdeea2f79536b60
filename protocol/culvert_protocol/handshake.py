"""The upgrade that opens a session: an HTTP/1.1 request by the connector, an answer by the relay (RFC 9110 7.8).

Responsible for building and parsing both texts. Must not know sockets, TLS, whether a credential is good, or
how many sessions a relay wants. What follows the 101, in either direction, is frames.

Invariants: a connector sends nothing after its request until it has read a 101; a 101 without a nonce is no
101; any split of the bytes gives the same result; one malformed byte is a refusal, never a guess.

```
GET /.well-known/culvert/session HTTP/1.1        HTTP/1.1 101 Switching Protocols
Host: relay.example.com                          Connection: Upgrade
Connection: Upgrade                              Upgrade: culvert/1
Upgrade: culvert/1                               Culvert-Nonce: <16-64 base64url characters>
Authorization: Bearer <credential>               Culvert-Relay: <the relay's id>
Culvert-Connector: <uuid>
Culvert-Session: <slot>.<generation>             (or a problem document, see ``problems``)
```
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from culvert_protocol.http_text import MAX_HEAD, HandshakeError, Head, build_head, parse_head
from culvert_protocol.problems import PROBLEMS, PROTOCOL, build_refusal, one_line, read_problem
from culvert_protocol.statements import MAX_CREDENTIAL_SIZE

__all__ = [
    "MAX_HEAD", "MAX_PROBLEM_SIZE", "PROBLEMS", "PROTOCOL", "SESSION_PATH", "Accepted", "Answer",
    "HandshakeError", "Refused", "SessionRequest", "build_accept", "build_refusal", "build_request",
    "host_field", "parse_answer", "parse_request", "plain_host",
]  # fmt: skip

SESSION_PATH: Final = "/.well-known/culvert/session"
MAX_PROBLEM_SIZE: Final = 8 * 1024  # bytes of a refusal's body that a connector reads
MAX_SLOT: Final = 1023
MAX_GENERATION: Final = 2**53 - 1
_MAX_RETRY_AFTER: Final = 3600

_REQUEST_LINE: Final = re.compile(r"([A-Za-z]{1,32}) ([\x21-\x7e]{1,2048}) HTTP/1\.([0-9])\Z")
_STATUS_LINE: Final = re.compile(r"HTTP/1\.[01] ([1-9][0-9]{2})(?: .*)?\Z")
_BEARER: Final = re.compile(r"bearer ([A-Za-z0-9._~+/=-]+)\Z", re.IGNORECASE)
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_SESSION: Final = re.compile(r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,15})\Z")
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{16,64}\Z")
_RELAY_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,252}\Z")
_HOST: Final = re.compile(r"(?:([A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}))|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{1,5}))?\Z")


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What a connector asks for. ``host`` is what it dialled: lower case, no port, no trailing dot.

    A higher ``generation`` of one (tunnel, ``connector_id``, ``slot``) replaces the older session. ``size`` is
    the bytes of the request; there are none after it.
    """

    host: str
    credential: str = field(repr=False)
    connector_id: str
    slot: int
    generation: int
    size: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A 101: sign ``nonce``; frames begin at byte ``size``."""

    nonce: str
    relay_id: str
    size: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Any other answer. ``reason`` and ``detail`` are the other side's words made safe for one log line, empty
    when it sent none (a proxy may have answered). ``retry_after`` is seconds.
    """

    status: int
    reason: str
    detail: str
    retry_after: int | None


Answer = Accepted | Refused


def build_request(server_name: str, credential: str, connector_id: str, slot: int, generation: int) -> bytes:
    """The connector's request. ``server_name`` is the name it verifies in TLS and signs in its proof."""
    if not (_UUID.match(connector_id) and 0 <= slot <= MAX_SLOT and 0 <= generation <= MAX_GENERATION):
        raise ValueError("A session is named by a lower-case UUID, a slot up to 1023 and a generation.")
    if len(credential) > MAX_CREDENTIAL_SIZE or not _BEARER.match(f"Bearer {credential}"):
        raise ValueError("The credential is not a compact JWS of at most 8 KiB.")
    return build_head(
        f"GET {SESSION_PATH} HTTP/1.1",
        [
            ("Host", host_field(server_name)),
            ("Connection", "Upgrade"),
            ("Upgrade", PROTOCOL),
            ("Authorization", f"Bearer {credential}"),
            ("Culvert-Connector", connector_id),
            ("Culvert-Session", f"{slot}.{generation}"),
        ],
    )


def parse_request(data: bytes | bytearray) -> SessionRequest | None:
    """The request in ``data``, None while it is incomplete, ``HandshakeError`` with the status to answer."""
    head = parse_head(data)
    if head is None:
        return None
    target_of(head, method="GET", path=SESSION_PATH)
    host = plain_host(head)
    if PROTOCOL not in head.tokens("upgrade") or "upgrade" not in head.tokens("connection"):
        raise HandshakeError(426, f"The request does not ask for 'Upgrade: {PROTOCOL}'.")
    if head.content_length(most=0) or "transfer-encoding" in head.fields or len(data) > head.size:
        raise HandshakeError(400, "Nothing may follow the request before the answer.")
    bearer = _BEARER.match(head.one("authorization") or "")
    if bearer is None or len(bearer.group(1)) > MAX_CREDENTIAL_SIZE:
        raise HandshakeError(401, "The request carries no credential ('Authorization: Bearer …').")
    connector = _UUID.match(head.one("culvert-connector") or "")
    session = _SESSION.match(head.one("culvert-session") or "")
    if connector is None or session is None or int(session[1]) > MAX_SLOT or int(session[2]) > MAX_GENERATION:
        raise HandshakeError(400, "Culvert-Connector is not a UUID or Culvert-Session not 'slot.generation'.")
    return SessionRequest(
        host=host,
        credential=bearer.group(1),
        connector_id=connector.group(),
        slot=int(session[1]),
        generation=int(session[2]),
        size=head.size,
    )


def build_accept(nonce: str, relay_id: str) -> bytes:
    """The relay's 101. ``nonce`` is fresh randomness, at least 128 bits as base64url (22 characters)."""
    if not _NONCE.match(nonce) or not _RELAY_ID.match(relay_id):
        raise ValueError("A nonce is 16-64 base64url characters and a relay's id looks like a host name.")
    return build_head(
        "HTTP/1.1 101 Switching Protocols",
        [
            ("Connection", "Upgrade"),
            ("Upgrade", PROTOCOL),
            ("Culvert-Nonce", nonce),
            ("Culvert-Relay", relay_id),
        ],
    )


def parse_answer(data: bytes | bytearray, *, eof: bool = False) -> Answer | None:
    """The relay's answer in ``data``, None while more is needed; ``HandshakeError`` when it is not one.

    ``eof``: the connection has ended, so what is there is all.
    """
    head = parse_head(data)
    if head is None:
        if eof:
            raise HandshakeError(400, "The connection ended before the relay answered; is it a culvert relay?")
        return None
    line = _STATUS_LINE.match(head.start)
    if line is None:
        raise HandshakeError(400, "The answer is not HTTP/1.1; check the relay's address and port.")
    status = int(line.group(1))
    return _accepted(head) if status == 101 else _refused(head, status, data, eof=eof)


def host_field(server_name: str) -> str:
    """A server name or IP address as ``Host`` carries it; ``ValueError`` when it cannot be one."""
    text = f"[{server_name}]" if ":" in server_name else server_name
    match = _HOST.match(text)
    if match is None or match.group(3):
        raise ValueError(f"'{one_line(server_name, 64)}' is not a server name.")
    return text


def plain_host(head: Head) -> str:
    """The name in ``Host``: lower case, without port, brackets and trailing dot; ``HandshakeError`` 400."""
    match = _HOST.match(head.one("host") or "")
    if match is None:
        raise HandshakeError(400, "Host is missing or is not a name or an address.")
    return (match.group(1) or match.group(2)).lower().removesuffix(".")


def target_of(head: Head, *, method: str, path: str) -> None:
    """Checks the request line: 400, 404 or 405 when it is not ``method`` ``path`` in HTTP/1.1."""
    line = _REQUEST_LINE.match(head.start)
    if line is None or line.group(3) != "1":
        raise HandshakeError(400, "The request line is not HTTP/1.1.")
    if line.group(2) != path:
        raise HandshakeError(404, "The request is for another path.")
    if line.group(1) != method:
        raise HandshakeError(405, f"The path knows {method} only.")


def _accepted(head: Head) -> Accepted:
    nonce, relay_id = head.one("culvert-nonce") or "", head.one("culvert-relay") or ""
    if head.tokens("upgrade") != {PROTOCOL} or "upgrade" not in head.tokens("connection"):
        raise HandshakeError(400, f"The answer is a 101, but not to {PROTOCOL}; is it a culvert relay?")
    if not _NONCE.match(nonce) or not _RELAY_ID.match(relay_id):
        raise HandshakeError(400, "The relay's 101 lacks a valid Culvert-Nonce or Culvert-Relay.")
    return Accepted(nonce=nonce, relay_id=relay_id, size=head.size)


def _refused(head: Head, status: int, data: bytes | bytearray, *, eof: bool) -> Refused | None:
    try:
        length = head.content_length(most=MAX_PROBLEM_SIZE)
    except HandshakeError:
        length = None  # a proxy's page: its status says enough
    body = bytes(data[head.size :])
    if length is not None and len(body) < length and not eof:
        return None
    reason, detail = read_problem(body[:length]) if length is not None else ("", "")
    retry = (head.fields.get("retry-after") or [""])[0]
    return Refused(
        status=status,
        reason=reason,
        detail=detail,
        retry_after=min(int(retry), _MAX_RETRY_AFTER) if re.fullmatch(r"[0-9]{1,9}", retry) else None,
    )
