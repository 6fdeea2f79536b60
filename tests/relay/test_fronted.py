"""A relay behind load balancers and proxies: PROXY headers, forwarding fields, and the way from http to https."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
V2 = SIGNATURE + struct.pack(">BBH4s4sHH", 0x21, 0x11, 12, b"\xc0\x00\x02\x07", b"\xc6\x33\x64\x01", 56324, 443)
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
GET = b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n"


@pytest.fixture
def configure(world: Any) -> Callable[[str], None]:
    """Adds lines to relay.yml before the relay starts."""

    def add(text: str) -> None:
        with (world.folder / "relay.yml").open("a") as file:
            file.write(text + "\n")

    return add


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_b10_a_proxy_header_names_the_visitor(play: Any, configure: Any, header: bytes, size: int) -> None:
    configure('proxyProtocolFrom: ["127.0.0.1"]')

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], port=world.relay.ports.tunnel[0], announce=LOCAL)
        visitor = await world.visitor()
        data = header + GET
        for start in range(0, len(data), size):
            visitor.send(data[start : start + size])
            await asyncio.sleep(0)
        assert (await visitor.response()).status == 200
        (request,) = connector.requests
        assert request.head.address == b"192.0.2.7"
        assert request.fields["x-forwarded-for"] == request.fields["x-real-ip"] == "192.0.2.7"

    play(scenario)


def test_b10_a_proxy_header_comes_before_tls(play: Any, configure: Any) -> None:
    configure('proxyProtocolFrom: ["127.0.0.0/8"]')

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], announce=LOCAL)

        def speak() -> bytes:
            with socket.create_connection(("127.0.0.1", world.relay.ports.https[0]), timeout=10) as sock:
                sock.sendall(V2)
                with world.clients.wrap_socket(sock, server_hostname="app.example.com") as tls:
                    tls.sendall(GET)
                    return bytes(tls.recv(4096))

        assert (await asyncio.to_thread(speak)).startswith(b"HTTP/1.1 200 ")
        (request,) = connector.requests
        assert request.head.address == b"192.0.2.7"
        assert request.fields["x-forwarded-proto"] == "https"

    play(scenario)


def test_without_a_header_a_load_balancers_connection_is_closed_and_counted(
    play: Any, configure: Any, wait_until: Any
) -> None:
    configure('proxyProtocolFrom: ["127.0.0.1"]\ntimeouts: {tlsHandshake: 1s}')

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], announce=LOCAL)
        wrong = await world.visitor()
        wrong.send(GET)
        with suppress(ConnectionError):  # its request was never read, so that the end may be a RST
            assert await wrong.rest() == b""
        silent = await world.visitor()
        silent.send(V1[:10])
        assert await silent.rest() == b""
        await wait_until(
            lambda: world.edge.counters.handshakes_failed == {"proxy_header": 1, "timeout": 1}, "both are counted"
        )
        assert world.edge.gate.waiting == 0
        assert world.edge.gate.admission.count == 0
        local = await world.visitor()
        local.send(LOCAL + GET)
        assert (await local.response()).status == 200
        assert connector.requests[0].head.address == b"127.0.0.1"

    play(scenario)


def test_a_proxy_header_from_elsewhere_is_a_bad_request(play: Any, configure: Any) -> None:
    configure('proxyProtocolFrom: ["192.0.2.1"]')

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        for header in (V1, V2):
            visitor = await world.visitor()
            visitor.send(header + GET)
            assert (await visitor.response()).status == 400
            assert await visitor.rest() == b""
        assert connector.requests == []

    play(scenario)


@pytest.mark.parametrize("trusted", [True, False])
def test_b10_forwarding_fields_are_added_to_for_trusted_proxies_alone(play: Any, configure: Any, trusted: bool) -> None:
    configure(f'trustedProxies: ["{"127.0.0.1" if trusted else "192.0.2.1"}"]')

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        for number in (7, 8):  # two visitors on one connection of the proxy
            extra = (
                f"X-Forwarded-For: 192.0.2.{number}\r\nX-Forwarded-Proto: https\r\nForwarded: for=192.0.2.{number}\r\n"
            )
            assert (await visitor.get("app.example.com", extra=extra)).status == 200
            request = connector.requests[-1]
            if trusted:
                assert request.head.address.decode() == f"192.0.2.{number}"
                assert request.fields["x-forwarded-for"] == f"192.0.2.{number}, 127.0.0.1"
                assert request.fields["x-forwarded-proto"] == "https"
                assert request.fields["forwarded"].startswith(f"for=192.0.2.{number}, for=127.0.0.1;")
            else:
                assert request.head.address == b"127.0.0.1"
                assert request.fields["x-forwarded-for"] == "127.0.0.1"
                assert request.fields["x-forwarded-proto"] == "http"
                assert "forwarded" not in request.fields

    play(scenario)


@pytest.mark.parametrize(
    ("port", "target", "host", "location"),
    [
        (443, "/a?b=%20c", "App.Example.com.:8080", "https://app.example.com/a?b=%20c"),
        (8443, "/", "app.example.com", "https://app.example.com:8443/"),
        (443, "/", "gone.example.com", "https://gone.example.com/"),
    ],
)
def test_b13_http_is_sent_on_to_https(
    play: Any, configure: Any, port: int, target: str, host: str, location: str
) -> None:
    configure(f"httpsRedirectPort: {port}")

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        for _ in range(2):
            response = await visitor.get(host, target)
            assert response.status == 308
            assert response.field("location") == location
            assert response.field("culvert-error") is None
        visitor.send(f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\n".encode())
        assert (await visitor.response()).status == 308
        assert await visitor.rest() == b""
        assert connector.requests == []

    play(scenario)


def test_b13_what_is_not_sent_on_to_https(play: Any, configure: Any) -> None:
    configure('httpsRedirectPort: 443\ntrustedProxies: ["127.0.0.1"]')

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        visitor = await world.visitor()
        assert (await visitor.get("app.example.com", "/.well-known/acme-challenge/token")).status == 200
        assert (await visitor.get("unknown.test")).status == 404
        assert (await visitor.get("app.example.com", extra="X-Forwarded-Proto: https\r\n")).status == 200
        assert (await visitor.get("app.example.com", extra="X-Forwarded-Proto: http\r\n")).status == 308
        secure = await world.visitor(sni="app.example.com")
        assert (await secure.get("app.example.com")).status == 200

    play(scenario)


def test_b13_a_visitor_comes_back_with_its_session_ticket_even_after_a_new_certificate(
    play: Any, pair_maker: Any
) -> None:
    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        session: Any = None

        def come(version: ssl.TLSVersion) -> bool:
            nonlocal session
            context.maximum_version = version
            with (
                socket.create_connection(("127.0.0.1", world.relay.ports.https[0]), timeout=10) as sock,
                context.wrap_socket(sock, server_hostname="app.example.com", session=session) as tls,
            ):
                tls.sendall(GET)
                assert tls.recv(4096).startswith(b"HTTP/1.1 200 ")
                session = tls.session
                return bool(tls.session_reused)

        for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            session = None
            assert not await asyncio.to_thread(come, version)
            assert await asyncio.to_thread(come, version)
            pair_maker(world.folder / "certs", "wildcard", ["*.example.com", "example.com"], days=2)
            await world.relay.watch.look()
            assert await asyncio.to_thread(come, version)

    play(scenario)
