"""Rules: which requests go to which service, and how that service is spoken to.

Responsible for: the values that the operator and `config.yml` compile to and that the connector serves. Must not know
how they are written down (`document`, `config_file`) or matched (`matching`). Invariant: values built by the readers of
this package hold normalised hostnames, checked paths and addresses; nobody checks them again.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from culvert_ingress.durations import parse

__all__ = [
    "HTTPService",
    "HeaderEdits",
    "HelloWorldService",
    "OriginRequest",
    "PathMatch",
    "PathRewrite",
    "PathType",
    "Rule",
    "Service",
    "StatusService",
    "TCPService",
    "UnavailableService",
    "UnixService",
]


class PathType(enum.StrEnum):
    """How a rule's path is compared with a request's normalised path."""

    EXACT = "Exact"
    PREFIX = "PathPrefix"  # whole segments: /api matches /api and /api/x, not /apis
    REGEX = "RegularExpression"  # RE2, anchored at the start
    SEARCH = "Search"  # RE2, anywhere in the path: cloudflared's `path`


@dataclass(frozen=True, slots=True)
class PathMatch:
    """A path condition; `value` is in normal form for Exact and PathPrefix, an RE2 expression otherwise."""

    type: PathType
    value: str


@dataclass(frozen=True, slots=True)
class HTTPService:
    """An origin over TCP. `host` is a name or a canonical IP address without brackets; `scheme` is http or https."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class UnixService:
    """An origin on a Unix socket; with `tls` it is spoken to in HTTPS."""

    path: str
    tls: bool = False


@dataclass(frozen=True, slots=True)
class StatusService:
    """The connector answers with this status itself (200-599)."""

    status: int


@dataclass(frozen=True, slots=True)
class HelloWorldService:
    """The connector answers with its own test page."""


@dataclass(frozen=True, slots=True)
class UnavailableService:
    """A rule whose service does not exist: answered with 503 and `message`, never with the fallback."""

    message: str


@dataclass(frozen=True, slots=True)
class TCPService:
    """An origin whose bytes are passed on as they are. `scheme` is tcp, ssh, rdp or smb, which mean the same, or tls:
    chosen by the server name in a visitor's ClientHello and terminated by the origin."""

    scheme: str
    host: str
    port: int

    @property
    def passthrough(self) -> bool:
        """Whether visitors come by TLS server name."""
        return self.scheme == "tls"


Service = HTTPService | UnixService | TCPService | StatusService | HelloWorldService | UnavailableService


@dataclass(frozen=True, slots=True)
class PathRewrite:
    """Another path for the origin: `prefix`, which every path of the rule begins with, becomes `replacement`.

    Both in normal form without a slash at the end; `prefix` "" replaces nothing, None the whole path, whose
    `replacement` may then end in a slash. `replacement` "" leaves the remainder, or `/` when there is none.
    """

    prefix: str | None
    replacement: str = ""


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """Changes to a head's fields, carried out in this order: `remove` every field of a name, `set` one in the place of
    all that have its name, `add` one to those that are there."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OriginRequest:
    """How an origin is spoken to; cloudflared's names and defaults. Durations are milliseconds.

    A `proxy_protocol` (1 or 2) makes every connection one visitor's: none is kept for another request.
    `ca` is PEM text of certificates that replace the system's roots for this origin; None keeps the system's.
    """

    connect_timeout: int = parse("30s")
    tls_timeout: int = parse("10s")
    tcp_keep_alive: int = parse("30s")  # 0: off
    keep_alive_connections: int = 100  # idle connections kept per origin; 0: none
    keep_alive_timeout: int = parse("90s")
    response_timeout: int = parse("100s")  # from the request's end to the response's head; 0: never
    http_host_header: str | None = None
    origin_server_name: str | None = None
    no_tls_verify: bool = False
    ca: str | None = None
    proxy_protocol: int = 0  # version of the PROXY header that goes first on each connection; 0: none
    path_rewrite: PathRewrite | None = None
    request_headers: HeaderEdits | None = None
    response_headers: HeaderEdits | None = None
    match_sni_to_host: bool = False  # the server name is the host of the request, for SNI and the certificate
    disable_chunked_encoding: bool = False  # bodies without a length are collected first


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `hostname` is a normalised exact name or `*.suffix`, or "" for any; `path` None is any path.

    `relay_port` is the relay's TCP port whose connections this rule takes, besides those for its hostname; a rule
    that has one and no hostname takes no others. Only a TCPService that is not passed through by name may have one.
    `basic_auth` are SHA-256 digests (hexadecimal) of the `user:password` pairs that visitors must give one of; none: no
    authentication.
    """

    id: str
    hostname: str
    path: PathMatch | None
    service: Service
    origin_request: OriginRequest = OriginRequest()
    relay_port: int | None = None
    basic_auth: tuple[str, ...] = field(default=(), repr=False)

    @property
    def by_port_only(self) -> bool:
        """Whether no hostname leads to this rule."""
        return self.relay_port is not None and not self.hostname
