"""Fault plans on a real API server: whatever happens on the way, the same objects give the same world.

One undisturbed telling of the story in fault_world.py is recorded; from it come the plans: every fault at every write
that was made, and on every watch. After each the state must equal the undisturbed one, nothing may have been created
more often or deleted more often, what belongs to others must be as it was, and nothing may have been refused by RBAC.
A plan that is not reached fails the run: it would prove nothing.

A run takes a sample of the plans (CULVERT_FAULT_PLANS, 6 by default; CULVERT_FAULT_SEED chooses which);
`make faults` takes all of them. CULVERT_FAULT_MATCH takes those whose name holds that text, and CULVERT_FAULT_PART, as
2/5, a part of them.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from .differing import differences
from .fault_proxy import WATCH_FAULTS, WRITE_FAULTS, Fault, made, plans
from .fault_world import ENDING, Story
from .relay_ear import RelayEar
from .ways import Ways

AT_ONCE = 2
"""Each story has an operator, a proxy and a namespace of its own, and waits most of its time."""
SAMPLE = os.environ.get("CULVERT_FAULT_PLANS", "6")
SEED = os.environ.get("CULVERT_FAULT_SEED", "1")
MATCH = os.environ.get("CULVERT_FAULT_MATCH", "")
PART, _, PARTS = os.environ.get("CULVERT_FAULT_PART", "1/1").partition("/")

pytestmark = pytest.mark.timeout(0 if SAMPLE == "all" else 600)


Tell = Callable[[Fault | None], Awaitable[tuple[Story, Any]]]


@pytest.fixture
def tell(to_the_server: Ways) -> Iterator[Tell]:
    """Tell the story once with a fault (or none): the story, and the state that it came to or an error's text."""
    numbers = itertools.count(1)
    ear = RelayEar()

    async def once(fault: Fault | None) -> tuple[Story, Any]:
        story = Story(to_the_server, next(numbers), fault, ear)
        try:
            return story, await story.tell()
        except TimeoutError:
            return story, None

    yield once
    ear.close()


def alarms(story: Story, state: Any, recorded: Story, wanted: Any) -> list[str]:
    """What is not as it is without a fault."""
    found = [*story.failures, *story.proxy.refused]
    found += differences(wanted, state) if state is not None else []
    for word, now, usual in zip(
        ("created", "deleted"), made(story.proxy.writes), made(recorded.proxy.writes), strict=True
    ):
        found += [f"{path} was {word} {times} times" for path, times in now.items() if times > usual[path]]
    return found


def test_d01_d02_d03_d04_d05_d07_after_every_fault_the_state_is_that_of_an_undisturbed_run(
    tell: Tell, record_property: Callable[[str, object], None]
) -> None:
    outcome: Counter[str] = Counter()
    alarmed: dict[str, list[str]] = {}

    async def run() -> tuple[int, int]:
        recorded, wanted = await tell(None)
        assert recorded.ear is not None
        assert alarms(recorded, wanted, recorded, wanted) == []
        for state in wanted.values():
            assert state["zone's other key"] == "left alone"
            assert "taken IN A 192.0.2.99 ; somebody else's" in state["zone"]
        assert wanted["ended"]["revoked"] == [["NAME/main", [recorded.ear.address]]]
        assert (+recorded.proxy.watched_gone).keys() == ENDING
        possible = plans(recorded.proxy)
        assert len(possible) > 100
        print(f"recorded: {len(recorded.proxy.writes)} writes, {len(possible)} plans", flush=True)
        assert {fault.what for fault in possible} == {*WRITE_FAULTS, *WATCH_FAULTS}
        chosen = [fault for fault in possible if MATCH in str(fault)][int(PART) - 1 :: int(PARTS)]
        if SAMPLE != "all":
            chosen = random.Random(SEED).sample(chosen, min(len(chosen), int(SAMPLE)))
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(fault: Fault) -> None:
            async with slots:
                started = time.monotonic()
                story, state = await tell(fault)
            found = alarms(story, state, recorded, wanted)
            if not story.proxy.fired:
                found = ["was not reached: the story was told without it", *found]
            outcome["alarmed" if found else "passed"] += 1
            if found:
                alarmed[str(fault)] = found
            number, took = outcome.total(), time.monotonic() - started
            ending = "alarmed" if found else "passed"
            print(f"{number}/{len(chosen)} {ending} in {took:.1f} s: {fault} {found or ''}", flush=True)

        await asyncio.gather(*map(one, chosen))
        return len(possible), len(chosen)

    possible, chosen = asyncio.run(run())
    told = ", ".join(f"{count} {ending}" for ending, count in sorted(outcome.items()))
    record_property("summary", f"fault plans: {possible} possible, {chosen} run: {told}")
    assert alarmed == {}
    assert outcome["passed"] == chosen > 0
