"""The revocations this relay has heard of: which credentials hold no more although they have not expired.

Responsible for remembering the newest `notBefore` of each tunnel. Must not know sessions, files or how a statement
came. Pure; every connector of the issuer repeats them in-band, and `remembering` keeps them over restarts.
"""

from collections.abc import Iterable
from typing import Final

from culvert_protocol.statements import Credential, Revocation, TunnelIdentity

MAX_TUNNELS: Final = 100_000
"""Only issuers of this relay can add one, so the bound is against a mistake, not against strangers."""


class Revocations:
    """The newest revocation of each tunnel; `known` are pairs of tunnel and `notBefore` from an earlier life."""

    __slots__ = ("_not_before",)

    def __init__(self, known: Iterable[tuple[TunnelIdentity, int]] = ()) -> None:
        self._not_before: dict[TunnelIdentity, int] = dict(known)

    def items(self) -> tuple[tuple[TunnelIdentity, int], ...]:
        """All of them."""
        return tuple(self._not_before.items())

    def learn(self, revocation: Revocation) -> bool:
        """Remembers a verified revocation; True when it says more than what was known."""
        known = self._not_before.get(revocation.tunnel)
        if known is not None and known >= revocation.not_before:
            return False
        if known is None and len(self._not_before) >= MAX_TUNNELS:
            del self._not_before[next(iter(self._not_before))]
        self._not_before[revocation.tunnel] = revocation.not_before
        return True

    def revokes(self, credential: Credential) -> bool:
        """Whether a credential has been revoked."""
        not_before = self._not_before.get(credential.tunnel)
        return not_before is not None and credential.issued_at < not_before

    def __len__(self) -> int:
        return len(self._not_before)
