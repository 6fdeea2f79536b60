"""Carrying out the operations of a plan, each with its precondition.

Responsible for: the request of each operation, and what its answer means for the round. Must not know: why an
operation was planned.
Invariants: every answer to a write goes into the store before the next round gathers; after a conflict the object is
read again, so that the next round plans on what is there; one object's failure never keeps another from being written.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

from culvert_operator.api.meta import FINALIZER
from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import JSON_PATCH, APIError, Client
from culvert_operator.cluster.kinds import Kind
from culvert_operator.cluster.stores import Object, uid_of, version_of
from culvert_operator.cluster.world import World
from culvert_operator.keys import ChildKey, ObjectKey
from culvert_operator.world import Apply, ChildDelete, ClaimCreate, ClaimOp, ClaimUpdate, FinalizerOp, StatusPatch

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """How a round went. ``written``: writes that were done, or lost to somebody else's, so that gathering again is
    due. ``errors``: sentences of writes that failed otherwise. ``refused``: children that will be refused again."""

    written: int = 0
    errors: list[str] = field(default_factory=list)
    refused: dict[ChildKey, str] = field(default_factory=dict)
    accepted: set[ChildKey] = field(default_factory=set)
    retry_after: float = 0.0

    def failed(self, what: str, error: APIError) -> None:
        """Note a failure."""
        self.errors.append(f"{what}: {error}")
        self.retry_after = max(self.retry_after, error.retry_after or 0.0)


class Hand:
    """Writes to one API server, seen at once in the stores of ``world``."""

    def __init__(self, client: Client, world: World) -> None:
        self._client = client
        self._world = world

    async def _write(self, kind: Kind, key: ObjectKey, request: Awaitable[Object], outcome: Outcome) -> Object | None:
        """One write whose answer is the object. None when it was not done; a conflict counts as written."""
        store = self._world.store(kind.name)
        try:
            raw = await request
        except APIError as error:
            # 422 is how a JSON patch's failed test is told; 404: it went meanwhile.
            if error.conflict or error.status in (404, 422):
                fresh = await self._again(kind, key, outcome)
                changed = fresh is None or fresh != store.raw(key)
                self._refresh(kind, key, fresh)
                if error.conflict or (error.status == 404 and changed) or (error.status == 422 and changed):
                    outcome.written += 1
                    return None
            outcome.failed(f"{kind.name} {key}", error)
            return None
        store.wrote(raw)
        outcome.written += 1
        _wrote(kind, key)
        return raw

    async def _again(self, kind: Kind, key: ObjectKey, outcome: Outcome) -> Object | None:
        try:
            return await self._client.get(kind, key.namespace or None, key.name)
        except APIError as error:
            outcome.failed(f"{kind.name} {key}", error)
            return self._world.store(kind.name).raw(key)

    def _refresh(self, kind: Kind, key: ObjectKey, fresh: Object | None) -> None:
        store = self._world.store(kind.name)
        held = store.raw(key)
        if fresh is not None:
            store.wrote(fresh)
        elif held is not None:
            store.deleted(key, uid_of(held))

    async def finalizer(self, op: FinalizerOp, outcome: Outcome, *, add: bool) -> bool:
        """Add or remove culvert's finalizer; False when it was not done."""
        kind = kinds.BY_NAME[op.kind]
        left = [f for f in op.finalizers if f != FINALIZER]
        patch: list[dict[str, Any]] = [
            {"op": "test", "path": "/metadata/uid", "value": op.uid},
            {"op": "test", "path": "/metadata/finalizers", "value": list(op.finalizers) or None},
            {"op": "add", "path": "/metadata/finalizers", "value": [*left, FINALIZER] if add else left},
        ]
        request = self._client.patch(kind, *op.key, patch, content_type=JSON_PATCH)
        raw = await self._write(kind, op.key, request, outcome)
        if raw is None:
            return False
        metadata = raw["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            self._world.store(op.kind).deleted(op.key, op.uid)
        return True

    async def claim(self, op: ClaimOp, outcome: Outcome) -> None:
        """Create, replace or delete a HostnameClaim."""
        kind, key = kinds.CLAIM, ObjectKey("", op.name)
        if isinstance(op, ClaimCreate):
            await self._write(kind, key, self._client.create(kind, None, op.body), outcome)
        elif isinstance(op, ClaimUpdate):
            await self._write(kind, key, self._client.replace(kind, None, op.name, op.body), outcome)
        else:
            try:
                await self._client.delete(kind, None, op.name, uid=op.uid, resource_version=op.resource_version)
            except APIError as error:
                if not error.conflict and error.status != 404:
                    outcome.failed(f"HostnameClaim {op.name}", error)
                    return
                self._refresh(kind, key, await self._again(kind, key, outcome))
            else:
                self._world.claims.deleted(key, op.uid)
            outcome.written += 1

    async def apply(self, op: Apply, outcome: Outcome) -> None:
        """Server-side apply of a child."""
        kind, key = kinds.BY_NAME[op.key.kind], ObjectKey(op.namespace, op.key.name)
        store = self._world.store(kind.name)
        held = store.raw(key)
        try:
            raw = await self._client.apply(kind, op.namespace, op.body, manager=op.manager)
        except APIError as error:
            if error.conflict:
                self._refresh(kind, key, await self._again(kind, key, outcome))
                outcome.written += 1
            else:
                if error.final:
                    outcome.refused[op.key] = str(error)
                outcome.failed(f"{kind.name} {key}", error)
            return
        store.wrote(raw)
        outcome.accepted.add(op.key)
        if held is None or version_of(held) != version_of(raw):
            outcome.written += 1
            _wrote(kind, key)
        else:
            # The server sees no difference where the planner does: planning again would not see less of it.
            fields = {"kind": kind.name, "object": str(key)}
            _log.warning("an apply changed nothing", extra={"fields": fields})

    async def delete(self, op: ChildDelete, outcome: Outcome) -> None:
        """Delete a child."""
        kind, key = kinds.BY_NAME[op.key.kind], ObjectKey(op.namespace, op.key.name)
        try:
            await self._client.delete(kind, op.namespace, op.key.name, uid=op.uid, resource_version=op.resource_version)
        except APIError as error:
            if not error.conflict and error.status != 404:
                outcome.failed(f"{kind.name} {key}", error)
                return
            self._refresh(kind, key, await self._again(kind, key, outcome))
        else:
            self._world.store(kind.name).deleted(key, op.uid)
        outcome.written += 1

    async def status(self, op: StatusPatch, outcome: Outcome) -> bool:
        """Patch a status; False when it was not done."""
        kind = kinds.BY_NAME[op.kind]
        request = self._client.patch(kind, *op.key, op.patch, subresource="status")
        return await self._write(kind, op.key, request, outcome) is not None


def _wrote(kind: Kind, key: ObjectKey) -> None:
    _log.debug("written", extra={"fields": {"kind": kind.name, "object": str(key).removeprefix("/")}})
