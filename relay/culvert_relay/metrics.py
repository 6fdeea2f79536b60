"""The relay's numbers: plain integers on the hot path, turned into Prometheus text only when someone asks.

Responsible for names, help texts and labels of the metrics. Must not know where numbers come from other than the
`Counters` that everyone adds to and the readings that `RelayCollector` is given.
Invariant: cardinality is bounded: labels are status classes, sources, reasons from literal lists, certificates' names.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SOURCES: Final = ("origin", "connector", "session", "relay")
"""Who decided an answer, as in `Culvert-Error`; an answer without that field is the origin's."""
LIMITS: Final = (
    "body", "body_rate", "connections", "connections_per_address", "descriptors", "handshakes", "head", "head_time",
    "reader", "request_time",
)  # fmt: skip
"""What a visitor, or all of them, can reach: see `culvert_relay.limits`; `reader` is one that takes nothing."""
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Counters:
    """What the hot path adds to. `answers[source][status // 100]` counts final responses."""

    __slots__ = (
        "answers", "bytes_from_visitors", "bytes_to_visitors", "connections", "failures", "handshakes_failed",
        "handshakes_refused", "limits_reached", "origin_answers", "refused_connections", "refused_sources", "retries",
        "sessions_ended", "tcp_connections", "upgrades", "violations",
    )  # fmt: skip

    def __init__(self) -> None:
        self.answers: dict[str, list[int]] = {source: [0] * 10 for source in SOURCES}
        self.origin_answers = self.answers["origin"]
        self.bytes_from_visitors = 0
        self.bytes_to_visitors = 0
        self.connections = 0
        self.failures = 0
        self.refused_connections = 0
        self.refused_sources = 0
        self.retries = 0
        self.tcp_connections = 0
        self.upgrades = 0
        self.violations = 0
        self.handshakes_refused: dict[str, int] = {}
        self.handshakes_failed: dict[str, int] = {}
        self.limits_reached: dict[str, int] = dict.fromkeys(LIMITS, 0)
        self.sessions_ended = 0

    def reach(self, limit: str) -> None:
        """Counts that a limit was reached; `limit` is one of LIMITS."""
        self.limits_reached[limit] += 1

    def fail_handshake(self, reason: str) -> None:
        """Counts a connection that never became one; `reason` is a token from a literal list."""
        self.handshakes_failed[reason] = self.handshakes_failed.get(reason, 0) + 1

    def refuse_handshake(self, reason: str) -> None:
        """Counts a connector's handshake that was refused; `reason` is a token from a literal list."""
        self.handshakes_refused[reason] = self.handshakes_refused.get(reason, 0) + 1


@dataclass(frozen=True, slots=True)
class Readings:
    """What is true at this moment, read when `/metrics` is asked for."""

    sessions: int = 0
    tunnels: int = 0
    hostnames: int = 0
    streams: int = 0
    visitors: int = 0
    queued_bytes: int = 0
    draining: bool = False
    credential_expiry: float | None = None
    certificate_expiry: Mapping[str, float] = field(default_factory=dict)
    certificate_problems: int = 0


class RelayCollector(Collector):
    """Builds the metric families out of counters and readings."""

    def __init__(self, counters: Counters, read: Callable[[], Readings]) -> None:
        self._counters = counters
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Every family, once."""
        counters, now = self._counters, self._read()
        yield _gauge("culvert_relay_sessions", "Sessions of connectors that are open and proven.", now.sessions)
        yield _gauge("culvert_relay_tunnels", "Tunnels with at least one session.", now.tunnels)
        yield _gauge("culvert_relay_hostnames", "Hostnames and wildcards that some session serves.", now.hostnames)
        yield _gauge("culvert_relay_streams", "Requests and upgraded connections under way.", now.streams)
        yield _gauge("culvert_relay_visitor_connections", "Visitors' connections that are open.", now.visitors)
        yield _gauge("culvert_relay_queued_bytes", "Bytes that wait to leave towards connectors.", now.queued_bytes)
        yield _gauge("culvert_relay_draining", "1 while the relay is shutting down.", int(now.draining))
        requests = CounterMetricFamily(
            "culvert_relay_requests",
            "Final answers to visitors, by status class and by who decided them.",
            labels=("code_class", "source"),
        )
        for source, classes in counters.answers.items():
            for hundred, count in enumerate(classes):
                if count:
                    requests.add_metric((f"{hundred}xx", source), count)
        yield requests
        for name, text, value in (
            (
                "culvert_relay_received_bytes",
                "Body bytes received from visitors.",
                counters.bytes_from_visitors,
            ),
            ("culvert_relay_sent_bytes", "Body bytes sent to visitors.", counters.bytes_to_visitors),
            ("culvert_relay_connections", "Visitors' connections accepted.", counters.connections),
            (
                "culvert_relay_connections_refused",
                "Visitors' connections over the limit.",
                counters.refused_connections,
            ),
            ("culvert_relay_failures", "Requests that failed by a fault of the relay's own.", counters.failures),
            (
                "culvert_relay_sources_refused",
                "Requests and connections refused because of their address (allowedSources).",
                counters.refused_sources,
            ),
            (
                "culvert_relay_tcp_connections",
                "Connections passed on as bytes, by TCP port or TLS server name.",
                counters.tcp_connections,
            ),
            ("culvert_relay_retries", "Requests sent again over another session.", counters.retries),
            ("culvert_relay_upgrades", "WebSocket handshakes that an origin accepted.", counters.upgrades),
            (
                "culvert_relay_violations",
                "Sessions ended because a connector's response was malformed.",
                counters.violations,
            ),
            (
                "culvert_relay_sessions_ended",
                "Proven sessions that ended, for whatever reason.",
                counters.sessions_ended,
            ),
        ):
            family = CounterMetricFamily(name, text)
            family.add_metric((), value)
            yield family
        refused = CounterMetricFamily(
            "culvert_relay_handshakes_refused",
            "Connectors' handshakes that were refused, by reason.",
            labels=("reason",),
        )
        for reason, count in counters.handshakes_refused.items():
            refused.add_metric((reason,), count)
        yield refused
        limits = CounterMetricFamily("culvert_relay_limits_reached", "Limits that were reached.", labels=("limit",))
        for limit, count in counters.limits_reached.items():
            limits.add_metric((limit,), count)
        yield limits
        failed = CounterMetricFamily(
            "culvert_relay_connections_failed",
            "Connections that ended before a visitor could speak: TLS handshakes and PROXY headers.",
            labels=("reason",),
        )
        for reason, count in counters.handshakes_failed.items():
            failed.add_metric((reason,), count)
        yield failed
        expiry = GaugeMetricFamily(
            "culvert_credential_expiry_timestamp_seconds",
            "When the first of the live sessions' credentials expires, unix seconds.",
        )
        if now.credential_expiry is not None:
            expiry.add_metric((), now.credential_expiry)
        yield expiry
        certificates = GaugeMetricFamily(
            "culvert_relay_certificate_expiry_timestamp_seconds",
            "When a certificate of the relay expires, unix seconds.",
            labels=("certificate",),
        )
        for name, moment in now.certificate_expiry.items():
            certificates.add_metric((name,), moment)
        yield certificates
        yield _gauge(
            "culvert_relay_certificate_problems",
            "Certificate pairs whose newest version was refused.",
            now.certificate_problems,
        )


def registry_of(collector: Collector) -> CollectorRegistry:
    """A registry with this collector alone; the process-wide one stays out of it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """The text of `/metrics`."""
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text)
    family.add_metric((), value)
    return family
