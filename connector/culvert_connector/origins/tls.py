"""TLS contexts towards origins, one per distinct set of `originRequest` TLS settings.

Responsible for turning `noTLSVerify`, `ca` and `originServerName` into an ssl.SSLContext and a server name, and for
sharing contexts: building one with the system's roots costs tens of milliseconds.

Must not know: sockets, rules, pools.

Invariant: verification is off only when the rule says noTLSVerify, and then for its own context alone.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Final

MAX_CONTEXTS: Final = 256
"""Distinct contexts kept; the oldest leaves first, a connection that uses it keeps it alive."""


class OriginCAError(ValueError):
    """The rule's `ca` holds no certificate that OpenSSL can read."""


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """What makes two TLS connections to an origin interchangeable, the server name included."""

    server_name: str
    verify: bool
    ca: str | None


class Contexts:
    """A bounded cache of TLS contexts."""

    __slots__ = ("_contexts",)

    def __init__(self) -> None:
        self._contexts: dict[tuple[bool, str | None], ssl.SSLContext] = {}

    def get(self, settings: TLSSettings) -> ssl.SSLContext:
        """The context for these settings. Raises OriginCAError when `ca` is unreadable."""
        key = (settings.verify, settings.ca)
        context = self._contexts.get(key)
        if context is None:
            if len(self._contexts) >= MAX_CONTEXTS:
                del self._contexts[next(iter(self._contexts))]
            context = self._contexts[key] = build(verify=settings.verify, ca=settings.ca)
        return context


def build(*, verify: bool, ca: str | None) -> ssl.SSLContext:
    """A client context: TLS 1.2 or later, ALPN http/1.1, roots from `ca` (PEM text) or the system's."""
    try:
        context = ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise OriginCAError(f"the rule's ca holds no readable PEM certificate: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
