"""What culvert may do to a zone: three policies, each a filter over the planner's actions.

Responsible for: the table of policies, and the brake on mass deletion.
Must not know: why an action was planned, how it is carried out.
Invariant: a policy only takes actions away.
"""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """What a change does to the records of one name; also the label of ``culvert_dns_changes_total``."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Policy(StrEnum):
    """How much culvert may change in a zone, in external-dns's words."""

    SYNC = "sync"
    UPSERT_ONLY = "upsert-only"
    CREATE_ONLY = "create-only"


ALLOWED: dict[Policy, frozenset[Action]] = {
    Policy.SYNC: frozenset({Action.CREATE, Action.UPDATE, Action.DELETE}),
    Policy.UPSERT_ONLY: frozenset({Action.CREATE, Action.UPDATE}),
    Policy.CREATE_ONLY: frozenset({Action.CREATE}),
}

# Above both of these one round's deletions look like a mistake rather than like work.
DELETIONS_WITHOUT_ASKING = 20


def deletes_too_much(deletions: int, owned: int) -> bool:
    """Whether ``deletions`` names of ``owned`` in one round must be asked for first."""
    return deletions > DELETIONS_WITHOUT_ASKING and 2 * deletions > owned
