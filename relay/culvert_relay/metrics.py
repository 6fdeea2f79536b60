"""The relay's numbers: plain integers on the hot path, turned into Prometheus text only when someone asks.

Responsible for names, help texts and labels of the metrics. Must not know where numbers come from other than the
`Counters` that everyone adds to and the `Readings` of the moment.
Invariant: cardinality is bounded: labels are status classes, sources, reasons from literal lists, certificates' names
and at most `MAX_TUNNELS` tunnels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from culvert_relay.tallies import Tallies
from culvert_transport.endings import ending
from culvert_transport.instruments import ROUND_TRIP_BUCKETS, Histogram, Instrument
from culvert_transport.traffic import TrafficInstruments

LIMITS: Final = (
    "body", "body_rate", "connections", "connections_per_address", "descriptors", "handshakes", "head", "head_time",
    "reader", "request_time",
)  # fmt: skip
"""What a visitor, or all of them, can reach: see `culvert_relay.limits`; `reader` is one that takes nothing."""
SESSION_STATES: Final = ("serving", "stuck", "idle", "draining")
"""`stuck`: its last probe did not come back; `idle`: it has presented no grant that is in force."""

_TUNNEL: Final = ("issuer", "tunnel")
SESSIONS: Final = Instrument(
    "gauge", "culvert_relay_sessions",
    "Proven sessions of connectors: serving, stuck (the last probe was lost), idle (no grant in force) or draining.",
    ("state",),
)  # fmt: skip
TUNNELS: Final = Instrument("gauge", "culvert_relay_tunnels", "Tunnels with at least one session.")
HOSTNAMES: Final = Instrument("gauge", "culvert_relay_hostnames", "Hostnames and wildcards that some session serves.")
STREAMS: Final = Instrument(
    "gauge", "culvert_relay_streams", "Requests and upgraded connections under way, by tunnel.", _TUNNEL
)
VISITORS: Final = Instrument("gauge", "culvert_relay_visitor_connections", "Visitors' connections that are open.")
QUEUED: Final = Instrument("gauge", "culvert_relay_queued_bytes", "Bytes that wait to leave towards connectors.")
DRAINING: Final = Instrument("gauge", "culvert_relay_draining", "1 while the relay is shutting down.")
TRAFFIC: Final = TrafficInstruments.of(
    "culvert_relay",
    _TUNNEL,
    group="tunnel (empty: no tunnel was found)",
    first_byte="Time from a request's head to its response's head as it comes out of the tunnel",
    stalls="Times a request's body had to wait because the connector or its origin took no more of it",
)
ROUND_TRIP: Final = Instrument(
    "histogram", "culvert_relay_session_round_trip_seconds",
    "Round trips to connectors, measured every second on sessions with requests, every ten on others.",
)  # fmt: skip
CONNECTIONS: Final = Instrument("counter", "culvert_relay_connections_total", "Visitors' connections accepted.")
CONNECTIONS_REFUSED: Final = Instrument(
    "counter", "culvert_relay_connections_refused_total", "Visitors' connections over the limit."
)
CONNECTIONS_FAILED: Final = Instrument(
    "counter", "culvert_relay_connections_failed_total",
    "Connections that ended before a visitor could speak: TLS handshakes and PROXY headers.",
    ("reason",),
)  # fmt: skip
LIMITS_REACHED: Final = Instrument(
    "counter", "culvert_relay_limits_reached_total",
    "Limits that visitors reached; `reader` counts responses that were cut because their visitor took nothing.",
    ("limit",),
)  # fmt: skip
SOURCES_REFUSED: Final = Instrument(
    "counter", "culvert_relay_sources_refused_total",
    "Requests and connections refused because of their address (allowedSources).",
)  # fmt: skip
TCP_CONNECTIONS: Final = Instrument(
    "counter", "culvert_relay_tcp_connections_total", "Connections passed on as bytes, by TCP port or TLS server name."
)
FAILURES: Final = Instrument(
    "counter", "culvert_relay_failures_total", "Requests that failed by a fault of the relay's own."
)
RETRIES: Final = Instrument("counter", "culvert_relay_retries_total", "Requests sent again over another session.")
UPGRADES: Final = Instrument("counter", "culvert_relay_upgrades_total", "WebSocket handshakes that an origin accepted.")
VIOLATIONS: Final = Instrument(
    "counter", "culvert_relay_violations_total", "Sessions ended because a connector's response was malformed."
)
SESSIONS_ENDED: Final = Instrument(
    "counter", "culvert_relay_sessions_ended_total", "Proven sessions that ended, by reason.", ("reason",)
)
HANDSHAKES_REFUSED: Final = Instrument(
    "counter",
    "culvert_relay_handshakes_refused_total",
    "Connectors' handshakes that were refused, by reason.",
    ("reason",),
)
ACCESS_LOG_DROPPED: Final = Instrument(
    "counter", "culvert_relay_access_log_dropped_total",
    "Lines of the access log that were dropped because its file or pipe took no more.",
)  # fmt: skip
CREDENTIAL_EXPIRY: Final = Instrument(
    "gauge", "culvert_credential_expiry_timestamp_seconds",
    "When the first of the live sessions' credentials expires, unix seconds.",
)  # fmt: skip
CERTIFICATE_EXPIRY: Final = Instrument(
    "gauge", "culvert_relay_certificate_expiry_timestamp_seconds",
    "When a certificate of the relay expires, unix seconds.",
    ("certificate",),
)  # fmt: skip
CERTIFICATE_PROBLEMS: Final = Instrument(
    "gauge", "culvert_relay_certificate_problems", "Certificate pairs whose newest version was refused."
)
TASKS: Final = Instrument(
    "gauge", "culvert_relay_tasks", "Tasks of the event loop; requests need none, so that the number stays small."
)
INSTRUMENTS: Final = (
    SESSIONS, TUNNELS, HOSTNAMES, STREAMS, VISITORS, QUEUED, DRAINING, *TRAFFIC,
    ROUND_TRIP, CONNECTIONS, CONNECTIONS_REFUSED, CONNECTIONS_FAILED, LIMITS_REACHED, SOURCES_REFUSED, TCP_CONNECTIONS,
    FAILURES, RETRIES, UPGRADES, VIOLATIONS, SESSIONS_ENDED, HANDSHAKES_REFUSED,
    ACCESS_LOG_DROPPED, CREDENTIAL_EXPIRY, CERTIFICATE_EXPIRY, CERTIFICATE_PROBLEMS,
    TASKS,
)  # fmt: skip
"""All of them, in the order of the exposition and of docs/metrics.md."""


class Counters:
    """What everyone adds to. Requests are counted in `tunnels`, by the tunnel that they belong to."""

    __slots__ = (
        "connections", "failures", "handshakes_failed", "handshakes_refused", "limits_reached", "refused_connections",
        "refused_sources", "retries", "round_trips", "sessions_ended", "tcp_connections", "tunnels", "upgrades",
        "violations",
    )  # fmt: skip

    def __init__(self) -> None:
        self.tunnels = Tallies()
        self.connections = 0
        self.failures = 0
        self.refused_connections = 0
        self.refused_sources = 0
        self.retries = 0
        self.tcp_connections = 0
        self.upgrades = 0
        self.violations = 0
        self.round_trips = Histogram(ROUND_TRIP_BUCKETS)
        self.handshakes_refused: dict[str, int] = {}
        self.handshakes_failed: dict[str, int] = {}
        self.limits_reached: dict[str, int] = dict.fromkeys(LIMITS, 0)
        self.sessions_ended: dict[str, int] = {}

    @property
    def bytes_from_visitors(self) -> int:
        """Body bytes of all tunnels' requests."""
        return sum(tally.received for tally in self.tunnels)

    @property
    def bytes_to_visitors(self) -> int:
        """Body bytes of all tunnels' responses."""
        return sum(tally.sent for tally in self.tunnels)

    def reach(self, limit: str) -> None:
        """Counts that a limit was reached; `limit` is one of LIMITS."""
        self.limits_reached[limit] += 1

    def fail_handshake(self, reason: str) -> None:
        """Counts a connection that never became one; `reason` is a token from a literal list."""
        self.handshakes_failed[reason] = self.handshakes_failed.get(reason, 0) + 1

    def refuse_handshake(self, reason: str) -> None:
        """Counts a connector's handshake that was refused; `reason` is a token from a literal list."""
        self.handshakes_refused[reason] = self.handshakes_refused.get(reason, 0) + 1

    def end_session(self, sentence: str) -> None:
        """Counts a proven session that ended with this sentence."""
        token = ending(sentence)
        self.sessions_ended[token] = self.sessions_ended.get(token, 0) + 1


