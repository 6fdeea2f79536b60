"""The operator's metrics.

Responsible for: their names, help and labels, in a registry of their own. Must not know: where they are served.
Invariants: the cardinality is bounded: by results, actions and the number of Tunnels, never by hostnames; of several
operators only the one that leads tells of Tunnels what is learnt by working on them.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from culvert_operator.api.binding import Binding
from culvert_operator.api.claim import Claim
from culvert_operator.api.meta import Raw, text
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.conditions.condition import by_type
from culvert_operator.conditions.reasons import REASONS
from culvert_operator.dns.metrics import DNSMetrics
from culvert_operator.keys import ObjectKey

CONTENT_TYPE = CONTENT_TYPE_LATEST
CONDITIONS = {
    kind: sorted({(row.type, status) for row in REASONS if row.kind == kind for status in ("True", "False", "Unknown")})
    for kind in ("Tunnel", "TunnelBinding")
}


class Metrics:
    """One operator's metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._with_credential: set[ObjectKey] = set()
        self._reconciled = Counter(
            "culvert_operator_reconcile_total",
            "Rounds of work on Tunnels, by how they ended.",
            ["result"],
            registry=self.registry,
        )
        for result in ("success", "retry", "error"):
            self._reconciled.labels(result)
        self._duration = Histogram(
            "culvert_operator_reconcile_duration_seconds",
            "Time that work on a Tunnel took, waiting for the API server included.",
            registry=self.registry,
        )
        self._depth = Gauge(
            "culvert_operator_queue_depth", "Tunnels that wait to be worked on.", registry=self.registry
        )
        self.dns = DNSMetrics(self.registry)
        self._expiry = Gauge(
            "culvert_credential_expiry_timestamp_seconds",
            "When a Tunnel's credential ends.",
            ["namespace", "tunnel"],
            registry=self.registry,
        )
        self._relay = Gauge(
            "culvert_relay_certificate_expiry_timestamp_seconds",
            "When the certificate that the operator makes for the in-cluster relay ends; 0: it makes none.",
            registry=self.registry,
        )
        self._written = Counter(
            "culvert_operator_writes_total", "Objects written to the API server for Tunnels.", registry=self.registry
        )

        self._requests = Counter(
            "culvert_operator_api_requests_total",
            "Requests to the API server by method (or WATCH) and status; 0: no answer, or a watch that broke off.",
            ["verb", "code"],
            registry=self.registry,
        )
        self._bindings = Gauge(
            "culvert_operator_bindings",
            "TunnelBindings by condition and its status.",
            ["condition", "status"],
            registry=self.registry,
        )
        self._tunnels = Gauge(
            "culvert_operator_tunnels",
            "Tunnels by condition and its status.",
            ["condition", "status"],
            registry=self.registry,
        )
        self._claims = Gauge("culvert_operator_claims", "HostnameClaims that there are.", registry=self.registry)
        self._waiting = Gauge(
            "culvert_operator_claims_waiting",
            "Bindings that wait for a hostname or port that another one holds, counted once for each.",
            registry=self.registry,
        )
        self._leader = Gauge(
            "culvert_operator_leader", "1 while this operator leads; the others stand by.", registry=self.registry
        )
        self._fenced = Counter(
            "culvert_operator_fenced_writes_total",
            "Writes that were held back because the operator did not, or no longer, lead.",
            registry=self.registry,
        )

        self._revocations = Gauge(
            "culvert_operator_revocations",
            "Tunnels whose older credentials are void, by whether every relay has confirmed that.",
            ["state"],
            registry=self.registry,
        )
        self._deliveries = Counter(
            "culvert_operator_revocation_deliveries_total",
            "Attempts to tell a relay of a revocation, by how they ended.",
            ["result"],
            registry=self.registry,
        )
        for state in ("confirmed", "pending"):
            self._revocations.labels(state)
        for result in ("confirmed", "failed"):
            self._deliveries.labels(result)

    def revocations(self, entries: int, untold: int) -> None:
        """So many are repeated, of which so many some relay has not confirmed."""
        self._revocations.labels("confirmed").set(entries - untold)
        self._revocations.labels("pending").set(untold)

    def delivered(self, result: str) -> None:
        """An attempt to tell a relay ended."""
        self._deliveries.labels(result).inc()

    def finished(self, result: str, seconds: float) -> None:
        """A key's work ended."""
        self._reconciled.labels(result).inc()
        self._duration.observe(seconds)

    def depth(self, dirty: int) -> None:
        """So many keys wait."""
        self._depth.set(dirty)

    def credential(self, tunnel: ObjectKey, expires_at: float | None) -> None:
        """A Tunnel's credential ends then; None: it has none (any more)."""
        if expires_at is not None:
            self._expiry.labels(*tunnel).set(expires_at)
            self._with_credential.add(tunnel)
        elif tunnel in self._with_credential:
            self._with_credential.remove(tunnel)
            self._expiry.remove(*tunnel)

    def relay_certificate(self, expires_at: float) -> None:
        """The in-cluster relay's certificate ends then."""
        self._relay.set(expires_at)

    def answered(self, verb: str, code: int) -> None:
        """The API server answered with ``code``; 0: it did not."""
        self._requests.labels(verb, code).inc()

    def holds(self, *, tunnels: Iterable[Tunnel], bindings: Iterable[Binding], claims: Iterable[Claim]) -> None:
        """The objects that there are now."""
        _count(self._tunnels, CONDITIONS["Tunnel"], (tunnel.status for tunnel in tunnels))
        _count(self._bindings, CONDITIONS["TunnelBinding"], (binding.status for binding in bindings))
        waiting = [len(claim.waiting) for claim in claims]
        self._claims.set(len(waiting))
        self._waiting.set(sum(waiting))

    def leads(self, leading: bool) -> None:
        """Whether this process leads now."""
        self._leader.set(leading)

    def stands_by(self) -> None:
        """Another operator leads: what this one last knew of Tunnels and relays grows old, and is no longer told."""
        self._expiry.clear()
        self._with_credential.clear()
        self._relay.set(0)
        self.revocations(0, 0)
        self.dns.clear()

    def fenced(self) -> None:
        """A write was held back."""
        self._fenced.inc()

    def wrote(self, count: int) -> None:
        """So many objects were written."""
        self._written.inc(count)

    def exposition(self) -> bytes:
        """What a scrape gets."""
        return generate_latest(self.registry)


def _count(gauge: Gauge, known: Iterable[tuple[str, str]], statuses: Iterable[Raw]) -> None:
    """Set one series for each condition and status of ours; somebody else's conditions make none."""
    counts = Counts((name, text(c.get("status"))) for status in statuses for name, c in by_type(status).items())
    for condition, status in known:
        gauge.labels(condition, status).set(counts[condition, status])
