"""Each reason that a connector gives for a request it could not serve, from its cause."""

import errno
import socket
import ssl

import pytest

from culvert_connector.origins.addresses import AddressRefused
from culvert_connector.origins.bridge import handshake_problem
from culvert_connector.origins.origins import Origins, _explained
from culvert_connector.origins.targets import OriginKey, OriginTarget
from culvert_connector.origins.tls import OriginCAError
from culvert_protocol.codes import ResetCode
from culvert_protocol.heads import Framing
from culvert_transport.traffic import Traffic


def handshake_error(kind: type[ssl.SSLError], **attributes: str) -> ssl.SSLError:
    """As the ssl module raises it: these attributes are not arguments."""
    error = kind(1, "handshake failure")
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


UNREACHABLE = ResetCode.ORIGIN_UNREACHABLE
CAUSES = [
    (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), UNREACHABLE, "connection_refused"),
    (ConnectionResetError(errno.ECONNRESET, "reset"), UNREACHABLE, "connection_reset"),
    (OSError(errno.EHOSTUNREACH, "no route"), UNREACHABLE, "connection_failed"),
    (socket.gaierror(socket.EAI_NONAME, "unknown"), UNREACHABLE, "name_not_found"),
    (UnicodeError("label too long"), UNREACHABLE, "name_not_found"),
    (AddressRefused("it is a metadata address"), UNREACHABLE, "address_not_allowed"),
    (OriginCAError("not PEM"), UNREACHABLE, "bad_ca"),
    (handshake_error(ssl.SSLCertVerificationError, verify_message="expired"), UNREACHABLE, "certificate_not_trusted"),
    (handshake_error(ssl.SSLError, reason="WRONG_VERSION_NUMBER"), UNREACHABLE, "tls_failed"),
    (OSError(errno.EMFILE, "too many open files"), ResetCode.UNAVAILABLE, "connector_exhausted"),
    (OSError(errno.EADDRNOTAVAIL, "no ports"), ResetCode.UNAVAILABLE, "connector_exhausted"),
]


@pytest.mark.parametrize(("cause", "code", "reason"), CAUSES, ids=[row[2] for row in CAUSES])
def test_a_failure_to_connect_has_one_code_and_reason(cause: Exception, code: ResetCode, reason: str) -> None:
    explained = _explained(cause)
    assert (explained.code, explained.reason) == (code, reason)


def test_a_connector_that_stops_makes_no_connection(tools):
    class Seeker:
        refused = None

        def on_no_connection(self, code, reason):
            self.refused = (code, reason)

    async def main():
        origins = Origins()
        await origins.close()
        seeker = Seeker()
        key = OriginKey("127.0.0.1", 1, None, "any", 1, 1.0)
        origins.acquire(seeker, OriginTarget("rule", key, None, 1.0, 1.0, 0.0, 1.0), fresh=True, safe=True)
        assert seeker.refused == (ResetCode.UNAVAILABLE, "connector_stops")

    tools.run(main())


ANSWERS = [
    (b"", "origin_closed_early"),
    (b"HTTP/1.1 200 OK\r\nContent-Le", "origin_closed_early"),
    (b"nonsense\r\n\r\n", "bad_response"),
    (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100, "too_many_informational_responses"),
    (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "unexpected_switch"),
]


@pytest.mark.parametrize(("answer", "reason"), ANSWERS, ids=[f"{row[1]}-{len(row[0])}" for row in ANSWERS])
def test_what_an_origin_does_wrong_is_named_and_counted_as_its_fault(tools, answer, reason):
    async def main():
        async def handler(client):
            await client.head()
            await client.send(answer)
            client.close()

        async with tools.world() as world:
            await world.origin(handler, id="web")
            call = world.relay.request()
            assert await call.broken() == (ResetCode.ORIGIN_PROTOCOL, reason)
            traffic: Traffic = world.connector.counters.rules.of("web")
            assert list(traffic.answers.samples()) == [("5xx", "origin", 1)]
            assert traffic.aborted == {}

    tools.run(main())


BODIES = [(b"12", "body_shorter_than_declared"), (b"1234", "body_longer_than_declared")]


@pytest.mark.parametrize(("body", "reason"), BODIES)
def test_a_body_that_is_not_what_its_head_says_never_reaches_an_origin_whole(tools, body, reason):
    async def main():
        async def handler(client):
            await client.head()
            await client.body(5)

        async with tools.world() as world:
            await world.origin(handler, id="web")
            call = world.relay.request(method="POST", framing=Framing.LENGTH, content_length=3)
            call.send(body, fin=True)
            assert await call.broken() == (ResetCode.PROTOCOL_ERROR, reason)

    tools.run(main())


def test_every_end_of_a_request_is_counted_for_its_rule(tools):
    async def main():
        async def handler(client):
            await client.head()
            await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart")
            await client.head()

        async with tools.world() as world:
            await world.origin(handler, id="web")
            traffic = world.connector.counters.rules.of("web")
            call = world.relay.request(body=b"12345")
            await tools.until(lambda: call.body == b"part", "the first part")
            (session,) = (one.link.session for one in world.connector.sessions.sessions() if one.streams)
            streams = session.streams.values()
            assert world.connector.requests.under_way(streams)["web"] == 1
            call.stream.reset(ResetCode.CANCEL, "visitor_gone")
            await tools.until(lambda: traffic.aborted == {"visitor": 1}, "the count of the visitor who left")
            assert (traffic.received, traffic.sent) == (5, 4)
            assert sum(traffic.first_byte.counts) == 1
            call = world.relay.request()
            await tools.until(lambda: call.body == b"part", "the first part")
            call.stream.session.close("test")
            await tools.until(lambda: traffic.aborted == {"visitor": 1, "session": 1}, "the count of the lost session")
            assert list(traffic.answers.samples()) == [("2xx", "none", 2)]

    tools.run(main())


KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
HANDSHAKES = [
    (KEY + b"Sec-WebSocket-Version: 13\r\n", None),
    (b"Sec-WebSocket-Version: 13\r\n", "bad_websocket_key"),
    (KEY + KEY + b"Sec-WebSocket-Version: 13\r\n", "bad_websocket_key"),
    (b"Sec-WebSocket-Key: c2hvcnQ=\r\nSec-WebSocket-Version: 13\r\n", "bad_websocket_key"),
    (KEY + b"Sec-WebSocket-Version: 8\r\n", "unknown_websocket_version"),
    (KEY, "unknown_websocket_version"),
]


@pytest.mark.parametrize(("fields", "reason"), HANDSHAKES)
def test_a_handshake_for_a_tcp_rule_is_checked(fields, reason):
    assert handshake_problem(fields) == reason


def test_a_response_that_has_to_wait_for_its_visitor_is_counted_as_a_stall(tools):
    async def main():
        async def handler(client):
            await client.head()
            await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
            await client.send(b"x" * 200_000)
            await client.head()

        async with tools.world() as world:
            await world.origin(handler, id="web")
            traffic = world.connector.counters.rules.of("web")
            call = world.relay.request()
            call.consume = False
            await tools.until(lambda: traffic.stalls >= 1, "the stall")
            assert len(call.body) < 200_000
            call.consume = True
            call.stream.consumed(len(call.body))
            await call.complete()
            assert traffic.sent == 200_000

    tools.run(main())
