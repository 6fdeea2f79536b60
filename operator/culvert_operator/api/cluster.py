"""The Kubernetes objects that the planner reads but never writes: Namespace and Service.

Responsible for: what reference resolution and grants need to know of them. Must not know: bindings.
Invariant: unknown service types are kept as they are spelled, so that they can be refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from culvert_operator.api.meta import Raw, integer, mapping, parse_meta, sequence, text, texts
from culvert_operator.keys import ObjectKey


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace: its labels, and whether it is being deleted."""

    name: str
    labels: Mapping[str, str]
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service; ``name`` is empty for the only port of a Service."""

    name: str
    port: int
    protocol: str


@dataclass(frozen=True, slots=True)
class Service:
    """A Service: ``type`` as spelled, its ports, and whether it selects Pods."""

    key: ObjectKey
    type: str
    selects: bool
    ports: tuple[ServicePort, ...]


def parse_namespace(raw: Raw) -> Namespace:
    """A Namespace object."""
    meta = parse_meta(raw)
    return Namespace(meta.name, meta.labels, meta.deleting)


def parse_service(raw: Raw) -> Service:
    """A Service object."""
    spec = mapping(raw.get("spec"))
    ports = (mapping(p) for p in sequence(spec.get("ports")))
    return Service(
        key=parse_meta(raw).key,
        type=text(spec.get("type")) or "ClusterIP",
        selects=bool(texts(spec.get("selector"))),
        ports=tuple(
            ServicePort(text(p.get("name")), integer(p.get("port")), text(p.get("protocol")) or "TCP") for p in ports
        ),
    )
