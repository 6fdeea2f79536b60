"""A bad network between connector and relay: black holes, resets, latency, slices, flipped bits. What a visitor gets is
right or an error, and everything is as before when the network is well again."""

import asyncio
import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from culvert_connector.dialling import backoff

BIG = random.Random(7).randbytes(1 << 20)


async def handler(request: web.Request) -> web.Response:
    if request.method == "POST":
        return web.Response(text=hashlib.sha256(await request.read()).hexdigest())
    return web.Response(body=BIG if request.path == "/big" else b"small")


async def slots(relay: Any) -> Counter[tuple[str, int]]:
    """How many sessions the relay has of each slot."""
    return Counter((one["connector"], one["slot"]) for one in await relay.sessions())


SILENCE = re.compile(r"nothing heard for ([0-9.]+) s(?:, ([0-9.]+) s of which this process itself slept)?")


def silences(*processes: Any) -> list[tuple[float, float]]:
    """For each session that these processes gave up: the seconds of silence, and how many they slept themselves.

    Every one of them must have given up one at least.
    """
    found = []
    for process in processes:
        matches = SILENCE.findall(process.log())
        assert matches, f"{process.name} gave no session up for its silence"
        found += [(float(silence), float(slept or 0)) for silence, slept in matches]
    return found


@pytest.mark.parametrize("ways", [("up", "down"), ("up",), ("down",)], ids="-".join)
def test_a6_a7_a_black_hole_is_noticed_no_request_hangs_and_every_session_comes_back_once(
    tunnel: Any, network: Any, wait_for: Any, ways: tuple[str, ...]
) -> None:
    async def scenario() -> None:
        tunnel.add_relay()
        relay = tunnel.relay
        await relay.ready()
        async with network(relay) as net, tunnel.origin(handler):
            connector = tunnel.add_connector(via=[net.port], sessions=2)
            await connector.ready()
            assert (await tunnel.get()).body == b"small"
            before = relay.descriptors(), connector.descriptors()
            assert len(await relay.sessions()) == 2

            net.hold(*ways)

            async def gone() -> bool:
                return not await relay.sessions()

            hanging = asyncio.create_task(tunnel.get())
            if "down" not in ways:
                # The relay hears nothing; what was asked over a session that looked well is answered with an error.
                assert (await asyncio.wait_for(hanging, 8)).status in (502, 503, 504)
            await wait_for(gone, "the relay gives the sessions up")
            await connector.reports(lambda status: not status["ready"], "that it is cut off")
            for silence, slept in silences(
                *([relay] if "up" in ways else []), *([connector] if "down" in ways else [])
            ):
                # Their own clocks: a process that this machine lets wait may need another beat, and says so.
                assert silence - slept <= (4.0 if slept else 3.0), f"noticed after {silence} s"
            assert (await asyncio.wait_for(hanging, 8)).status in (200, 502, 503, 504)
            assert (await asyncio.wait_for(tunnel.get(), 8)).status == 503

            net.heal()
            await connector.ready()

            async def once() -> bool:
                found = await slots(relay)
                return len(found) == 2 and set(found.values()) == {1}

            await wait_for(once, "each slot is registered once")
            assert (await tunnel.get()).body == b"small"
            await wait_for(lambda: net.connections == 2, "no connection is left over")
            await wait_for(
                lambda: relay.descriptors() <= before[0] + 1 and connector.descriptors() <= before[1] + 1,
                f"the descriptors are back at {before}",
            )

    asyncio.run(scenario())


RESETS = 150
"""One every fifth of a second: half a minute."""


def grows(dials: list[int]) -> bool:
    """Whether dials, counted after each reset, became rarer: in the last third than in the first 15, by far."""
    last = len(dials) // 3
    return (dials[-1] - dials[-last - 1]) / last < 0.6 * (dials[15] - dials[0]) / 15


def test_a9_pauses_that_do_not_grow_are_told_from_those_that_do() -> None:
    def dials_of(schedule: Callable[[int], float]) -> list[int]:
        """What a connector that waits by this schedule has dialled after each reset."""
        at, starts = 0.0, []
        for failures in range(1, 1000):
            at += schedule(failures)
            starts.append(at)
        return [sum(1 for start in starts if start < 0.2 * number) for number in range(RESETS)]

    assert grows(dials_of(lambda failures: backoff.delay(failures, 0.5) + 0.2))
    assert not grows(dials_of(lambda failures: 0.3))


