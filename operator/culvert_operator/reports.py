"""What a connector says of itself at ``GET /v1/status``, as a value.

Responsible for: the JSON of a connector → :class:`ConnectorReport`. Must not know: how it was fetched.
Invariant: connectors are not trusted: a report of the wrong shape is ``None`` (as if it could not be reached), texts
are cut to a bound, and nothing in a report reaches a condition unbounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from culvert_operator.api.meta import integer, mapping, sequence, text

_MAX_TEXT = 256
_MAX_ITEMS = 10_000


@dataclass(frozen=True, slots=True)
class SessionReport:
    """One session to a relay. ``grant_version`` is the version that the relay answered with ROUTES_RESULT."""

    relay: str
    state: str
    probed: bool
    grant_version: int

    @property
    def serving(self) -> bool:
        return self.state == "connected" and self.probed


@dataclass(frozen=True, slots=True)
class RefusedHostname:
    """A hostname that a relay does not route to this connector, with the relay's reason token."""

    hostname: str
    relay: str
    reason: str


@dataclass(frozen=True, slots=True)
class RefusedOrigin:
    """A rule (``namespace/binding/rule``) whose service leads to addresses that the connector does not dial."""

    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class RelayError:
    """Why a relay address has no session: ``reason`` is a condition reason (RelayUnreachable, …)."""

    address: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ConnectorReport:
    """One connector's report. ``applied_version`` 0: no configuration yet. ``schemas``: documents that it can read."""

    ready: bool
    draining: bool
    applied_version: int
    config_error: str
    key_id: str
    credential_expires_at: int
    sessions: tuple[SessionReport, ...]
    refused: tuple[RefusedHostname, ...]
    errors: tuple[RelayError, ...]
    schemas: tuple[int, ...] = (1,)
    refused_origins: tuple[RefusedOrigin, ...] = ()


def _bounded(value: object) -> str:
    return text(value)[:_MAX_TEXT]


def parse_report(payload: object) -> ConnectorReport | None:
    """The decoded JSON of a report; None when it is not one (then the connector counts as unreachable)."""
    if not isinstance(payload, Mapping) or not isinstance(payload.get("ready"), bool):
        return None
    sessions = [mapping(s) for s in sequence(payload.get("sessions"))[:_MAX_ITEMS]]
    refused = [mapping(r) for r in sequence(payload.get("refusedHostnames"))[:_MAX_ITEMS]]
    origins = [mapping(o) for o in sequence(payload.get("refusedOrigins"))[:_MAX_ITEMS]]
    errors = [mapping(e) for e in sequence(payload.get("relayErrors"))[:_MAX_ITEMS]]
    return ConnectorReport(
        ready=payload["ready"],
        draining=payload.get("draining") is True,
        applied_version=integer(payload.get("appliedVersion")),
        config_error=_bounded(payload.get("configError")),
        key_id=_bounded(payload.get("keyId")),
        credential_expires_at=integer(payload.get("credentialExpiresAt")),
        sessions=tuple(
            SessionReport(
                relay=_bounded(s.get("relay")) or _bounded(s.get("address")),
                state=_bounded(s.get("state")),
                probed=s.get("probed") is True,
                grant_version=integer(s.get("grantVersion")),
            )
            for s in sessions
        ),
        refused=tuple(
            RefusedHostname(_bounded(r.get("hostname")), _bounded(r.get("relay")), _bounded(r.get("reason")))
            for r in refused
        ),
        errors=tuple(
            RelayError(_bounded(e.get("address")), _bounded(e.get("reason")), _bounded(e.get("message")))
            for e in errors
        ),
        refused_origins=tuple(RefusedOrigin(text(o.get("rule")), _bounded(o.get("message"))) for o in origins),
        schemas=tuple(s for s in sequence(payload.get("schemas"))[:16] if isinstance(s, int)) or (1,),
    )
