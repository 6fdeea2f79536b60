"""The connector's numbers: plain integers while serving, Prometheus text when someone asks.

Responsible for names, help texts and labels. Must not know where numbers come from, other than the `Counters` that
requests add to and the `Readings` taken when the text is made.

Invariant: cardinality is bounded: `rule` is an id of the applied configuration (others are dropped with it, and at
most MAX_RULES are told apart), classes, states and reasons are literal lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from culvert_connector.tallies import Tallies
from culvert_transport.instruments import OTHER, ROUND_TRIP_BUCKETS, Histogram, Instrument
from culvert_transport.traffic import TrafficInstruments

SESSION_STATES: Final = ("connecting", "connected", "draining")

SESSIONS: Final = Instrument(
    "gauge", "culvert_connector_sessions", "Sessions with relays: connecting, connected or draining.", ("state",)
)
PROBED: Final = Instrument(
    "gauge", "culvert_connector_sessions_probed", "Sessions whose data path passed its last probe."
)
STREAMS: Final = Instrument("gauge", "culvert_connector_streams", "Requests and pipes in flight, by rule.", ("rule",))
QUEUED: Final = Instrument("gauge", "culvert_connector_queued_bytes", "Bytes that wait to leave towards relays.")
ROUND_TRIP: Final = Instrument(
    "histogram",
    "culvert_connector_session_round_trip_seconds",
    "Round trips to relays, measured every second on sessions with requests, every ten on others.",
)
RECONNECTS: Final = Instrument(
    "counter",
    "culvert_connector_reconnects_total",
    "Sessions that ended or had to be replaced, and were dialled again, by reason.",
    ("reason",),
)
CONFIG_VERSION: Final = Instrument("gauge", "culvert_connector_config_version", "Version of the applied configuration.")
CONFIG_INVALID: Final = Instrument(
    "gauge",
    "culvert_connector_config_invalid",
    "1 while the newest configuration is not valid and the last good one is served.",
)
CREDENTIAL_EXPIRY: Final = Instrument(
    "gauge",
    "culvert_credential_expiry_timestamp_seconds",
    "When the credential in use expires, unix seconds.",
)
TCP_CONNECTIONS: Final = Instrument(
    "counter",
    "culvert_connector_tcp_connections_total",
    "Connections passed on as bytes, by rule and whether the origin could be reached.",
    ("rule", "outcome"),
)
UNVERIFIED: Final = Instrument("gauge", "culvert_connector_unverified_rules", "Rules with noTLSVerify in force.")
ORIGINS_OPEN: Final = Instrument("gauge", "culvert_connector_origin_connections", "Connections to origins.")
ORIGINS_IDLE: Final = Instrument(
    "gauge", "culvert_connector_origin_connections_idle", "Connections to origins that are kept for later."
)
TASKS: Final = Instrument(
    "gauge", "culvert_connector_tasks", "Tasks of the event loop: a few for each session, one for each origin dialled."
)
TRAFFIC: Final = TrafficInstruments.of(
    "culvert_connector",
    ("rule",),
    group="rule (empty: refused before a rule was looked for)",
    first_byte="Time from a request's arrival at the connector to the head of its origin's response",
    stalls="Times a response had to wait because the relay or its visitor took no more of it",
)
INSTRUMENTS: Final = (
    SESSIONS,
    PROBED,
    STREAMS,
    QUEUED,
    ROUND_TRIP,
    RECONNECTS,
    CONFIG_VERSION,
    CONFIG_INVALID,
    CREDENTIAL_EXPIRY,
    UNVERIFIED,
    ORIGINS_OPEN,
    ORIGINS_IDLE,
    *TRAFFIC,
    TCP_CONNECTIONS,
    TASKS,
)
"""All of them, in the order of the exposition and of docs/metrics.md."""


class Counters:
    """What serving adds to: requests in `rules`, round trips of all sessions, sessions dialled again by reason.

    `connections[rule]` counts connections passed on as bytes: those that failed, and those that came to stand.
    """

    __slots__ = ("connections", "reconnects", "round_trips", "rules")

    def __init__(self) -> None:
        self.rules = Tallies()
        self.round_trips = Histogram(ROUND_TRIP_BUCKETS)
        self.reconnects: dict[str, int] = {}
        self.connections: dict[str, list[int]] = {}

    def reconnect(self, reason: str) -> None:
        """A session is dialled again; `reason` is a token from a literal list."""
        self.reconnects[reason] = self.reconnects.get(reason, 0) + 1

    def connection(self, rule: str, connected: bool) -> None:
        """One TCP connection for this rule (as `rules` labels it) came to stand, or did not."""
        row = self.connections.get(rule)
        if row is None:
            row = self.connections[rule] = [0, 0]
        row[connected] += 1

    def keep_rules(self, kept: set[str]) -> None:
        """Forgets rules that are no longer configured."""
        self.rules.keep(kept)
        self.connections = {rule: row for rule, row in self.connections.items() if rule in kept or rule == OTHER}


@dataclass(frozen=True, slots=True)
class Readings:
    """What is true at this moment. `streams` is by the rule as it is labelled."""

    sessions: Mapping[str, int] = field(default_factory=dict)
    probed: int = 0
    streams: Mapping[str, int] = field(default_factory=dict)
    queued_bytes: int = 0
    config_version: int = 0
    config_invalid: bool = False
    credential_expiry: float | None = None
    origins_open: int = 0
    origins_idle: int = 0
    unverified_origins: int = 0
    tasks: int = 0


def exposition(counters: Counters, now: Readings) -> bytes:
    """The text of `/metrics`."""
    return "".join(_parts(counters, now)).encode()


def _parts(counters: Counters, now: Readings) -> Iterator[str]:
    yield SESSIONS.many(((state,), now.sessions.get(state, 0)) for state in SESSION_STATES)
    yield PROBED.one(now.probed)
    yield STREAMS.many(((rule,), count) for rule, count in now.streams.items())
    yield QUEUED.one(now.queued_bytes)
    yield ROUND_TRIP.buckets((((), counters.round_trips),))
    yield RECONNECTS.many(((reason,), count) for reason, count in counters.reconnects.items())
    yield CONFIG_VERSION.one(now.config_version)
    yield CONFIG_INVALID.one(int(now.config_invalid))
    expiry = now.credential_expiry
    yield CREDENTIAL_EXPIRY.many([((), expiry)] if expiry is not None else [])
    yield UNVERIFIED.one(now.unverified_origins)
    yield ORIGINS_OPEN.one(now.origins_open)
    yield ORIGINS_IDLE.one(now.origins_idle)
    yield from TRAFFIC.parts(counters.rules)
    yield TCP_CONNECTIONS.many(
        ((rule, outcome), count)
        for rule, row in counters.connections.items()
        for outcome, count in zip(("failed", "connected"), row, strict=True)
        if count
    )
    yield TASKS.one(now.tasks)
