"""Issuers: whose signatures count, and for which hostnames and TCP ports.

Responsible for reading public key files and for judging what a grant lists. Must not know sessions or sockets.
Invariant: a key speaks for exactly one issuer; a name outside an issuer's own names is never accepted from it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from culvert_ingress.hostnames import HostnameError, covers, normalise_pattern
from culvert_protocol.granted import GrantedName, GrantedPort, port_name
from culvert_protocol.statements import KeyFormatError, PublicKey, key_set, load_issuer_public
from culvert_relay.config import ConfigError, IssuerConfig
from culvert_relay.routing.terms import OPEN_TO_ALL, Terms, terms_of

ACCEPTED: Final = "accepted"
NOT_IN_ISSUER: Final = "not_in_issuer"
INVALID_HOSTNAME: Final = "invalid_hostname"
HELD_BY_ANOTHER_TUNNEL: Final = "held_by_another_tunnel"


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer: its label in `relay.yml`, its id (the thumbprint of its first key) and its names."""

    label: str
    id: str
    keys: tuple[PublicKey, ...]
    hostnames: tuple[str, ...]
    tcp_ports: tuple[tuple[int, int], ...] = ()

    def allows(self, pattern: str) -> bool:
        """Whether every host that a normalised pattern matches lies inside this issuer's names."""
        return any(covers(own, pattern) for own in self.hostnames)

    def allows_port(self, port: int) -> bool:
        """Whether a TCP port lies inside this issuer's ranges."""
        return any(low <= port <= high for low, high in self.tcp_ports)


@dataclass(frozen=True, slots=True)
class Issuers:
    """All issuers of this relay: `keys` by thumbprint for verifying, `by_id` for whom a statement speaks."""

    keys: Mapping[str, PublicKey]
    by_id: Mapping[str, Issuer]
    _exact: frozenset[bytes] = field(default=frozenset())
    _suffixes: frozenset[bytes] = field(default=frozenset())

    @classmethod
    def of(cls, issuers: Iterable[Issuer]) -> "Issuers":
        """The set; raises KeyFormatError when one key stands for two issuers."""
        listed = tuple(issuers)
        by_id: dict[str, Issuer] = {}
        for issuer in listed:
            other = by_id.setdefault(issuer.id, issuer)
            if other is not issuer:
                raise KeyFormatError(
                    f"issuers {other.label} and {issuer.label} have the same key: join their hostnames under one id."
                )
        names = [name for issuer in listed for name in issuer.hostnames]
        return cls(
            keys=key_set(key for issuer in listed for key in issuer.keys),
            by_id=by_id,
            _exact=frozenset(name.encode() for name in names if not name.startswith("*.")),
            _suffixes=frozenset(name[2:].encode() for name in names if name.startswith("*.")),
        )

    def cover(self, host: bytes) -> bool:
        """Whether a host (lower case, no port) lies inside any issuer's names: 503 rather than 404."""
        if host in self._exact:
            return True
        dot = host.find(b".")
        while dot >= 0:
            if host[dot + 1 :] in self._suffixes:
                return True
            dot = host.find(b".", dot + 1)
        return False


@dataclass(frozen=True, slots=True)
class Judgement:
    """A grant's names sorted: what may be claimed (pattern → claimedAt, unix ms) and what not (spelling → reason).

    TCP ports stand among them as `tcp:<port>`. `terms` has those of names that are not open to all.
    """

    claims: Mapping[str, int]
    refused: Mapping[str, str]
    terms: Mapping[str, Terms] = field(default_factory=dict)


def judge(
    names: Iterable[GrantedName],
    issuer: Issuer,
    *,
    tls_names: Iterable[GrantedName] = (),
    tcp_ports: Iterable[GrantedPort] = (),
) -> Judgement:
    """Checks what a grant lists one by one against its issuer's; an exact name and its wildcard are two names."""
    claims: dict[str, int] = {}
    refused: dict[str, str] = {}
    found: dict[str, Terms] = {}
    entries = [(name, terms_of(name.allowed_sources)) for name in names]
    entries += [(name, terms_of(name.allowed_sources, passthrough=True)) for name in tls_names]
    for name, terms in entries:
        try:
            pattern = str(normalise_pattern(name.hostname))
        except HostnameError:
            refused[name.hostname] = INVALID_HOSTNAME
            continue
        if not issuer.allows(pattern):
            refused[name.hostname] = NOT_IN_ISSUER
            continue
        if pattern in claims and found.get(pattern, OPEN_TO_ALL) != terms:
            # Two spellings of one name with different terms: neither may loosen the other's.
            refused[name.hostname] = INVALID_HOSTNAME
            continue
        claims[pattern] = min(name.claimed_at, claims.get(pattern, name.claimed_at))
        if terms != OPEN_TO_ALL:
            found[pattern] = terms
    for port in tcp_ports:
        spelling = port_name(port.port)
        if not issuer.allows_port(port.port):
            refused[spelling] = NOT_IN_ISSUER
            continue
        claims[spelling] = port.claimed_at
        if port.allowed_sources:
            found[spelling] = terms_of(port.allowed_sources)
    return Judgement(claims, refused, found)


def read_issuers(configured: Iterable[IssuerConfig]) -> Issuers:
    """Reads every issuer's public key file; raises ConfigError with a sentence that names the file."""
    issuers = []
    for item in configured:
        try:
            keys = load_issuer_public(item.public_key_file.read_bytes())
        except OSError as error:
            raise ConfigError(
                f"The public key of issuer {item.id} cannot be read: {item.public_key_file}: {error.strerror or error}."
            ) from None
        except KeyFormatError as error:
            raise ConfigError(f"The public key of issuer {item.id}, {item.public_key_file}: {error}") from None
        issuers.append(Issuer(item.id, keys[0].issuer_id, keys, item.hostnames, item.tcp_ports))
    try:
        return Issuers.of(issuers)
    except KeyFormatError as error:
        raise ConfigError(str(error)) from None
