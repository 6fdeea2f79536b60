"""Aside: long pure computations in threads, so that the event loop goes on meanwhile.

Responsible for: where they run. Must not know: what is computed.
Invariants: a Lease is renewed, a probe answered and a watch read while 5,000 rules are planned: the interpreter hands
over to the loop every few milliseconds. Only values go in, and nobody writes to them: a computation there sees what it
would have seen in the loop. One that is no longer waited for ends by itself, and its result with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

THREADS = 2
"""A short computation need not wait for a long one; more of them would only take turns, and make the loop wait."""

P = ParamSpec("P")
T = TypeVar("T")


class Aside:
    """The threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="aside")

    async def run(self, compute: Callable[P, T], *values: P.args, **named: P.kwargs) -> T:
        """What ``compute`` returns or raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: compute(*values, **named))

    def close(self) -> None:
        """Begin nothing any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
