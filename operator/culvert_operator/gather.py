"""Gathering: the stores, the connectors' reports and the zones become one Snapshot of one Tunnel's world.

Responsible for: what is read, from where. Must not know: what it is read for.
Invariant: nothing in a Snapshot is older than the process's own last write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from culvert_ingress.document import RelayTarget
from culvert_operator import relations
from culvert_operator.api.meta import Raw
from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import Client
from culvert_operator.cluster.texts import Contents
from culvert_operator.cluster.world import World
from culvert_operator.compile import relay_target
from culvert_operator.connectors import Connectors
from culvert_operator.credentials import inspect, subject
from culvert_operator.issuer import Issuer
from culvert_operator.keys import ChildKey, ObjectKey
from culvert_operator.options import Options
from culvert_operator.publishing import Publishing
from culvert_operator.revoking.herald import Herald
from culvert_operator.world import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Gatherer:
    """Everything that can be asked."""

    client: Client
    world: World
    contents: Contents
    connectors: Connectors
    publishing: Publishing
    issuer: Issuer
    herald: Herald
    options: Options
    now: Callable[[], float]
    relays: dict[ObjectKey, RelayTarget] = field(default_factory=dict)
    """Where connectors dial, as last seen: a namespace's deletion may take the relay's CA before the Tunnel."""

    async def snapshot(self, key: ObjectKey, failures: Mapping[ChildKey, str]) -> Snapshot | None:
        """The world of one Tunnel; None while a connector is about to be heard, which will mark the key.

        Raises APIError when some of it cannot be read.
        """
        if self.connectors.reports(key) is None:
            return None
        tunnel = self.world.tunnels.get(key)
        dns = await self.publishing.view(tunnel, key, relations.hostnames(key, self.world.bindings_of(key)))
        children = await self._children(key) if tunnel is not None else self._known_children(key)
        self.contents.keep(self.world.index.config_maps)
        config_maps: dict[ObjectKey, Mapping[str, str]] = {}
        for name in relations.config_maps(tunnel, self.world.bindings_of(key)):
            data = await self.contents.get(name)
            if data is not None:
                config_maps[name] = data
        # Nothing below waits: what the stores hold is taken at one moment.
        reports = self.connectors.reports(key)
        if reports is None:
            return None
        tunnel = self.world.tunnels.get(key)
        bindings = self.world.bindings_of(key)
        namespaces = {name: self.world.namespaces.get(ObjectKey("", name)) for name in
                      {key.namespace, *(b.meta.namespace for b in bindings)}}  # fmt: skip
        services = {name: self.world.services.get(name) for name in relations.services(bindings)}
        children.update(self._known_children(key))
        secret = children.get(relations.child("Secret", key.name))
        if tunnel is None:
            self.relays.pop(key, None)
        elif isinstance(relay := relay_target(tunnel, config_maps), RelayTarget):
            self.relays[key] = relay
        return Snapshot(
            key=key,
            tunnel=tunnel,
            bindings=bindings,
            namespaces={name: found for name, found in namespaces.items() if found is not None},
            services={name: found for name, found in services.items() if found is not None},
            config_maps=config_maps,
            claims={claim.name: claim for claim in self.world.claims},
            children={name: _without_data(name, raw) for name, raw in children.items()},
            credential=inspect(secret),
            reports=reports,
            unheard=self.connectors.unheard(key),
            dns=dns if tunnel is not None and tunnel.dns is not None else None,
            installation=self.issuer.installation,
            issuer=self.issuer.public,
            options=self.options,
            now=self.now(),
            failures=failures,
            revocation=self.herald.state(subject(self.issuer.installation, key)),
            repeated=self.herald.repeated(self.relays[key]) if key in self.relays else (),
            known_relay=self.relays.get(key),
            others={other.meta.key: other for other in self.world.tunnels if other.meta.key != key},
        )

    def _known_children(self, key: ObjectKey) -> dict[ChildKey, Raw]:
        found = {}
        for child in relations.children(key.name):
            raw = self.world.children[child.kind].raw(ObjectKey(key.namespace, child.name))
            if raw is not None:
                found[child] = raw
        return found

    async def _children(self, key: ObjectKey) -> dict[ChildKey, Raw]:
        """Those that the stores hold, and those that stand at a child's name without culvert's labels."""
        found = self._known_children(key)
        tunnel = self.world.tunnels.get(key)
        scales = tunnel is not None and tunnel.connector.autoscaling is not None
        namespace = self.world.namespaces.get(ObjectKey("", key.namespace))
        # Where nothing is applied any more nothing is asked for: the operator's rights may have gone before the Tunnel.
        ends = tunnel is None or tunnel.meta.deleting or namespace is None or namespace.terminating
        if self.options.may_hold_tunnels(key.namespace) and not ends:
            for child in relations.children(key.name):
                # Most Tunnels have no autoscaler: looking for one in every round would be a request for nothing.
                if child not in found and (scales or child.kind != kinds.AUTOSCALER.name):
                    raw = await self.client.get(kinds.BY_NAME[child.kind], key.namespace, child.name)
                    if raw is not None:
                        found[child] = raw
        return found


def _without_data(key: ChildKey, raw: Raw) -> Raw:
    return {name: value for name, value in raw.items() if name != "data"} if key.kind == "Secret" else raw
