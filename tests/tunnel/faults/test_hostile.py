"""A connector that floods its relay, in a process of its own: what the relay's memory makes of it, with and without the
defences."""

import asyncio
import json
import ssl
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from culvert_protocol.credentials_file import CredentialsFile
from culvert_protocol.frames import FrameReader, FrameType, encode_frame
from culvert_protocol.handshake import Accepted, build_request, parse_answer
from culvert_protocol.heads import Framing, ResponseHead, encode_response_head
from culvert_protocol.messages import Hello, Routes
from culvert_protocol.statements import prove
from culvert_transport.endings import PROTOCOL_ERROR, ending

MIB = 1 << 20
BOUND = 32 * MIB
"""By which the relay's memory may grow; performance.md's target for a stalled peer is the same."""
FLOOD = 96 * MIB
pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory in Linux's /proc")


def memory(pid: int, what: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (at most, since it was last reset)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"the process has no {what}")


def forget_the_peak(pid: int) -> None:
    """VmHWM begins anew (proc(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def beyond_its_window(stream: int) -> Iterator[bytes]:
    """A response that is sent on and on, whatever its visitor reads."""
    yield encode_frame(stream, FrameType.DATA, encode_response_head(ResponseHead(200, Framing.CHUNKED)), 2)
    frame = encode_frame(stream, FrameType.DATA, bytes(60_000))
    for _ in range(FLOOD // len(frame)):
        yield frame


def streams_of_its_own(_stream: int) -> Iterator[bytes]:
    """As many OPEN frames as make up the flood, each asking for a stream."""
    number = 1
    while number < 2 * FLOOD // 100:
        yield b"".join(encode_frame(one, FrameType.OPEN, bytes(92)) for one in range(number, number + 2000, 2))
        number += 2000


UNBOUNDED_WINDOW = "from culvert_protocol.stream import Stream\nStream._take = lambda stream, size: None"
UNBOUNDED_STREAMS = """
from culvert_protocol import session, stream
class Nobody:
    def __getattr__(self, name):
        return lambda *_: None
usual = session.Session._on_open
def on_open(self, stream_id, flags, payload):
    if self.relay and payload == bytes(92):
        self.streams[stream_id] = stream.Stream(self, stream_id, 0, Nobody(), receiving=session._EXPECT_BODY)
    else:
        usual(self, stream_id, flags, payload)
session.Session._on_open = on_open
"""


@pytest.mark.parametrize(
    ("attack", "without"),
    [
        (beyond_its_window, ""),
        (beyond_its_window, UNBOUNDED_WINDOW),
        (streams_of_its_own, ""),
        (streams_of_its_own, UNBOUNDED_STREAMS),
    ],
    ids=["window", "window, without the defence", "streams", "streams, without the defence"],
)
def test_a29_a_flood_of_a_connector_does_not_grow_the_relay(
    tunnel: Any, client_tls: ssl.SSLContext, wait_for: Any, attack: Callable[[int], Iterator[bytes]], without: str
) -> None:
    async def flood(relay: Any) -> None:
        """Strikes at the first request it gets, until the relay has taken it all or has ended the session."""
        path = tunnel.folder / "hostile.json"
        tunnel.issuer.credentials(path, ["evil.example.com"])
        credentials = CredentialsFile.loads(path.read_text())
        assert credentials.grant is not None
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", relay.tunnel, ssl=client_tls, server_hostname="localhost"
        )
        writer.write(build_request("localhost", credentials.credential, str(uuid.uuid4()), 0, 1))
        data = await reader.readuntil(b"\r\n\r\n")
        answer = parse_answer(data)
        assert isinstance(answer, Accepted)
        proof = prove(credentials.private_key, nonce=answer.nonce, server_name="localhost")
        writer.write(encode_frame(0, FrameType.HELLO, Hello(proof=proof).encode()))
        writer.write(encode_frame(0, FrameType.ROUTES, Routes(credentials.grant).encode()))
        frames, struck = FrameReader(), None

        async def strike(stream: int) -> None:
            for piece in attack(stream):
                writer.write(piece)
                await writer.drain()

        try:
            while (data := await reader.read(65_536)) and (struck is None or not struck.done()):
                for stream, kind, _flags, _payload in frames.read(data):
                    if kind == FrameType.OPEN:
                        struck = asyncio.create_task(strike(stream))
        except OSError:
            pass
        finally:
            if struck is not None:
                struck.cancel()
                await asyncio.gather(struck, return_exceptions=True)
            await tunnel.hang_up(writer.transport)

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="unharmed")

    async def scenario() -> None:
        relay = tunnel.add_relay(without=without)
        await relay.ready()
        async with tunnel.origin(handler):
            connector = tunnel.add_connector(sessions=1)
            await connector.ready()
            for _ in range(20):
                assert (await tunnel.get()).status == 200
            flooding = asyncio.create_task(flood(relay))

            async def serves() -> bool:
                return any(name == "evil.example.com" for name in await hostnames(relay))

            await wait_for(serves, "the hostile tunnel's name")
            before = memory(relay.pid, "VmRSS")
            forget_the_peak(relay.pid)
            async with tunnel.visitor(limit=1) as victim:
                victim.send(b"GET / HTTP/1.1\r\nHost: evil.example.com\r\n\r\n")
                victim.writer.transport.pause_reading()
                await flooding
                grown = memory(relay.pid, "VmHWM") - before
            assert (await tunnel.get()).body == b"unharmed"
            if without:
                assert grown > BOUND, f"only {grown} bytes: this test could not see the attack"
            else:
                assert grown < BOUND, f"the relay has grown by {grown} bytes"
                (why,) = {record["reason"] for record in relay.records() if record["message"] == "session ended"}
                assert ending(why) == PROTOCOL_ERROR, why

    asyncio.run(scenario())


async def hostnames(relay: Any) -> list[str]:
    """The names that the relay serves."""
    status, body, _ = await relay.fetch(relay.admin, "/v1/sessions")
    return [one["hostname"] for one in json.loads(body)["hostnames"]] if status == 200 else []
