"""Who may connect and what it may serve: renewal, revocation, other issuers, names outside a grant, one slot twice."""

import asyncio
import json
import signal
import ssl
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from culvert_protocol.credentials_file import CredentialsFile
from culvert_protocol.handshake import Accepted, Refused, build_request, parse_answer
from culvert_protocol.messages import Hello
from culvert_protocol.revocation_post import Delivered, build_revocation_request, parse_revocation_answer
from culvert_protocol.statements import prove, sign_revocation
from culvert_transport.link import SessionLink


async def ok(request: web.Request) -> web.Response:
    return web.Response(text="ok")


def renew(tunnel: Any) -> None:
    """`culvert tunnel renew`, as a person types it."""
    subprocess.run(
        [
            str(Path(sys.executable).with_name("culvert")), "tunnel", "renew",
            "--credentials-file", str(tunnel.credentials_path), "--issuer-key", str(tunnel.issuer.private_path),
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip


async def post_revocation(tunnel: Any, context: ssl.SSLContext, token: str, *, port: int) -> object:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    try:
        writer.write(build_revocation_request("localhost", token))
        data = await asyncio.wait_for(reader.read(-1), 60)
        return parse_revocation_answer(data, eof=True)
    finally:
        await tunnel.hang_up(writer.transport)


def test_a_renewed_credential_is_taken_over_without_losing_a_session(tunnel: Any, wait_for: Any) -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async def scenario() -> None:
        await tunnel.start()
        (connector,) = tunnel.connectors
        before = await tunnel.relay.sessions()
        old = (await connector.status())["keyId"]
        assert {one["keyId"] for one in before} == {old}
        async with tunnel.origin(echo), tunnel.browser() as browser, browser.ws_connect("/") as socket:
            await asyncio.to_thread(renew, tunnel)
            new = (await connector.reports(lambda status: status["keyId"] != old, "the new key"))["keyId"]
            after = await tunnel.relay.sessions()
            assert {one["keyId"] for one in after} == {new}
            assert [(one["slot"], one["generation"]) for one in after] == [
                (one["slot"], one["generation"]) for one in before
            ]
            await socket.send_str("still here")
            assert await socket.receive_str() == "still here"

            # The renewed grant has a later version, and every session presents it.
            version = CredentialsFile.loads(tunnel.credentials_path.read_text()).read_grant().version  # type: ignore[union-attr]

            async def presented() -> bool:
                return {one["grantVersion"] for one in await tunnel.relay.sessions()} == {version}

            await wait_for(presented, "the new grant is presented")

    asyncio.run(scenario())


def test_d22_a_revocation_ends_the_sessions_within_five_seconds_and_a_renewal_brings_them_back(
    tunnel: Any, wait_for: Any, client_tls: ssl.SSLContext
) -> None:
    async def scenario() -> None:
        await tunnel.start()
        (connector,) = tunnel.connectors
        async with tunnel.origin(ok):
            assert (await tunnel.get()).status == 200
            now = int(time.time()) + 1
            token = sign_revocation(tunnel.issuer.key, subject=tunnel.tunnel_id, not_before=now, issued_at=now)

            # Not one byte of it may be other than the issuer wrote it.
            forged = token[:-6] + ("A" if token[-6] != "A" else "B") + token[-5:]
            answer = await post_revocation(tunnel, client_tls, forged, port=tunnel.relay.tunnel)
            assert isinstance(answer, Refused)
            assert answer.status == 401
            assert (await tunnel.get()).status == 200

            answer = await post_revocation(tunnel, client_tls, token, port=tunnel.relay.https)
            assert isinstance(answer, Delivered)
            start = time.monotonic()

            async def ended() -> bool:
                return not await tunnel.relay.sessions()

            await wait_for(ended, "the sessions have ended")
            assert time.monotonic() - start < 5
            response = await tunnel.get()
            assert (response.status, response.blame) == (503, "relay; no_session")
            status = await connector.reports(lambda status: status["relayErrors"], "that it is refused")
            assert status["relayErrors"][0]["reason"] == "RelayRefused"
            assert not status["ready"]

            await wait_for(lambda: time.time() >= now, "a credential can be issued after the revocation")
            await asyncio.to_thread(renew, tunnel)
            await connector.ready()
            assert (await tunnel.get()).status == 200

    asyncio.run(scenario())


def test_a_credential_of_another_issuer_is_refused_and_the_status_says_so(tunnel: Any, tmp_path: Path) -> None:
    stranger = type(tunnel.issuer)(tmp_path, "stranger")
    path = tmp_path / "stranger.json"
    stranger.credentials(path, ["app.example.com"])

    async def scenario() -> None:
        await tunnel.start(connectors=0)
        connector = tunnel.add_connector(credentials=path)
        status = await connector.reports(lambda status: status["relayErrors"], "that it is refused")
        (error,) = status["relayErrors"]
        assert error["reason"] == "RelayRefused"
        assert "401" in error["message"]
        assert not status["ready"]
        assert not status["sessions"]
        assert (await connector.fetch(connector.admin, "/readyz"))[0] == 503
        assert (await connector.fetch(connector.admin, "/livez"))[0] == 200
        assert (await tunnel.get()).status == 503
        secrets = json.loads(path.read_text())
        for secret in (secrets["privateKey"], secrets["credential"]):
            assert secret not in tunnel.logs()

    asyncio.run(scenario())


def test_d21_a_credential_in_the_name_of_another_issuers_tunnel_is_refused(
    tunnel: Any, tmp_path: Path, wait_for: Any
) -> None:
    """Two issuers, the same subject: the second one's tunnel gets none of the first one's names or sessions."""
    second = type(tunnel.issuer)(tmp_path, "second")
    path = tmp_path / "second.json"
    second.credentials(path, ["app.example.com", "own.example.net"])
    tunnel.issuers.append({"id": "second", "publicKeyFile": str(second.public_path), "hostnames": ["*.example.net"]})

    async def other(request: web.Request) -> web.Response:
        return web.Response(text="the other tenant")

    async def scenario() -> None:
        await tunnel.start()
        connector = tunnel.add_connector(credentials=path, ingress=[{"service": tunnel.url("other")}])
        await connector.ready()
        status = await connector.status()
        assert {(one["hostname"], one["reason"]) for one in status["refusedHostnames"]} == {
            ("app.example.com", "not_in_issuer")
        }
        async with tunnel.origin(ok), tunnel.origin(other, "other"):
            for _ in range(10):
                assert (await tunnel.get()).body == b"ok"
                assert (await tunnel.get(host="own.example.net")).body == b"the other tenant"

    asyncio.run(scenario())


def test_of_two_tunnels_the_older_claim_holds_a_name_until_it_leaves(tunnel: Any, tmp_path: Path) -> None:
    path = tmp_path / "younger.json"
    tunnel.issuer.credentials(path, ["*.example.com", "mine.example.com"])  # later than the fixture's own

    async def other(request: web.Request) -> web.Response:
        return web.Response(text="younger")

    async def scenario() -> None:
        await tunnel.start()
        younger = tunnel.add_connector(credentials=path, ingress=[{"service": tunnel.url("younger")}])
        await younger.ready()
        status = await younger.status()
        assert {(one["hostname"], one["reason"]) for one in status["refusedHostnames"]} == {
            ("*.example.com", "held_by_another_tunnel")
        }
        async with tunnel.origin(ok), tunnel.origin(other, "younger"):
            assert (await tunnel.get()).body == b"ok"
            assert (await tunnel.get(host="mine.example.com")).body == b"younger"
            older = tunnel.connectors[0]
            older.signal(signal.SIGTERM)
            assert await older.ended() == 0
            await younger.reports(lambda status: not status["refusedHostnames"], "that the name is its own now")
            assert (await tunnel.get()).body == b"younger"

    asyncio.run(scenario())


class Copy:
    """A session that somebody opens with a tunnel's credentials, beside or instead of its connector's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.link = SessionLink(relay=False, listener=self, loop=loop)
        self.greeted = False
        self.closed = False

    def on_hello(self, hello: Hello) -> None:
        self.greeted = True

    def on_output(self) -> None:
        """The link sends by itself."""

    def on_closed(self, reason: str) -> None:
        self.closed = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *_: None
        raise AttributeError(name)


async def open_copy(
    tunnel: Any, context: ssl.SSLContext, *, connector: str, slot: int, generation: int
) -> Copy | Refused:
    """Opens one session at the relay's tunnel address; the copy is returned once the relay has said HELLO."""
    file = CredentialsFile.loads(tunnel.credentials_path.read_text())
    loop = asyncio.get_running_loop()
    received = bytearray()
    answered = loop.create_future()

    class Upgrade(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            received.extend(data)
            answer = parse_answer(received)
            if answer is not None and not answered.done():
                answered.set_result(answer)

    transport, _ = await loop.create_connection(
        Upgrade, "127.0.0.1", tunnel.relay.tunnel, ssl=context, server_hostname="localhost"
    )
    transport.write(build_request("localhost", file.credential, connector, slot, generation))
    answer = await asyncio.wait_for(answered, 60)
    if isinstance(answer, Refused):
        await tunnel.hang_up(transport)
        return answer
    assert isinstance(answer, Accepted)
    copy = Copy(loop, transport)
    proof = prove(file.private_key, nonce=answer.nonce, server_name="localhost")
    copy.link.session.hello(Hello(software="a copy", proof=proof))
    copy.link.attach(transport, bytes(received[answer.size :]))
    return copy


def test_a26_of_one_slot_twice_the_higher_generation_wins_and_its_siblings_live(
    tunnel: Any, wait_for: Any, client_tls: ssl.SSLContext
) -> None:
    async def scenario() -> None:
        await tunnel.start(connectors=0)
        identity = str(uuid.uuid4())

        async def dial(slot: int, generation: int) -> Any:
            made = await open_copy(tunnel, client_tls, connector=identity, slot=slot, generation=generation)
            if isinstance(made, Copy):
                await wait_for(lambda: made.greeted or made.closed, "HELLO")
            return made

        sibling, first = await dial(1, 1), await dial(0, 5)
        late = await dial(0, 4)  # an older one that arrives late, as after a half-open connection
        assert isinstance(late, Refused)
        assert late.status == 409
        same = await dial(0, 5)
        assert isinstance(same, Refused)
        second = await dial(0, 6)
        await wait_for(lambda: first.closed, "the older session of the slot has ended")
        assert not sibling.closed
        assert not second.closed
        sessions = await tunnel.relay.sessions()
        assert sorted((one["slot"], one["generation"]) for one in sessions) == [(0, 6), (1, 1)]
        for copy in (sibling, first, second):
            await tunnel.hang_up(copy.transport)

        async def gone() -> bool:
            return not await tunnel.relay.sessions()

        await wait_for(gone, "nothing is left")

    asyncio.run(scenario())


def test_a26_a_connector_whose_slot_is_taken_by_a_copy_of_its_state_serves_on(
    tunnel: Any, wait_for: Any, client_tls: ssl.SSLContext
) -> None:
    async def scenario() -> None:
        await tunnel.start()
        (connector,) = tunnel.connectors
        status = await connector.status()
        async with tunnel.origin(ok), tunnel.browser() as browser:
            copy = await open_copy(tunnel, client_tls, connector=status["connectorId"], slot=0, generation=1_000_000)
            assert isinstance(copy, Copy)

            async def replaced() -> bool:
                found = {one["slot"]: one["generation"] for one in await tunnel.relay.sessions()}
                return found.get(0) == 1_000_000 and 1 in found

            await wait_for(replaced, "the copy has the slot")
            # The copy answers nothing: a request that came to it would hang until the time-out.
            for _ in range(50):
                async with browser.get("/") as response:
                    assert response.status == 200
            assert 1 in {one["slot"] for one in (await connector.status())["sessions"] if one["state"] == "connected"}
            await tunnel.hang_up(copy.transport)

    asyncio.run(scenario())


def test_a_stranger_without_a_credential_hears_one_uniform_refusal(shared: Any, client_tls: ssl.SSLContext) -> None:
    async def ask(credential: str) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", shared.relay.tunnel, ssl=client_tls, server_hostname="localhost"
        )
        try:
            writer.write(build_request("localhost", credential, str(uuid.uuid4()), 0, 1))
            data = await asyncio.wait_for(reader.read(-1), 60)
        finally:
            await shared.hang_up(writer.transport)
        return int(data[9:12]), data.partition(b"\r\n\r\n")[2]

    async def scenario() -> None:
        good = CredentialsFile.loads(shared.credentials_path.read_text()).credential
        head, claims, signature = good.split(".")
        answers = [
            await ask(text)
            for text in (f"{head}.{claims}.{signature[::-1]}", f"{head}.{claims[:-2]}AA.{signature}", "a.b.c")
        ]
        assert len(set(answers)) == 1
        assert answers[0][0] == 401

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/.well-known/culvert/session", "/.well-known/culvert/revocations"])
def test_the_relays_own_paths_are_not_served_to_visitors_of_a_tunnel(shared: Any, path: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=request.path)

    async def scenario() -> None:
        async with shared.origin(handler):
            assert (await shared.get(path)).body == path.encode()

    asyncio.run(scenario())