def test_a9_resets_every_fifth_of_a_second_are_survived_with_growing_pauses(
    tunnel: Any, network: Any, wait_for: Any
) -> None:
    async def scenario() -> None:
        tunnel.add_relay()
        relay = tunnel.relay
        await relay.ready()
        async with network(relay) as net, tunnel.origin(handler):
            connector = tunnel.add_connector(via=[net.port], sessions=2)
            await connector.ready()
            assert (await tunnel.get()).body == b"small"
            before = relay.descriptors(), connector.descriptors()
            tasks = await relay.metric("culvert_relay_tasks"), await connector.metric("culvert_connector_tasks")
            dials = []
            for _ in range(RESETS):
                net.reset()
                await asyncio.sleep(0.2)
                dials.append(net.accepted)
            assert grows(dials), f"the backoff does not grow; dials after each reset: {dials}"
            await connector.ready()
            assert (await tunnel.get()).body == b"small"
            assert set((await slots(relay)).values()) == {1}
            await wait_for(
                lambda: relay.descriptors() <= before[0] + 1 and connector.descriptors() <= before[1] + 1,
                f"the descriptors are back at {before}",
            )

            async def back() -> bool:
                now = await relay.metric("culvert_relay_tasks"), await connector.metric("culvert_connector_tasks")
                return now[0] <= tasks[0] and now[1] <= tasks[1]

            await wait_for(back, f"the tasks are back at {tasks}")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "knobs",
    [{"latency": 0.2, "jitter": 0.05}, {"slice": 1}],
    ids=["a10_latency", "a11_slices"],
)
def test_a10_a11_latency_and_one_byte_segments_change_no_result(
    tunnel: Any, network: Any, knobs: dict[str, float]
) -> None:
    size = len(BIG) if "latency" in knobs else 40_000

    async def scenario() -> None:
        tunnel.add_relay()
        relay = tunnel.relay
        await relay.ready()
        async with network(relay) as net, tunnel.origin(handler), tunnel.browser() as browser:
            for name, value in knobs.items():
                setattr(net, name, value)
            connector = tunnel.add_connector(via=[net.port], sessions=1)
            await connector.ready()
            generations = [(one["slot"], one["generation"]) for one in await relay.sessions()]

            async def upload(number: int) -> None:
                body = BIG[number : number + size]
                async with browser.post("/", data=body) as response:
                    assert (response.status, await response.text()) == (200, hashlib.sha256(body).hexdigest())

            async def download() -> None:
                async with browser.get("/big" if "latency" in knobs else "/") as response:
                    assert response.status == 200
                    assert await response.read() == (BIG if "latency" in knobs else b"small")

            await asyncio.gather(*(upload(number) for number in range(4)), *(download() for _ in range(4)))
            assert net.passed > 4 * size
            # No time-out of ours took the network for a dead one.
            assert [(one["slot"], one["generation"]) for one in await relay.sessions()] == generations

    asyncio.run(scenario())


def test_a12_a_flipped_bit_ends_the_session_and_never_reaches_anybody(tunnel: Any, network: Any, wait_for: Any) -> None:
    async def scenario() -> None:
        tunnel.add_relay()
        relay = tunnel.relay
        await relay.ready()
        outcomes: Counter[str] = Counter()
        async with network(relay) as net, tunnel.origin(handler):
            connector = tunnel.add_connector(via=[net.port], sessions=2)
            await connector.ready()

            async def ask() -> None:
                try:
                    response = await tunnel.get("/big")
                except (asyncio.IncompleteReadError, OSError):
                    outcomes["aborted"] += 1
                    return
                if response.status == 200:
                    assert response.body == BIG, "wrong bytes that look right"
                outcomes[str(response.status)] += 1

            for _ in range(6):
                ended = await relay.metric("culvert_relay_sessions_ended_total")
                flipped = net.flipped
                net.flips = 1
                await asyncio.gather(*(ask() for _ in range(4)))
                await wait_for(lambda flipped=flipped: net.flipped > flipped, "a bit is flipped")

                async def over(ended: float = ended) -> bool:
                    return await relay.metric("culvert_relay_sessions_ended_total") > ended

                await wait_for(over, "the session has ended")
                await connector.ready()
            assert set(outcomes) <= {"200", "502", "503", "aborted"}
            await wait_for(lambda: connector.running and relay.running, "both live")
            assert (await tunnel.get("/big")).body == BIG

    asyncio.run(scenario())


def test_a_relay_that_leaves_within_the_tls_handshake_is_an_error_with_its_reason(tunnel: Any) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(leave, "127.0.0.1", 0)
        async with server:
            connector = tunnel.add_connector(via=[server.sockets[0].getsockname()[1]], sessions=1)
            status = await connector.reports(lambda status: status["relayErrors"], "what is wrong")
        (error,) = status["relayErrors"]
        assert error["reason"] == "RelayUnreachable"
        assert "it closed the connection within the TLS handshake" in error["message"]
        # The fixture looks for tracebacks; a logging error would be no JSON.
        assert {record["level"] for record in connector.records()} <= {"info", "warning"}

    asyncio.run(scenario())
