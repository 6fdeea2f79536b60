"""Workers: one at a time for each key, and work only while a key is dirty.

Responsible for: coalescing, backoff after failures, timers. Must not know: what the work is.
Invariants: a mark is never lost (one that comes during work leads to another run); one key's failures and slowness
never hold up another key, but for a limit on how many work at once; no state is kept for keys without work.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from culvert_operator.backoff import Backoff
from culvert_operator.keys import ObjectKey

CONCURRENCY = 8
FIRST_RETRY = 0.5
LAST_RETRY = 60.0

_log = logging.getLogger(__name__)


class Retry(Exception):
    """The work is not done; come back after a while. The text is for the log."""

    def __init__(self, message: str, *, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


@dataclass(slots=True)
class _Key:
    backoff: Backoff
    dirty: bool = False
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Watcher:
    """What metrics want to know; replaced by a real one in a running operator."""

    finished: Callable[[str, float], None] = field(default=lambda result, seconds: None)
    depth: Callable[[int], None] = field(default=lambda dirty: None)


class Workers:
    """Runs ``work(key)`` for dirty keys. Work returns seconds after which to run again anyway, or None."""

    def __init__(
        self,
        work: Callable[[ObjectKey], Awaitable[float | None]],
        *,
        watcher: Watcher | None = None,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._work = work
        self._watcher = watcher or Watcher()
        self._keys: dict[ObjectKey, _Key] = {}
        self._slots = asyncio.Semaphore(concurrency)
        self._dirty = 0
        self._paused = True
        self._closed = False

    def mark(self, key: ObjectKey) -> None:
        """This key has work."""
        if self._closed:
            return
        state = self._keys.get(key)
        if state is None:
            backoff = Backoff(first=FIRST_RETRY, most=LAST_RETRY, random=random.random)
            state = self._keys[key] = _Key(backoff)
        self._set(state, dirty=True)
        self._start(key, state)

    def looks(self, key: ObjectKey) -> None:
        """The work on this key reads the world from here on: what was marked until now, it sees.

        So the marks that its own writes make (their answers go into the stores) are no reason to run once more.
        """
        state = self._keys.get(key)
        if state is not None and state.task is not None:
            self._set(state, dirty=False)

    def resume(self) -> None:
        """Begin: until now marks were only collected (the stores were not complete)."""
        self._paused = False
        for key, state in list(self._keys.items()):
            self._start(key, state)

    async def pause(self) -> None:
        """Stop all work, as a crash would; marks are collected again until :meth:`resume`."""
        self._paused = True
        tasks = []
        for state in self._keys.values():
            if state.timer is not None:
                state.timer.cancel()
                state.timer = None
            if state.task is not None:
                self._set(state, dirty=True)
                state.task.cancel()
                tasks.append(state.task)
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def idle(self) -> bool:
        """Whether no key is dirty or being worked on."""
        return not any(state.dirty or state.task for state in self._keys.values())

    async def close(self) -> None:
        """Stop all work."""
        self._closed = True
        tasks = []
        for state in self._keys.values():
            if state.timer is not None:
                state.timer.cancel()
            if state.task is not None:
                state.task.cancel()
                tasks.append(state.task)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._keys.clear()

    def _set(self, state: _Key, *, dirty: bool) -> None:
        self._dirty += dirty - state.dirty
        state.dirty = dirty
        self._watcher.depth(self._dirty)

    def _start(self, key: ObjectKey, state: _Key) -> None:
        if self._paused or state.task is not None or not state.dirty:
            return
        state.task = asyncio.get_running_loop().create_task(self._run(key, state), name=f"work {key}")

    async def _run(self, key: ObjectKey, state: _Key) -> None:
        again: float | None = None
        try:
            async with self._slots:
                if state.timer is not None:
                    state.timer.cancel()
                    state.timer = None
                self._set(state, dirty=False)
                again = await self._once(key, state)
        finally:
            state.task = None
            if not self._closed:
                if again is not None:
                    state.timer = asyncio.get_running_loop().call_later(max(0.0, again), self.mark, key)
                if state.dirty:
                    self._start(key, state)
                elif state.timer is None:
                    self._keys.pop(key, None)

    async def _once(self, key: ObjectKey, state: _Key) -> float | None:
        started = time.monotonic()
        result = "success"
        try:
            again = await self._work(key)
            state.backoff.reset()
        except Retry as error:
            result = "retry"
            again = max(state.backoff.next(), error.after)
            fields = {"tunnel": str(key), "reason": str(error), "after": round(again, 2)}
            _log.warning("the work is not done yet", extra={"fields": fields})
        except Exception:
            result = "error"
            again = state.backoff.next()
            _log.exception("the work failed", extra={"fields": {"tunnel": str(key), "after": round(again, 2)}})
        self._watcher.finished(result, time.monotonic() - started)
        return again
