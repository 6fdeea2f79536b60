"""The Tunnel as the planner sees it.

Responsible for: a raw Tunnel → :class:`Tunnel`, with the defaults of the CRD's schema for objects that were stored
before a default existed. Must not know: conditions, grants' meaning.
Invariant: never raises; the API server has validated the object already, and what it could not check is checked by
the modules that use the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from culvert_operator.api.dns import DNSSettings, KeyRef, key_ref, parse_dns
from culvert_operator.api.meta import Meta, Raw, integer, mapping, parse_meta, sequence, text, texts

DEFAULT_REPLICAS = 2
DEFAULT_SESSIONS = 4
DEFAULT_GRACE_SECONDS = 30
DEFAULT_CPU_PERCENT = 70


@dataclass(frozen=True, slots=True)
class Relay:
    """Where connectors dial: ``host:port`` texts, the CA's ConfigMap (None: system roots), the name to verify, and the
    URL of the HTTP proxy to go through."""

    addresses: tuple[str, ...]
    ca: KeyRef | None
    server_name: str | None
    proxy_url: str | None = None


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """Between how many Pods, and at which average CPU use (percent of the request)."""

    least: int
    most: int
    cpu_percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector:
    """The connectors' Deployment. The Kubernetes types inside stay as JSON: culvert passes them on as they are.

    ``follows_operator``: without an ``image`` of its own the Deployment takes the operator's whenever that changes.
    With ``autoscaling``, ``replicas`` is not used.
    """

    replicas: int
    sessions: int
    grace_seconds: int
    image: str
    image_pull_secrets: tuple[str, ...]
    resources: Raw | None
    node_selector: Mapping[str, str]
    tolerations: tuple[Any, ...]
    affinity: Raw | None
    topology_spread: tuple[Any, ...] | None
    pod_labels: Mapping[str, str]
    pod_annotations: Mapping[str, str]
    log_level: str
    log_format: str
    priority_class: str
    follows_operator: bool
    autoscaling: Autoscaling | None


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    """One ``matchExpressions`` entry of a label selector."""

    key: str
    operator: str
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class Grant:
    """Who may bind (namespaces ``source`` Same, All or Selector), and to which hostname patterns and TCP ports."""

    source: str
    match_labels: Mapping[str, str]
    match_expressions: tuple[LabelRequirement, ...]
    hostnames: tuple[str, ...]
    max_rules: int
    tcp_ports: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """One Tunnel; ``status`` is the raw status as it was read."""

    meta: Meta
    relay: Relay
    connector: Connector
    grants: tuple[Grant, ...]
    fallback_status: int
    dns: DNSSettings | None
    retains_records: bool
    status: Raw


def parse_tunnel(raw: Raw) -> Tunnel:
    """A Tunnel object."""
    spec = mapping(raw.get("spec"))
    return Tunnel(
        meta=parse_meta(raw),
        relay=_relay(mapping(spec.get("relay"))),
        connector=_connector(mapping(spec.get("connector"))),
        grants=tuple(_grant(mapping(g)) for g in sequence(spec.get("grants"))),
        fallback_status=integer(mapping(spec.get("fallback")).get("httpStatus"), 404),
        dns=parse_dns(mapping(spec["dns"])) if isinstance(spec.get("dns"), Mapping) else None,
        retains_records=spec.get("deletionPolicy") == "Retain",
        status=mapping(raw.get("status")),
    )


def _strings(value: object) -> tuple[str, ...]:
    return tuple(v for v in sequence(value) if isinstance(v, str))


def _relay(spec: Raw) -> Relay:
    return Relay(
        addresses=_strings(spec.get("addresses")),
        ca=key_ref(spec.get("caConfigMapRef"), "ca.crt"),
        server_name=text(spec.get("serverName")) or None,
        proxy_url=text(spec.get("proxyURL")) or None,
    )


def _connector(spec: Raw) -> Connector:
    spread = spec.get("topologySpreadConstraints")
    resources, affinity = mapping(spec.get("resources")), mapping(spec.get("affinity"))
    secrets = (mapping(s) for s in sequence(spec.get("imagePullSecrets")))
    return Connector(
        replicas=integer(spec.get("replicas"), DEFAULT_REPLICAS),
        sessions=integer(spec.get("sessions"), DEFAULT_SESSIONS),
        grace_seconds=integer(spec.get("gracePeriodSeconds"), DEFAULT_GRACE_SECONDS),
        image=text(spec.get("image")),
        image_pull_secrets=tuple(text(s.get("name")) for s in secrets if text(s.get("name"))),
        resources=resources or None,
        node_selector=texts(spec.get("nodeSelector")),
        tolerations=sequence(spec.get("tolerations")),
        affinity=affinity or None,
        topology_spread=sequence(spread) if isinstance(spread, list) else None,
        pod_labels=texts(spec.get("podLabels")),
        pod_annotations=texts(spec.get("podAnnotations")),
        log_level=text(spec.get("logLevel")) or "info",
        log_format=text(spec.get("logFormat")) or "json",
        priority_class=text(spec.get("priorityClassName")),
        follows_operator=spec.get("imageUpdatePolicy") != "Manual",
        autoscaling=_autoscaling(spec.get("autoscaling")),
    )


def _autoscaling(value: object) -> Autoscaling | None:
    if not isinstance(value, Mapping):
        return None
    least = integer(value.get("minReplicas"), DEFAULT_REPLICAS)
    most = max(least, integer(value.get("maxReplicas"), least))
    return Autoscaling(least, most, integer(value.get("targetCPUUtilizationPercentage"), DEFAULT_CPU_PERCENT))


def _grant(spec: Raw) -> Grant:
    namespaces = mapping(spec.get("namespaces"))
    selector = mapping(namespaces.get("selector"))
    expressions = (mapping(e) for e in sequence(selector.get("matchExpressions")))
    return Grant(
        source=text(namespaces.get("from")) or "Same",
        match_labels=texts(selector.get("matchLabels")),
        match_expressions=tuple(
            LabelRequirement(text(e.get("key")), text(e.get("operator")), frozenset(_strings(e.get("values"))))
            for e in expressions
        ),
        hostnames=_strings(spec.get("hostnames")),
        max_rules=integer(spec.get("maxRules"), 200),
        tcp_ports=tuple(found for item in _strings(spec.get("tcpPorts")) if (found := _range(item)) is not None),
    )


def _range(item: str) -> tuple[int, int] | None:
    """A port or a range of ports; None for what the schema would have refused."""
    low, _, high = item.partition("-")
    if not all(part.isascii() and part.isdigit() for part in (low, high or low)):
        return None
    return int(low), int(high or low)
