"""Requests end to end: from an OPEN on a real session to a real origin and back."""

import asyncio

from culvert_ingress.rules import (
    HelloWorldService,
    HTTPService,
    PathMatch,
    PathType,
    StatusService,
    UnavailableService,
    UnixService,
)
from culvert_protocol.codes import ResetCode
from culvert_protocol.heads import Framing, Kind

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_request_reaches_the_origin_as_one_plain_http_request(tools):
    async def main():
        async with tools.world() as world:
            origin = await world.origin(capture := Capture(OK))
            call = world.relay.request("/a/b?c=d", fields=b"Accept: x\r\nX-Forwarded-For: 192.0.2.7\r\n")
            assert await call.complete() == b"ok"
            assert call.head.status == 200
            assert capture.heads == [
                "GET /a/b?c=d HTTP/1.1\r\nHost: app.example.com\r\nAccept: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
            ]
            assert len(origin.clients) == 1

    tools.run(main())


def test_connections_are_kept_and_used_again(tools):
    async def main():
        async with tools.world() as world:
            origin = await world.origin(tools.answering(OK))
            for _ in range(5):
                assert await world.relay.request().complete() == b"ok"
            assert len(origin.clients) == 1
            assert origin.clients[0].requests == 5

    tools.run(main())


def test_a_connection_that_has_stood_for_long_is_not_kept_however_busy_it_is(tools):
    async def main():
        async with tools.world() as world:
            assert world.connector.origins.longest == 60
            world.connector.origins.longest = 0.0
            origin = await world.origin(tools.answering(OK))
            for _ in range(3):
                assert await world.relay.request().complete() == b"ok"
            assert len(origin.clients) == 3
            await tools.until(lambda: not world.connector.origins.open, "the end of the old ones")

    tools.run(main())


def test_a_connection_is_not_kept_when_the_origin_says_close_or_sends_more_than_it_declared(tools):
    async def main():
        for response in (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            OK + b"extra",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n",
        ):
            async with tools.world() as world:
                origin = await world.origin(tools.answering(response))
                assert await world.relay.request().complete() == b"ok"
                assert await world.relay.request().complete() == b"ok"
                assert len(origin.clients) == 2

    tools.run(main())


def test_bodies_arrive_decoded_whatever_their_framing(tools):
    async def main():
        for response, framing in (
            (OK, Framing.LENGTH),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", Framing.CHUNKED),
            (b"HTTP/1.1 200 OK\r\n\r\nok", Framing.CHUNKED),
            (b"HTTP/1.0 200 OK\r\n\r\nok", Framing.CHUNKED),
        ):

            async def handler(client, response=response):
                await client.head()
                await client.send(response)

            async with tools.world() as world:
                await world.origin(handler)
                call = world.relay.request()
                assert await call.complete() == b"ok", response
                assert call.head.framing == framing
                assert "transfer-encoding" not in call.fields()
                assert "content-length" not in call.fields()

    tools.run(main())


