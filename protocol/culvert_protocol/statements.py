"""What an issuer says about a tunnel: credential, grant, revocation; and the proof that goes with a credential.

Responsible for the claims: which each kind must have, their ranges, who may speak for whom, when they hold.
Must not know sockets, files, clocks (``now`` is an argument: wall clock, unix seconds) or hostname rules (the
relay normalises names and compares them with the issuer's own).

Invariants: each kind has its own ``typ`` and all share the audience, so none can pass as another; every claim
of a kind is mandatory and checked; ``iss`` is the thumbprint of the *first* key of the issuer whose key signed,
so neither another issuer nor a successor key changes whom a statement speaks for. A tunnel is (iss, sub).

Sources: RFC 7519 (claims), RFC 7515, RFC 8037 (EdDSA), RFC 7638 (thumbprint), RFC 7800 (``cnf``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NewType

from culvert_protocol import claims as fields
from culvert_protocol import jws
from culvert_protocol.granted import GrantedName, GrantedPort, read_names, read_ports, write_name, write_port
from culvert_protocol.jws import REASONS, StatementError
from culvert_protocol.keys import (
    IssuerKey,
    KeyFormatError,
    PrivateKey,
    PublicKey,
    base64url_decode,
    base64url_encode,
    generate_issuer_key,
    generate_key,
    key_set,
    load_issuer_private,
    load_issuer_public,
)

__all__ = [
    "AUDIENCE", "CREDENTIAL_TYPE", "GRANT_TYPE", "LEEWAY_SECONDS", "MAX_CREDENTIAL_SIZE", "MAX_GRANT_SIZE",
    "MAX_REVOCATION_SIZE", "REASONS", "REVOCATION_TYPE", "Credential", "Grant", "GrantedName", "GrantedPort",
    "IssuerKey", "KeyFormatError", "PrivateKey", "PublicKey", "Revocation", "StatementError", "TunnelId",
    "TunnelIdentity", "check_proof", "generate_issuer_key", "generate_key", "key_set", "load_issuer_private",
    "load_issuer_public", "prove", "read_credential", "read_grant", "sign_credential", "sign_grant",
    "sign_revocation", "verify_credential", "verify_grant", "verify_revocation",
]  # fmt: skip

CREDENTIAL_TYPE: Final = "culvert-credential+jwt"
GRANT_TYPE: Final = "culvert-grant+jwt"
REVOCATION_TYPE: Final = "culvert-revocation+jwt"
AUDIENCE: Final = "culvert-relay"

MAX_CREDENTIAL_SIZE: Final = 8 * 1024  # characters of the compact JWS, for this and the next two
MAX_GRANT_SIZE: Final = 1024 * 1024
MAX_REVOCATION_SIZE: Final = 4 * 1024
#: Two machines' wall clocks may differ by this much.
LEEWAY_SECONDS: Final = 60

_PROOF_DOMAIN: Final = b"culvert-session-proof-v1"

#: The ``sub`` claim: an identifier, 1-200 characters of ``A-Za-z0-9._:/-`` beginning with a letter or digit.
TunnelId = NewType("TunnelId", str)


class TunnelIdentity(NamedTuple):
    """Who a tunnel is: two issuers may use one subject without meeting."""

    issuer: str
    subject: TunnelId


@dataclass(frozen=True, slots=True)
class Credential:
    """The bearer of ``public_key``'s private half may open sessions for ``tunnel``. Times are unix seconds."""

    tunnel: TunnelIdentity
    public_key: PublicKey
    issued_at: int
    not_before: int
    expires_at: int
    jti: str
    signed_by: str  # thumbprint of the issuer's key

    @property
    def key_id(self) -> str:
        """Thumbprint of the tunnel's key, which tells renewals apart in reports."""
        return self.public_key.thumbprint


@dataclass(frozen=True, slots=True)
class Grant:
    """The tunnel may serve these names and ports. A higher ``version`` replaces a lower one. Times are unix seconds.

    ``names`` are served as HTTP, ``tls_names`` passed through undecrypted, ``tcp_ports`` opened at the relay.
    """

    tunnel: TunnelIdentity
    version: int
    names: tuple[GrantedName, ...]
    tls_names: tuple[GrantedName, ...]
    tcp_ports: tuple[GrantedPort, ...]
    issued_at: int
    expires_at: int
    signed_by: str


@dataclass(frozen=True, slots=True)
class Revocation:
    """Credentials of ``tunnel`` that were issued before ``not_before`` (unix seconds) hold no more."""

    tunnel: TunnelIdentity
    not_before: int
    issued_at: int
    signed_by: str

    def revokes(self, credential: Credential) -> bool:
        """Whether ``credential`` is among them."""
        return credential.tunnel == self.tunnel and credential.issued_at < self.not_before


