"""Origins that die, hang up, stall or lie; visitors that leave: each request has one outcome, and the right one."""

import asyncio

from culvert_protocol.codes import ResetCode
from culvert_protocol.heads import Framing

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MIB = 1 << 20


def test_a16_an_origin_that_dies_in_the_middle_is_never_a_clean_end(tools):
    async def main():
        for start, die in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", "close"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", "rst"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n", "close"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n", "rst"),
            (b"HTTP/1.1 200 OK\r\n\r\npart", "rst"),
        ):
            seen = asyncio.Event()

            async def handler(client, start=start, die=die, seen=seen):
                await client.head()
                await client.send(start)
                await seen.wait()
                client.rst() if die == "rst" else client.close()

            async with tools.world() as world:
                await world.origin(handler)
                call = world.relay.request()
                await tools.until(lambda call=call: call.body == b"part", "the first part")
                seen.set()
                assert (await call.broken())[0] == ResetCode.ORIGIN_PROTOCOL, (start, die)

    tools.run(main())


def test_a16_a_close_delimited_tls_body_needs_its_close_notify(tools, certificates):
    async def main():
        async def handler(client):
            head = await client.head()
            await client.send(b"HTTP/1.1 200 OK\r\n\r\npart")
            if "/whole" in head:
                return
            # The TCP end without TLS's: whoever sits between could have cut the body here.
            sock = client.writer.get_extra_info("socket")
            import os
            import socket

            with socket.socket(fileno=os.dup(sock.fileno())) as copy:
                copy.shutdown(socket.SHUT_WR)
            await client.reader.read()

        async with tools.world() as world:
            context = certificates.server_context()
            await world.origin(handler, context=context, scheme="https", ca=certificates.ca)
            assert await world.relay.request("/whole").complete() == b"part"
            assert (await world.relay.request("/cut").broken())[0] == ResetCode.ORIGIN_PROTOCOL

    tools.run(main())


def test_b11_a_response_that_is_not_http_is_the_origins_error(tools):
    async def main():
        for response in (
            b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20,
        ):
            async with tools.world() as world:
                await world.origin(tools.answering(response))
                assert (await world.relay.request().broken())[0] == ResetCode.ORIGIN_PROTOCOL, response

    tools.run(main())


def test_a18_a_kept_connection_that_died_costs_a_get_nothing(tools):
    async def main():
        async def handler(client):
            # Answers once, then dies as soon as the next request arrives: the end could not be seen in time.
            await client.head()
            await client.send(OK)
            await client.head()
            client.rst()

        async with tools.world() as world:
            origin = await world.origin(handler)
            assert await world.relay.request().complete() == b"ok"
            assert await world.relay.request().complete() == b"ok"
            assert [client.requests for client in origin.clients] == [2, 1]

    tools.run(main())


def test_a18_a_post_that_may_have_arrived_is_never_sent_twice(tools):
    async def main():
        posts = []

        async def handler(client):
            await client.head()
            await client.send(OK)
            head = await client.head()
            if head:
                posts.append(head)
            client.rst()

        async with tools.world() as world:
            origin = await world.origin(handler)
            assert await world.relay.request().complete() == b"ok"
            call = world.relay.request(method="POST", body=b"once")
            assert await call.broken() == (ResetCode.ORIGIN_PROTOCOL, "kept_connection_closed")
            assert len(posts) == 1
            assert len(origin.clients) == 1

    tools.run(main())


def test_a18_other_unsafe_methods_without_a_body_are_not_sent_twice_either(tools):
    async def main():
        async def handler(client):
            await client.head()
            await client.send(OK)
            await client.head()
            client.rst()

        async with tools.world() as world:
            origin = await world.origin(handler)
            assert await world.relay.request().complete() == b"ok"
            call = world.relay.request(method="DELETE")
            assert await call.broken() == (ResetCode.ORIGIN_PROTOCOL, "kept_connection_closed")
            assert [client.requests for client in origin.clients] == [2]

    tools.run(main())


