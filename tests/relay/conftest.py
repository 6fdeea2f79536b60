"""A whole relay in the test's own loop: real sockets on loopback, visitors as raw bytes, connectors that are real ends
of the protocol (no rules, no origins: each test says what a request is answered with)."""

import asyncio
import itertools
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from culvert_protocol.handshake import Accepted, Refused, build_request, parse_answer
from culvert_protocol.heads import Framing, Open, ResponseHead
from culvert_protocol.messages import MAX_STREAMS, Credential, CredentialResult, Hello, Routes, RoutesResult
from culvert_protocol.statements import (
    GrantedName,
    PrivateKey,
    generate_issuer_key,
    generate_key,
    prove,
    sign_credential,
    sign_grant,
    sign_revocation,
)
from culvert_protocol.stream import Stream
from culvert_relay.config import parse_config
from culvert_relay.relay import Relay, read_materials
from culvert_transport.link import SessionLink
from culvert_transport.loop import loop_factory

from ..certificates import write_pair

TIMEOUT = 10.0
SERVER_NAME = "relay.test"


async def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a state, not for a time; fails with `what` when it does not come."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        await asyncio.sleep(0.005)


@dataclass
class Response:
    """One response as a visitor reads it."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes = b""

    def field(self, name: str) -> str | None:
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return values[0] if values else None


class Visitor:
    """A raw connection to the relay."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> Response:
        data = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), TIMEOUT)
        lines = data[:-4].decode("latin-1").split("\r\n")
        fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        return Response(int(lines[0].split(" ")[1]), fields)

    async def response(self, *, method: str = "GET") -> Response:
        """One final response with its body, framed as RFC 9112 says."""
        response = await self.head()
        if method == "HEAD" or response.status in (204, 304) or response.status < 200:
            return response
        length = response.field("content-length")
        if response.field("transfer-encoding") is not None:
            assert length is None
            while size := int((await self.line()).split(b";")[0], 16):
                response.body += await asyncio.wait_for(self.reader.readexactly(size), TIMEOUT)
                assert await self.line() == b""
            assert await self.line() == b""
        elif length is not None:
            response.body = await asyncio.wait_for(self.reader.readexactly(int(length)), TIMEOUT)
        else:
            response.body = await self.rest()
        return response

    async def line(self) -> bytes:
        return (await asyncio.wait_for(self.reader.readuntil(b"\r\n"), TIMEOUT))[:-2]

    async def exactly(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), TIMEOUT)

    async def rest(self) -> bytes:
        """Everything up to a clean end."""
        return await asyncio.wait_for(self.reader.read(-1), TIMEOUT)

    async def get(self, host: str, path: str = "/", *, extra: str = "") -> Response:
        self.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n".encode())
        return await self.response()

    def reset(self) -> None:
        """Leaves with a RST, as a process that dies with unread bytes does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError, ssl.SSLError):
            await asyncio.wait_for(self.writer.wait_closed(), TIMEOUT)


class Request:
    """A stream at the connector: what came, and the means to answer."""

    def __init__(self, connector: "Connector", stream: Stream, head: Open, body: bytes, fin: bool) -> None:
        self.connector = connector
        self.stream = stream
        self.head = head
        self.body = bytearray(body)
        self.fin = fin
        self.consume = True
        self.reset: tuple[int, str] | None = None
        self.fields = {
            name.decode().lower(): value.strip().decode("latin-1")
            for name, _, value in (line.partition(b":") for line in head.fields.split(b"\r\n") if line)
        }

    def respond(
        self, status: int = 200, body: bytes = b"", *, fields: bytes = b"", close: bool = False, stream: bool = False
    ) -> None:
        """A whole response: by length, or as a stream of unknown length."""
        framing = Framing.CHUNKED if stream else Framing.LENGTH
        head = ResponseHead(status, framing, 0 if stream else len(body), close, fields)
        self.stream.send_head(head, body, fin=True)

    def on_head(self, head: ResponseHead) -> None:
        raise AssertionError("a relay sends no heads")

    def on_data(self, data: bytes) -> None:
        self.body += data
        if self.consume:
            self.stream.consumed(len(data))
        self.connector.on_body(self)

    def on_end(self) -> None:
        self.fin = True
        self.connector.on_body(self)

    def on_reset(self, code: int, reason: str) -> None:
        self.reset = (code, reason)

    def on_writable(self) -> None:
        pass


def answer_ok(request: Request) -> None:
    """Answers a request once it is complete, with its method, target and body."""
    if request.fin:
        request.respond(200, b"%b %b %b" % (request.head.method, request.head.target, request.body))


class Connector:
    """A connector's end of one session. `handler` hears a request when it opens, `on_body` when more of it comes."""

    def __init__(self, handler: Callable[[Request], None], loop: asyncio.AbstractEventLoop) -> None:
        self.handler = handler
        self.on_body: Callable[[Request], None] = handler
        self.link = SessionLink(relay=False, listener=self, loop=loop)
        self.session = self.link.session
        self.requests: list[Request] = []
        self.results: list[RoutesResult] = []
        self.credential_results: list[CredentialResult] = []
        self.relay_hello: Hello | None = None
        self.drained: str | None = None
        self.closed: str | None = None
        self.nonce = ""

    def on_hello(self, hello: Hello) -> None:
        self.relay_hello = hello

    def on_open(self, stream: Stream, head: Open, body: bytes, fin: bool) -> None:
        request = Request(self, stream, head, body, fin)
        stream.listener = request
        if body:
            stream.consumed(len(body))
        self.requests.append(request)
        self.handler(request)

    def on_routes(self, routes: Routes) -> None:
        raise AssertionError

    def on_routes_result(self, result: RoutesResult) -> None:
        self.results.append(result)

    def on_credential(self, credential: Credential) -> None:
        raise AssertionError

    def on_credential_result(self, result: CredentialResult) -> None:
        self.credential_results.append(result)

    def on_revoke(self, revocations: tuple[str, ...]) -> None:
        raise AssertionError

    def on_drain(self, reason: str) -> None:
        self.drained = reason

    def on_drain_ack(self) -> None:
        pass

    def on_pong(self, token: bytes) -> None:
        pass

    def on_closed(self, reason: str) -> None:
        self.closed = reason

    def result(self) -> dict[str, str]:
        """The newest ROUTES_RESULT as hostname → reason."""
        return {item.hostname: item.reason for item in self.results[-1].results}


