"""Keeping connectors as they are: for a Tunnel that does not follow the operator (``imageUpdatePolicy: Manual``).

Responsible for: remembering the Pod template beside the Deployment's own, with what the Tunnel asked for when it was
made, and saying whether it still holds. Must not know: what a template looks like.
Invariant: while the Tunnel asks for the same, an operator of another version gives the same template, so that no Pod is
replaced, and none is started with arguments of another version than its image's. A template that was edited by hand is
put back, as every child is.
"""

from __future__ import annotations

import json
from typing import Any

from culvert_operator.api.meta import Raw, mapping, text, texts
from culvert_operator.api.tunnel import Connector
from culvert_operator.children.metadata import digest, with_annotation

KEPT = "culvert.dev/pod-template"
MAX_KEPT = 64 * 1024
"""Characters; a longer template is not remembered (annotations have 256 KiB together)."""
_ASKED = (
    "grace_seconds",
    "image",
    "image_pull_secrets",
    "resources",
    "node_selector",
    "tolerations",
    "affinity",
    "topology_spread",
    "pod_labels",
    "pod_annotations",
    "log_level",
    "log_format",
    "priority_class",
)
"""What of a Tunnel's ``connector`` a Pod is made of."""


def kept(existing: Raw | None, connector: Connector) -> Raw | None:
    """The template that the Deployment was applied with, if the Tunnel asks for the same now; else None."""
    annotations = texts(mapping((existing or {}).get("metadata")).get("annotations"))
    try:
        found = mapping(json.loads(annotations.get(KEPT, "")))
    except ValueError:
        return None
    template = mapping(found.get("template"))
    return template if template and text(found.get("asked")) == asked(connector) else None


def remembering(deployment: dict[str, Any], connector: Connector) -> Raw:
    """The Deployment with what :func:`kept` reads."""
    found = {"asked": asked(connector), "template": deployment["spec"]["template"]}
    written = json.dumps(found, sort_keys=True, separators=(",", ":"))
    return with_annotation(deployment, KEPT, written) if len(written) <= MAX_KEPT else deployment


def asked(connector: Connector) -> str:
    """A digest of what Pods are made of; what is not set is left out, so that a field of a later version changes none.

    An empty tuple is something that a person wrote, for ``topology_spread``.
    """
    values = ((name, getattr(connector, name)) for name in _ASKED)
    return digest({name: value for name, value in values if value or value == ()})
