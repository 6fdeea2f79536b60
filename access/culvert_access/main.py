"""`culvert access tcp`: from arguments to an exit code.

Responsible for signals, the local listener and sentences on standard error. Must not know frames.
Exit codes: 0 after an orderly end, 1 when the far side could not be reached or broke off.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path

from culvert_access.carrying import carry
from culvert_access.client import AccessError, Target, connect, context_for
from culvert_access.near import Accepted, StandardIO
from culvert_http1.websocket import WebSocketError


def run(
    *, hostname: str, relay: tuple[str, int] | None = None, authority: Path | None = None,
    listen: tuple[str, int] | None = None,
) -> int:  # fmt: skip
    """Carries standard input and output, or every connection to `listen`, to the TCP service at `hostname`."""
    try:
        host, port = relay or (hostname, 443)
        target = Target(hostname, host, port, context_for(authority))
        if listen is None:
            return asyncio.run(_standard(target))
        return asyncio.run(_listen(target, *listen))
    except AccessError as error:
        return _failed(str(error))


async def _standard(target: Target) -> int:
    reader, writer = await connect(target)
    local = await StandardIO.open()
    clean = False
    with suppress(OSError, WebSocketError):
        clean = await carry(local, reader, writer)
    with suppress(OSError):
        await local.close()
    return 0 if clean else _failed(f"The connection to {target.hostname} broke off.")


async def _listen(target: Target, host: str, port: int) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running: set[asyncio.Task[object]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            running.add(task)
            task.add_done_callback(running.discard)
        local = Accepted(reader, writer)
        try:
            far = await connect(target)
        except AccessError as error:
            _failed(str(error))
            local.reset()
            return
        if await carry(local, *far):
            local.close()

    try:
        server = await asyncio.start_server(accepted, host or None, port, limit=1 << 17)
    except OSError as error:
        raise AccessError(f"{host}:{port} cannot be listened on: {error.strerror or error}; use a free one.") from None
    for sock in server.sockets:
        name = sock.getsockname()
        print(f"Listening on {name[0]}:{name[1]} for {target.hostname}.", file=sys.stderr, flush=True)
    await stop.wait()
    server.close()
    for task in list(running):
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    return 0


def _failed(sentence: str) -> int:
    print(f"culvert access: {sentence}", file=sys.stderr)
    return 1
