"""References the other way round: which Tunnels refer to a Service, a ConfigMap or a namespace, and their bindings.

Responsible for: answering without looking at every object, kept up to date object by object. Must not know: what is
done for a Tunnel. What refers to what, :mod:`culvert_operator.relations` says.
Invariant: after the same objects, the same answers, in whatever order they came; a change costs what the changed object
holds, not what the cluster holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from culvert_ingress.hostnames import is_wildcard
from culvert_operator import relations
from culvert_operator.api.binding import Binding
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.keys import ObjectKey
from culvert_operator.options import Options

K = TypeVar("K")


class _Sets(Generic[K]):
    """Things → who refers to them; what nobody refers to takes no room."""

    def __init__(self) -> None:
        self.sets: dict[K, set[ObjectKey]] = defaultdict(set)

    def add(self, things: Iterable[K], who: ObjectKey) -> None:
        for thing in things:
            self.sets[thing].add(who)

    def remove(self, things: Iterable[K], who: ObjectKey) -> None:
        for thing in things:
            referring = self.sets.get(thing)
            if referring is not None:
                referring.discard(who)
                if not referring:
                    del self.sets[thing]

    def get(self, thing: K) -> Iterable[ObjectKey]:
        return self.sets.get(thing, ())


@dataclass(frozen=True, slots=True)
class _Refers:
    """All that one binding refers to."""

    tunnels: frozenset[ObjectKey]
    services: frozenset[ObjectKey]
    config_maps: frozenset[ObjectKey]
    wildcards: bool


class Index:
    """Feed it every change of a Tunnel and of a binding."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._refers: dict[ObjectKey, _Refers] = {}  # by binding
        self._tunnel_config_maps: dict[ObjectKey, frozenset[ObjectKey]] = {}  # by Tunnel
        self._bindings: dict[ObjectKey, dict[ObjectKey, Binding]] = defaultdict(dict)  # Tunnel → its bindings
        self._sorted: dict[ObjectKey, tuple[Binding, ...]] = {}
        self._services: _Sets[ObjectKey] = _Sets()  # → bindings
        self._config_maps: _Sets[ObjectKey] = _Sets()  # → bindings
        self._namespaces: _Sets[str] = _Sets()  # → bindings
        self._wildcards: _Sets[ObjectKey] = _Sets()  # Tunnel → bindings with a wildcard
        self._shared: _Sets[ObjectKey] = _Sets()  # ConfigMap → Tunnels that name it themselves

    def on_binding(self, key: ObjectKey, after: Binding | None) -> None:
        """A binding changed, or (None) went."""
        before, now = self._refers.get(key), _refers(after, self._options) if after is not None else None
        if before is not None:
            for tunnel in before.tunnels:
                self._sorted.pop(tunnel, None)
                self._bindings[tunnel].pop(key, None)
                if not self._bindings[tunnel]:
                    del self._bindings[tunnel]
        if after is not None and now is not None:
            for tunnel in now.tunnels:
                self._sorted.pop(tunnel, None)
                self._bindings[tunnel][key] = after
        if before == now:
            return
        if before is not None:
            self._refer(key, before, _Sets.remove)
            del self._refers[key]
        if now is not None:
            self._refer(key, now, _Sets.add)
            self._refers[key] = now

    def _refer(
        self, key: ObjectKey, refers: _Refers, change: Callable[[_Sets[Any], Iterable[Any], ObjectKey], None]
    ) -> None:
        change(self._services, refers.services, key)
        change(self._config_maps, refers.config_maps, key)
        change(self._namespaces, (key.namespace,), key)
        change(self._wildcards, refers.tunnels if refers.wildcards else (), key)

    def on_tunnel(self, key: ObjectKey, after: Tunnel | None) -> None:
        """A Tunnel changed, or (None) went."""
        self._shared.remove(self._tunnel_config_maps.pop(key, frozenset()), key)
        if after is not None:
            named = frozenset((*relations.config_maps(after, ()), *_zone_config_maps(after)))
            self._tunnel_config_maps[key] = named
            self._shared.add(named, key)

    def bindings(self, tunnel: ObjectKey) -> tuple[Binding, ...]:
        """The bindings that concern a Tunnel, in the order of their keys."""
        held = self._bindings.get(tunnel)
        if held is None:
            return ()
        found = self._sorted.get(tunnel)
        if found is None:
            found = self._sorted[tunnel] = tuple(held[key] for key in sorted(held))
        return found

    def tunnels(self) -> Iterator[ObjectKey]:
        """Every key that a binding or a Tunnel object stands for."""
        yield from {*self._bindings, *self._tunnel_config_maps}

    def of_service(self, service: ObjectKey) -> frozenset[ObjectKey]:
        """The Tunnels with a rule that names a Service."""
        return self._tunnels_of(self._services.get(service))

    def of_config_map(self, config_map: ObjectKey) -> frozenset[ObjectKey]:
        """The Tunnels that name a ConfigMap, or have a rule that does."""
        return self._tunnels_of(self._config_maps.get(config_map)) | frozenset(self._shared.get(config_map))

    def of_namespace(self, namespace: str) -> frozenset[ObjectKey]:
        """The Tunnels in a namespace, and those with bindings in it."""
        standing = frozenset(key for key in self.tunnels() if key.namespace == namespace)
        return self._tunnels_of(self._namespaces.get(namespace)) | standing

    @property
    def with_wildcards(self) -> frozenset[ObjectKey]:
        """The Tunnels with a rule for a wildcard."""
        return frozenset(self._wildcards.sets)

    @property
    def config_maps(self) -> frozenset[ObjectKey]:
        """Every ConfigMap that somebody names."""
        return frozenset((*self._config_maps.sets, *self._shared.sets))

    def _tunnels_of(self, bindings: Iterable[ObjectKey]) -> frozenset[ObjectKey]:
        return frozenset(tunnel for key in bindings for tunnel in self._refers[key].tunnels)


def _refers(binding: Binding, options: Options) -> _Refers:
    return _Refers(
        relations.tunnels_of_binding(binding, options),
        relations.services((binding,)),
        relations.config_maps(None, (binding,)),
        any(is_wildcard(rule.hostname) for rule in binding.rules),
    )


def _zone_config_maps(tunnel: Tunnel) -> Iterable[ObjectKey]:
    """The ConfigMap that holds a Tunnel's zone, if one does."""
    if tunnel.dns is not None and tunnel.dns.config_map is not None:
        yield ObjectKey(tunnel.meta.namespace, tunnel.dns.config_map.name)
