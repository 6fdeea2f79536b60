"""What a grant lists: hostnames, names passed through as TLS, TCP ports, each with its age and who may come.

Responsible for the entries of a grant's lists: their values, their JSON and their checks. Must not know signatures,
other claims, or what a relay's configuration allows.
Invariant: an entry with a member that is not known is refused, since it may be a restriction; addresses in
`allowed_sources` are networks in normal form (RFC 4632, RFC 5952), so that equal restrictions are equal texts.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from culvert_protocol import claims as fields
from culvert_protocol.jws import StatementError

__all__ = [
    "MAX_SOURCES", "GrantedName", "GrantedPort", "check_sources", "port_name", "port_of", "read_names", "read_ports",
    "write_name", "write_port",
]  # fmt: skip

MAX_SOURCES: Final = 64
"""Networks in one entry's `allowedSources`."""
_PORT_PREFIX: Final = "tcp:"


@dataclass(frozen=True, slots=True)
class GrantedName:
    """A hostname (or ``*.`` pattern) and when it was claimed, unix milliseconds: the older claim wins.

    ``allowed_sources``: networks whose visitors may come; empty: all may.
    """

    hostname: str
    claimed_at: int
    allowed_sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GrantedPort:
    """A TCP port of the relay, 1 to 65535; the rest as in ``GrantedName``."""

    port: int
    claimed_at: int
    allowed_sources: tuple[str, ...] = ()


def port_name(port: int) -> str:
    """How a TCP port is named where hostnames stand, as in ROUTES_RESULT: no hostname has a colon."""
    return f"{_PORT_PREFIX}{port}"


def port_of(name: str) -> int | None:
    """The port of such a name; None for a hostname."""
    return int(name.removeprefix(_PORT_PREFIX)) if name.startswith(_PORT_PREFIX) else None


def check_sources(texts: Iterable[str]) -> tuple[str, ...]:
    """Networks in normal form, each once, in the order given; ``ValueError`` with a sentence for anything else."""
    found: dict[str, None] = {}
    for text in texts:
        try:
            network = ipaddress.ip_network(text.strip())
        except ValueError:
            raise ValueError(
                f"{text[:60]!r} is not a network of addresses; write one such as 192.0.2.0/24 or 2001:db8::/32, "
                "with no bits set behind its prefix."
            ) from None
        found[str(network)] = None
    if len(found) > MAX_SOURCES:
        raise ValueError(f"There are more than {MAX_SOURCES} networks; join neighbouring ones.")
    return tuple(found)


def read_names(items: list[Any], claim: str) -> tuple[GrantedName, ...]:
    """The entries of `names` or `tlsNames`. Raises StatementError."""
    return tuple(
        GrantedName(
            hostname=fields.hostname(entry, "hostname"),
            claimed_at=fields.integer(entry, "claimedAt"),
            allowed_sources=_sources(entry),
        )
        for entry in (_entry(item, "hostname", claim) for item in items)
    )


def read_ports(items: list[Any]) -> tuple[GrantedPort, ...]:
    """The entries of `tcpPorts`. Raises StatementError."""
    return tuple(
        GrantedPort(
            port=_port(entry["port"]),
            claimed_at=fields.integer(entry, "claimedAt"),
            allowed_sources=_sources(entry),
        )
        for entry in (_entry(item, "port", "tcpPorts") for item in items)
    )


def write_name(name: GrantedName) -> dict[str, object]:
    """The JSON of an entry of `names` or `tlsNames`."""
    return _with_sources({"hostname": name.hostname, "claimedAt": name.claimed_at}, name.allowed_sources)


def write_port(port: GrantedPort) -> dict[str, object]:
    """The JSON of an entry of `tcpPorts`."""
    return _with_sources({"port": port.port, "claimedAt": port.claimed_at}, port.allowed_sources)


def _with_sources(entry: dict[str, object], sources: tuple[str, ...]) -> dict[str, object]:
    if sources:
        entry["allowedSources"] = list(sources)
    return entry


def _entry(item: object, key: str, claim: str) -> Mapping[str, Any]:
    # A member that is not known may be a later version's restriction: granting the name without it would grant more
    # than the issuer meant. So it is refused, unlike an unknown claim.
    if type(item) is not dict or not {key, "claimedAt"} <= item.keys() <= {key, "claimedAt", "allowedSources"}:
        raise StatementError(
            "bad_claim", f"Every entry of '{claim}' has exactly '{key}', 'claimedAt' and perhaps 'allowedSources'."
        )
    return item


def _port(item: object) -> int:
    if type(item) is not int or not 1 <= item <= 65535:
        raise StatementError("bad_claim", "'port' is a number from 1 to 65535.")
    return item


def _sources(entry: Mapping[str, Any]) -> tuple[str, ...]:
    if "allowedSources" not in entry:
        return ()
    items = entry["allowedSources"]
    if type(items) is not list or not items or not all(type(item) is str for item in items):
        raise StatementError("bad_claim", f"'allowedSources' lists 1 to {MAX_SOURCES} networks such as 192.0.2.0/24.")
    try:
        normal = check_sources(items)
    except ValueError as error:
        raise StatementError("bad_claim", f"'allowedSources': {error}") from None
    if normal != tuple(items):
        raise StatementError("bad_claim", "'allowedSources' lists each network once, in normal form.")
    return normal
