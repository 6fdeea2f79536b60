"""Marks that come in bursts are few when they leave, and none is lost."""

from __future__ import annotations

import asyncio

import looptime

from culvert_operator.keys import ObjectKey
from culvert_operator.throttle import Throttle

A, B = ObjectKey("ns", "a"), ObjectKey("ns", "b")


def test_the_first_mark_is_passed_on_at_once_and_a_burst_after_it_once() -> None:
    passed: list[tuple[ObjectKey, float]] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        throttle = Throttle(lambda key: passed.append((key, round(loop.time() - start, 3))), seconds=1.0)
        throttle(A)
        for _ in range(5):
            await asyncio.sleep(0.1)
            throttle(A)
        throttle(B)
        await asyncio.sleep(5)
        throttle(A)
        throttle(A)
        throttle.close()
        await asyncio.sleep(5)
        assert throttle._waiting == {}

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(scenario())
    assert passed == [(A, 0.0), (B, 0.5), (A, 1.0), (A, 5.5)]
