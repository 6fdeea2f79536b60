"""The admin address: probes, metrics and a look at the sessions, for operators of the relay and nobody else.

Responsible for four GET paths. Must not change anything, and never shows a credential, a grant or a key.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from culvert_transport.instruments import CONTENT_TYPE


@dataclass(frozen=True, slots=True)
class AdminView:
    """What the admin address shows: `ready` is "" or the sentence why not; `sessions` a JSON-ready value."""

    metrics: Callable[[], bytes]
    ready: Callable[[], str]
    sessions: Callable[[], dict[str, object]]


def admin_application(view: AdminView) -> web.Application:
    """The application behind `listen.admin`."""

    async def livez(_request: web.Request) -> web.Response:
        # That this line runs is the answer: the event loop turns.
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        problem = view.ready()
        return web.Response(text=(problem or "ok") + "\n", status=503 if problem else 200)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=view.metrics(), headers={"Content-Type": CONTENT_TYPE})

    async def sessions(_request: web.Request) -> web.Response:
        text = json.dumps(view.sessions(), indent=2) + "\n"
        return web.Response(text=text, content_type="application/json")

    application = web.Application()
    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", metrics)
    application.router.add_get("/v1/sessions", sessions)
    return application


async def start_admin(view: AdminView, sock: object) -> web.AppRunner:
    """Serves the admin application on a listening socket; the caller cleans the runner up."""
    runner = web.AppRunner(admin_application(view), access_log=None)
    await runner.setup()
    await web.SockSite(runner, sock).start()  # type: ignore[arg-type]  # a plain socket
    return runner
