"""How much of the relay one visitor, one address and all of them together may take, and for how long.

Responsible for the numbers and their defaults. Must not know how they are read (`config_front`) or enforced.
Invariant: everything that a stranger can make the relay keep is finite. A body is not kept but passed on through
windows, so that its size alone has no limit by default.
"""

from dataclasses import dataclass
from typing import Final

from culvert_http1 import limits as head_limits

DEFAULT_CONNECTIONS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds; 0 means no limit where a comment says so."""

    head: head_limits.HeadLimits = head_limits.DEFAULT_LIMITS
    """Sizes of request heads (431, 414)."""
    body: int = 0
    """One request's decoded body (413); 0: no limit."""
    body_rate: int = 100
    """Bytes a second that a body must bring at least, over one look of `stall` seconds (408)."""
    connections: int = DEFAULT_CONNECTIONS
    """Visitors' connections in all, TLS handshakes under way among them (503)."""
    connections_per_address: int = 2_000
    """The same from one IPv4 address or one IPv6 /64 (429); trusted proxies are exempt."""
    handshakes: int = 1_000
    """TLS handshakes and PROXY headers that are waited for; beyond it the oldest makes room."""
    head_seconds: float = 10.0
    """A request's head, from its first byte (408); also the time that a new connection may stay silent."""
    idle_seconds: float = 75.0
    """A kept-alive connection between two requests."""
    stall_seconds: float = 15.0
    """Between two looks at a body that comes in and at a reader that takes nothing."""
    request_seconds: float = 0.0
    """A request from its head to the end of its response (504, or the response is cut); 0: no limit. Never an
    upgraded connection."""
    handshake_seconds: float = 10.0
    """A TLS handshake, and a PROXY header before it."""


DEFAULT_LIMITS: Final = Limits()
