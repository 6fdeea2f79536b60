"""Says something to a WebSocket and prints what comes back: `python hack/demo/websocket.py URL HOST TEXT`."""

import asyncio
import sys

import aiohttp


async def talk(url: str, host: str, text: str) -> str:
    """One message there and back; raises when the answer is not a text message."""
    timeout = aiohttp.ClientTimeout(total=15)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.ws_connect(url, headers={"Host": host}) as socket,
    ):
        await socket.send_str(text)
        return await socket.receive_str()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    print(asyncio.run(talk(*sys.argv[1:4])))
