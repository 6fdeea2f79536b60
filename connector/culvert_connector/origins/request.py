"""The request head as the origin gets it: bytes out of an OPEN record.

Responsible for the request line, Host, framing and the WebSocket handshake's hop-by-hop fields, and for refusing
a record that would put anything else on the origin's connection. Pure.

Must not know: connections, streams, rules.

Invariant: whatever a relay sends, one OPEN becomes exactly one request: no byte of method, target, authority or
fields can end the head early, add a framing field or a second Host.
"""

from __future__ import annotations

import re
from typing import Final

from culvert_http1.fields import check_fields
from culvert_http1.path import normalise_path
from culvert_protocol.heads import Framing, Kind, Open

_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}\Z")
_TARGET: Final = re.compile(rb"(?:/[!-\"$-~]*|\*)\Z")
"""Origin form, or the asterisk alone: what `culvert_http1.request` lets through (RFC 9112 section 3.2)."""
_AUTHORITY: Final = re.compile(rb"[!-.0-~]*\Z")
_EXPECT: Final = re.compile(rb"(?:^|\n)expect:[ \t]*100-continue[ \t]*\r", re.IGNORECASE)
_LINE: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64} (?:/[!-\"$-~]*+|\*) [!-.0-~]*+")
"""Method, target and authority in one step: none of them can hold the blank that is put between them here."""
_UPGRADE: Final = int(Kind.UPGRADE)
_LENGTH: Final = int(Framing.LENGTH)
_CHUNKED: Final = int(Framing.CHUNKED)
SAFE_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
"""RFC 9110 9.2.1: requests that may be sent again without asking."""


def problem(head: Open) -> str | None:
    """A reason token when this record must not reach an origin; None when it may."""
    if _LINE.fullmatch(b"%b %b %b" % (head.method, head.target, head.authority)) is None:
        if _METHOD.match(head.method) is None:
            return "bad_method"
        return "bad_target" if _TARGET.match(head.target) is None else "bad_authority"
    if not check_fields(head.fields, request=True):
        return "bad_fields"
    return None


def encode(head: Open, *, host: bytes | None) -> bytes:
    """The head's bytes; `host` replaces the visitor's authority when the rule says so."""
    if head.kind == _UPGRADE:
        framing = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    elif head.framing == _LENGTH:
        framing = b"Content-Length: %d\r\n" % head.content_length
    elif head.framing == _CHUNKED:
        framing = b"Transfer-Encoding: chunked\r\n"
    else:
        framing = b""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (
        head.method,
        head.target,
        head.authority if host is None else host,
        head.fields,
        framing,
    )


def expects_continue(head: Open) -> bool:
    """Whether the visitor waits for 100 before it sends its body (RFC 9110 10.1.1)."""
    return head.framing != Framing.NONE and _EXPECT.search(head.fields) is not None


def matching_path(head: Open) -> bytes:
    """The path that rules match on, in normal form. Raises `culvert_http1.path.PathError`.

    Made from the target that the origin will get, not from the relay's own copy: otherwise a relay could have one
    path matched and another one served.
    """
    return normalise_path(head.target.partition(b"?")[0])
