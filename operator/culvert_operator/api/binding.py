"""The TunnelBinding as the planner sees it.

Responsible for: a raw TunnelBinding → :class:`Binding`. Must not know: Tunnels, Services, claims.
Invariant: never raises; hostnames stay as they were written (normalising them can fail, and that is a rule's own
condition, see :mod:`culvert_operator.rules`).
"""

from __future__ import annotations

from dataclasses import dataclass

from culvert_ingress.rules import HeaderEdits
from culvert_operator.api.dns import KeyRef, key_ref
from culvert_operator.api.meta import Meta, Raw, integer, mapping, parse_meta, sequence, text
from culvert_operator.keys import ObjectKey
from culvert_protocol.granted import port_name


@dataclass(frozen=True, slots=True)
class ServiceRef:
    """A Service of the binding's namespace; ``port`` by number or by name."""

    name: str
    port: int | str
    scheme: str


NO_EDITS = HeaderEdits()


@dataclass(frozen=True, slots=True)
class PathRewrite:
    """``pathRewrite`` as written; exactly one of the two is set (the schema sees to it)."""

    strip_prefix: str | None
    replace_prefix: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginRequest:
    """How the connector talks to the Service; durations as written, for instance ``1m30s``."""

    connect_timeout: str = "30s"
    tls_timeout: str = "10s"
    tcp_keep_alive: str = "30s"
    keep_alive_timeout: str = "90s"
    keep_alive_connections: int = 100
    http_host_header: str | None = None
    origin_server_name: str | None = None
    no_tls_verify: bool = False
    proxy_protocol: str = "None"
    ca: KeyRef | None = None
    response_timeout: str = "100s"
    match_sni_to_host: bool = False
    disable_chunked_encoding: bool = False
    path_rewrite: PathRewrite | None = None
    request_headers: HeaderEdits = NO_EDITS
    response_headers: HeaderEdits = NO_EDITS


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSpec:
    """One rule as written. Exactly one of ``service`` and ``http_status`` is set (the schema sees to it).

    ``protocol`` is HTTP, TCP (then ``relay_port`` counts and ``hostname`` is "") or TLS.
    """

    name: str
    hostname: str
    path_type: str
    path: str
    service: ServiceRef | None
    http_status: int | None
    origin: OriginRequest
    protocol: str = "HTTP"
    relay_port: int = 0
    allowed_sources: tuple[str, ...] = ()
    wildcard: str = ""

    @property
    def spelling(self) -> str:
        """The name as it was written, for a status about a rule that was not examined: of a TCP rule, its port."""
        return port_name(self.relay_port) if self.protocol == "TCP" else self.hostname


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """An entry of ``status.publishedRecords``: a record that this object's Tunnel wrote or is about to write."""

    tunnel: str
    name: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One TunnelBinding; ``status`` is the raw status as it was read."""

    meta: Meta
    tunnel_ref: ObjectKey | None
    rules: tuple[RuleSpec, ...]
    status: Raw

    @property
    def resource(self) -> str:
        """The object as DNS markers and rule ids name it."""
        return f"tunnelbinding/{self.meta.namespace}/{self.meta.name}"

    @property
    def held_by(self) -> tuple[ObjectKey, ...]:
        """``status.tunnels``: the Tunnels that may still hold something of this object."""
        found = []
        for item in sequence(self.status.get("tunnels")):
            try:
                found.append(ObjectKey.parse(text(item)))
            except ValueError:
                continue
        return tuple(found)

    @property
    def published(self) -> tuple[Published, ...]:
        """``status.publishedRecords``."""
        items = (mapping(i) for i in sequence(self.status.get("publishedRecords")))
        return tuple(
            Published(tunnel=text(i.get("tunnel")), name=text(i.get("name")), type=text(i.get("type"))) for i in items
        )


def parse_binding(raw: Raw) -> Binding:
    """A TunnelBinding object."""
    spec = mapping(raw.get("spec"))
    meta = parse_meta(raw)
    ref = mapping(spec.get("tunnelRef"))
    name = text(ref.get("name"))
    return Binding(
        meta=meta,
        tunnel_ref=ObjectKey(text(ref.get("namespace")) or meta.namespace, name) if name else None,
        rules=tuple(_rule(mapping(r)) for r in sequence(spec.get("rules"))),
        status=mapping(raw.get("status")),
    )


def _rule(spec: Raw) -> RuleSpec:
    path, service = mapping(spec.get("path")), mapping(spec.get("service"))
    status = spec.get("httpStatus")
    return RuleSpec(
        name=text(spec.get("name")),
        hostname=text(spec.get("hostname")),
        path_type=text(path.get("type")) or "PathPrefix",
        path=text(path.get("value")) or "/",
        service=_service(service) if service else None,
        http_status=integer(status) if status is not None else None,
        origin=_origin(mapping(spec.get("originRequest"))),
        protocol=text(spec.get("protocol")) or "HTTP",
        relay_port=integer(spec.get("relayPort")),
        allowed_sources=tuple(text(item) for item in sequence(spec.get("allowedSources"))),
        wildcard=text(spec.get("wildcard")),
    )


def _service(spec: Raw) -> ServiceRef:
    port = spec.get("port")
    return ServiceRef(
        name=text(spec.get("name")),
        port=port if isinstance(port, int | str) else 0,
        scheme=text(spec.get("scheme")) or "http",
    )


def _origin(spec: Raw) -> OriginRequest:
    return OriginRequest(
        connect_timeout=text(spec.get("connectTimeout")) or "30s",
        tls_timeout=text(spec.get("tlsTimeout")) or "10s",
        tcp_keep_alive=text(spec.get("tcpKeepAlive")) or "30s",
        keep_alive_timeout=text(spec.get("keepAliveTimeout")) or "90s",
        keep_alive_connections=integer(spec.get("keepAliveConnections"), 100),
        http_host_header=text(spec.get("httpHostHeader")) or None,
        origin_server_name=text(spec.get("originServerName")) or None,
        no_tls_verify=spec.get("noTLSVerify") is True,
        proxy_protocol=text(spec.get("proxyProtocol")) or "None",
        ca=key_ref(spec.get("caConfigMapRef"), "ca.crt"),
        response_timeout=text(spec.get("responseTimeout")) or "100s",
        match_sni_to_host=spec.get("matchSNItoHost") is True,
        disable_chunked_encoding=spec.get("disableChunkedEncoding") is True,
        path_rewrite=_rewrite(mapping(spec["pathRewrite"])) if "pathRewrite" in spec else None,
        request_headers=_edits(mapping(spec.get("requestHeaders"))),
        response_headers=_edits(mapping(spec.get("responseHeaders"))),
    )


def _rewrite(spec: Raw) -> PathRewrite:
    return PathRewrite(text(spec.get("stripPrefix")) or None, text(spec.get("replacePrefix")) or None)


def _edits(spec: Raw) -> HeaderEdits:
    return HeaderEdits(
        set=_pairs(spec.get("set")),
        add=_pairs(spec.get("add")),
        remove=tuple(text(name) for name in sequence(spec.get("remove"))),
    )


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    items = (mapping(item) for item in sequence(value))
    return tuple((text(item.get("name")), text(item.get("value"))) for item in items)
