"""Making and renewing a tunnel's credentials, outside a cluster: what goes into the file.

Responsible for which statements are signed, and how a renewal carries on from what was there. Pure: key material,
identifiers and the time are arguments. Must not know files or arguments.

Invariants: a renewal keeps the tunnel (issuer and id) and the age of every claim, so that a name stays with who had
it first; its credential is issued later and its grant has a higher version than the old ones, so that no relay
mistakes the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from culvert_protocol.credentials_file import CredentialsFile
from culvert_protocol.granted import GrantedName, GrantedPort, port_name
from culvert_protocol.keys import IssuerKey, PrivateKey
from culvert_protocol.statements import (
    LEEWAY_SECONDS,
    Credential,
    Grant,
    sign_credential,
    sign_grant,
)


class IssuingError(ValueError):
    """Nothing can be issued; the text is a sentence with a fix."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a tunnel may serve. `hostnames` and `tls_hostnames` are normalised patterns.

    `sources` has the networks that may come, by name (`tcp:<port>` for a port); names without any are open to all.
    """

    hostnames: Sequence[str] = ()
    tls_hostnames: Sequence[str] = ()
    tcp_ports: Sequence[int] = ()
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a new credential is made of: its key pair, its random identifier, and the time (unix milliseconds)."""

    key: PrivateKey
    jti: str
    now_ms: int


@dataclass(frozen=True, slots=True)
class _Granted:
    names: tuple[GrantedName, ...]
    tls_names: tuple[GrantedName, ...]
    tcp_ports: tuple[GrantedPort, ...]


def create(
    issuer: IssuerKey,
    *,
    issuer_id: str,
    tunnel: str,
    tunnel_id: str,
    wanted: Wanted,
    valid_for: int,
    fresh: Fresh,
) -> CredentialsFile:
    """A new tunnel's credentials. ``valid_for`` is seconds."""
    issued_at = fresh.now_ms // 1000
    return _issue(
        issuer,
        issuer_id=issuer_id,
        tunnel=tunnel,
        tunnel_id=tunnel_id,
        granted=_granted(wanted, {}, fresh.now_ms),
        version=fresh.now_ms,
        issued_at=issued_at,
        expires_at=issued_at + valid_for,
        fresh=fresh,
    )


def renew(
    old: CredentialsFile,
    issuer: IssuerKey,
    *,
    issuer_keys: Sequence[str],
    wanted: Wanted | None,
    valid_for: int,
    fresh: Fresh,
) -> CredentialsFile:
    """The same tunnel with a new key and later statements.

    ``issuer_keys`` are the thumbprints of a public key file that names ``issuer`` among others, empty when there is
    none: a successor of the first key may sign for it only when such a file says that it is one. ``wanted`` replaces
    what the tunnel may serve; None keeps it.
    """
    credential, grant = old.read_credential(), old.read_grant()
    issuer_id = credential.tunnel.issuer
    _check_signer(issuer.public.thumbprint, issuer_id, issuer_keys)
    if grant is None:
        raise IssuingError(
            "This credentials file has no grant: it belongs to a tunnel in a cluster, where the operator renews it."
        )
    issued_at = max(fresh.now_ms // 1000, credential.issued_at + 1)
    if issued_at > fresh.now_ms // 1000 + LEEWAY_SECONDS:
        raise IssuingError("The old credential was issued in the future; set this machine's clock right first.")
    return _issue(
        issuer,
        issuer_id=issuer_id,
        tunnel=old.tunnel,
        tunnel_id=old.tunnel_id,
        granted=_carry_over(grant, wanted, fresh.now_ms),
        version=max(grant.version + 1, fresh.now_ms),
        issued_at=issued_at,
        expires_at=issued_at + valid_for,
        fresh=fresh,
    )


def lifetime_of(credential: Credential) -> int:
    """Seconds for which ``credential`` was issued."""
    return credential.expires_at - credential.issued_at


def _check_signer(thumbprint: str, issuer_id: str, issuer_keys: Sequence[str]) -> None:
    if issuer_keys:
        if issuer_keys[0] != issuer_id:
            raise IssuingError(
                f"The public key file's first key is {issuer_keys[0]}, but this tunnel's issuer is {issuer_id}; "
                "give the file of that issuer."
            )
        if thumbprint not in issuer_keys:
            raise IssuingError(
                f"The issuer's key {thumbprint} is not in the public key file, so relays do not know it; "
                "add it there first ('culvert keys show')."
            )
    elif thumbprint != issuer_id:
        raise IssuingError(
            f"This tunnel's issuer is {issuer_id}, but the key given is {thumbprint}; give the right --issuer-key, or, "
            "if this key succeeds that one, also the relays' public key file that lists both (--issuer-pub)."
        )


def _carry_over(grant: Grant, wanted: Wanted | None, now_ms: int) -> _Granted:
    if wanted is None:
        return _Granted(grant.names, grant.tls_names, grant.tcp_ports)
    claimed = {name.hostname: name.claimed_at for name in (*grant.names, *grant.tls_names)}
    claimed |= {port_name(port.port): port.claimed_at for port in grant.tcp_ports}
    return _granted(wanted, claimed, now_ms)


def _granted(wanted: Wanted, claimed: Mapping[str, int], now_ms: int) -> _Granted:
    def name(hostname: str) -> GrantedName:
        return GrantedName(hostname, claimed.get(hostname, now_ms), wanted.sources.get(hostname, ()))

    def port(number: int) -> GrantedPort:
        spelling = port_name(number)
        return GrantedPort(number, claimed.get(spelling, now_ms), wanted.sources.get(spelling, ()))

    return _Granted(
        tuple(map(name, wanted.hostnames)), tuple(map(name, wanted.tls_hostnames)), tuple(map(port, wanted.tcp_ports))
    )


def _issue(
    issuer: IssuerKey,
    *,
    issuer_id: str,
    tunnel: str,
    tunnel_id: str,
    granted: _Granted,
    version: int,
    issued_at: int,
    expires_at: int,
    fresh: Fresh,
) -> CredentialsFile:
    credential = sign_credential(
        issuer,
        subject=tunnel_id,
        public_key=fresh.key.public,
        issued_at=issued_at,
        not_before=issued_at,
        expires_at=expires_at,
        jti=fresh.jti,
        issuer_id=issuer_id,
    )
    grant = sign_grant(
        issuer,
        subject=tunnel_id,
        version=version,
        names=granted.names,
        tls_names=granted.tls_names,
        tcp_ports=granted.tcp_ports,
        issued_at=issued_at,
        expires_at=expires_at,
        issuer_id=issuer_id,
    )
    return CredentialsFile(
        tunnel=tunnel, tunnel_id=tunnel_id, credential=credential, private_key=fresh.key, grant=grant
    )
