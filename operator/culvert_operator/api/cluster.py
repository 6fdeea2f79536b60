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
    """One port of a Service; ``name`` is empty for the only port of a Service.

    ``target`` is the Pods' port: its number, or its name, which may stand for another number in every Pod.
    """

    name: str
    port: int
    protocol: str
    target: int | str


@dataclass(frozen=True, slots=True)
class Service:
    """A Service: ``type`` as spelled, its ports, whether it selects Pods, and whether its name stands for the Pods'
    addresses themselves (``clusterIP: None``)."""

    key: ObjectKey
    type: str
    selects: bool
    headless: bool
    ports: tuple[ServicePort, ...]


def parse_namespace(raw: Raw) -> Namespace:
    """A Namespace object."""
    meta = parse_meta(raw)
    return Namespace(meta.name, meta.labels, meta.deleting)


def parse_service(raw: Raw) -> Service:
    """A Service object."""
    spec = mapping(raw.get("spec"))
    return Service(
        key=parse_meta(raw).key,
        type=text(spec.get("type")) or "ClusterIP",
        selects=bool(texts(spec.get("selector"))),
        headless=text(spec.get("clusterIP")) == "None",
        ports=tuple(_port(mapping(port)) for port in sequence(spec.get("ports"))),
    )


def _port(raw: Raw) -> ServicePort:
    number = integer(raw.get("port"))
    target = text(raw.get("targetPort")) or integer(raw.get("targetPort")) or number
    return ServicePort(text(raw.get("name")), number, text(raw.get("protocol")) or "TCP", target)