def test_b08_answers_without_a_body_end_at_their_head(tools):
    async def main():
        async with tools.world() as world:
            origin = await world.origin(tools.answering(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"))
            call = world.relay.request(method="HEAD")
            assert await call.complete() == b""
            assert (call.head.framing, call.head.content_length) == (Framing.LENGTH, 12345)
            await world.relay.request(method="HEAD").complete()
            assert len(origin.clients) == 1
        for status in (b"204 No Content", b"304 Not Modified"):
            async with tools.world() as world:
                await world.origin(tools.answering(b"HTTP/1.1 " + status + b"\r\n\r\n"))
                assert await world.relay.request().complete() == b""

    tools.run(main())


def test_request_bodies_are_framed_as_they_came(tools):
    async def main():
        received = []

        async def handler(client):
            while head := await client.head():
                if "Content-Length: 11" in head:
                    received.append(await client.body(11))
                elif "Transfer-Encoding: chunked" in head:
                    received.append(await client.chunks())
                await client.send(OK)

        async with tools.world() as world:
            origin = await world.origin(handler)
            assert await world.relay.request(method="POST", body=b"hello world").complete() == b"ok"
            call = world.relay.request(method="PUT", content_length=11, body=b"hello", fin=False)
            call.send(b" world", fin=True)
            assert await call.complete() == b"ok"
            call = world.relay.request(method="POST", framing=Framing.CHUNKED, fin=False)
            for piece in (b"hello", b" ", b"world"):
                call.send(piece)
                await asyncio.sleep(0)
            call.send(b"", fin=True)
            assert await call.complete() == b"ok"
            assert received == [b"hello world"] * 3
            assert len(origin.clients) == 1

    tools.run(main())


def test_a_body_that_does_not_match_its_length_never_passes_as_complete(tools):
    async def main():
        async def handler(client):
            await client.head()
            await client.reader.read()

        async with tools.world() as world:
            await world.origin(handler)
            short = world.relay.request(method="POST", content_length=10, body=b"12345", fin=True)
            assert (await short.broken())[0] == ResetCode.PROTOCOL_ERROR
            long = world.relay.request(method="POST", content_length=3, body=b"12345", fin=True)
            assert (await long.broken())[0] == ResetCode.PROTOCOL_ERROR

    tools.run(main())


def test_server_sent_events_are_passed_on_as_they_come(tools):
    async def main():
        more = asyncio.Event()

        async def handler(client):
            await client.head()
            await client.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            for number in range(3):
                await client.send(b"data: %d\n\n" % number)
                await more.wait()
                more.clear()

        async with tools.world() as world:
            await world.origin(handler)
            call = world.relay.request()
            for number in range(3):
                wanted = b"".join(b"data: %d\n\n" % n for n in range(number + 1))
                await tools.until(lambda wanted=wanted: bytes(call.body) == wanted, f"event {number}")
                assert not call.done
                more.set()
            await call.complete()

    tools.run(main())


def test_b07_informational_responses_are_passed_on(tools):
    async def main():
        early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        async with tools.world() as world:
            await world.origin(tools.answering(early + early + OK))
            call = world.relay.request()
            assert await call.complete() == b"ok"
            assert [(one.status, one.fields) for one in call.informational] == [(103, b"Link: </a>\r\n")] * 2

    tools.run(main())


def test_b07_expectations_are_the_origins_to_answer(tools):
    async def main():
        async def handler(client):
            await client.head()
            await client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert await client.body(5) == b"hello"
            await client.send(OK)

        async with tools.world() as world:
            await world.origin(handler)
            fields = b"Expect: 100-continue\r\n"
            call = world.relay.request(method="POST", content_length=5, fin=False, fields=fields)
            await tools.until(lambda: call.informational, "100")
            call.send(b"hello", fin=True)
            assert await call.complete() == b"ok"
            assert [one.status for one in call.informational] == [100]

    tools.run(main())


def test_b07_an_origin_that_ignores_expectations_is_answered_for_once(tools):
    async def main():
        async def handler(client):
            await client.head()
            assert await client.body(5) == b"hello"
            await client.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)

        async with tools.world() as world:
            await world.origin(handler)
            fields = b"Expect: 100-continue\r\n"
            call = world.relay.request(method="POST", content_length=5, fin=False, fields=fields)
            began = asyncio.get_running_loop().time()
            await tools.until(lambda: call.informational, "100")
            assert asyncio.get_running_loop().time() - began > 0.9
            call.send(b"hello", fin=True)
            assert await call.complete() == b"ok"
            assert [one.status for one in call.informational] == [100]

    tools.run(main())


def test_b07_a_final_answer_to_an_unread_upload_stops_it(tools):
    async def main():
        gone = asyncio.Event()

        async def handler(client):
            await client.head()
            await client.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nlots")
            await client.reader.read()
            gone.set()

        async with tools.world() as world:
            await world.origin(handler)
            call = world.relay.request(method="POST", content_length=10_000_000, body=b"x" * 1000, fin=False)
            assert (await call.answered()).status == 413
            await tools.until(lambda: call.reset is not None, "the end of the upload")
            assert call.reset[0] == ResetCode.NO_ERROR
            assert call.ended
            assert call.body == b"lots"
            assert call.head.close
            await asyncio.wait_for(gone.wait(), 5)

    tools.run(main())


def test_rules_choose_by_host_and_path(tools):
    async def main():
        async with tools.world() as world:
            origins = [await tools.Origin(tools.answering(reply(name))).start() for name in ("api", "root", "wild")]
            world.origins += origins
            prefix = PathMatch(PathType.PREFIX, "/api")
            await world.serve(
                tools.rule(origins[0].service(), path=prefix, id="api"),
                tools.rule(origins[1].service(), id="root"),
                tools.rule(origins[2].service(), hostname="*.example.com", id="wild"),
            )
            ask = world.relay.request
            assert await ask("/api/x").complete() == b"api"
            assert await ask("//api/../api").complete() == b"api"
            assert await ask("/apis").complete() == b"root"
            assert await ask("/%61pi").complete() == b"api"
            assert await ask("/api", host="other.example.com").complete() == b"wild"
            # Two spellings of one path must not be told apart by a proxy and its origin.
            assert (await ask("/api%2fx").broken())[0] == ResetCode.BAD_REQUEST
            assert await ask("/api%2fx", host="other.example.com").complete() == b"wild"

    tools.run(main())


def test_a_relay_cannot_have_one_path_matched_and_another_served(tools):
    async def main():
        async with tools.world() as world:
            public = await tools.Origin(tools.answering(reply("public"))).start()
            world.origins.append(public)
            only = PathMatch(PathType.PREFIX, "/public")
            await world.serve(tools.rule(public.service(), path=only))
            head = world.relay.request("/secret")
            assert (await head.answered()).status == 404

    tools.run(main())


def test_answers_of_its_own(tools):
    async def main():
        async with tools.world() as world:
            await world.serve(
                tools.rule(StatusService(410), hostname="gone.example.com"),
                tools.rule(HelloWorldService(), hostname="hello.example.com"),
                tools.rule(UnavailableService("Service 'web' does not exist."), hostname="away.example.com"),
            )
            gone = world.relay.request(host="gone.example.com")
            assert b"410" in await gone.complete()
            assert gone.head.status == 410
            hello = world.relay.request(host="hello.example.com")
            assert b"The tunnel works" in await hello.complete()
            empty = world.relay.request(host="hello.example.com", method="HEAD")
            assert await empty.complete() == b""
            assert empty.head.content_length == hello.head.content_length
            away = world.relay.request(host="away.example.com", method="POST", content_length=9, fin=False)
            assert (await away.answered()).status == 503
            await tools.until(lambda: away.reset, "the end of the upload")
            assert b"Service 'web' does not exist." in away.body
            assert away.fields()["culvert-error"] == "connector; service_unavailable"
            nothing = world.relay.request(host="nothing.example.com")
            assert b"404" in await nothing.complete()
            assert nothing.fields()["culvert-error"] == "connector; no_rule"

    tools.run(main())


def test_a17_origins_that_cannot_be_reached(tools, unused_port):
    async def main():
        async with tools.world() as world:
            await world.serve(
                tools.rule(HTTPService("http", "127.0.0.1", unused_port)),
                tools.rule(HTTPService("http", "no-such-name.invalid", 80), hostname="name.example.com"),
                tools.rule(UnixService("/nonexistent/socket"), hostname="unix.example.com"),
            )
            assert await world.relay.request().broken() == (ResetCode.ORIGIN_UNREACHABLE, "connection_refused")
            code, reason = await world.relay.request(host="name.example.com").broken()
            assert (code, reason) == (ResetCode.ORIGIN_UNREACHABLE, "name_not_found")
            assert (await world.relay.request(host="unix.example.com").broken())[0] == ResetCode.ORIGIN_UNREACHABLE

    tools.run(main())


def test_a17_an_origin_that_never_accepts_is_a_timeout(tools):
    async def main():
        import socket

        # A backlog that is full: the kernel drops further SYNs, so that connecting neither succeeds nor fails.
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        try:
            async with tools.world() as world:
                service = HTTPService("http", "127.0.0.1", listener.getsockname()[1])
                await world.serve(tools.rule(service, connect_timeout=300))
                assert await world.relay.request().broken() == (ResetCode.ORIGIN_TIMEOUT, "connect_timeout")
        finally:
            for one in (*fillers, listener):
                one.close()

    tools.run(main())


def test_addresses_that_a_cluster_rule_may_not_have_are_refused(tools):
    async def main():
        async with tools.world() as world:
            origin = await tools.Origin(tools.answering(OK)).start()
            world.origins.append(origin)
            from culvert_ingress.document import AddressPolicy

            await world.serve(
                tools.rule(HTTPService("http", "localhost", origin.port)), address_policy=AddressPolicy.CLUSTER
            )
            code, reason = await world.relay.request().broken()
            assert (code, reason) == (ResetCode.ORIGIN_UNREACHABLE, "address_not_allowed")
            assert not origin.clients

    tools.run(main())


def test_unix_sockets_are_origins_too(tools, tmp_path):
    async def main():
        async with tools.world() as world:
            origin = await tools.Origin(tools.answering(OK)).start_unix(tmp_path / "o.sock")
            world.origins.append(origin)
            await world.serve(tools.rule(UnixService(origin.path)))
            assert await world.relay.request().complete() == b"ok"
            assert await world.relay.request().complete() == b"ok"
            assert len(origin.clients) == 1

    tools.run(main())


def test_tls_origins_are_verified_unless_the_rule_says_no(tools, certificates):
    async def main():
        async with tools.world() as world:
            origin = await tools.Origin(tools.answering(OK)).start(context=certificates.server_context())
            world.origins.append(origin)
            service = origin.service("https")
            await world.serve(
                tools.rule(service, hostname="plain.example.com"),
                tools.rule(service, hostname="ca.example.com", ca=certificates.ca),
                tools.rule(service, hostname="name.example.com", ca=certificates.ca, origin_server_name="other.test"),
                tools.rule(service, hostname="off.example.com", no_tls_verify=True),
            )
            untrusted = (ResetCode.ORIGIN_UNREACHABLE, "certificate_not_trusted")
            assert await world.relay.request(host="plain.example.com").broken() == untrusted
            assert await world.relay.request(host="name.example.com").broken() == untrusted
            assert await world.relay.request(host="ca.example.com").complete() == b"ok"
            assert await world.relay.request(host="off.example.com").complete() == b"ok"
            # A connection that nobody verified must never serve the rule that verifies.
            assert await world.relay.request(host="plain.example.com").broken() == untrusted

    tools.run(main())


def test_the_rules_host_header_replaces_the_visitors(tools):
    async def main():
        async with tools.world() as world:
            capture = Capture(OK)
            await world.origin(capture, http_host_header="internal.test")
            await world.relay.request().complete()
            assert "\r\nHost: internal.test\r\n" in capture.heads[0]
            assert "app.example.com" not in capture.heads[0]

    tools.run(main())


def test_nothing_a_relay_sends_becomes_a_second_request(tools):
    async def main():
        async with tools.world() as world:
            capture = Capture(OK)
            await world.origin(capture)
            for attack in (
                {"path": "/x HTTP/1.1\r\n\r\nGET /y"},
                {"method": "GET /z HTTP/1.1\r\nA: b\r\n\r\nGET"},
                {"fields": b"A: b\r\n\r\nGET /smuggled HTTP/1.1\r\n"},
                {"fields": b"Content-Length: 100\r\n"},
                {"fields": b"Transfer-Encoding: chunked\r\n"},
                {"fields": b"Host: other\r\n"},
                {"fields": b"A: b\n"},
            ):
                assert (await world.relay.request(**attack).broken())[0] == ResetCode.BAD_REQUEST
            assert capture.heads == []

    tools.run(main())


def test_a_tcp_stream_that_no_rule_takes_is_refused_with_a_reason(tools):
    async def main():
        async with tools.world() as world:
            await world.origin(tools.answering(OK))
            call = world.relay.request(kind=Kind.TCP)
            assert await call.broken() == (ResetCode.UNAVAILABLE, "no_rule")

    tools.run(main())


def test_requests_are_counted_by_rule_and_class(tools):
    async def main():
        async with tools.world() as world:
            await world.origin(tools.answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), id="shop")
            await world.relay.request().complete()
            await world.relay.request().complete()
            await world.relay.request(host="none.example.com").complete()
            rules = world.connector.counters.rules
            assert list(rules.of("shop").answers.samples()) == [("4xx", "none", 2)]
            assert list(rules.of("fallback").answers.samples()) == [("4xx", "connector", 1)]
            # Rules that go take their numbers with them, or ids would pile up for ever.
            await world.serve(tools.rule(StatusService(204), id="other"))
            assert "shop" not in [traffic.labels[0] for traffic in rules]

    tools.run(main())


def test_a_request_that_is_repeated_goes_where_the_newest_configuration_says(tools):
    async def main():
        async with tools.world() as world:
            await world.origin(capture := Capture(OK), id="shop")
            for _ in range(3):
                assert await world.relay.request("/a", fields=b"Accept: x\r\n").complete() == b"ok"
            assert len(set(capture.heads)) == 1
            assert len(capture.heads) == 3
            # Not the target alone may be another, but what is written there, and where it is counted.
            other = await world.origin(second := Capture(reply("new")), id="shop", http_host_header="inner.test")
            assert await world.relay.request("/a", fields=b"Accept: x\r\n").complete() == b"new"
            assert "Host: inner.test\r\n" in second.heads[0]
            assert len(other.clients) == 1
            await world.serve(tools.rule(StatusService(410), id="gone"))
            gone = world.relay.request("/a", fields=b"Accept: x\r\n")
            await gone.complete()
            assert gone.head.status == 410

    tools.run(main())


class Capture:
    """An origin that keeps the request heads it saw."""

    def __init__(self, response):
        self._response = response
        self.heads = []

    async def __call__(self, client):
        while head := await client.head():
            self.heads.append(head)
            await client.send(self._response)


def reply(text):
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
