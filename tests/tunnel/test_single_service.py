"""`culvert tunnel run --url`: one service for every hostname of the credentials, without a configuration file."""

import asyncio
import re
import signal
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

CULVERT = Path(sys.executable).with_name("culvert")
WAIT = 60.0


def test_one_service_is_published_without_a_file_and_the_log_says_where(
    tunnel: Any, wait_for: Any, tmp_path: Path
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=f"hello {request.host}")

    async def scenario() -> None:
        relay = tunnel.add_relay()
        await relay.ready()
        (tmp_path / "config.yml").write_text("what: stands: about: is not read")
        words = ("--url", tunnel.url("app"), "--credentials-file", str(tunnel.credentials_path))
        where = ("--relay", f"localhost:{relay.tunnel}", "--relay-ca", str(tunnel.ca), "--metrics", "127.0.0.1:0")
        process = await asyncio.create_subprocess_exec(
            str(CULVERT), "tunnel", "run", *words, *where, stderr=asyncio.subprocess.PIPE, cwd=tmp_path
        )
        try:

            async def answered() -> str | None:
                assert process.returncode is None
                answer = await tunnel.get("/", host="any.example.com")
                return str(answer.body.decode()) if answer.status == 200 else None

            async with tunnel.origin(handler):
                assert await wait_for(answered, "the service answers") == "hello any.example.com"
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = await asyncio.wait_for(process.communicate(), WAIT)
        said = errors.decode()
        assert process.returncode == 0, said
        assert re.search(rf"Serving \*\.example\.com from {re.escape(tunnel.url('app'))}\.", said), said
        assert "Traceback" not in said

    asyncio.run(scenario())
