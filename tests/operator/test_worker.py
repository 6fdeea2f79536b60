"""Workers: one at a time per key, no mark lost, failures backed off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from culvert_operator.backoff import Backoff
from culvert_operator.keys import ObjectKey
from culvert_operator.worker import Retry, Watcher, Workers

A, B = ObjectKey("ns", "a"), ObjectKey("ns", "b")


async def idle(workers: Workers) -> None:
    async with asyncio.timeout(10):
        while not workers.idle:  # noqa: ASYNC110 (each turn of the loop is the condition)
            await asyncio.sleep(0)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


def test_many_marks_before_work_are_one_run_and_a_mark_during_work_is_another() -> None:
    async def scenario() -> None:
        runs: list[ObjectKey] = []

        async def work(key: ObjectKey) -> None:
            runs.append(key)
            if len(runs) == 1:
                workers.mark(key)
                workers.mark(key)
            await asyncio.sleep(0)

        workers = Workers(work)
        for _ in range(5):
            workers.mark(A)
        workers.resume()
        await idle(workers)
        assert runs == [A, A]
        await workers.close()

    run(scenario)


def test_what_was_marked_before_the_work_looks_again_is_no_reason_for_another_run() -> None:
    async def scenario() -> None:
        runs: list[str] = []

        async def work(key: ObjectKey) -> None:
            runs.append("run")
            for _ in range(2):
                workers.looks(key)
                runs.append("look")
                await asyncio.sleep(0)
                workers.mark(key)  # an own write
            workers.looks(key)
            await asyncio.sleep(0)
            if len(runs) < 4:
                workers.mark(key)  # somebody else's, while the last look was under way

        workers = Workers(work)
        workers.mark(A)
        workers.resume()
        await idle(workers)
        assert runs == ["run", "look", "look"] * 2
        workers.looks(A)  # of a key without work: nothing
        assert workers.idle
        await workers.close()

    run(scenario)


def test_nothing_starts_before_the_stores_are_complete() -> None:
    async def scenario() -> None:
        runs: list[ObjectKey] = []

        async def work(key: ObjectKey) -> None:
            runs.append(key)

        workers = Workers(work)
        workers.mark(A)
        for _ in range(5):
            await asyncio.sleep(0)
        assert runs == []
        workers.resume()
        await idle(workers)
        assert runs == [A]
        await workers.close()

    run(scenario)


def test_one_key_is_never_worked_on_twice_at_once_and_a_slow_key_holds_up_no_other() -> None:
    async def scenario() -> None:
        gate, busy, done = asyncio.Event(), 0, asyncio.Event()

        async def work(key: ObjectKey) -> None:
            nonlocal busy
            if key == B:
                done.set()
                return
            busy += 1
            assert busy == 1
            await gate.wait()
            busy -= 1

        workers = Workers(work)
        workers.resume()
        workers.mark(A)
        await asyncio.sleep(0)
        workers.mark(A)
        workers.mark(B)
        await done.wait()
        gate.set()
        await idle(workers)
        await workers.close()

    run(scenario)


def test_failures_are_retried_by_themselves_and_counted_by_result(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        results: list[str] = []
        failures: list[Exception] = [Retry("not yet", after=0.01), ValueError("a bug")]
        finished = asyncio.Event()

        async def work(key: ObjectKey) -> None:
            if failures:
                raise failures.pop(0)
            finished.set()

        workers = Workers(work, watcher=Watcher(finished=lambda result, seconds: results.append(result)))
        workers.resume()
        workers.mark(A)
        await finished.wait()
        await idle(workers)
        assert results == ["retry", "error", "success"]
        await workers.close()

    run(scenario)
    assert "a bug" in caplog.text


def test_the_seconds_that_work_returns_are_a_timer_and_a_mark_before_replaces_it() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        moments: list[float] = []
        twice = asyncio.Event()

        async def work(key: ObjectKey) -> float | None:
            moments.append(loop.time())
            if len(moments) == 2:
                twice.set()
                return None
            return 0.05

        workers = Workers(work)
        workers.resume()
        workers.mark(A)
        await twice.wait()
        assert moments[1] - moments[0] >= 0.04
        await idle(workers)
        await asyncio.sleep(0.1)
        assert len(moments) == 2
        await workers.close()

    run(scenario)


def test_the_queues_depth_is_told_and_returns_to_zero() -> None:
    async def scenario() -> None:
        depths: list[int] = []

        async def work(key: ObjectKey) -> None: ...

        workers = Workers(work, watcher=Watcher(depth=depths.append))
        workers.mark(A)
        workers.mark(B)
        workers.resume()
        await idle(workers)
        assert max(depths) == 2
        assert depths[-1] == 0
        await workers.close()

    run(scenario)


def test_no_more_than_the_limit_work_at_once() -> None:
    async def scenario() -> None:
        busy, most = 0, 0

        async def work(key: ObjectKey) -> None:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0)
            busy -= 1

        workers = Workers(work, concurrency=3)
        for number in range(20):
            workers.mark(ObjectKey("ns", str(number)))
        workers.resume()
        await idle(workers)
        assert most == 3
        await workers.close()

    run(scenario)


def test_closing_ends_work_and_ignores_later_marks() -> None:
    async def scenario() -> None:
        ended = asyncio.Event()

        async def work(key: ObjectKey) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        workers = Workers(work)
        workers.resume()
        workers.mark(A)
        await asyncio.sleep(0)
        await workers.close()
        workers.mark(B)
        assert ended.is_set()
        assert workers.idle

    run(scenario)


def test_delays_double_up_to_a_limit_and_start_small_after_a_success() -> None:
    backoff = Backoff(first=1, most=8, random=lambda: 1.0)
    assert [backoff.next() for _ in range(6)] == [1, 2, 4, 8, 8, 8]
    backoff.reset()
    assert backoff.next() == 1
    low = Backoff(first=1, most=8, random=lambda: 0.0)
    assert [low.next() for _ in range(5)] == [0.5, 1, 2, 4, 4]
    for _ in range(5000):
        assert 0 < low.next() <= 8
