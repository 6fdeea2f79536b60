"""Pools: the sessions of one tunnel that present the same grant.

Responsible for grouping sessions by connector, in slot order. Must not know hostnames' owners or frames.
Invariant: a pool without sessions is removed by whoever holds it, so a table never points at an empty one.
"""

from collections.abc import Collection, Mapping
from typing import Final, Protocol

from culvert_protocol.statements import TunnelIdentity
from culvert_relay.routing.terms import Terms

_NO_TERMS: Final[Mapping[str, Terms]] = {}


class Member(Protocol):
    """A session, as routing sees it."""

    @property
    def connector(self) -> str:
        """The connector's process id (a uuid): sessions of one connector share its fate."""

    @property
    def slot(self) -> int:
        """Its number among that connector's sessions."""

    @property
    def usable(self) -> bool:
        """Whether it may get new streams: proven, not draining, its last probe came back."""

    @property
    def streams(self) -> Collection[object]:
        """The streams that are open on it."""

    @property
    def stream_limit(self) -> int:
        """How many streams it may have at once."""

    @property
    def queued(self) -> int:
        """Bytes waiting to be sent."""

    @property
    def bulk_streams(self) -> int:
        """How many of its streams move bulk data."""


class Connector:
    """The sessions of one connector process, by slot."""

    __slots__ = ("id", "sessions")

    def __init__(self, connector: str) -> None:
        self.id = connector
        self.sessions: list[Member] = []

    @property
    def outstanding(self) -> int:
        """Streams open on all its sessions: the load that placement compares."""
        total = 0
        for session in self.sessions:
            total += len(session.streams)
        return total


class Pool:
    """Sessions of `tunnel` with the grant `version`; `claims` are the accepted names (pattern → claimedAt).

    `terms` has those of names that are not open to all; a TCP port stands among the names as `tcp:<port>`.
    """

    __slots__ = ("claims", "connectors", "terms", "tunnel", "version")

    def __init__(
        self,
        tunnel: TunnelIdentity,
        version: int,
        claims: Mapping[str, int],
        terms: Mapping[str, Terms] = _NO_TERMS,
    ) -> None:
        self.tunnel = tunnel
        self.version = version
        self.claims = claims
        self.terms = terms
        self.connectors: list[Connector] = []

    def add(self, session: Member) -> None:
        """Adds a session behind those of lower slots."""
        for connector in self.connectors:
            if connector.id == session.connector:
                break
        else:
            connector = Connector(session.connector)
            self.connectors.append(connector)
        connector.sessions.append(session)
        connector.sessions.sort(key=lambda member: member.slot)

    def remove(self, session: Member) -> None:
        """Removes a session, and its connector with the last one."""
        for connector in self.connectors:
            if session in connector.sessions:
                connector.sessions.remove(session)
                if not connector.sessions:
                    self.connectors.remove(connector)
                return

    def sessions(self) -> list[Member]:
        """All of them."""
        return [session for connector in self.connectors for session in connector.sessions]
