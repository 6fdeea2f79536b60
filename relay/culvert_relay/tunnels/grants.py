"""A grant as a session presents it: verified, judged against its issuer, turned into claims.

Responsible for the verdict on a ROUTES message and for the words of its ROUTES_RESULT. Pure: keys, issuers and the
wall clock come in. Must not know sessions or which other tunnel claims a name.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from culvert_protocol.messages import RouteResult, RoutesResult
from culvert_protocol.statements import (
    LEEWAY_SECONDS,
    StatementError,
    TunnelIdentity,
    read_grant,
    verify_grant,
)
from culvert_relay.issuers import ACCEPTED, HELD_BY_ANOTHER_TUNNEL, Issuers, Judgement, judge

WRONG_TUNNEL: Final = "wrong_tunnel"
EXPIRED: Final = "expired"
PORT_UNAVAILABLE: Final = "port_unavailable"
LARGE_GRANT: Final = 32_768
"""Characters above which a grant is verified off the loop."""


@dataclass(frozen=True, slots=True)
class PresentedGrant:
    """A verified grant: `digest` names its exact text `token`, `expires_at` is unix seconds."""

    tunnel: TunnelIdentity
    version: int
    digest: bytes
    expires_at: int
    judgement: Judgement
    token: str = field(default="", repr=False)

    def expired(self, now: float) -> bool:
        """Whether it holds no more, leeway included."""
        return now - LEEWAY_SECONDS >= self.expires_at


@dataclass(frozen=True, slots=True)
class RefusedGrant:
    """A grant that is refused as a whole; `version` is what it claims to be, 0 when that cannot be read."""

    version: int
    reason: str
    sentence: str


def digest_of(token: str) -> bytes:
    """What tells two grants apart: the SHA-256 of the compact text."""
    return hashlib.sha256(token.encode()).digest()


def examine(token: str, *, tunnel: TunnelIdentity, issuers: Issuers, now: float) -> PresentedGrant | RefusedGrant:
    """Verifies and judges a grant that `tunnel` presents. Costs about a millisecond for every 2,000 names."""
    try:
        grant = verify_grant(token, issuers.keys, now=now)
    except StatementError as error:
        return RefusedGrant(_claimed_version(token), error.reason, str(error))
    if grant.tunnel != tunnel:
        return RefusedGrant(grant.version, WRONG_TUNNEL, "The grant is another tunnel's.")
    judgement = judge(grant.names, issuers.by_id[tunnel.issuer], tls_names=grant.tls_names, tcp_ports=grant.tcp_ports)
    return PresentedGrant(tunnel, grant.version, digest_of(token), grant.expires_at, judgement, token)


def routes_result(
    grant: PresentedGrant, held: Mapping[str, bool], *, unavailable: Collection[str] = ()
) -> RoutesResult:
    """The answer to ROUTES: every name of the grant and what became of it.

    `held` is the table's word; `unavailable` names the TCP ports (`tcp:<port>`) that could not be listened on.
    """
    results = []
    for name, mine in held.items():
        reason = ACCEPTED if mine else HELD_BY_ANOTHER_TUNNEL
        if mine and name in unavailable:
            reason = PORT_UNAVAILABLE
        results.append(RouteResult(name, reason == ACCEPTED, reason))
    results += [RouteResult(name[:260], False, reason) for name, reason in grant.judgement.refused.items()]
    return RoutesResult(grant.version, tuple(results))


def _claimed_version(token: str) -> int:
    try:
        return read_grant(token).version
    except StatementError:
        return 0
