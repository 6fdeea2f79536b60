"""TLS passed through by server name, beside HTTPS that the relay terminates, at one port."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from culvert_protocol.handshake import Accepted, build_request
from culvert_protocol.heads import Kind
from culvert_protocol.statements import GrantedName, generate_key, sign_grant
from culvert_relay import accepting

Play = Callable[..., None]
Wait = Callable[[Callable[[], bool], str], Awaitable[None]]


def client_hello(name: str) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


async def passing(world: Any, *sources: str, **options: Any) -> Any:
    """A connector that serves app.example.com as HTTP and *.db.example.com as TLS."""
    now = int(time.time())
    grant = sign_grant(
        world.issuer.key, subject="main", version=1, names=[GrantedName("app.example.com", 1)],
        tls_names=[GrantedName("*.db.example.com", 1, sources)], issued_at=now, expires_at=now + 3600,
    )  # fmt: skip
    return await world.connector([], grant=grant, **options)


async def raw(world: Any, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    visitor = await world.visitor(port=world.relay.ports.https[0])
    visitor.send(data)
    return visitor.reader, visitor.writer


def test_c04_a_granted_name_is_passed_through_undecrypted(play: Play, wait_until: Wait) -> None:
    async def scenario(world: Any) -> None:
        end = await passing(world, handler=lambda request: None)
        assert end.result() == {"app.example.com": "accepted", "*.db.example.com": "accepted"}
        hello = client_hello("One.DB.example.com")
        reader, _ = await raw(world, hello)
        await wait_until(lambda: bool(end.requests) and len(end.requests[0].body) == len(hello), "the ClientHello")
        request = end.requests[0]
        assert (request.head.kind, request.head.host) == (Kind.TCP, b"one.db.example.com")
        assert request.head.local_port == world.relay.ports.https[0]
        assert bytes(request.body) == hello
        request.stream.write(b"not even TLS", fin=True)
        assert await asyncio.wait_for(reader.read(-1), 10) == b"not even TLS"

    play(scenario)


def test_other_names_and_no_name_are_terminated_here_as_always(play: Play) -> None:
    async def scenario(world: Any) -> None:
        await passing(world)
        visitor = await world.visitor(sni="app.example.com")
        assert (await visitor.get("app.example.com")).status == 200
        visitor = await world.visitor(sni="127.0.0.1")  # an address is never sent as a server name
        assert (await visitor.get("app.example.com")).status == 200
        visitor = await world.visitor(sni="db.example.com")  # the wildcard is not its own apex
        assert (await visitor.get("db.example.com")).status == 503

    play(scenario)


def test_a_visitor_outside_the_allowed_sources_is_reset_before_the_tunnel(play: Play) -> None:
    async def scenario(world: Any) -> None:
        end = await passing(world, "192.0.2.0/24")
        reader, _ = await raw(world, client_hello("one.db.example.com"))
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(-1), 10)
        assert end.requests == []

    play(scenario)


def test_a_client_hello_in_single_bytes_is_waited_for_without_spinning(
    play: Play, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    read_hello = accepting.read_hello

    def counted(data: bytes) -> Any:
        nonlocal looks
        looks += 1
        return read_hello(data)

    monkeypatch.setattr(accepting, "read_hello", counted)

    async def scenario(world: Any) -> None:
        end = await passing(world, handler=lambda request: None)
        hello = client_hello("one.db.example.com")
        _, writer = await raw(world, b"")
        for at in range(len(hello)):
            writer.write(hello[at : at + 1])
            await asyncio.sleep(0)
        await wait_until(lambda: bool(end.requests) and len(end.requests[0].body) == len(hello), "the ClientHello")
        assert looks <= len(hello) + 2
        before = looks
        await raw(world, hello[:40])
        await wait_until(lambda: looks > before, "the first look")
        for _ in range(200):
            await asyncio.sleep(0)
        assert looks <= before + 2

    play(scenario)


def test_connections_that_say_nothing_or_half_a_hello_end_in_time(play: Play, wait_until: Wait) -> None:
    async def scenario(world: Any) -> None:
        await passing(world)
        gate = world.edge.gate
        gate.limits = replace(gate.limits, handshake_seconds=3.0)
        silent, _ = await raw(world, b"")
        half, _ = await raw(world, client_hello("one.db.example.com")[:50])
        gone, gone_writer = await raw(world, client_hello("one.db.example.com")[:50])
        await wait_until(lambda: gate.waiting == 3, "all three are waited for")
        gone_writer.write_eof()
        with suppress(ConnectionResetError):  # of bytes that nobody has read
            assert await asyncio.wait_for(gone.read(-1), 10) == b""
        await wait_until(lambda: world.edge.counters.handshakes_failed.get("closed") == 1, "one has ended")
        for reader in (silent, half):
            with suppress(ConnectionResetError):  # of bytes that nobody has read
                assert await asyncio.wait_for(reader.read(-1), 10) == b""
        await wait_until(lambda: gate.waiting == 0, "nobody is waited for")
        assert world.edge.counters.handshakes_failed == {"closed": 1, "timeout": 2}

    play(scenario)


def test_sessions_visitors_and_passed_names_share_one_port(play: Play, world: Any, wait_until: Wait) -> None:
    path = world.folder / "relay.yml"
    path.write_text(path.read_text().replace('tunnel: ["127.0.0.1:0"], ', ""))

    async def scenario(world: Any) -> None:
        port = world.relay.ports.https[0]
        assert world.relay.ports.tunnel == []
        await passing(world, port=port)
        visitor = await world.visitor(sni="app.example.com")
        assert (await visitor.get("app.example.com")).status == 200
        # The session's path exists under the relay's own name alone.
        key = generate_key()
        token = world.issuer.credential("main", key)
        request = build_request("relay.test", token, "00000000-0000-4000-8000-000000000099", 0, 1)
        answer, transport, _ = await world.dial(request, port=port)
        assert isinstance(answer, Accepted)
        transport.abort()
        visitor = await world.visitor(sni="app.example.com")
        visitor.send(request.replace(b"relay.test", b"app.example.com"))
        assert (await visitor.head()).status != 101

    play(scenario)


def test_a_tunnel_cannot_take_the_relays_own_name(play: Play, world: Any) -> None:
    path = world.folder / "relay.yml"
    path.write_text(path.read_text().replace('"*.example.com"]', '"*.example.com", "relay.test"]'))

    async def scenario(world: Any) -> None:
        now = int(time.time())
        grant = sign_grant(
            world.issuer.key, subject="main", version=1, names=[], tls_names=[GrantedName("relay.test", 1)],
            issued_at=now, expires_at=now + 3600,
        )  # fmt: skip
        end = await world.connector([], grant=grant)
        await world.session(port=world.relay.ports.https[0])
        assert end.requests == []

    play(scenario)