@dataclass
class Issuer:
    """An issuer with its private key, and the statements it makes."""

    key: PrivateKey = field(default_factory=generate_issuer_key)

    def credential(self, subject: str, key: PrivateKey, *, valid_for: int = 3600, issued: int = 0) -> str:
        now = int(time.time()) + issued
        return sign_credential(
            self.key,
            subject=subject,
            public_key=key.public,
            issued_at=now,
            not_before=now,
            expires_at=now + valid_for,
            jti="test",
        )

    def grant(self, subject: str, names: list[str] | dict[str, int], *, version: int = 1, valid_for: int = 3600) -> str:
        now = int(time.time())
        claims = names if isinstance(names, dict) else dict.fromkeys(names, 1_000)
        return sign_grant(
            self.key,
            subject=subject,
            version=version,
            names=[GrantedName(name, claimed) for name, claimed in claims.items()],
            issued_at=now,
            expires_at=now + valid_for,
        )

    def revocation(self, subject: str, *, not_before: int | None = None) -> str:
        now = int(time.time())
        return sign_revocation(
            self.key, subject=subject, not_before=now if not_before is None else not_before, issued_at=now
        )


class World:
    """A relay, its files, and everything that a test connects to it."""

    def __init__(self, folder: Path, issuer: Issuer) -> None:
        self.folder = folder
        self.issuer = issuer
        self.relay: Relay = None  # type: ignore[assignment]
        self.clients = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.clients.check_hostname = False
        self.clients.verify_mode = ssl.CERT_NONE
        self._visitors: list[Visitor] = []
        self._connectors: list[Connector] = []
        self._numbers = itertools.count(1)

    @property
    def edge(self) -> Any:
        return self.relay.edge

    async def start(self, **options: Any) -> None:
        path = self.folder / "relay.yml"
        config = parse_config(path.read_bytes(), folder=self.folder)
        self.relay = Relay(read_materials(config, path=path), **options)
        await self.relay.start()

    async def stop(self) -> None:
        for visitor in self._visitors:
            await visitor.close()
        for connector in self._connectors:
            connector.session.close("test over")
        await self.relay.close()
        # Transports that were closed in this turn report it in the next ones.
        for _ in range(5):
            await asyncio.sleep(0)
        leftover = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
        await until(lambda: all(task.done() for task in leftover), f"the end of {leftover}")

    async def visitor(self, *, sni: str | None = None, port: int | None = None, small_buffer: bool = False) -> Visitor:
        """A connection to the HTTP door, or with `sni` to the HTTPS one; `small_buffer`: its kernel takes little."""
        if small_buffer:
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            place = ("127.0.0.1", port or self.relay.ports.http[0])
            await asyncio.get_running_loop().sock_connect(sock, place)
            opening = asyncio.open_connection(sock=sock)
        elif sni is None:
            opening = asyncio.open_connection("127.0.0.1", port or self.relay.ports.http[0])
        else:
            opening = asyncio.open_connection(
                "127.0.0.1", port or self.relay.ports.https[0], ssl=self.clients, server_hostname=sni
            )
        visitor = Visitor(*await asyncio.wait_for(opening, TIMEOUT))
        self._visitors.append(visitor)
        return visitor

    async def dial(
        self, request: bytes, *, port: int | None = None, sni: str = SERVER_NAME, announce: bytes = b""
    ) -> tuple[Accepted | Refused, asyncio.Transport, bytes]:
        """Sends a handshake's bytes to the tunnel listener; the answer, and the transport to go on with.

        `announce`: what a load balancer writes before them.
        """
        loop = asyncio.get_running_loop()
        dialled = Dialling(loop)
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port or self.relay.ports.tunnel[0]))
        await loop.sock_sendall(sock, announce)
        transport, _ = await loop.create_connection(lambda: dialled, sock=sock, ssl=self.clients, server_hostname=sni)
        transport.write(request)
        answer = await asyncio.wait_for(dialled.answer, TIMEOUT)
        leftover = bytes(dialled.data[answer.size :]) if isinstance(answer, Accepted) else b""
        if isinstance(answer, Refused):
            transport.close()
        return answer, transport, leftover

    async def session(
        self,
        *,
        handler: Callable[[Request], None] = answer_ok,
        subject: str = "main",
        slot: int = 0,
        generation: int = 1,
        connector: str | None = None,
        credential: str | None = None,
        key: PrivateKey | None = None,
        prover: PrivateKey | None = None,
        proof_name: str = SERVER_NAME,
        issuer: Issuer | None = None,
        port: int | None = None,
        announce: bytes = b"",
        features: tuple[str, ...] = (),
        max_streams: int = MAX_STREAMS,
    ) -> Connector:
        """A session that has said HELLO and presented nothing yet."""
        key = key or generate_key()
        token = credential or (issuer or self.issuer).credential(subject, key)
        name = connector or f"00000000-0000-4000-8000-{next(self._numbers):012d}"
        answer, transport, leftover = await self.dial(
            build_request(SERVER_NAME, token, name, slot, generation), port=port, announce=announce
        )
        assert isinstance(answer, Accepted), answer
        end = Connector(handler, asyncio.get_running_loop())
        end.nonce = answer.nonce
        self._connectors.append(end)
        proof = prove(prover or key, nonce=answer.nonce, server_name=proof_name)
        end.session.hello(Hello(max_streams=max_streams, proof=proof, features=features))
        end.link.attach(transport, leftover)
        await until(lambda: end.relay_hello is not None or end.closed is not None, "the relay's HELLO")
        return end

    async def connector(
        self, names: list[str] | dict[str, int], *, version: int = 1, grant: str | None = None, **options: Any
    ) -> Connector:
        """A session that serves `names`; its ROUTES_RESULT has come."""
        end = await self.session(**options)
        issuer = options.get("issuer") or self.issuer
        subject = options.get("subject", "main")
        end.session.routes(Routes(grant or issuer.grant(subject, names, version=version)))
        await until(lambda: bool(end.results) or end.closed is not None, "ROUTES_RESULT")
        return end


