"""DNS by hand: what a Tunnel's ``dns`` block would do, asked and done from a command line.

Responsible for: a ``dns`` block in a file → provider; the plan for some hostnames; what an owner id has; taking that
away. Must not know: argparse, Kubernetes.
Invariants: the same planner, registry and rules as the operator's: other people's records are never changed. Nothing is
written unless :func:`carry_out` is called.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from culvert_operator.api.dns import BLOCKS, DNSSettings, parse_dns
from culvert_operator.dns.endpoint import Endpoint, Published
from culvert_operator.dns.names import check_owner
from culvert_operator.dns.plan import DNSPlan, DNSView, plan_zones, split_targets
from culvert_operator.dns.provider import ChangeResult, Objects, ProviderConfig, ProviderError, provider
from culvert_operator.dns.providers.zonefile import FileText
from culvert_operator.dns.registry import Registry

_FIELDS = frozenset(
    {"ownerId", "policy", "ttl", "target", "zones", "adopt", "onUnavailable", "withdrawAfterSeconds", *BLOCKS}
)


class ConsoleError(Exception):
    """What was asked cannot be done; the text is a sentence."""


class FileSecret:
    """A secret in a file, read at each use."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def value(self) -> str:
        """The file's text."""
        try:
            return self._path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ProviderError(f"the secret file {self._path} cannot be read: {error}.") from error


@dataclass(frozen=True, slots=True)
class Console:
    """A ``dns`` block with its provider, and the owner id to work for."""

    settings: DNSSettings
    registry: Registry
    owner: str

    async def view(self, names: Collection[str]) -> DNSView:
        """The zones now. Raises ConsoleError when they cannot be read."""
        view = await self.registry.view(names)
        if view.error is not None:
            raise ConsoleError(f"The zones cannot be read: {view.error}")
        return view

    def wanted(self, hostnames: Collection[str], resource: str) -> tuple[Endpoint, ...]:
        """The endpoints of some hostnames. Raises ConsoleError without a target."""
        target, addresses = self.settings.target_hostname, self.settings.target_addresses
        if not target and not addresses:
            raise ConsoleError("Write where records point into the dns block: target.hostname or target.addresses.")
        found: list[Endpoint] = []
        for hostname in sorted({h.rstrip(".").lower() for h in hostnames}):
            found += split_targets(
                hostname, hostname=target or None, addresses=addresses, ttl=self.settings.ttl, resource=resource
            )
        return tuple(found)

    def plan(self, view: DNSView, wanted: Sequence[Endpoint]) -> DNSPlan:
        """What publishing exactly these endpoints would change."""
        listed = [Published(e.name, e.type, e.resource) for e in wanted]
        return plan_zones(
            wanted, listed=listed, view=view, owner=self.owner, policy=self.settings.policy, adopt=self.settings.adopt
        )

    def owned(self, view: DNSView, resources: Collection[str] = ()) -> tuple[Endpoint, ...]:
        """What the owner id has in the zones, of some resources or of all."""
        ours = (e for zone in view.zones for e in zone.endpoints if e.owner == self.owner)
        return tuple(e for e in ours if not resources or e.resource in resources)

    def removal(self, view: DNSView, owned: Collection[Endpoint]) -> DNSPlan:
        """What taking these endpoints away would change; who asks for it by hand has been asked already."""
        listed = {Published(e.name, e.type, e.resource) for e in owned}
        return plan_zones((), listed=listed, view=view, owner=self.owner, allowed_deletions=None)

    async def carry_out(self, plan: DNSPlan) -> tuple[ChangeResult, ...]:
        """Do it; one result per name."""
        return await self.registry.apply(plan.changes)

    async def close(self) -> None:
        """Let go of the provider."""
        await self.registry.provider.close()


def open_console(
    file: Path,
    *,
    owner: str | None,
    secret_file: Path | None = None,
    zone_file: Path | None = None,
    objects: Objects | None = None,
) -> Console:
    """The console for the ``dns`` block in ``file`` (alone, or in a Tunnel). Raises ConsoleError."""
    block = _block(file)
    settings = parse_dns(block)
    owner = owner or settings.owner_id
    if not owner:
        raise ConsoleError("Say whose records are meant: ownerId in the dns block, or --owner.")
    if (problem := check_owner(owner)) is not None:
        raise ConsoleError(f"The owner id {owner!r} cannot be used: {problem}")
    if settings.secret is not None and secret_file is None:
        raise ConsoleError(f"The dns block names the Secret {settings.secret.name}; give its value with --secret-file.")
    if settings.config_map is not None and zone_file is None:
        raise ConsoleError("The dns block names a ConfigMap; give the zone's file with --zone-file.")
    if settings.provider == "endpoints" and objects is None:
        raise ConsoleError("The dns block hands records to DNSEndpoint objects; say where they are with --namespace.")
    config = ProviderConfig(
        dict(settings.settings),
        settings.zones,
        FileText(zone_file) if zone_file is not None else None,
        FileSecret(secret_file) if secret_file is not None else None,
        objects,
    )
    try:
        return Console(settings, Registry(provider(settings.provider, config)), owner)
    except ProviderError as error:
        raise ConsoleError(f"The DNS provider cannot be made: {error}") from error


def _block(file: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConsoleError(f"{file} cannot be read: {error}") from error
    if isinstance(found, Mapping) and found.get("kind") == "Tunnel":
        spec = found.get("spec")
        found = spec.get("dns") if isinstance(spec, Mapping) else None
    if not isinstance(found, Mapping):
        raise ConsoleError(f"{file} holds no dns block; write what a Tunnel has under spec.dns, or a whole Tunnel.")
    unknown = sorted(str(key) for key in found.keys() - _FIELDS)
    if unknown:
        raise ConsoleError(f"{file} has the unknown key {unknown[0]!r}; a dns block has {', '.join(sorted(_FIELDS))}.")
    if len(found.keys() & BLOCKS.keys()) != 1:
        raise ConsoleError(f"{file} has to name exactly one provider, one of {', '.join(sorted(BLOCKS))}.")
    return found
