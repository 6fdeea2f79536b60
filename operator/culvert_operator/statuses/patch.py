"""Status patches and Events: what has to be written so that an object's status says what it should.

Responsible for: the difference between a stored status and a wanted one, and the transitions in it that are worth an
Event. Must not know: what a status means. Invariants: no difference, no patch; an Event only where a stored
condition changes its status or its reason, so that a restart repeats none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from culvert_operator.api.meta import Meta, Raw, text
from culvert_operator.conditions.condition import by_type
from culvert_operator.conditions.reasons import warns
from culvert_operator.world import Event, StatusPatch

Kind = Literal["Tunnel", "TunnelBinding"]


def status_patch(kind: Kind, meta: Meta, stored: Raw, wanted: Raw) -> StatusPatch | None:
    """The merge patch (RFC 7396) from ``stored`` to ``wanted``, fenced by uid and resourceVersion; None if equal."""
    changed = difference(stored, wanted)
    if not changed:
        return None
    metadata = {"uid": meta.uid, "resourceVersion": meta.resource_version}
    return StatusPatch(kind, meta.key, {"metadata": metadata, "status": changed})


def difference(stored: Raw, wanted: Raw) -> dict[str, Any]:
    """The merge patch from one JSON object to another; empty when they are equal. Lists are replaced whole."""
    changed: dict[str, Any] = {}
    for key, value in wanted.items():
        before = stored.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            inner = difference(before, value)
            if inner:
                changed[key] = inner
        elif value != before or key not in stored:
            changed[key] = value
    for key in stored:
        if key not in wanted:
            changed[key] = None
    return changed


def transitions(kind: Kind, meta: Meta, stored: Raw, wanted: Raw) -> tuple[Event, ...]:
    """Events for conditions that enter a state worth a warning, and for the object becoming ready."""
    before, found = by_type(stored), []
    for name, condition in by_type(wanted).items():
        was = before.get(name, {})
        status, reason, message = (text(condition.get(key)) for key in ("status", "reason", "message"))
        if (text(was.get("status")), text(was.get("reason"))) == (status, reason):
            continue
        if name == "Ready":
            if status == "True":
                found.append(Event(kind, meta.key, meta.uid, "Normal", reason, message))
        elif warns(kind, name, reason):
            found.append(Event(kind, meta.key, meta.uid, "Warning", reason, message))
    return tuple(found)
