"""A relay that has no descriptors left: it waits, it does not spin, and it goes on by itself."""

import asyncio
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

SPARE = 12
"""Descriptors that the relay may still have."""


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="prlimit is Linux's")
def test_a23_without_descriptors_accepting_rests_and_recovers(tunnel: Any, wait_for: Any) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def scenario() -> None:
        await tunnel.start()
        relay = tunnel.relay
        async with tunnel.origin(handler):
            before = await tunnel.get()
            assert before.status == 200
            _, hard = resource.prlimit(relay.pid, resource.RLIMIT_NOFILE)
            async with tunnel.visitor() as known:
                assert (await known.get()).status == 200
                resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, (relay.descriptors() + SPARE, hard))
                crowd = [await asyncio.open_connection("127.0.0.1", relay.http) for _ in range(60)]
                warned = "connections wait: "
                await wait_for(lambda: warned in relay.log(), "the relay says that connections wait")
                assert (await known.get()).status == 200, "who is there already is served"
                # Three seconds of being out of descriptors: a loop that spins would burn most of them.
                used, looks = cpu_seconds(relay.pid), relay.log().count(warned)
                for _ in range(30):
                    assert (await known.get()).status == 200
                    await asyncio.sleep(0.1)
                assert cpu_seconds(relay.pid) - used < 1.5
                assert relay.log().count(warned) - looks <= 12
                for _, writer in crowd:
                    await tunnel.hang_up(writer.transport)
                after = await asyncio.wait_for(tunnel.get(), 30)
                assert (after.status, after.body) == (200, b"ok")
                assert await relay.metric("culvert_relay_limits_reached_total") >= 1
            resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, (hard, hard))
            await wait_for(lambda: relay.descriptors() < 60, "the crowd's descriptors are closed")

    asyncio.run(scenario())
