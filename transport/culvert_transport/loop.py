"""Which event loop runs a role: uvloop where it is installed, asyncio's own elsewhere; and what becomes of errors
that nobody waits for."""

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
logger = logging.getLogger(__name__)
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


def on_stray_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A loop's exception handler: errors of the network are noted, all others logged as asyncio does.

    Whoever waits for a connection hears of its end and says so; asyncio's own transports keep OSError to themselves,
    those of aiofastnet 1.2 report a peer that leaves within the TLS handshake, and give a class for its exception.
    """
    error = context.get("exception")
    if isinstance(error, type):
        error = error()
        context = {**context, "exception": error}
    if isinstance(error, OSError):
        logger.debug("%s: %r", context.get("message"), error)
    else:
        loop.default_exception_handler(context)


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Runs a role's main coroutine to its end on the best loop there is."""
    spare_the_collector()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.get_loop().set_exception_handler(on_stray_error)
        return runner.run(main)
