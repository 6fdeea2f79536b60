"""The end of a connector: nothing in flight is lost within the grace period, and nothing lives beyond it."""

import asyncio

from culvert_ingress.rules import StatusService
from culvert_protocol.codes import ResetCode

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_an_idle_connector_ends_at_once(tools):
    async def main():
        async with tools.world() as world:
            world.grace = 30
            await world.serve(tools.rule(StatusService(204)))
            began = asyncio.get_running_loop().time()
            world.stop.set()
            await asyncio.wait_for(world.task, 5)
            assert asyncio.get_running_loop().time() - began < 2
            assert world.relay.ever[0].drained

    tools.run(main())


def test_what_is_in_flight_is_finished_and_late_requests_are_served(tools):
    async def main():
        async with tools.world() as world:
            go = asyncio.Event()

            async def handler(client):
                await client.head()
                await go.wait()
                await client.send(OK)

            world.sessions = 2
            await world.origin(handler)
            await world.relay.connected(2)
            end = world.relay.sessions[0]
            call = world.relay.request(end=end)
            # Sent by the relay before it has read the DRAIN: must be served as well.
            world.stop.set()
            late = world.relay.request(end=end)
            await tools.until(lambda: end.drained, "the drain")
            assert world.connector.unready() == "The connector is stopping."
            assert world.connector.report().draining
            assert not world.task.done()
            go.set()
            assert await call.complete() == b"ok"
            assert await late.complete() == b"ok"
            await asyncio.wait_for(world.task, 5)

    tools.run(main())


def test_what_never_ends_is_cut_at_the_deadline(tools):
    async def main():
        async with tools.world() as world:
            world.grace = 1

            async def handler(client):
                await client.head()
                await client.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
                await client.reader.read()

            await world.origin(handler)
            call = world.relay.request()
            await tools.until(lambda: call.body, "the first event")
            began = asyncio.get_running_loop().time()
            world.stop.set()
            await asyncio.wait_for(world.task, 5)
            assert 0.9 < asyncio.get_running_loop().time() - began < 2
            assert (await call.broken())[0] == ResetCode.SESSION_LOST

    tools.run(main())


def test_a_relay_that_does_not_acknowledge_does_not_hold_the_end_up(tools):
    async def main():
        async with tools.world() as world:
            world.grace = 30
            await world.serve(tools.rule(StatusService(204)))
            # The relay's acknowledgement waits in a data queue that never moves.
            world.relay.sessions[0].session.outbox.set_congested(True)
            began = asyncio.get_running_loop().time()
            world.stop.set()
            await asyncio.wait_for(world.task, 10)
            assert asyncio.get_running_loop().time() - began < 6

    tools.run(main())


def test_nothing_is_dialled_while_draining(tools):
    async def main():
        async with tools.world() as world:

            async def handler(client):
                await client.head()
                await client.reader.read()

            world.grace = 1
            world.sessions = 2
            await world.origin(handler)
            await world.relay.connected(2)
            world.relay.request(end=world.relay.sessions[0])
            await tools.until(lambda: world.connector.origins.open, "the request")
            world.stop.set()
            await tools.until(lambda: all(end.drained for end in world.relay.sessions), "the drain")
            await asyncio.wait_for(world.task, 5)
            assert world.relay.dials == 2

    tools.run(main())
