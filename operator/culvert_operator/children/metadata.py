"""Metadata of a Tunnel's children: labels, the owner reference, and whose an existing object is.

Responsible for: names, labels, ownership. Must not know: specs.
Invariant: an object that is not this Tunnel's is never applied over.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from culvert_operator.api.meta import API_VERSION, Meta, Raw, mapping, sequence, texts
from culvert_operator.keys import ChildKey
from culvert_operator.relations import child

TUNNEL_LABEL = "culvert.dev/tunnel"
MANAGED_BY = "app.kubernetes.io/managed-by"
APPLIED = "culvert.dev/applied"
"""Annotation: a digest of what was applied. It tells a field that culvert stopped sending, which comparing cannot."""
ROTATED = "culvert.dev/rotated"
"""Annotation of the credential Secret: a digest of the Tunnel's annotation that it was last issued for."""

API_VERSIONS = {
    "ServiceAccount": "v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "Secret": "v1",
    "ConfigMap": "v1",
    "Deployment": "apps/v1",
    "PodDisruptionBudget": "policy/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
}


def selector_labels(tunnel: str) -> dict[str, str]:
    """The labels by which Deployment and PodDisruptionBudget find the Pods (immutable in a Deployment)."""
    return {
        "app.kubernetes.io/name": "culvert-connector",
        "app.kubernetes.io/instance": tunnel,
        TUNNEL_LABEL: tunnel,
    }


def labels(tunnel: str) -> dict[str, str]:
    """The labels of every child and Pod."""
    return {**selector_labels(tunnel), "app.kubernetes.io/component": "connector", MANAGED_BY: "culvert"}


def owner_reference(tunnel: Meta) -> dict[str, Any]:
    """The reference by which Kubernetes deletes the child with its Tunnel."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Tunnel",
        "name": tunnel.name,
        "uid": tunnel.uid,
        "controller": True,
    }


def body(kind: str, tunnel: Meta, content: Raw) -> dict[str, Any]:
    """A child as it is applied: ``content`` with type and metadata, and the digest of all of it."""
    rendered: dict[str, Any] = {
        "apiVersion": API_VERSIONS[kind],
        "kind": kind,
        "metadata": {
            "name": child(kind, tunnel.name).name,
            "namespace": tunnel.namespace,
            "labels": labels(tunnel.name),
            "ownerReferences": [owner_reference(tunnel)],
        },
        **content,
    }
    rendered["metadata"]["annotations"] = {APPLIED: digest(rendered)}
    return rendered


def with_annotation(rendered: Raw, name: str, value: str) -> Raw:
    """``rendered`` with one more annotation."""
    metadata = mapping(rendered.get("metadata"))
    annotations = {**mapping(metadata.get("annotations")), name: value}
    return {**rendered, "metadata": {**metadata, "annotations": annotations}}


def digest(rendered: Raw) -> str:
    """A short digest of a JSON object; equal objects give equal digests."""
    return hashlib.sha256(json.dumps(rendered, sort_keys=True).encode()).hexdigest()[:16]


def at_version(rendered: Raw, existing: Raw | None) -> Raw:
    """``rendered``, fenced by the resourceVersion of the object that it is applied over."""
    version = mapping((existing or {}).get("metadata")).get("resourceVersion")
    if not version:
        return rendered
    return {**rendered, "metadata": {**rendered["metadata"], "resourceVersion": version}}


def is_ours(existing: Raw, tunnel: Meta) -> bool:
    """Whether an existing object is this Tunnel's child.

    By its controller; without any (somebody edited it) by its labels, so that the reference can be restored.
    """
    meta = mapping(existing.get("metadata"))
    controllers = [o for o in map(mapping, sequence(meta.get("ownerReferences"))) if o.get("controller") is True]
    if controllers:
        return any(o.get("uid") == tunnel.uid for o in controllers)
    found = texts(meta.get("labels"))
    return found.get(MANAGED_BY) == "culvert" and found.get(TUNNEL_LABEL) == tunnel.name


def conflict(key: ChildKey, namespace: str) -> str:
    """The sentence for an object that stands where a child should."""
    return (
        f"{key} exists in {namespace} and is not this Tunnel's; it is left as it is. "
        "Rename or delete it, or give the Tunnel another name."
    )