def sign_credential(
    issuer: IssuerKey,
    *,
    subject: str,
    public_key: PublicKey,
    issued_at: int,
    not_before: int,
    expires_at: int,
    jti: str,
    issuer_id: str | None = None,
) -> str:
    """A credential for the tunnel ``subject``, bound to ``public_key``. ``jti`` is a fresh random identifier.

    ``issuer_id`` is the thumbprint of the issuer's first key when ``issuer`` is a successor of it.
    ``StatementError`` when a relay would not accept the result.
    """
    claims = {
        **_shared_claims(issuer, issuer_id=issuer_id, subject=subject, issued_at=issued_at),
        "nbf": not_before,
        "exp": expires_at,
        "jti": jti,
        "cnf": {"jwk": public_key.jwk()},
    }
    _credential(claims, issuer.public.thumbprint)
    return _bounded(jws.sign(issuer, typ=CREDENTIAL_TYPE, claims=claims), MAX_CREDENTIAL_SIZE)


def sign_grant(
    issuer: IssuerKey,
    *,
    subject: str,
    version: int,
    names: Sequence[GrantedName],
    issued_at: int,
    expires_at: int,
    tls_names: Sequence[GrantedName] = (),
    tcp_ports: Iterable[GrantedPort] = (),
    issuer_id: str | None = None,
) -> str:
    """A grant of names and ports to the tunnel ``subject``; ``version`` > 0. Otherwise as ``sign_credential``."""
    claims = {
        **_shared_claims(issuer, issuer_id=issuer_id, subject=subject, issued_at=issued_at),
        "exp": expires_at,
        "version": version,
        "names": [write_name(name) for name in names],
        "tcpPorts": [write_port(port) for port in tcp_ports],
    }
    if tls_names:
        claims["tlsNames"] = [write_name(name) for name in tls_names]
    _grant(claims, issuer.public.thumbprint)
    return _bounded(jws.sign(issuer, typ=GRANT_TYPE, claims=claims), MAX_GRANT_SIZE)


def sign_revocation(
    issuer: IssuerKey, *, subject: str, not_before: int, issued_at: int, issuer_id: str | None = None
) -> str:
    """A revocation of the tunnel's credentials issued before ``not_before``, which must not be in the future.

    A credential is told from an older one by whole seconds: issue the new one at ``not_before`` or later.
    """
    claims = {
        **_shared_claims(issuer, issuer_id=issuer_id, subject=subject, issued_at=issued_at),
        "notBefore": not_before,
    }
    _revocation(claims, issuer.public.thumbprint)
    return _bounded(jws.sign(issuer, typ=REVOCATION_TYPE, claims=claims), MAX_REVOCATION_SIZE)


def verify_credential(token: str, keys: Mapping[str, PublicKey], *, now: float) -> Credential:
    """The credential in ``token`` if a key of ``keys`` (by thumbprint, see ``key_set``) signed it and it holds
    at ``now``; ``StatementError`` otherwise. Whether it was revoked, and whether its bearer has the private
    key (``check_proof``), is for the caller to ask.
    """
    claims, key = jws.verify(token, keys, typ=CREDENTIAL_TYPE, max_size=MAX_CREDENTIAL_SIZE)
    credential = _credential(claims, key.thumbprint)
    _check_issuer(credential.tunnel, key)
    _check_times(now, starts=max(credential.issued_at, credential.not_before), ends=credential.expires_at)
    return credential


def verify_grant(token: str, keys: Mapping[str, PublicKey], *, now: float) -> Grant:
    """The grant in ``token``; otherwise as ``verify_credential``.

    Hostnames are as the issuer wrote them: normalise each, and check it against the issuer's own names.
    """
    claims, key = jws.verify(token, keys, typ=GRANT_TYPE, max_size=MAX_GRANT_SIZE)
    grant = _grant(claims, key.thumbprint)
    _check_issuer(grant.tunnel, key)
    _check_times(now, starts=grant.issued_at, ends=grant.expires_at)
    return grant


def verify_revocation(token: str, keys: Mapping[str, PublicKey], *, now: float) -> Revocation:
    """The revocation in ``token``, which never expires; otherwise as ``verify_credential``."""
    claims, key = jws.verify(token, keys, typ=REVOCATION_TYPE, max_size=MAX_REVOCATION_SIZE)
    revocation = _revocation(claims, key.thumbprint)
    _check_issuer(revocation.tunnel, key)
    _check_times(now, starts=revocation.issued_at, ends=None)
    return revocation


def read_credential(token: str) -> Credential:
    """One's own credential, without verifying its signature: for its holder's reports and renewal only."""
    return _credential(*jws.read(token, typ=CREDENTIAL_TYPE, max_size=MAX_CREDENTIAL_SIZE))


def read_grant(token: str) -> Grant:
    """One's own grant, without verifying its signature: for its holder's reports and renewal only."""
    return _grant(*jws.read(token, typ=GRANT_TYPE, max_size=MAX_GRANT_SIZE))


def prove(private_key: PrivateKey, *, nonce: str, server_name: str) -> str:
    """Proof of possession (RFC 7800): base64url of the key's signature over ``proof_message``."""
    return base64url_encode(private_key.sign(proof_message(nonce=nonce, server_name=server_name)))


