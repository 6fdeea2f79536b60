"""The stores of everything that the operator reads, and which Tunnels a change concerns.

Responsible for: one store per kind, the reflectors that keep them, and turning a change into keys to work on.
Must not know: what is planned. Whose work a change is, :mod:`culvert_operator.relations` says.
Invariant: over-answering costs a round that writes nothing; a change is never swallowed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from culvert_ingress.hostnames import is_wildcard
from culvert_operator import relations
from culvert_operator.api.binding import Binding, parse_binding
from culvert_operator.api.claim import Claim, parse_claim
from culvert_operator.api.cluster import Namespace, Service, parse_namespace, parse_service
from culvert_operator.api.tunnel import Tunnel, parse_tunnel
from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import Client
from culvert_operator.cluster.index import Index
from culvert_operator.cluster.stores import Held, Object, Store
from culvert_operator.cluster.watch import PATIENCE, WATCH_SECONDS, Reflector
from culvert_operator.keys import ObjectKey
from culvert_operator.options import Options


class World:
    """Stores of all kinds. ``changed`` is called with every key that a change concerns."""

    def __init__(self, options: Options, changed: Callable[[ObjectKey], None]) -> None:
        self._options = options
        self._tell = changed
        # Everywhere, or in the few namespaces for which RBAC has to be granted.
        everything, children = options.scopes, options.tunnel_scopes
        self.tunnels: Store[Tunnel] = Store(kinds.TUNNEL, parse_tunnel, scopes=everything)
        self.bindings: Store[Binding] = Store(kinds.BINDING, parse_binding, scopes=everything)
        self.claims: Store[Claim] = Store(kinds.CLAIM, parse_claim)
        self.namespaces: Store[Namespace] = Store(kinds.NAMESPACE, parse_namespace)
        self.services: Store[Service] = Store(kinds.SERVICE, parse_service, scopes=everything)
        self.config_maps: Store[str] = Store(kinds.CONFIG_MAP, _version, scopes=everything)
        self.pods: Store[Object] = Store(kinds.POD, _as_is, scopes=children)
        self.children: dict[str, Store[Object]] = {
            kind.name: Store(kind, _as_is, scopes=children) for kind in kinds.CHILDREN
        }
        self.index = Index(options)
        self.tunnels.listen(self._on_tunnel)
        self.bindings.listen(self._on_binding)
        self.claims.listen(self._on_claim)
        self.namespaces.listen(self._on_namespace)
        self.services.listen(lambda before, after: self._mark(self.index.of_service(_key(before, after))))
        self.config_maps.listen(lambda before, after: self._mark(self.index.of_config_map(_key(before, after))))
        for store in self.children.values():
            store.listen(self._on_child)

    def stores(self) -> Iterator[Store[Any]]:
        """All of them."""
        yield from (self.tunnels, self.bindings, self.claims, self.namespaces, self.services, self.config_maps)
        yield self.pods
        yield from self.children.values()

    def store(self, kind: str) -> Store[Any]:
        """The store into which the answer to a write of ``kind`` belongs."""
        found: dict[str, Store[Any]] = {
            "Tunnel": self.tunnels,
            "TunnelBinding": self.bindings,
            "HostnameClaim": self.claims,
        }
        return found[kind] if kind in found else self.children[kind]

    def reflectors(self, client: Client, watch_seconds: float = WATCH_SECONDS) -> Iterator[Reflector]:
        """What keeps the stores true."""
        reflector = functools.partial(Reflector, client, watch_seconds=watch_seconds, quiet=watch_seconds * PATIENCE)
        yield reflector(self.claims)
        yield reflector(self.namespaces)
        for scope in self._options.scopes:
            yield reflector(self.tunnels, namespace=scope)
            yield reflector(self.bindings, namespace=scope)
            yield reflector(self.services, namespace=scope)
            yield reflector(self.config_maps, namespace=scope, metadata_only=True)
        for scope in self._options.tunnel_scopes:
            selector = f"{kinds.MANAGED},{kinds.TUNNEL_LABEL}"
            gone = functools.partial(self._is_gone, scope)
            yield reflector(self.pods, namespace=scope, selector=selector, gone=gone)
            for store in self.children.values():
                yield reflector(store, namespace=scope, selector=selector, gone=gone)

    def _is_gone(self, namespace: str | None) -> bool:
        """Whether a namespace is known not to be there any more, or to be going."""
        if namespace is None or not self.namespaces.synced.is_set():
            return False
        found = self.namespaces.get(ObjectKey("", namespace))
        return found is None or found.terminating

    async def synced(self) -> None:
        """Until every store has had its first list."""
        for store in self.stores():
            await store.synced.wait()

    @property
    def is_synced(self) -> bool:
        """Whether every store has had its first list."""
        return all(store.synced.is_set() for store in self.stores())

    def all_keys(self) -> frozenset[ObjectKey]:
        """Every key that there could be work for."""
        claimed = (relations.tunnels_of_claim(claim) for claim in self.claims)
        watched = (key for tunnels in claimed for key in tunnels if self._options.watches(key.namespace))
        return frozenset({*self.index.tunnels(), *watched})

    def bindings_of(self, key: ObjectKey) -> tuple[Binding, ...]:
        """The bindings that concern a Tunnel, in the order of their keys."""
        return self.index.bindings(key)

    def _mark(self, tunnels: Iterable[ObjectKey]) -> None:
        for tunnel in tunnels:
            self._tell(tunnel)

    def _on_tunnel(self, before: Held[Tunnel] | None, after: Held[Tunnel] | None) -> None:
        key = _key(before, after)
        self.index.on_tunnel(key, after.value if after is not None else None)
        self._tell(key)

    def _on_binding(self, before: Held[Binding] | None, after: Held[Binding] | None) -> None:
        self.index.on_binding(_key(before, after), after.value if after is not None else None)
        for held in (before, after):
            if held is not None:
                self._mark(relations.tunnels_of_binding(held.value, self._options))

    def _on_claim(self, before: Held[Claim] | None, after: Held[Claim] | None) -> None:
        for held in (before, after):
            if held is not None:
                # Claims are seen of everywhere: those of other operators' Tunnels are no work of ours.
                tunnels = relations.tunnels_of_claim(held.value)
                self._mark(key for key in tunnels if self._options.watches(key.namespace))
        if before is not None and (
            after is None
            or after.value.tunnel != before.value.tunnel
            or (after.value.yields and not before.value.yields)
        ):
            # A wildcard that goes or yields frees names, and a name that goes may free a wildcard over it, for Tunnels
            # that the claim does not mention.
            wide = is_wildcard(before.value.hostname)
            self._mark(self.all_keys() if wide else self.index.with_wildcards)

    def _on_namespace(self, before: Held[Namespace] | None, after: Held[Namespace] | None) -> None:
        if before is not None and after is not None and before.value == after.value:
            return
        self._mark(self.index.of_namespace(_key(before, after).name))

    def _on_child(self, before: Held[Object] | None, after: Held[Object] | None) -> None:
        for held in (before, after):
            if held is not None:
                metadata = held.raw["metadata"]
                name = (metadata.get("labels") or {}).get(kinds.TUNNEL_LABEL)
                if name:
                    self._tell(ObjectKey(metadata.get("namespace", ""), name))


def _key(before: Held[Any] | None, after: Held[Any] | None) -> ObjectKey:
    held = after or before
    assert held is not None
    metadata = held.raw["metadata"]
    return ObjectKey(metadata.get("namespace", ""), metadata["name"])


def _as_is(raw: Object) -> Object:
    return raw


def _version(raw: Object) -> str:
    return str(raw["metadata"]["resourceVersion"])
