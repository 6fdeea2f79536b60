"""A seeded soak: random requests while connectors, relays, origins and the networks between them fail at random.

`make test` runs half a minute of it, `make faults` five minutes; CULVERT_SOAK_SECONDS and CULVERT_SOAK_SEED say how
long and with which faults. It goes in rounds: some seconds of faults, then everything heals and every request that is
still out has to end. Nothing here depends on how fast the machine is: a request counts as lost when it moves no byte
while requests that begin after it are served again and again, not when some number of seconds is over.
"""

import asyncio
import contextlib
import hashlib
import os
import random
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

SECONDS = float(os.environ.get("CULVERT_SOAK_SECONDS", "30"))
SEED = int(os.environ.get("CULVERT_SOAK_SEED", "1"))
ROUND = 5.0
"""Seconds of faults before everything heals."""
VISITORS = 16
LOST_AFTER = 150
"""Requests served one after the other, a tenth of a second apart, while another one that began before them moves
nothing: no time-out of culvert's takes as long."""


class Faults:
    """What happens to the tunnel in one round: networks at random, then perhaps a process."""

    def __init__(self, tunnel: Any, networks: list[Any], chance: random.Random) -> None:
        self.tunnel = tunnel
        self.networks = networks
        self.chance = chance
        self.log: list[str] = []

    async def run(self, seconds: float) -> None:
        """One round's faults; the networks are well again afterwards, and every process runs."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        process = asyncio.create_task(self._process(seconds))
        try:
            while loop.time() < end:
                network, chance = self.chance.choice(self.networks), self.chance
                fault = chance.choice(
                    (self.hold, self.hold, self.reset, self.slow, self.slices, self.throttle, self.flip)
                )
                fault(network)
                await asyncio.sleep(chance.uniform(0.1, 1.0))
                if chance.random() < 0.5:
                    self._well(network)
        finally:
            for network in self.networks:
                self._well(network)
            await process

    def _well(self, network: Any) -> None:
        network.well()
        network.heal()

    def hold(self, network: Any) -> None:
        network.hold(*self.chance.choice((("up",), ("down",), ("up", "down"))))

    def reset(self, network: Any) -> None:
        network.reset()

    def slow(self, network: Any) -> None:
        network.latency = self.chance.uniform(0.01, 0.2)
        network.jitter = network.latency / 4

    def slices(self, network: Any) -> None:
        network.slice = self.chance.choice((7, 100, 1000))

    def throttle(self, network: Any) -> None:
        network.rate = self.chance.uniform(100_000, 1_000_000)

    def flip(self, network: Any) -> None:
        network.flips = 1

    async def _process(self, seconds: float) -> None:
        """Kills or stops one of the processes, and starts it again."""
        chance, tunnel = self.chance, self.tunnel
        kind, number = (
            chance.choice(("none", "connector", "connector", "relay")),
            chance.choice((signal.SIGKILL, signal.SIGTERM)),
        )
        at, pause = chance.uniform(0.1, 0.7) * seconds, chance.uniform(0.0, 0.3) * seconds
        which = chance.randrange(2)
        await asyncio.sleep(at)
        if kind == "none":
            return
        kept = tunnel.connectors if kind == "connector" else tunnel.relays
        old = kept[which]
        self.log.append(f"{number.name} to {old.name}")
        old.signal(number, exits=-number if number == signal.SIGKILL else 0)
        await old.ended()
        await asyncio.sleep(pause)
        if kind == "relay":
            tunnel.again(old)
        else:
            kept.remove(old)
            kept.insert(which, self.connector(which))

    def connector(self, which: int) -> Any:
        """Starts the connector that dials the networks of place `which`."""
        ports = [network.port for network in self.networks[2 * which : 2 * which + 2]]
        made = self.tunnel.add_connector(via=ports, sessions=4, grace="3s")
        self.tunnel.connectors.remove(made)
        return made


async def kept_by(tunnel: Any) -> list[tuple[str, int, float]]:
    """For each process its name, the descriptors that no session of it accounts for, and its tasks."""
    kept = []
    for relay in tunnel.relays:
        sessions = await relay.sessions()
        kept.append((relay.name, relay.descriptors() - len(sessions), await relay.metric("culvert_relay_tasks")))
    for connector in tunnel.connectors:
        sessions = (await connector.status())["sessions"]
        tasks = await connector.metric("culvert_connector_tasks")
        kept.append((connector.name, connector.descriptors() - len(sessions), tasks))
    return kept


def grown(before: list[tuple[str, int, float]], now: list[tuple[str, int, float]]) -> list[str]:
    """Which processes keep more than at the start, one descriptor aside: the TCP port that one relay may listen on."""
    return [
        f"{name} keeps {descriptors} descriptors and {tasks:g} tasks, {was_descriptors} and {were_tasks:g} at the start"
        for (_, was_descriptors, were_tasks), (name, descriptors, tasks) in zip(before, now, strict=True)
        if descriptors > was_descriptors + 1 or tasks > were_tasks
    ]


@pytest.mark.timeout(600 + 10 * SECONDS)
def test_a28_under_random_faults_every_request_has_one_outcome_and_nothing_is_left(
    tunnel: Any, network: Any, visits: Callable[..., Any], wait_for: Any, record_property: Any
) -> None:
    chance = random.Random(SEED)

    async def settled(history: Any) -> list[tuple[str, int, float]]:
        """What every process keeps when nothing is under way; the origin has gone, and its connections with it."""

        async def quiet() -> bool:
            sessions = [one for relay in tunnel.relays for one in await relay.sessions()]
            return not any(one["streams"] or one["queuedBytes"] for one in sessions)

        await wait_for(quiet, "no stream is open")
        history.check()
        return await kept_by(tunnel)

    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            relays = [tunnel.add_relay() for _ in range(2)]
            for relay in relays:
                await relay.ready()
            networks = [
                await stack.enter_async_context(network(relay, seed=chance.randrange(1 << 30)))
                for _ in range(2)
                for relay in relays
            ]
            faults = Faults(tunnel, networks, chance)
            for which in range(2):
                tunnel.connectors.insert(which, faults.connector(which))
            history = visits(tunnel, chance)
            async with history.origin():
                await everyone_is_ready(tunnel)
                await history.calm(per_relay=40)
            before = await settled(history)
            async with history.origin():
                loop = asyncio.get_running_loop()
                end = loop.time() + SECONDS
                while loop.time() < end:
                    stop = asyncio.Event()
                    visitors = [asyncio.create_task(history.visitor(stop)) for _ in range(VISITORS)]
                    await faults.run(ROUND)
                    stop.set()
                    await everyone_is_ready(tunnel)
                    await all_end(history, visitors, faults.log)
                    history.check()
                await history.calm(per_relay=40)
            kept = await settled(history)

            async def back() -> bool:
                nonlocal kept
                kept = await kept_by(tunnel)
                return not grown(before, kept)

            with contextlib.suppress(AssertionError):
                await wait_for(back, "nothing is left over")
            assert not grown(before, kept), grown(before, kept)
            record_property(f"soak with seed {SEED}", history.summary())

    asyncio.run(scenario())


async def everyone_is_ready(tunnel: Any) -> None:
    await asyncio.gather(*(one.ready() for one in (*tunnel.relays, *tunnel.connectors)))


async def all_end(history: Any, visitors: list[Any], faults: list[str], *, lost_after: int = LOST_AFTER) -> None:
    """Every visitor comes to its end; one that moves nothing while others are served is a lost request."""
    seen: dict[Any, tuple[int, int]] = {}
    while not all(task.done() for task in visitors):
        for task in visitors:
            if task.done():
                task.result()
        await history.calm(per_relay=1)
        await asyncio.sleep(0.1)
        for visit in history.out():
            moved, times = seen.get(visit, (-1, 0))
            seen[visit] = visit.moved, times + 1 if moved == visit.moved else 0
            assert times < lost_after, f"a request is lost: {visit}; faults: {faults}"
    for task in visitors:
        task.result()


LIES = {
    "another one's bytes": ("chunked", "another one's bytes"),
    "another one's response": ("chunked", "another one's response"),
    "too short": ("chunked", "bytes and a clean end"),
    "too long": ("broken", "bytes behind the end"),
    "whole although broken": ("broken", "ended as if it were whole"),
    "delivered twice": ("hash", "delivered 2 times"),
    "never delivered": ("hash", "never delivered"),
    "nobody's error": ("hash", "nobody's 502"),
    "silent": ("chunked", "a request is lost"),
}
"""What a tunnel must never do, the kind of request to which it is done, and what the soak says of it."""


@pytest.mark.parametrize("lie", LIES)
def test_a28_what_must_never_happen_is_noticed(
    tunnel: Any, visits: Callable[..., Any], content: Any, wait_for: Any, lie: str
) -> None:
    kind, said = LIES[lie]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, _, _ = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
        _, asked, digits, extent = line.split(b" ")[1].decode().split("/")
        number, size = int(digits), int(extent)
        if asked == "length":
            body = content(number, size)
            writer.write(b"HTTP/1.1 200 OK\r\nX-Number: %d\r\nContent-Length: %d\r\n" % (number, size))
            writer.write(b"Connection: close\r\n\r\n" + body)
            return
        if asked == "hash":
            await reader.readexactly(size)
            history.delivered[number] += {"delivered twice": 2, "never delivered": 0}.get(lie, 1)
        if lie == "silent":
            await reader.read()
            return
        body = hashlib.sha256(content(number, size)).hexdigest().encode() if asked == "hash" else content(number, size)
        if lie == "another one's bytes":
            body = content(number, size - 1) + b"?"
        if lie == "too short":
            body = body[:-1]
        status = b"502 Bad Gateway" if lie == "nobody's error" else b"200 OK"
        writer.write(b"HTTP/1.1 %b\r\nX-Number: %d\r\n" % (status, number + (lie == "another one's response")))
        writer.write(b"Connection: close\r\n")
        if asked == "chunked":
            writer.write(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        else:
            writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        if lie == "too long":
            writer.write(b"more")

    async def scenario() -> None:
        nonlocal history
        async with tunnel.tcp_origin(answer, "liar"):
            liar = SimpleNamespace(name="liar", http=tunnel.port("liar"), https=0)
            history = visits(SimpleNamespace(relays=[liar], hang_up=tunnel.hang_up), random.Random(1))
            history.KINDS, history.SIZES = (kind,), (500,)
            stop = asyncio.Event()
            visitor = asyncio.create_task(history.visitor(stop))
            await wait_for(lambda: history.visits, "a request")
            stop.set()
            try:
                await all_end(history, [visitor], [], lost_after=3)
                history.check()
            finally:
                visitor.cancel()
                await asyncio.gather(visitor, return_exceptions=True)

    history: Any = None
    with pytest.raises(AssertionError, match=said):
        asyncio.run(scenario())
