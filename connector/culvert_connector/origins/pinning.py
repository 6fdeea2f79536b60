"""Which kept-alive connections a request may use when connections themselves are authenticated.

Responsible for the key under which such a request finds and leaves its connection: one of its visitor's own when the
relay says who that is (docs/protocol.md, "Pinned visitors"), otherwise none at all. Pure. Must not know sockets.

Invariant: a connection that has carried NTLM or Negotiate is never handed to another visitor's request.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import replace
from typing import Final

from culvert_connector.origins.targets import OriginTarget
from culvert_http1.authentication import authenticates_connection
from culvert_protocol.heads import Open

_BEGINNING: Final = b"Culvert-Visitor: "
_LINE: Final = re.compile(rb"Culvert-Visitor: ([1-9][0-9]{0,18})\r\n")


def take_visitor(head: Open) -> tuple[Open, int | None]:
    """The record without the line that names its visitor's connection, and that number; None for any other record.

    A line that is not well-formed stays, and makes the record one that is refused.
    """
    if not head.fields.startswith(_BEGINNING):
        return head, None
    match = _LINE.match(head.fields)
    if match is None:
        return head, None
    return head._replace(fields=head.fields[match.end() :]), int(match[1])


def pinned(target: OriginTarget, head: Open, *, session: Hashable, visitor: int | None) -> OriginTarget:
    """The target as this request must use it; `visitor` is a number of `session`'s."""
    if visitor is not None:
        return replace(target, key=replace(target.key, visitor=(session, visitor)))
    if authenticates_connection(head.fields):
        return replace(target, key=replace(target.key, keep=0))
    return target