def test_a18_a_post_does_not_go_out_on_a_connection_whose_end_is_already_here(tools):
    async def main():
        suspended = asyncio.Event()

        async def handler(client):
            head = await client.head()
            if head.startswith("POST"):
                await client.body(4)
            await client.send(OK)
            await suspended.wait()

        async with tools.world() as world:
            origin = await world.origin(handler)
            pool = world.connector.origins
            assert await world.relay.request().complete() == b"ok"
            # The origin has closed, and the connector's loop has not been told: its reading is suspended here.
            connection = next(iter(pool._open))
            connection._transport.pause_reading()
            suspended.set()
            await tools.until(connection.stale, "the origin's FIN")
            assert pool.idle == 1
            assert await world.relay.request(method="POST", body=b"once").complete() == b"ok"
            assert len(origin.clients) == 2

    tools.run(main())


def test_a_request_fails_once_when_the_fresh_connection_fails_too(tools):
    async def main():
        first = True

        async def handler(client):
            nonlocal first
            await client.head()
            if first:
                first = False
                await client.send(OK)
                await client.head()
            client.rst()

        async with tools.world() as world:
            origin = await world.origin(handler)
            assert await world.relay.request().complete() == b"ok"
            assert (await world.relay.request().broken())[0] == ResetCode.ORIGIN_PROTOCOL
            assert len(origin.clients) == 2

    tools.run(main())


def test_a19_a_visitor_who_leaves_cancels_the_origin(tools):
    async def main():
        ended = asyncio.Event()

        async def handler(client):
            await client.head()
            await client.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                while True:
                    await client.send(b"4\r\ndata\r\n")
                    await asyncio.sleep(0.01)
            finally:
                ended.set()

        async with tools.world() as world:
            await world.origin(handler)
            call = world.relay.request()
            await call.answered()
            call.stream.reset(ResetCode.CANCEL, "the visitor left")
            await asyncio.wait_for(ended.wait(), 1)
            await tools.until(lambda: world.connector.origins.open == 0, "the connection's end")

    tools.run(main())


def test_a_visitor_who_leaves_before_there_is_a_connection_leaves_nothing_behind(tools):
    async def main():
        release = asyncio.Event()

        async def slow(host, port):
            await release.wait()
            return ["127.0.0.1"]

        async with tools.world() as world:
            origin = await world.origin(tools.answering(OK))
            world.connector.origins._resolve = slow
            call = world.relay.request()
            await tools.until(lambda: world.connector.origins._dials, "the dial")
            call.stream.reset(ResetCode.CANCEL, "the visitor left")
            await tools.until(lambda: not world.connector.origins._dials, "the end of the dial")
            release.set()
            await tools.until(lambda: not world.connector.origins._lookups, "the end of the lookup")
            assert not origin.clients

    tools.run(main())


def test_losing_the_session_cancels_its_requests(tools):
    async def main():
        async def handler(client):
            await client.head()
            assert await client.reader.read() == b""

        async with tools.world() as world:
            origin = await world.origin(handler)
            world.relay.request()
            await tools.until(lambda: origin.clients and origin.clients[0].requests, "the request")
            world.relay.cut(world.relay.sessions[0])
            await tools.until(lambda: world.connector.origins.open == 0, "the origin connection's end")
            await world.relay.connected(1)

    tools.run(main())


