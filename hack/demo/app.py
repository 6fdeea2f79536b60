"""The demo's sample application: a real HTTP and WebSocket server that remembers what was delivered to it.

    GET  /            who answered, and the request's headers that matter
    ANY  /deliver     remembers the id in ?id=, answers it back
    GET  /delivered   how many ids arrived, and which arrived more than once
    GET  /echo        a WebSocket that echoes text and binary messages

It runs in a Pod from culvert's own image, beside nothing else: `python app.py [port]`.
"""

import asyncio
import json
import os
import signal
import sys
from collections import Counter

from aiohttp import WSMsgType, web

MAX_IDS = 1_000_000
DELIVERED: web.AppKey[Counter[str]] = web.AppKey("delivered", Counter)


async def root(request: web.Request) -> web.Response:
    """Tells which Pod answered and what the relay said about the visitor."""
    shown = ("Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host")
    answer = {
        "message": "hello from a service without a public address",
        "pod": os.environ.get("HOSTNAME", "?"),
        "path": request.path,
        "headers": {name: request.headers[name] for name in shown if name in request.headers},
    }
    return web.json_response(answer, dumps=lambda value: json.dumps(value) + "\n")


async def deliver(request: web.Request) -> web.Response:
    """Counts a delivery. The body of a POST is read to its end first, as a real application would."""
    body = await request.read()
    delivered = request.app[DELIVERED]
    identity = request.query.get("id", "")
    if not identity or (len(delivered) >= MAX_IDS and identity not in delivered):
        raise web.HTTPBadRequest(text="give ?id=, at most a million different ones\n")
    delivered[identity] += 1
    return web.Response(text=f"{identity} {len(body)}\n")


async def delivered(request: web.Request) -> web.Response:
    """What arrived so far under ids that start with ?prefix=."""
    prefix = request.query.get("prefix", "")
    counts = {i: n for i, n in request.app[DELIVERED].items() if i.startswith(prefix)}
    return web.json_response({"ids": len(counts), "twice": sorted(i for i, n in counts.items() if n > 1)})


async def echo(request: web.Request) -> web.WebSocketResponse:
    """A WebSocket that sends back what it gets."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def serve(port: int) -> None:
    """Serves until SIGTERM, then finishes what is in flight."""
    app = web.Application()
    app[DELIVERED] = Counter()
    app.router.add_get("/delivered", delivered)
    app.router.add_get("/echo", echo)
    app.router.add_route("*", "/deliver", deliver)
    app.router.add_get("/{tail:.*}", root)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await stopping.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 8080))
