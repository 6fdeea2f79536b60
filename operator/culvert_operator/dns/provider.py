"""The port to a DNS provider, and what a provider is made from.

Responsible for: the protocol that every provider implements, its errors, and finding providers by name.
Must not know: any provider; ownership (providers write what the registry tells them).
Invariants of every provider: ``records`` returns a zone whole or raises ProviderError, for a partial answer would be
taken for deletions; ``apply`` compares each name with ``before`` first and reports each name on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

from culvert_operator.dns.endpoint import Endpoint, RecordSet
from culvert_operator.dns.policies import Action

GROUP = "culvert.dns_providers"


class ProviderError(Exception):
    """A provider could not be made, read or written; the text is a sentence that a person can act on.

    ``retry_after`` is how many seconds the provider asked to be left alone (0: it did not say).
    """

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class RecordChange:
    """One name's step, markers included: exactly ``before`` must be there, exactly ``after`` is there afterwards.

    Both hold every record set that the step touches; a (name, type) that is only in ``after`` must be absent before.
    """

    name: str
    action: Action
    before: tuple[RecordSet, ...]
    after: tuple[RecordSet, ...]


class Result(StrEnum):
    """How a change ended; also the label of ``culvert_dns_changes_total``."""

    DONE = "success"
    CONFLICT = "conflict"
    FAILED = "error"


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """The end of one name's change. A conflict (the zone was not as planned) is cured by reading again.

    ``retry_after`` is how many seconds the provider asked to be left alone (0: it did not say).
    """

    name: str
    action: Action
    result: Result
    message: str = ""
    retry_after: float = 0.0


class DNSProvider(Protocol):
    """What the registry needs of a DNS provider."""

    async def zones(self, names: Collection[str]) -> tuple[str, ...]:
        """The zones that can be written, without trailing dots; at least those that hold one of ``names``.

        ``names`` are the hostnames of the present round, for providers that find zones by asking. Raises ProviderError.
        """
        ...

    async def records(self, zone: str) -> tuple[RecordSet, ...]:
        """Every record set of the zone. Raises ProviderError rather than leaving anything out."""
        ...

    async def apply(self, zone: str, changes: Sequence[RecordChange]) -> tuple[ChangeResult, ...]:
        """Carry out each change on its own; one result per change. Raises ProviderError when none could be tried."""
        ...

    def adjust(self, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
        """The endpoints as this provider would store them (TTL limits, its own properties), so that plans settle."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Text(Protocol):
    """A text that lives somewhere and is replaced whole: a file, or one key of a ConfigMap."""

    async def read(self) -> tuple[str, str]:
        """The text and its version. Raises ProviderError when it cannot be read or does not exist."""
        ...

    async def replace(self, text: str, *, version: str) -> bool:
        """Replace the text if it still has ``version``; False when somebody else changed it meanwhile."""
        ...


class Secret(Protocol):
    """One secret value that lives somewhere and may be rotated while a provider lives."""

    async def value(self) -> str:
        """The value as it is now, without surrounding white space. Raises ProviderError, never naming the value."""
        ...


class Objects(Protocol):
    """external-dns's DNSEndpoint objects of one namespace, as JSON. All raise ProviderError."""

    async def list(self) -> Sequence[Mapping[str, Any]]:
        """All of them; never a part."""
        ...

    async def create(self, body: Mapping[str, Any]) -> bool:
        """Make one; False when there is one of its name."""
        ...

    async def patch(self, name: str, body: Mapping[str, Any]) -> bool:
        """Merge into the one that still has the body's uid and resourceVersion; False when it has not."""
        ...

    async def delete(self, name: str, *, uid: str, version: str) -> bool:
        """Delete the one that still has this uid and resourceVersion; False when it has not."""
        ...


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """What a provider is made from: settings of the Tunnel, and what they point at, if they do.

    ``secret`` is asked before each use, so that a rotated one is taken over. ``text`` is a zone file's, ``objects``
    are the cluster's for the provider that writes objects.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    zones: tuple[str, ...] = ()
    text: Text | None = None
    secret: Secret | None = None
    objects: Objects | None = None


Create = Callable[[ProviderConfig], DNSProvider]


def provider(name: str, config: ProviderConfig) -> DNSProvider:
    """Make the provider that is registered as ``name``. Raises ProviderError with the names that there are."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ProviderError(f"there is no DNS provider {name!r} in this installation; there are: {known}.")
    create = cast(Create, found[name].load())
    return create(config)