def test_a13_a_slow_visitor_pauses_the_origin_and_holds_little(tools):
    async def main():
        sent = 0
        more = asyncio.Event()

        async def handler(client):
            nonlocal sent
            await client.head()
            await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
            await more.wait()
            for _ in range(1024):
                await client.send(b"x" * 65536)
                sent += 65536

        async with tools.world() as world:
            await world.origin(handler)
            call = world.relay.request()
            call.consume = False
            await call.answered()
            more.set()
            await tools.until(lambda: len(call.body) == 65536, "one window")
            before = -1
            while before != sent:  # until the origin stands still
                before = sent
                await asyncio.sleep(0.3)
            assert len(call.body) == 65536
            # What is under way: socket buffers of the kernel and a read or two of ours, never the whole body.
            assert sent < 16 * MIB
            assert world.connector.sessions.sessions()[0].link.queued < MIB
            quick = world.relay.request(host="none.example.com")
            assert (await quick.answered()).status == 404
            call.consume = True
            call.stream.consumed(65536)
            await tools.until(lambda: call.done, "the rest", within=30)
            assert len(call.body) == 64 * MIB
            assert call.ended

    tools.run(main())


def test_a14_a_slow_origin_pauses_the_visitor_and_gets_everything(tools):
    async def main():
        go = asyncio.Event()
        received = 0

        async def handler(client):
            nonlocal received
            await client.head()
            await go.wait()
            while received < 32 * MIB:
                data = await client.reader.read(MIB)
                assert data
                assert data.count(b"y") == len(data)
                received += len(data)
            await client.send(OK)

        async with tools.world() as world:
            await world.origin(handler)
            call = world.relay.request(method="POST", content_length=32 * MIB, fin=False)
            written = 0
            while not call.stream.blocked:
                call.send(b"y" * 65536)
                written += 65536
                await asyncio.sleep(0)
                if written >= 32 * MIB:
                    break
            before = -1
            while before != written:  # until credit has run out for good
                before = written
                await asyncio.sleep(0.3)
                while not call.stream.blocked and written < 32 * MIB:
                    call.send(b"y" * 65536)
                    written += 65536
                    await asyncio.sleep(0.001)
            assert written < 16 * MIB
            go.set()
            while written < 32 * MIB:
                if not call.stream.blocked:
                    call.send(b"y" * 65536)
                    written += 65536
                await asyncio.sleep(0)
            call.send(b"", fin=True)
            assert await call.complete() == b"ok"
            assert received == 32 * MIB

    tools.run(main())


def test_a_big_answer_to_an_unread_upload_arrives_whole_before_the_upload_is_stopped(tools):
    async def main():
        body = b"z" * 300_000

        async def handler(client):
            await client.head()
            await client.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await client.reader.read()

        async with tools.world() as world:
            await world.origin(handler)
            call = world.relay.request(method="POST", framing=Framing.CHUNKED, fin=False)
            await tools.until(lambda: call.reset is not None, "the end of the upload")
            assert call.reset[0] == ResetCode.NO_ERROR
            assert call.body == body
            assert call.ended

    tools.run(main())


def test_idle_connections_are_closed_in_time_and_bounded(tools):
    async def main():
        async with tools.world() as world:
            origin = await world.origin(tools.answering(OK), keep_alive_connections=2, keep_alive_timeout=400)
            calls = [world.relay.request() for _ in range(5)]
            for call in calls:
                await call.complete()
            await tools.until(lambda: world.connector.origins.open <= 2, "the surplus connections' end")
            assert world.connector.origins.idle == 2
            assert len(origin.clients) == 5
            world.connector.origins._sweep()
            assert world.connector.origins.idle == 2
            await asyncio.sleep(0.45)
            world.connector.origins._sweep()
            await tools.until(lambda: world.connector.origins.open == 0, "the idle connections' end")

    tools.run(main())


def test_b08_bytes_that_nobody_asked_for_end_an_idle_connection(tools):
    async def main():
        more = asyncio.Event()

        async def handler(client):
            await client.head()
            await client.send(OK)
            await more.wait()
            await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            await client.reader.read()

        async with tools.world() as world:
            origin = await world.origin(handler)
            assert await world.relay.request().complete() == b"ok"
            more.set()
            await tools.until(lambda: world.connector.origins.open == 0, "the connection's end")
            more.clear()
            assert await world.relay.request().complete() == b"ok"
            assert len(origin.clients) == 2
            more.set()

    tools.run(main())