@dataclass(frozen=True, slots=True)
class Readings:
    """What is true at this moment, read when `/metrics` is asked for. `streams` is by (issuer, tunnel) as labelled."""

    sessions: Mapping[str, int] = field(default_factory=dict)
    tunnels: int = 0
    hostnames: int = 0
    streams: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    visitors: int = 0
    queued_bytes: int = 0
    draining: bool = False
    credential_expiry: float | None = None
    certificate_expiry: Mapping[str, float] = field(default_factory=dict)
    certificate_problems: int = 0
    access_log_dropped: int = 0
    tasks: int = 0


def exposition(counters: Counters, now: Readings) -> bytes:
    """The text of `/metrics`."""
    return "".join(_parts(counters, now)).encode()


def _parts(counters: Counters, now: Readings) -> Iterator[str]:
    yield SESSIONS.many(((state,), now.sessions.get(state, 0)) for state in SESSION_STATES)
    yield TUNNELS.one(now.tunnels)
    yield HOSTNAMES.one(now.hostnames)
    yield STREAMS.many(now.streams.items())
    yield VISITORS.one(now.visitors)
    yield QUEUED.one(now.queued_bytes)
    yield DRAINING.one(int(now.draining))
    yield from TRAFFIC.parts(counters.tunnels)
    yield ROUND_TRIP.buckets((((), counters.round_trips),))
    yield CONNECTIONS.one(counters.connections)
    yield CONNECTIONS_REFUSED.one(counters.refused_connections)
    yield CONNECTIONS_FAILED.many(((reason,), count) for reason, count in counters.handshakes_failed.items())
    yield LIMITS_REACHED.many(((limit,), count) for limit, count in counters.limits_reached.items())
    yield SOURCES_REFUSED.one(counters.refused_sources)
    yield TCP_CONNECTIONS.one(counters.tcp_connections)
    yield FAILURES.one(counters.failures)
    yield RETRIES.one(counters.retries)
    yield UPGRADES.one(counters.upgrades)
    yield VIOLATIONS.one(counters.violations)
    yield SESSIONS_ENDED.many(((reason,), count) for reason, count in counters.sessions_ended.items())
    yield HANDSHAKES_REFUSED.many(((reason,), count) for reason, count in counters.handshakes_refused.items())
    yield ACCESS_LOG_DROPPED.one(now.access_log_dropped)
    expiry = now.credential_expiry
    yield CREDENTIAL_EXPIRY.many([((), expiry)] if expiry is not None else [])
    yield CERTIFICATE_EXPIRY.many(((name,), moment) for name, moment in now.certificate_expiry.items())
    yield CERTIFICATE_PROBLEMS.one(now.certificate_problems)
    yield TASKS.one(now.tasks)
