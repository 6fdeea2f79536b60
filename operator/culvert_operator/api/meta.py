"""Metadata that all objects share, as the planner needs it.

Responsible for: ``metadata`` and ``status.conditions`` → values. Must not know: kinds.
Invariant: missing fields become empty values; nothing here raises, whatever the API server answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from culvert_operator.keys import ObjectKey

Raw = Mapping[str, Any]
"""An object as JSON decodes it."""

GROUP = "culvert.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FINALIZER = "culvert.dev/cleanup"
ABANDON_RECORDS = "culvert.dev/abandon-dns-records"
"""Annotation (value ``"true"``) on a Tunnel or TunnelBinding that is being deleted: leave its records behind."""

PAUSED = "culvert.dev/paused"
"""Annotation (value ``"true"``) on a Tunnel: leave it, its children, claims and records as they are."""
ROTATE = "culvert.dev/rotate"
"""Annotation on a Tunnel: a new value asks for a new credential."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """``metadata`` of one object. ``created``, ``deleted`` and ``changed`` (when somebody last wrote anything of it but
    its status) are RFC 3339 texts of the API server (sort as time)."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    created: str
    deleted: str
    finalizers: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    changed: str = ""

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.namespace, self.name)

    @property
    def deleting(self) -> bool:
        return bool(self.deleted)

    @property
    def has_finalizer(self) -> bool:
        return FINALIZER in self.finalizers

    @property
    def paused(self) -> bool:
        return self.annotations.get(PAUSED) == "true"

    @property
    def abandons_records(self) -> bool:
        return self.annotations.get(ABANDON_RECORDS) == "true"


def mapping(value: object) -> Raw:
    """``value`` when it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: object) -> tuple[Any, ...]:
    """``value`` when it is a list, else an empty one."""
    return tuple(value) if isinstance(value, list | tuple) else ()


def text(value: object) -> str:
    """``value`` when it is a string, else ``""``."""
    return value if isinstance(value, str) else ""


def texts(value: object) -> dict[str, str]:
    """The string entries of an object of strings."""
    return {k: v for k, v in mapping(value).items() if isinstance(k, str) and isinstance(v, str)}


def integer(value: object, default: int = 0) -> int:
    """``value`` when it is an integer (and not a boolean), else ``default``."""
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def parse_meta(raw: Raw) -> Meta:
    """``metadata`` of ``raw``."""
    meta = mapping(raw.get("metadata"))
    writes = (mapping(entry) for entry in sequence(meta.get("managedFields")))
    changes = (text(entry.get("time")) for entry in writes if not entry.get("subresource"))
    created = text(meta.get("creationTimestamp"))
    return Meta(
        namespace=text(meta.get("namespace")),
        name=text(meta.get("name")),
        uid=text(meta.get("uid")),
        resource_version=text(meta.get("resourceVersion")),
        generation=integer(meta.get("generation")),
        created=created,
        changed=max(changes, default=created),
        deleted=text(meta.get("deletionTimestamp")),
        finalizers=tuple(f for f in sequence(meta.get("finalizers")) if isinstance(f, str)),
        labels=texts(meta.get("labels")),
        annotations=texts(meta.get("annotations")),
    )
