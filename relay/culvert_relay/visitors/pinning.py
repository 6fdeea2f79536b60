"""Visitors whose connection is authenticated, not each request: they need one origin connection of their own.

Responsible for what is remembered of such a visitor's connection: a number that its connector knows it by, and the
session that its requests have to take. Must not know how requests are placed.
Invariant: numbers are never used twice in one process, so that an origin connection outlives its visitor in vain.
"""

import itertools
from typing import TYPE_CHECKING, Final

from culvert_http1.authentication import authenticates_connection

if TYPE_CHECKING:
    from culvert_protocol.statements import TunnelIdentity
    from culvert_relay.tunnels.session import TunnelSession

_numbers: Final = itertools.count(1)


class Pin:
    """One visitor's connection. `line` goes in front of the fields of all its requests."""

    __slots__ = ("_member", "line")

    def __init__(self) -> None:
        self.line = b"Culvert-Visitor: %d\r\n" % next(_numbers)
        self._member: TunnelSession | None = None

    def member(self, tunnel: "TunnelIdentity | None") -> "TunnelSession | None":
        """The session that has to carry the next request to this tunnel; None when any may."""
        member = self._member
        return member if member is not None and member.usable and member.tunnel == tunnel else None

    def place(self, member: "TunnelSession") -> None:
        """The next requests go where this one went."""
        self._member = member


def pin_for(block: bytes) -> Pin | None:
    """A pin when a request with these fields authenticates its connection."""
    # Nearly no request holds the word, and nearly everybody writes it so; connectors look more closely.
    if b"uthorization:" in block and authenticates_connection(block):
        return Pin()
    return None
