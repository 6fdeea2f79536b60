"""The connector's own address: status, probes for Kubernetes, metrics.

Responsible for HTTP on 127.0.0.1:20241 (0.0.0.0 in a Pod): parameters checked, waiters bounded, the port found.

Must not know: how a report or a metric is made. Nothing here is secret, and nothing here changes anything.

Invariant: `/livez` answers as long as the event loop turns, whatever the relays do.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from culvert_connector.status import StatusBoard
from culvert_ingress.addresses import join_address
from culvert_ingress.durations import DurationError, parse

log = logging.getLogger(__name__)

DEFAULT_PORT: Final = 20241
NEXT_PORTS: Final = (20242, 20243, 20244, 20245, 0)
"""Tried when the default port is taken, as cloudflared does; 0 is any free one."""
MAX_WAIT: Final = 60.0
"""Seconds a status request may wait."""
MAX_WAITERS: Final = 64


@dataclass(frozen=True, slots=True)
class Views:
    """What the admin address shows. `ready` returns None when ready, else a sentence."""

    board: StatusBoard
    ready: Callable[[], str | None]
    metrics: Callable[[], bytes]
    metrics_content_type: str


class AdminError(OSError):
    """The admin address cannot be listened on; the text is a sentence with a fix."""


class Admin:
    """A listening admin address; `address` is where."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        self._runner = runner
        self.host = host
        self.port = port

    @property
    def address(self) -> str:
        """`host:port`, the port being the one found."""
        return join_address(self.host, self.port)

    async def close(self) -> None:
        """Stops listening and ends what waits."""
        await self._runner.cleanup()


def application(views: Views) -> web.Application:
    """The aiohttp application."""
    waiting = 0

    async def live(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.Response:
        sentence = views.ready()
        return web.Response(text="ok\n") if sentence is None else web.Response(text=f"{sentence}\n", status=503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=views.metrics(), headers={"Content-Type": views.metrics_content_type})

    async def status(request: web.Request) -> web.Response:
        nonlocal waiting
        known = request.query.get("etag") or request.headers.get("If-None-Match", "")
        if known and not known.startswith('"'):
            known = f'"{known}"'
        seconds = 0.0
        if "wait" in request.query:
            try:
                seconds = min(parse(request.query["wait"]) / 1000, MAX_WAIT)
            except DurationError as error:
                return web.Response(text=f"wait: {error}\n", status=400)
        body, tag = views.board.current()
        if tag == known:
            if seconds and waiting >= MAX_WAITERS:
                return web.Response(text="Too many requests wait already; ask without wait.\n", status=503)
            waiting += 1
            try:
                other = await views.board.other_than(known, within=seconds) if seconds else None
            finally:
                waiting -= 1
            if other is None:
                return web.Response(status=304, headers={"ETag": tag, "Cache-Control": "no-store"})
            body, tag = other
        headers = {"ETag": tag, "Content-Type": "application/json", "Cache-Control": "no-store"}
        return web.Response(body=body, headers=headers)

    app = web.Application(client_max_size=1024)
    app.router.add_get("/livez", live)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/v1/status", status)
    return app


async def serve(views: Views, *, host: str, port: int, search: bool) -> Admin:
    """Listens. With `search` a taken default port gives way to the next ones; otherwise AdminError."""
    runner = web.AppRunner(application(views), access_log=None, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    candidates = (port, *NEXT_PORTS) if search and port == DEFAULT_PORT else (port,)
    for candidate in candidates:
        site = web.TCPSite(runner, host, candidate)
        try:
            await site.start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE and candidate != candidates[-1]:
                continue
            await runner.cleanup()
            shown = join_address(host, candidate)
            raise AdminError(
                f"The status address {shown} cannot be listened on ({error.strerror or error}); "
                "set 'metrics: 127.0.0.1:PORT' to a free one."
            ) from error
        found = int(runner.addresses[-1][1])
        if candidate != port:
            log.info("Port %d is taken; status and metrics are on %s.", port, join_address(host, found))
        return Admin(runner, host, found)
    raise AssertionError("there is at least one candidate")


async def wait_closed(admin: Admin | None) -> None:
    """Closes an admin address, if there is one, within a second."""
    if admin is not None:
        try:
            async with asyncio.timeout(1.0):
                await admin.close()
        except TimeoutError:
            log.debug("The status address did not close in time.")
