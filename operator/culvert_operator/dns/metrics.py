"""Metrics of DNS.

Responsible for: their names, help and labels. Must not know: where they are served, what a record is for.
Invariant: the cardinality is bounded by the number of Tunnels, actions and results, never by hostnames or zones.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from culvert_operator.dns.policies import Action
from culvert_operator.dns.provider import ChangeResult, Result


@dataclass(frozen=True, slots=True)
class Figures:
    """One Tunnel's DNS in numbers: names with our marker, names that are refused, and deletions that wait."""

    owned: int = 0
    refused: int = 0
    held: int = 0


NO_FIGURES = Figures()


class DNSMetrics:
    """The metrics, in ``registry``; Tunnels are told by (namespace, name)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        tunnel = ["namespace", "tunnel"]
        self._changes = Counter(
            "culvert_dns_changes_total",
            "Changes of DNS names that were tried.",
            ["action", "result"],
            registry=registry,
        )
        for action in Action:
            for ending in Result:
                self._changes.labels(action.value, ending.value)
        self._requests = Histogram(
            "culvert_dns_provider_duration_seconds",
            "Time that a provider took to read all zones of a Tunnel (read) or for the changes of a zone (write).",
            ["operation"],
            registry=registry,
        )
        for operation in ("read", "write"):
            self._requests.labels(operation)
        self._owned = Gauge(
            "culvert_dns_names_owned", "Names in zones with the Tunnel's owner id.", tunnel, registry=registry
        )
        self._refused = Gauge(
            "culvert_dns_names_refused",
            "Hostnames that are not published: not ours, no zone, or no valid record.",
            tunnel,
            registry=registry,
        )
        self._held = Gauge(
            "culvert_dns_deletions_held",
            "Deletions that wait for the annotation culvert.dev/allow-mass-deletion.",
            tunnel,
            registry=registry,
        )
        self._success = Gauge(
            "culvert_dns_last_success_timestamp_seconds",
            "When a Tunnel's zones were last read whole.",
            tunnel,
            registry=registry,
        )
        self._of_tunnels = (self._owned, self._refused, self._held, self._success)

    def change(self, result: ChangeResult) -> None:
        """A change was tried."""
        self._changes.labels(result.action.value, result.result.value).inc()

    def read(self, tunnel: tuple[str, str], seconds: float, *, succeeded_at: float | None) -> None:
        """A Tunnel's zones were read, whole at that moment or not (None)."""
        self._requests.labels("read").observe(seconds)
        if succeeded_at is not None:
            self._success.labels(*tunnel).set(succeeded_at)

    def wrote(self, seconds: float) -> None:
        """A zone's changes were tried."""
        self._requests.labels("write").observe(seconds)

    def figures(self, tunnel: tuple[str, str], figures: Figures) -> None:
        """A Tunnel's DNS was planned."""
        self._owned.labels(*tunnel).set(figures.owned)
        self._refused.labels(*tunnel).set(figures.refused)
        self._held.labels(*tunnel).set(figures.held)

    def forget(self, tunnel: tuple[str, str]) -> None:
        """A Tunnel has no DNS any more."""
        for gauge in self._of_tunnels:
            gauge.remove_by_labels({"namespace": tunnel[0], "tunnel": tunnel[1]})

    def clear(self) -> None:
        """Nothing is known of any Tunnel any more."""
        for gauge in self._of_tunnels:
            gauge.clear()
