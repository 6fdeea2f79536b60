"""The connectors' HorizontalPodAutoscaler, and handing the number of Pods over to it.

Responsible for: the autoscaler's object, and who owns ``spec.replicas`` of the Deployment. Must not know: Pods.
Invariant: the number of Pods never drops while it is handed over. An apply that stops naming a field which nobody else
owns removes it, and the API server's default for replicas is 1: so a second field manager takes the present number
first, and only then culvert's own stops naming it.
"""

from __future__ import annotations

from typing import Any

from culvert_operator.api.meta import Raw, integer, mapping, sequence, text
from culvert_operator.api.tunnel import Autoscaling, Tunnel
from culvert_operator.children.metadata import body
from culvert_operator.relations import child

FIELD_MANAGER = "culvert"
KEEPER = "culvert-replicas"
"""The field manager that keeps the number of Pods until the autoscaler changes it."""


def autoscaler(tunnel: Tunnel, wanted: Autoscaling) -> dict[str, Any]:
    """The HorizontalPodAutoscaler of the Deployment."""
    utilisation = {"type": "Utilization", "averageUtilization": wanted.cpu_percent}
    target = child("Deployment", tunnel.meta.name).name
    return body(
        "HorizontalPodAutoscaler",
        tunnel.meta,
        {
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
                "minReplicas": wanted.least,
                "maxReplicas": wanted.most,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": utilisation}}],
            }
        },
    )


def hand_over(existing: Raw | None) -> Raw | None:
    """What :data:`KEEPER` has to apply before culvert stops naming the replicas; None when nobody would miss them."""
    if existing is None:
        return None
    owners = {text(e.get("manager")) for e in map(mapping, sequence(_metadata(existing).get("managedFields")))
              if "f:replicas" in mapping(mapping(e.get("fieldsV1")).get("f:spec"))}  # fmt: skip
    if owners != {FIELD_MANAGER}:
        return None
    metadata = _metadata(existing)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")},
        "spec": {"replicas": integer(mapping(existing.get("spec")).get("replicas"), 1)},
    }


def _metadata(raw: Raw) -> Raw:
    return mapping(raw.get("metadata"))