def check_proof(credential: Credential, proof: str, *, nonce: str, server_names: Iterable[str]) -> bool:
    """Whether ``proof`` is the credential's key's for this ``nonce`` and one of the relay's own names."""
    try:
        signature = base64url_decode(proof)
    except ValueError:
        return False
    return any(
        credential.public_key.verifies(signature, proof_message(nonce=nonce, server_name=name)) for name in server_names
    )


def proof_message(*, nonce: str, server_name: str) -> bytes:
    """What a proof signs: three NUL-separated ASCII texts: the domain ``culvert-session-proof-v1``, the nonce
    of the relay's 101, and the server name the connector dialled (lower case, no port, no trailing dot).

    The name makes a proof useless to a relay that would pass it on to another one. ``ValueError`` when a
    part is empty, not ASCII or contains NUL, which would let two different pairs read the same.
    """
    parts = (nonce, server_name.lower().removesuffix("."))
    if not all(part and part.isascii() and "\0" not in part for part in parts):
        raise ValueError("A nonce and a server name are non-empty ASCII texts without NUL.")
    return b"\0".join((_PROOF_DOMAIN, *(part.encode("ascii") for part in parts)))


# --- claims -------------------------------------------------------------------------------------------------


def _shared_claims(issuer: IssuerKey, *, issuer_id: str | None, subject: str, issued_at: int) -> dict[str, object]:
    return {
        "iss": issuer.public.thumbprint if issuer_id is None else issuer_id,
        "sub": subject,
        "aud": AUDIENCE,
        "iat": issued_at,
    }


def _credential(claims: Mapping[str, Any], signed_by: str) -> Credential:
    tunnel, issued_at = _shared(claims)
    credential = Credential(
        tunnel=tunnel,
        public_key=fields.confirmation(claims),
        issued_at=issued_at,
        not_before=fields.integer(claims, "nbf"),
        expires_at=fields.integer(claims, "exp"),
        jti=fields.identifier(claims, "jti"),
        signed_by=signed_by,
    )
    if credential.expires_at <= max(credential.issued_at, credential.not_before):
        raise StatementError("bad_claim", "It ends ('exp') before it begins ('iat', 'nbf').")
    return credential


def _grant(claims: Mapping[str, Any], signed_by: str) -> Grant:
    tunnel, issued_at = _shared(claims)
    names = read_names(fields.items(claims, "names"), "names")
    tls_names = read_names(_optional(claims, "tlsNames"), "tlsNames")
    if len({name.hostname for name in (*names, *tls_names)}) != len(names) + len(tls_names):
        raise StatementError("bad_claim", "A hostname appears twice in 'names' and 'tlsNames'.")
    ports = read_ports(_optional(claims, "tcpPorts"))
    if len({port.port for port in ports}) != len(ports):
        raise StatementError("bad_claim", "A port appears twice in 'tcpPorts'.")
    grant = Grant(
        tunnel=tunnel,
        version=fields.integer(claims, "version", least=1),
        names=names,
        tls_names=tls_names,
        tcp_ports=ports,
        issued_at=issued_at,
        expires_at=fields.integer(claims, "exp"),
        signed_by=signed_by,
    )
    if grant.expires_at <= grant.issued_at:
        raise StatementError("bad_claim", "It ends ('exp') before it begins ('iat').")
    return grant


def _revocation(claims: Mapping[str, Any], signed_by: str) -> Revocation:
    tunnel, issued_at = _shared(claims)
    not_before = fields.integer(claims, "notBefore")
    if not_before > issued_at:
        # It would lock the tunnel out of credentials that are still to be made.
        raise StatementError("bad_claim", "'notBefore' must not be later than 'iat'.")
    return Revocation(tunnel=tunnel, not_before=not_before, issued_at=issued_at, signed_by=signed_by)


def _shared(claims: Mapping[str, Any]) -> tuple[TunnelIdentity, int]:
    if fields.claim(claims, "aud") != AUDIENCE:
        raise StatementError("wrong_audience")
    tunnel = TunnelIdentity(fields.thumbprint(claims, "iss"), TunnelId(fields.identifier(claims, "sub")))
    return tunnel, fields.integer(claims, "iat")


def _optional(claims: Mapping[str, Any], name: str) -> list[Any]:
    return fields.items(claims, name) if name in claims else []


def _check_issuer(tunnel: TunnelIdentity, key: PublicKey) -> None:
    if tunnel.issuer != key.issuer_id:
        raise StatementError("wrong_issuer")


def _check_times(now: float, *, starts: int, ends: int | None) -> None:
    if now + LEEWAY_SECONDS < starts:
        raise StatementError("not_yet_valid")
    if ends is not None and now - LEEWAY_SECONDS >= ends:
        raise StatementError("expired")


def _bounded(token: str, max_size: int) -> str:
    if len(token) > max_size:
        raise StatementError("too_large", f"It has {len(token)} characters; at most {max_size} are allowed.")
    return token
