"""The order in which a plan is carried out, and what holds up what."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from culvert_operator.api.meta import FINALIZER
from culvert_operator.aside import Aside
from culvert_operator.cluster.apply import Outcome
from culvert_operator.keys import ChildKey, ObjectKey
from culvert_operator.metrics import Metrics
from culvert_operator.reconcile import Reconciler
from culvert_operator.worker import Retry
from culvert_operator.world import Apply, FinalizerOp, Plan, StatusPatch

MAIN, GOOD, BAD = ObjectKey("sys", "main"), ObjectKey("shop", "good"), ObjectKey("shop", "bad")
CHILD = Apply(ChildKey("Role", "main-connector"), "sys", {})


class Hand:
    """Writes everything but the finalizer of what ``refuses``; says what was written."""

    def __init__(self, refuses: ObjectKey) -> None:
        self.refuses = refuses
        self.wrote: list[Any] = []

    async def finalizer(self, op: FinalizerOp, outcome: Outcome, *, add: bool) -> bool:
        if op.key == self.refuses:
            outcome.errors.append(f"{op.key} is refused")
            return False
        return self._write(op.key, outcome)

    async def apply(self, op: Apply, outcome: Outcome) -> None:
        self._write(op.key.kind, outcome)

    async def status(self, op: StatusPatch, outcome: Outcome) -> bool:
        return self._write(f"status of {op.key}", outcome)

    def _write(self, what: Any, outcome: Outcome) -> bool:
        self.wrote.append(what)
        outcome.written += 1
        return True


class Gatherer:
    """A snapshot that says nothing; None in the rounds that a test names."""

    def __init__(self, *, waits: bool = False) -> None:
        self.waits = waits

    async def snapshot(self, key: ObjectKey, failures: Any) -> Any:
        return None if self.waits else Snapshot()


class Snapshot:
    key, tunnel, credential, dns = MAIN, None, None, None


def reconciler(hand: Hand, plans: list[Plan], looks: list[ObjectKey], *, waits: bool = False) -> Reconciler:
    given = iter(plans)
    parts: Any = dict.fromkeys(("client", "publishing", "issuer", "herald", "fence"))
    return Reconciler(
        **parts,
        hand=hand,  # type: ignore[arg-type]
        gatherer=Gatherer(waits=waits),  # type: ignore[arg-type]
        metrics=Metrics(),
        aside=Aside(),
        plan=lambda snapshot: next(given),
        looks=looks.append,
        now=lambda: 0.0,
        instance="test",
    )


def secures(*operations: tuple[Any, ObjectKey]) -> Plan:
    added = tuple(FinalizerOp(kind, key, f"uid-{key}", (FINALIZER,)) for kind, key in operations)
    return Plan(finalizers_add=added, apply=(CHILD,), statuses=(StatusPatch("TunnelBinding", GOOD, {}),))


def test_a_binding_that_cannot_have_a_finalizer_holds_up_no_other_and_is_tried_again() -> None:
    hand = Hand(BAD)
    looks: list[ObjectKey] = []
    only = FinalizerOp("TunnelBinding", BAD, "uid", ())
    plans = [secures(("TunnelBinding", BAD), ("TunnelBinding", GOOD)), Plan(finalizers_add=(only,))]
    with pytest.raises(Retry, match="shop/bad is refused"):
        asyncio.run(reconciler(hand, plans, looks).work(MAIN))
    assert hand.wrote == [GOOD, "Role", f"status of {GOOD}"]
    assert looks == [MAIN, MAIN]


def test_nothing_is_made_for_a_tunnel_that_cannot_have_a_finalizer() -> None:
    hand = Hand(MAIN)
    with pytest.raises(Retry, match="sys/main is refused"):
        asyncio.run(reconciler(hand, [secures(("Tunnel", MAIN))], []).work(MAIN))
    assert hand.wrote == []


def test_while_a_connector_was_not_heard_nothing_is_planned() -> None:
    assert asyncio.run(reconciler(Hand(BAD), [], [], waits=True).work(MAIN)) is None


def test_work_that_never_settles_ends_in_a_retry() -> None:
    endless = [Plan(apply=(CHILD,))] * 100
    with pytest.raises(Retry, match="does not settle"):
        asyncio.run(reconciler(Hand(BAD), endless, []).work(MAIN))


def test_the_loop_goes_on_while_a_plan_is_made() -> None:
    went_on = threading.Event()

    def plan(snapshot: Any) -> Plan:
        assert went_on.wait(10), "the loop stood still: leases, probes and watches with it"
        return Plan(requeue_after=7.0)

    async def others() -> None:
        went_on.set()

    async def both() -> float | None:
        found, _ = await asyncio.gather(replace(reconciler(Hand(BAD), [], []), plan=plan).work(MAIN), others())
        return found

    assert asyncio.run(both()) == 7.0
