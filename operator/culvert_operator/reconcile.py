"""One Tunnel's work: gather, plan, carry out, until there is nothing left to do.

Responsible for: the order in which a plan is carried out (see :mod:`culvert_operator.world`), and when to stop.
Must not know: why anything is planned.
Invariants: nothing is written that the plan does not hold; a plan's later steps are only carried out when the earlier
ones that they rest on were; work that does not settle ends in a retry, never in a loop.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from culvert_operator.aside import Aside
from culvert_operator.cluster.apply import Hand, Outcome
from culvert_operator.cluster.client import APIError, Client
from culvert_operator.cluster.events import post
from culvert_operator.dns.provider import Result
from culvert_operator.gather import Gatherer
from culvert_operator.issue import config_map, credential_secret
from culvert_operator.issuer import Issuer
from culvert_operator.keys import ChildKey, ObjectKey
from culvert_operator.leadership.fence import Fence, NotLeader
from culvert_operator.metrics import Metrics
from culvert_operator.publishing import Publishing
from culvert_operator.revoking.herald import Herald
from culvert_operator.worker import Retry
from culvert_operator.world import FinalizerOp, Plan, Revoke, Snapshot, StatusPatch
from culvert_protocol.keys import generate_key

MAX_ROUNDS = 20
AT_ONCE = 8

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciler:
    """Works on one key at a time; give :meth:`work` to the workers."""

    client: Client
    hand: Hand
    gatherer: Gatherer
    publishing: Publishing
    issuer: Issuer
    herald: Herald
    metrics: Metrics
    fence: Fence
    aside: Aside
    plan: Callable[[Snapshot], Plan]
    looks: Callable[[ObjectKey], None]
    now: Callable[[], float]
    instance: str
    refused: dict[ObjectKey, dict[ChildKey, str]] = field(default_factory=dict)

    async def work(self, key: ObjectKey) -> float | None:
        """Bring one Tunnel's world to rest; seconds until time alone makes new work, or None. Raises Retry."""
        for _ in range(MAX_ROUNDS):
            self.looks(key)
            try:
                snapshot = await self.gatherer.snapshot(key, self.refused.get(key, {}))
            except APIError as error:
                raise Retry(f"the cluster cannot be read: {error}", after=error.retry_after or 0.0) from error
            if snapshot is None:
                return None
            planned = await self.aside.run(self.plan, snapshot)
            if self._forget(key, planned):
                continue
            self._observe(snapshot)
            if snapshot.dns is not None and snapshot.dns.error is None:
                self.metrics.dns.figures(key, planned.dns_figures)
            if planned.is_empty:
                return planned.requeue_after
            outcome = await self._carry_out(planned, snapshot)
            self.metrics.wrote(outcome.written)
            changed = self._remember(key, outcome)
            if not outcome.written and not changed:
                if outcome.errors:
                    raise Retry("; ".join(outcome.errors[:3]), after=outcome.retry_after)
                return planned.requeue_after
        raise Retry(f"the work does not settle within {MAX_ROUNDS} rounds")

    def _observe(self, snapshot: Snapshot) -> None:
        held = snapshot.credential
        known = snapshot.tunnel is not None and held is not None and held.expires_at > 0
        self.metrics.credential(snapshot.key, float(held.expires_at) if held is not None and known else None)

    def _forget(self, key: ObjectKey, planned: Plan) -> bool:
        """Let go of refusals of what is no longer to be written; whether there were any."""
        before: Mapping[ChildKey, str] = self.refused.get(key, {})
        after = {c: said for c, said in before.items() if c in planned.children}
        if after:
            self.refused[key] = after
        else:
            self.refused.pop(key, None)
        return after != before

    def _remember(self, key: ObjectKey, outcome: Outcome) -> bool:
        """Keep what was refused for good, for the next snapshots; whether that is news."""
        before: Mapping[ChildKey, str] = self.refused.get(key, {})
        after = {c: said for c, said in before.items() if c not in outcome.accepted} | outcome.refused
        if after:
            self.refused[key] = after
        else:
            self.refused.pop(key, None)
        return after != before

    async def _carry_out(self, planned: Plan, snapshot: Snapshot) -> Outcome:
        outcome = Outcome()
        if not await self._secure(planned, outcome):
            return outcome
        await _each(planned.claims, lambda claim: self.hand.claim(claim, outcome))
        if planned.claims and outcome.written:
            return outcome
        if planned.revocation is not None:
            await self._revoke(planned.revocation, outcome)
        await self._children(planned, outcome)
        done: set[tuple[str, ObjectKey]] = set()

        async def write(status: StatusPatch) -> None:
            if await self.hand.status(status, outcome):
                done.add((status.kind, status.key))

        await _each(planned.statuses, write)
        await self._dns(planned, snapshot, outcome)
        pending = {(status.kind, status.key) for status in planned.statuses} - done
        # An Event tells of a transition; one that was not written down will be told when it is.
        told = [event for event in planned.events if (event.kind, event.key) not in pending]
        await _each(told, lambda event: post(self.client, event, now=self.now(), instance=self.instance))

        async def let_go(op: FinalizerOp) -> None:
            await self.hand.finalizer(op, outcome, add=False)

        await _each(planned.finalizers_remove, let_go)
        return outcome

    async def _secure(self, planned: Plan, outcome: Outcome) -> bool:
        """Add the finalizers; whether to go on. Nothing is claimed for a binding without one, so that a binding that
        cannot have one (somebody's admission refuses it) holds up no other; for a Tunnel without one nothing is made.
        """
        bare: list[FinalizerOp] = []

        async def secure(op: FinalizerOp) -> None:
            if not await self.hand.finalizer(op, outcome, add=True):
                bare.append(op)

        await _each(planned.finalizers_add, secure)
        return not any(op.kind == "Tunnel" for op in bare)

    async def _revoke(self, wanted: Revoke, outcome: Outcome) -> None:
        try:
            await self.herald.record(wanted)
        except APIError as error:
            outcome.failed(f"the revocation of {wanted.tunnel}", error)
        else:
            outcome.written += 1

    async def _children(self, planned: Plan, outcome: Outcome) -> None:
        if planned.credential is not None:
            secret = credential_secret(
                planned.credential,
                issuer=self.issuer.key,
                key=generate_key(),
                jti=secrets.token_hex(16),
                issuer_id=self.issuer.issuer_id,
            )
            await self.hand.apply(secret, outcome)
        if planned.configuration is not None:
            document = await self.aside.run(
                config_map, planned.configuration, issuer=self.issuer.key, issuer_id=self.issuer.issuer_id
            )
            await self.hand.apply(document, outcome)
        for child in planned.apply:
            await self.hand.apply(child, outcome)
        for unwanted in planned.delete:
            await self.hand.delete(unwanted, outcome)

    async def _dns(self, planned: Plan, snapshot: Snapshot, outcome: Outcome) -> None:
        if not planned.dns:
            return
        try:
            self.fence.left()
        except NotLeader as error:
            outcome.errors.append(f"DNS: {error}")
            return
        results, wait = await self.publishing.apply(snapshot.key, planned.dns)
        for result in results:
            fields = {"tunnel": str(snapshot.key), "name": result.name, "action": result.action.value}
            if result.result is Result.FAILED:
                known = snapshot.dns.failures.get(result.name) if snapshot.dns is not None else None
                outcome.written += known != result.message  # news for a condition
                outcome.errors.append(f"DNS {result.name}: {result.message}")
                _log.warning("a DNS name was not changed", extra={"fields": fields | {"reason": result.message}})
            else:
                outcome.written += 1
                _log.info("a DNS name was changed", extra={"fields": fields | {"result": result.result.value}})
        if wait and not results:
            outcome.errors.append("DNS waits after failures")
        outcome.retry_after = max(outcome.retry_after, wait)


async def _each(items: Iterable[T], do: Callable[[T], Awaitable[None]]) -> None:
    """``do`` for each item, a few at once: writes of objects that have nothing to do with one another."""
    left = iter(items)

    async def some() -> None:
        for item in left:
            await do(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())
