"""Basic authentication through real processes: asked for, accepted, changed in place, and nowhere to be read."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web


def test_visitors_give_a_password_that_origin_logs_and_status_never_see(
    tunnel: Any, wait_for: Callable[..., Awaitable[Any]]
) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.extend(request.headers.getall("Authorization", []))
        return web.Response(text="inside")

    async def scenario() -> None:
        users = tunnel.folder / "users"
        users.touch(mode=0o600)
        users.write_text("alice:open-sesame\n")
        await tunnel.start(ingress=[{"service": tunnel.url("app"), "basicAuth": "./users"}])

        async def ask(pair: str | None) -> Any:
            extra = "Connection: close\r\n"
            if pair is not None:
                extra += f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
            async with tunnel.visitor() as visitor:
                return await visitor.get(extra=extra)

        async with tunnel.origin(handler):
            for wrong in (None, "alice:open", "bob:open-sesame"):
                refused = await ask(wrong)
                assert (refused.status, refused.blame) == (401, "connector; unauthorized")
                assert refused.field("www-authenticate") == 'Basic realm="restricted", charset="UTF-8"'
            assert (await ask("alice:open-sesame")).body == b"inside"
            assert seen == []
            users.write_text("bob:other-word\n")

            async def changed() -> bool:
                return (await ask("bob:other-word")).status == 200

            await wait_for(changed, "the new password holds")
            assert (await ask("alice:open-sesame")).status == 401
        connector = tunnel.connectors[0]
        said = connector.log() + tunnel.relay.log() + str(await connector.status())
        said += (await connector.fetch(connector.admin, "/metrics"))[1].decode()
        for secret in ("open-sesame", "other-word", base64.b64encode(b"alice:open-sesame").decode()):
            assert secret not in said

    asyncio.run(scenario())
