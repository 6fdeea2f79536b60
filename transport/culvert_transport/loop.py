"""Which event loop runs a role: uvloop where it is installed, asyncio's own elsewhere."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
YOUNG: Final = 20_000
"""Objects made and not freed before the collector looks; CPython's 700 is a few dozen requests under way."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """The factory to give to `asyncio.Runner`. CULVERT does not need uvloop; it halves the cost of a request."""
    if find_spec("uvloop") is None:
        return asyncio.new_event_loop
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def spare_the_collector() -> None:
    """Leaves what a role has loaded out of garbage collection, and lets young objects grow old before it looks.

    Requests leave no cycles behind, so that collections in the middle of them find nothing; those that other work
    leaves are still found, later.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Runs a role's main coroutine to its end on the best loop there is."""
    spare_the_collector()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)
