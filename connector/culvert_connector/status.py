"""The report that `GET /v1/status` gives: what the operator believes of a connector, and how waiting for news works.

Responsible for the report's shape, its ETag, and for waking those who wait for another one. Pure but for the event
that wakes them.

Must not know: HTTP, sessions' lives, the sources.

Invariants: two reports with equal content have equal ETags, whenever they were made (nothing volatile is in them);
nothing secret is in them. A waiter never sleeps over a change.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

SCHEMA_KEY: Final = "schemas"


@dataclass(frozen=True, slots=True)
class SessionReport:
    """One session. `grant_version` is the version the relay answered last, 0 before."""

    relay: str
    address: str
    slot: int
    state: str
    probed: bool
    grant_version: int


@dataclass(frozen=True, slots=True)
class RefusedHostname:
    """A hostname that a relay does not serve for this tunnel; `reason` is ROUTES_RESULT's token."""

    hostname: str
    relay: str
    reason: str
    version: int


@dataclass(frozen=True, slots=True)
class RefusedOrigin:
    """A rule whose service leads to addresses that may not be dialled; `message` is a sentence."""

    rule: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RelayProblem:
    """An address without a session, and why: RelayUnreachable, RelayRefused or CertificateError."""

    address: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything in the status. `credential_expires_at` is unix seconds."""

    connector_id: str
    version: str
    schemas: tuple[int, ...]
    ready: bool
    draining: bool
    applied_version: int
    config_error: str | None
    key_id: str | None
    credential_expires_at: int | None
    sessions: tuple[SessionReport, ...] = ()
    refused: tuple[RefusedHostname, ...] = ()
    refused_origins: tuple[RefusedOrigin, ...] = ()
    relay_errors: tuple[RelayProblem, ...] = ()

    def dumps(self) -> bytes:
        """The body: JSON, lists in a fixed order."""
        value = {
            "connectorId": self.connector_id,
            "version": self.version,
            SCHEMA_KEY: list(self.schemas),
            "ready": self.ready,
            "draining": self.draining,
            "appliedVersion": self.applied_version,
            "configError": self.config_error,
            "keyId": self.key_id,
            "credentialExpiresAt": self.credential_expires_at,
            "sessions": [
                {
                    "relay": one.relay,
                    "address": one.address,
                    "slot": one.slot,
                    "state": one.state,
                    "probed": one.probed,
                    "grantVersion": one.grant_version,
                }
                for one in sorted(self.sessions, key=lambda one: (one.slot, one.address, one.relay))
            ],
            "refusedHostnames": [
                {"hostname": one.hostname, "relay": one.relay, "reason": one.reason, "version": one.version}
                for one in sorted(set(self.refused), key=lambda one: (one.hostname, one.relay, one.reason, one.version))
            ],
            "refusedOrigins": [
                {"rule": one.rule, "reason": one.reason, "message": one.message}
                for one in sorted(self.refused_origins, key=lambda one: one.rule)
            ],
            "relayErrors": [
                {"address": one.address, "reason": one.reason, "message": one.message}
                for one in sorted(self.relay_errors, key=lambda one: one.address)
            ],
        }
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def etag(body: bytes) -> str:
    """A strong entity tag (RFC 9110 8.8.3), with its quotes."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


class StatusBoard:
    """The current report, and a place to wait for the next one."""

    def __init__(self, make: Callable[[], Report]) -> None:
        self._make = make
        self._changed = asyncio.Event()
        self._latest: tuple[bytes, str] | None = None

    def changed(self) -> None:
        """Something that the report shows may have changed."""
        self._latest = None
        self._changed.set()
        self._changed = asyncio.Event()

    def current(self) -> tuple[bytes, str]:
        """The report's body and ETag, made anew only after a change."""
        if self._latest is None:
            body = self._make().dumps()
            self._latest = (body, etag(body))
        return self._latest

    async def other_than(self, known: str, *, within: float) -> tuple[bytes, str] | None:
        """The first report whose ETag is not `known`; None when there was none for `within` seconds."""
        try:
            async with asyncio.timeout(within):
                while True:
                    changed = self._changed
                    body, tag = self.current()
                    if tag != known:
                        return body, tag
                    await changed.wait()
        except TimeoutError:
            return None
