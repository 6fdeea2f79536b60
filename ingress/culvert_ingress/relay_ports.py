"""Rules whose visitors do not come by HTTP: by a TCP port of the relay, or by TLS server name.

Responsible for: which combinations of service, hostname, path and port make sense, in one sentence each, and for what
such rules need in a grant. Must not know how rules are written down. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from culvert_ingress.rules import OriginRequest, Rule, TCPService

__all__ = ["HTTP_ALONE", "TCP_DEFAULT_PORTS", "TCP_SCHEMES", "changes_http", "problem_of", "relay_ports", "tls_names"]

TCP_DEFAULT_PORTS: Final[dict[str, int | None]] = {"tcp": None, "ssh": 22, "rdp": 3389, "smb": 445, "tls": 443}
"""Schemes of services whose bytes are passed on, and the port that is meant when none is written."""
TCP_SCHEMES: Final = frozenset(TCP_DEFAULT_PORTS)


HTTP_ALONE: Final = (
    "pathRewrite",
    "requestHeaders",
    "responseHeaders",
    "matchSNItoHost",
    "disableChunkedEncoding",
)
"""Keys of `originRequest` that change requests and responses, of which a TCP service has none."""


def changes_http(options: OriginRequest) -> bool:
    """Whether any key of `HTTP_ALONE` is used."""
    edited = options.path_rewrite or options.request_headers or options.response_headers
    return bool(edited or options.match_sni_to_host or options.disable_chunked_encoding)


def problem_of(rule: Rule) -> str | None:
    """Why the parts of a rule do not fit together, as a sentence with a fix; None when they do."""
    service = rule.service
    if rule.basic_auth and isinstance(service, TCPService):
        return "basicAuth is for HTTP services; remove it, and let the service authenticate its visitors."
    if isinstance(service, TCPService) and changes_http(rule.origin_request):
        return f"{', '.join(HTTP_ALONE)} are about HTTP; remove them from a TCP or TLS rule."
    if not isinstance(service, TCPService):
        if rule.relay_port is None:
            return None
        return "relayPort is for TCP services; write a service such as tcp://localhost:5432, or remove relayPort."
    if rule.path is not None:
        return "A TCP service has no paths; remove path."
    if service.passthrough:
        if rule.relay_port is not None:
            return (
                "A tls:// service is chosen by server name on the relay's HTTPS port; remove relayPort, "
                "or write tcp:// to give the service a port of its own."
            )
        if not rule.hostname:
            return "A tls:// service is chosen by server name; add hostname."
    return None


def relay_ports(rules: Iterable[Rule]) -> tuple[int, ...]:
    """The distinct ports of the relay that rules take connections of, sorted: they need a grant."""
    return tuple(sorted({rule.relay_port for rule in rules if rule.relay_port is not None}))


def tls_names(rules: Iterable[Rule]) -> tuple[str, ...]:
    """The distinct hostnames of rules that are passed through as TLS, sorted: they need a grant of that kind."""
    passed = (rule for rule in rules if isinstance(rule.service, TCPService) and rule.service.passthrough)
    return tuple(sorted({rule.hostname for rule in passed}))
