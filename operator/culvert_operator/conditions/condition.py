"""``metav1.Condition``: how a condition is written and when its transition time moves.

Responsible for: merging wanted conditions into those that were read. Must not know: which conditions exist.
Invariants: the same wanted conditions over the merged ones give the merged ones again (so nothing is written at
rest); ``lastTransitionTime`` moves only when ``status`` does; conditions of other writers are kept.
Source: Kubernetes API conventions, "Typical status properties"; KEP-1623.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from culvert_operator.api.meta import Raw, mapping, sequence

Status = Literal["True", "False", "Unknown"]
MAX_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition to be shown: ``message`` is a sentence for a person (cut at 1024 characters)."""

    type: str
    status: Status
    reason: str
    message: str


def moment(now: float) -> str:
    """Epoch seconds as ``metav1.Time`` writes them: whole seconds, UTC."""
    return datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def printable(text: str) -> str:
    """``text`` on one line without control characters: much of it was written by others."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def bounded(text: str, limit: int = MAX_MESSAGE) -> str:
    """``text`` on one line, cut at ``limit`` characters with an ellipsis."""
    clean = printable(text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def by_type(status: Raw) -> dict[str, Raw]:
    """The conditions in a raw status, by their type."""
    return {c["type"]: c for c in map(mapping, sequence(status.get("conditions"))) if "type" in c}


def is_true(status: Raw, condition: str, *, generation: int) -> bool:
    """Whether a raw status says ``condition`` True for this generation of the object."""
    found = by_type(status).get(condition, {})
    return found.get("status") == "True" and found.get("observedGeneration") == generation


def merge(status: Raw, wanted: Sequence[Condition], *, generation: int, now: float) -> list[dict[str, Any]]:
    """The conditions to write over the raw ``status``: the wanted ones in their order, then those of others."""
    previous = by_type(status)
    merged: list[dict[str, Any]] = []
    for condition in wanted:
        before = previous.pop(condition.type, None)
        same = before is not None and before.get("status") == condition.status
        since = before.get("lastTransitionTime") if same and before is not None else None
        merged.append(
            {
                "type": condition.type,
                "status": condition.status,
                "observedGeneration": generation,
                "lastTransitionTime": since or moment(now),
                "reason": condition.reason,
                "message": bounded(condition.message),
            }
        )
    return [*merged, *(dict(c) for c in previous.values())]
