"""What `relay.yml` says about visitors: `limits`, `timeouts`, `trustedProxies`, `proxyProtocolFrom`,
`httpsRedirectPort`.

Responsible for these keys, their ranges and defaults (docs/relay.md is checked against the tables). Must not know how
they are enforced. Invariant: a head within the limits fits one OPEN frame, so that none can be set beyond that.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from culvert_http1.limits import HeadLimits
from culvert_relay.config_values import ConfigError, Network, mapping, networks, seconds, whole_number
from culvert_relay.limits import DEFAULT_LIMITS, Limits

KEYS: Final = frozenset({"limits", "timeouts", "trustedProxies", "proxyProtocolFrom", "httpsRedirectPort"})
"""Keys at the top of the file that are read here."""


class Number(NamedTuple):
    """One key of `limits`: the range it may have, and the attribute of `Limits` or `HeadLimits` that it sets."""

    attribute: str
    least: int
    most: int
    text: str


class Time(NamedTuple):
    """One key of `timeouts`, in seconds; `never`: 0s is no limit."""

    attribute: str
    least: float
    most: float
    text: str
    never: bool = False


HEAD: Final[dict[str, Number]] = {
    "headBytes": Number("head", 1024, 32_768, "a whole request head; beyond it 431"),
    "headFields": Number("fields", 8, 200, "field lines of a head; beyond it 431"),
    "fieldBytes": Number("field", 512, 16_384, "one field line; beyond it 431"),
    "targetBytes": Number("target", 128, 8_192, "the request target; beyond it 414"),
}
NUMBERS: Final[dict[str, Number]] = {
    "bodyBytes": Number("body", 0, 2**53, "one request's body; beyond it 413. 0: no limit"),
    "bodyBytesPerSecond": Number("body_rate", 1, 1 << 20, "what a body must bring on average over `stall`, else 408"),
    "connections": Number("connections", 1, 1_000_000, "visitors' connections in all; beyond it 503"),
    "connectionsPerAddress": Number(
        "connections_per_address", 1, 1_000_000, "the same from one IPv4 address or IPv6 /64; beyond it 429"
    ),
    "handshakes": Number("handshakes", 1, 100_000, "TLS handshakes under way; beyond it the oldest is closed"),
}
TIMES: Final[dict[str, Time]] = {
    "head": Time("head_seconds", 1, 600, "for a request's head, and for the first byte of a connection; then 408"),
    "idle": Time("idle_seconds", 1, 3_600, "that a kept-alive connection may wait for its next request"),
    "stall": Time("stall_seconds", 1, 600, "without progress of an upload (408) or of a reader (its response is cut)"),
    "request": Time("request_seconds", 1, 86_400, "for a request and its whole response; then 504. 0s: no limit", True),
    "tlsHandshake": Time("handshake_seconds", 1, 600, "for a TLS handshake or a PROXY header"),
}


@dataclass(frozen=True, slots=True)
class Front:
    """How visitors are met. `trusted_proxies` may speak for a visitor in forwarding fields; connections from
    `proxy_protocol_from` begin with a PROXY header; `https_redirect_port` is the visitors' HTTPS port, None: no
    redirect."""

    limits: Limits = DEFAULT_LIMITS
    trusted_proxies: tuple[Network, ...] = ()
    proxy_protocol_from: tuple[Network, ...] = ()
    https_redirect_port: int | None = None


def read_front(top: dict[str, Any]) -> Front:
    """The front out of the file's top mapping; raises ConfigError."""
    port = top.get("httpsRedirectPort")
    return Front(
        limits=_limits(top.get("limits", {}), top.get("timeouts", {})),
        trusted_proxies=networks(top.get("trustedProxies", []), "trustedProxies"),
        proxy_protocol_from=networks(top.get("proxyProtocolFrom", []), "proxyProtocolFrom"),
        https_redirect_port=None if port is None else whole_number(port, "httpsRedirectPort", least=1, most=65_535),
    )


def _limits(numbers: Any, times: Any) -> Limits:
    numbers = mapping(numbers, "limits", {*HEAD, *NUMBERS})
    times = mapping(times, "timeouts", set(TIMES))

    def whole(table: dict[str, Number]) -> dict[str, int]:
        return {
            row.attribute: whole_number(numbers[key], f"limits.{key}", least=row.least, most=row.most)
            for key, row in table.items()
            if key in numbers
        }

    found = Limits(
        head=HeadLimits(**whole(HEAD)),
        **whole(NUMBERS),
        **{  # type: ignore[arg-type]  # the tables name attributes of these types
            row.attribute: seconds(times[key], f"timeouts.{key}", least=row.least, most=row.most, never=row.never)
            for key, row in TIMES.items()
            if key in times
        },
    )
    if found.head.target > found.head.head or found.head.field > found.head.head:
        raise ConfigError("limits.headBytes is less than targetBytes or fieldBytes: a head holds both, so raise it.")
    return found


DEFAULT_FRONT: Final = Front()
