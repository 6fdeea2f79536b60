"""What a rule means for the data path: where to connect, with which Host, within which times, counted under which id.

Responsible for compiling a Rule once, so that a request only reads attributes. Pure.

Must not know: sockets, streams, the router.

Invariant: two rules share kept-alive connections exactly when everything that decides about the connection is equal
(address, TLS settings, address policy, timeouts of the pool).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from culvert_connector.origins.tls import TLSSettings
from culvert_connector.origins.treatment import Treatment, treatment_of
from culvert_ingress.rules import (
    HelloWorldService,
    HTTPService,
    OriginRequest,
    Rule,
    StatusService,
    TCPService,
    UnavailableService,
    UnixService,
)
from culvert_protocol.heads import Open

LOCAL_SERVER_NAME: Final = "localhost"
"""The name verified on a TLS Unix socket whose rule gives no originServerName."""


@dataclass(frozen=True, slots=True)
class OriginKey:
    """Everything that decides which kept-alive connections may serve a request. `port` 0: a Unix socket."""

    host: str
    port: int
    tls: TLSSettings | None
    policy: str
    keep: int
    keep_seconds: float
    visitor: Hashable = None
    """Whose connections these are; None: anybody's (see `pinning`)."""
    hashed: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Hashes once: every request looks its pool up twice."""
        parts = (self.host, self.port, self.tls, self.policy, self.keep, self.keep_seconds, self.visitor)
        object.__setattr__(self, "hashed", hash(parts))

    def __hash__(self) -> int:
        return self.hashed


@dataclass(frozen=True, slots=True)
class OriginTarget:
    """A rule whose service is spoken to over a connection. Times are seconds. `pipe`: bytes are passed as they are,
    `by_name`: for visitors chosen by TLS server name. `users`: see `Rule.basic_auth`. `treatment`: what is changed on
    the way; None for a rule that passes requests on as they come."""

    rule_id: str
    key: OriginKey
    host_header: bytes | None
    connect_timeout: float
    tls_timeout: float
    tcp_keep_alive: float
    response_timeout: float
    pipe: bool = False
    by_name: bool = False
    proxy_protocol: int = 0
    users: tuple[str, ...] = field(default=(), repr=False)
    treatment: Treatment | None = None


@dataclass(frozen=True, slots=True)
class AnswerTarget:
    """A rule that the connector answers itself. `fields` is the block of its response head."""

    rule_id: str
    status: int
    body: bytes
    fields: bytes
    users: tuple[str, ...] = field(default=(), repr=False)


Target = OriginTarget | AnswerTarget

REASON_PHRASES: Final[Mapping[int, str]] = {
    400: "This request cannot be served.",
    403: "Access to this address is not allowed.",
    404: "There is no service at this address.",
    410: "The service at this address is gone.",
    429: "There are too many requests.",
    451: "This address is not available for legal reasons.",
    503: "The service is not available now.",
}
BODILESS: Final = frozenset({204, 205, 304})


def status_page(status: int) -> bytes:
    """The text that goes with a status the connector answers itself; empty where HTTP allows none."""
    if status in BODILESS:
        return b""
    return f"{status} {REASON_PHRASES.get(status, 'Answered by the tunnel.')}\n".encode()


def own_answer(rule_id: str, status: int, body: bytes, *, reason: str) -> AnswerTarget:
    """An answer in plain words that says, by `Culvert-Error`, that no origin gave it; `reason` is its token."""
    fields = b"Content-Type: text/plain; charset=utf-8\r\n" if body else b""
    if status >= 400:
        fields += b"Cache-Control: no-store\r\nCulvert-Error: connector; %b\r\n" % reason.encode()
    return AnswerTarget(rule_id, status, body, fields)


def compile_rule(rule: Rule, *, policy: str, hello_world: bytes) -> Target:
    """The target of a rule under the document's address policy."""
    target = _compiled(rule, policy=policy, hello_world=hello_world)
    return replace(target, users=rule.basic_auth) if rule.basic_auth else target


def _compiled(rule: Rule, *, policy: str, hello_world: bytes) -> Target:
    service = rule.service
    if isinstance(service, StatusService):
        return own_answer(rule.id, service.status, status_page(service.status), reason="http_status")
    if isinstance(service, HelloWorldService):
        return AnswerTarget(rule.id, 200, hello_world, b"Content-Type: text/html; charset=utf-8\r\n")
    if isinstance(service, UnavailableService):
        return own_answer(rule.id, 503, f"503 {service.message}\n".encode(), reason="service_unavailable")
    options = rule.origin_request
    if isinstance(service, UnixService):
        tls = _tls(options, LOCAL_SERVER_NAME, rule.hostname) if service.tls else None
        host, port = service.path, 0
    elif isinstance(service, TCPService):
        tls = None
        host, port = service.host, service.port
    else:
        assert isinstance(service, HTTPService)
        tls = _tls(options, service.host, rule.hostname) if service.scheme == "https" else None
        host, port = service.host, service.port
    return OriginTarget(
        rule_id=rule.id,
        key=OriginKey(
            host=host,
            port=port,
            tls=tls,
            policy=policy,
            keep=0 if isinstance(service, TCPService) or options.proxy_protocol else options.keep_alive_connections,
            keep_seconds=options.keep_alive_timeout / 1000,
        ),
        host_header=options.http_host_header.encode() if options.http_host_header else None,
        connect_timeout=options.connect_timeout / 1000,
        tls_timeout=options.tls_timeout / 1000,
        tcp_keep_alive=options.tcp_keep_alive / 1000,
        pipe=isinstance(service, TCPService),
        by_name=isinstance(service, TCPService) and service.passthrough,
        response_timeout=options.response_timeout / 1000,
        proxy_protocol=options.proxy_protocol,
        # One name for all of the rule's requests is known by now.
        treatment=treatment_of(
            options, names_host=tls is not None and not options.http_host_header and rule.hostname[:2] in ("", "*.")
        ),
    )


def naming_host(target: OriginTarget, head: Open) -> OriginTarget:
    """The target with the request's host as TLS server name: `matchSNItoHost` of a rule for many hosts."""
    key = target.key
    assert key.tls is not None
    return replace(target, key=replace(key, tls=replace(key.tls, server_name=head.host.decode("ascii"))))


def _tls(options: OriginRequest, host: str, hostname: str) -> TLSSettings:
    name = options.origin_server_name or host
    if options.match_sni_to_host:
        name = _host_of(options.http_host_header) if options.http_host_header else hostname
    return TLSSettings(server_name=name, verify=not options.no_tls_verify, ca=options.ca)


def _host_of(authority: str) -> str:
    """The host of `host` or `host:port`, without the brackets of an IPv6 address."""
    host, colon, port = authority.rpartition(":")
    return (host if colon and port.isdigit() else authority).strip("[]")
