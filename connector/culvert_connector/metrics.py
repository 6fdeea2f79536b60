"""The connector's numbers: plain integers while serving, Prometheus text when someone asks.

Responsible for names, help texts and labels. Must not know where numbers come from, other than the `Counters` that
requests add to and the `Readings` taken when the text is made.

Invariant: cardinality is bounded: `rule` is an id of the applied configuration (others are dropped with it), classes
and states are literal lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SESSION_STATES: Final = ("connecting", "connected", "draining")


class Counters:
    """`requests[rule][status // 100]` counts answers as visitors get them, once each.

    `connections[rule]` counts connections passed on as bytes: those that failed, and those that came to stand.
    """

    __slots__ = ("connections", "requests")

    def __init__(self) -> None:
        self.connections: dict[str, list[int]] = {}
        self.requests: dict[str, list[int]] = {}

    def request(self, rule: str, status: int) -> None:
        """One request of this rule was answered with this status."""
        row = self.requests.get(rule)
        if row is None:
            row = self.requests[rule] = [0] * 10
        row[status // 100] += 1

    def connection(self, rule: str, connected: bool) -> None:
        """One TCP connection for this rule came to stand, or did not."""
        row = self.connections.get(rule)
        if row is None:
            row = self.connections[rule] = [0, 0]
        row[connected] += 1

    def keep_rules(self, kept: set[str]) -> None:
        """Forgets rules that are no longer configured."""
        self.requests = {rule: row for rule, row in self.requests.items() if rule in kept}
        self.connections = {rule: row for rule, row in self.connections.items() if rule in kept}


@dataclass(frozen=True, slots=True)
class Readings:
    """What is true at this moment."""

    sessions: Mapping[str, int] = field(default_factory=dict)
    probed: int = 0
    streams: int = 0
    config_version: int = 0
    config_invalid: bool = False
    credential_expiry: float | None = None
    reconnects: int = 0
    origins_open: int = 0
    origins_idle: int = 0
    unverified_origins: int = 0


class ConnectorCollector(Collector):
    """Makes metric families of `counters` and of what `read` returns."""

    def __init__(self, counters: Counters, read: Callable[[], Readings]) -> None:
        self._counters = counters
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Every family, in the order in which the text shows them."""
        now = self._read()
        sessions = GaugeMetricFamily("culvert_connector_sessions", "Sessions with relays, by state.", labels=["state"])
        for state in SESSION_STATES:
            sessions.add_metric([state], now.sessions.get(state, 0))
        yield sessions
        yield _gauge("culvert_connector_sessions_probed", "Sessions whose data path passed its last probe.", now.probed)
        yield _gauge("culvert_connector_streams", "Requests and pipes in flight.", now.streams)
        yield _gauge("culvert_connector_config_version", "Version of the applied configuration.", now.config_version)
        yield _gauge(
            "culvert_connector_config_invalid",
            "1 while the newest configuration is not valid and the last good one is served.",
            int(now.config_invalid),
        )
        if now.credential_expiry is not None:
            yield _gauge(
                "culvert_credential_expiry_timestamp_seconds",
                "When the credential in use expires, unix time.",
                now.credential_expiry,
            )
        yield _gauge("culvert_connector_unverified_rules", "Rules with noTLSVerify in force.", now.unverified_origins)
        yield _gauge("culvert_connector_origin_connections", "Connections to origins.", now.origins_open)
        yield _gauge("culvert_connector_origin_connections_idle", "Of these, kept for later.", now.origins_idle)
        reconnects = CounterMetricFamily("culvert_connector_reconnects", "Sessions that were dialled again.")
        reconnects.add_metric([], now.reconnects)
        yield reconnects
        requests = CounterMetricFamily(
            "culvert_connector_requests",
            "Requests answered, by rule and class of status as the visitor gets it.",
            labels=["rule", "code_class"],
        )
        for rule, row in self._counters.requests.items():
            for hundreds, count in enumerate(row):
                if count:
                    requests.add_metric([rule, f"{hundreds}xx"], count)
        yield requests
        connections = CounterMetricFamily(
            "culvert_connector_tcp_connections",
            "Connections passed on as bytes, by rule and whether the origin could be reached.",
            labels=["rule", "outcome"],
        )
        for rule, row in self._counters.connections.items():
            for outcome, count in zip(("failed", "connected"), row, strict=True):
                if count:
                    connections.add_metric([rule, outcome], count)
        yield connections


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def registry(counters: Counters, read: Callable[[], Readings]) -> CollectorRegistry:
    """A registry of the connector's metrics alone."""
    result = CollectorRegistry(auto_describe=False)
    result.register(ConnectorCollector(counters, read))
    return result


def text(of: CollectorRegistry) -> bytes:
    """The exposition text."""
    return generate_latest(of)
