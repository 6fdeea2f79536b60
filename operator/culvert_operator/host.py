"""The host process: kopf's life cycle around culvert's runtime.

Responsible for: startup, signals, cleanup and the login that kopf itself needs. Must not know: what the runtime does.

kopf hosts, and nothing more. Its own watches are not used to mark keys: the stores of :mod:`culvert_operator.cluster`
must list and watch every kind anyway (kopf's indices keep objects that were deleted in the gap before a relist, tried
on 1.45.2), so a second watch of each kind would double the load and add a way to fail: an in-stream ERROR 500 ends
kopf's watcher and with it the operator. Without resource handlers kopf has no watcher that could.

Invariants: no handler of kopf's sees an object, so kopf writes no annotation, no finalizer, no Event and no peering;
the process ends when the runtime fails, and only then or on a signal.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from typing import Any, Protocol

import kopf
from kopf._core.engines.peering import Identity

from culvert_operator.cluster.connection import credentials

_log = logging.getLogger(__name__)


class Runtime(Protocol):
    """What is hosted."""

    async def run(self) -> None:
        """Until cancelled; anything else that ends it is a failure."""
        ...


class _Patience:
    """Delays in seconds without an end, each time anew."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1.0, 2.0, 5.0), itertools.repeat(15.0))


async def host(runtime: Runtime) -> int:
    """Run until a signal (0) or until the runtime fails (1)."""
    registry = kopf.OperatorRegistry()
    stop = asyncio.Event()
    running: list[asyncio.Task[None]] = []

    @kopf.on.startup(registry=registry)
    async def start(**_: Any) -> None:
        task = asyncio.get_running_loop().create_task(runtime.run(), name="culvert runtime")
        task.add_done_callback(lambda done: stop.set())
        running.append(task)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await asyncio.to_thread(credentials)

    @kopf.on.cleanup(registry=registry)
    async def end(**_: Any) -> None:
        for task in running:
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
            except Exception as error:
                # kopf would try a failed cleanup again and again.
                _log.error("the operator failed", extra={"fields": {"reason": _reasons(error)}})

    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.process.ultimate_exiting_timeout = 20.0
    # By default kopf gives up, and the process with it, when the API server is away for a minute at the start.
    settings.networking.error_backoffs = _Patience()
    await kopf.operator(
        registry=registry,
        settings=settings,
        standalone=True,
        clusterwide=True,
        stop_flag=stop,
        # Otherwise kopf asks the system for the user's name, and a container's user has none.
        identity=Identity("culvert"),
    )
    failed = any(task.done() and not task.cancelled() for task in running)
    return 1 if failed else 0


def _reasons(error: BaseException) -> str:
    """An error's text, or those of a group's."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_reasons(one) for one in error.exceptions)
    return str(error) or type(error).__name__