class Dialling(asyncio.Protocol):
    """Reads the answer to a handshake."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.data = bytearray()
        self.answer: asyncio.Future[Accepted | Refused] = loop.create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._look(eof=False)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self._look(eof=True)

    def _look(self, *, eof: bool) -> None:
        try:
            answer = parse_answer(self.data, eof=eof)
        except ValueError as error:
            self.answer.set_exception(error)
            return
        if answer is not None and not self.answer.done():
            self.answer.set_result(answer)


RELAY_YML = f"""\
id: relay-1
serverNames: ["{SERVER_NAME}"]
listen: {{http: ["127.0.0.1:0"], https: ["127.0.0.1:0"], tunnel: ["127.0.0.1:0"], admin: "127.0.0.1:0"}}
tls: {{certificateDir: ./certs}}
issuers:
  - {{id: demo, publicKeyFile: ./issuer.pub, hostnames: ["example.com", "*.example.com"]}}
"""


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs for the relay itself, for *.example.com and for one exact name."""
    folder = tmp_path_factory.mktemp("certs")
    write_pair(folder, "relay", [SERVER_NAME, "127.0.0.1"])
    write_pair(folder, "wildcard", ["*.example.com", "example.com"])
    write_pair(folder, "shop", ["shop.example.com"])
    return folder


@pytest.fixture
def world(tmp_path: Path, certificates: Path) -> World:
    """A relay's files; `play` starts it."""
    (tmp_path / "certs").mkdir()
    for path in certificates.iterdir():
        (tmp_path / "certs" / path.name).write_bytes(path.read_bytes())
    issuer = Issuer()
    (tmp_path / "issuer.pub").write_bytes(issuer.key.public.pem())
    (tmp_path / "relay.yml").write_text(RELAY_YML)
    return World(tmp_path, issuer)


@pytest.fixture
def play(world: World) -> Callable[..., None]:
    """Runs a scenario, an async function of the world, against a relay that is started and stopped around it."""

    def run(scenario: Callable[[World], Awaitable[None]], **options: Any) -> None:
        async def whole() -> None:
            await world.start(**options)
            try:
                await scenario(world)
            finally:
                await world.stop()

        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(whole())

    return run


@pytest.fixture
def pair_maker() -> Callable[..., None]:
    """See `write_pair`."""
    return write_pair


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool], str], Awaitable[None]]:
    """See `until`."""
    return until


@pytest.fixture
def new_issuer() -> type[Issuer]:
    """Makes another issuer."""
    return Issuer
