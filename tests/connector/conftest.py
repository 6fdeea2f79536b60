"""A connector's surroundings, small but real: a relay that speaks the protocol over TLS on loopback, origins that are
raw asyncio servers under the test's control, an issuer, and a source that delivers what the test says.

The relay accepts any hostname of a grant, places requests on the first session that takes them and hands them to
tests as streams; it has no visitors, routes or limits.
"""

import asyncio
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from culvert_connector.connector import Connector
from culvert_connector.sources.port import ConfigSink
from culvert_ingress.document import AddressPolicy, ConnectorSettings, Document, RelayTarget
from culvert_ingress.rules import HTTPService, OriginRequest, PathMatch, Rule, Service
from culvert_protocol.credentials_file import CredentialsFile
from culvert_protocol.handshake import HandshakeError, build_accept, build_refusal, parse_request
from culvert_protocol.heads import Framing, Kind, Open, ResponseHead
from culvert_protocol.messages import (
    Credential,
    CredentialResult,
    Hello,
    RouteResult,
    Routes,
    RoutesResult,
)
from culvert_protocol.statements import (
    GrantedName,
    PrivateKey,
    StatementError,
    check_proof,
    generate_issuer_key,
    generate_key,
    key_set,
    read_grant,
    sign_credential,
    sign_grant,
    verify_credential,
    verify_grant,
)
from culvert_protocol.stream import Stream
from culvert_transport.link import SessionLink
from culvert_transport.loop import loop_factory

from ..certificates import write_pair

TIMEOUT = 15.0
SERVER_NAME = "relay.test"


async def until(condition: Callable[[], Any], what: str, *, within: float = TIMEOUT) -> None:
    """Waits for a state, not for a time; fails with `what` when it does not come."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        await asyncio.sleep(0.005)


@dataclass(frozen=True)
class Certificates:
    """A self-signed pair and the PEM that trusts it."""

    folder: Path
    ca: str

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "pair.crt", self.folder / "pair.key")
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    write_pair(folder, "pair", [SERVER_NAME, "localhost", "127.0.0.1"])
    return Certificates(folder, (folder / "pair.crt").read_text())


class Issuer:
    """Signs for one tunnel."""

    def __init__(self) -> None:
        self.key = generate_issuer_key()
        self.keys = key_set([self.key.public])
        self.subject = "tunnel-1"

    def grant(self, *hostnames: str, version: int = 1) -> str:
        now = int(time.time())
        return sign_grant(
            self.key,
            subject=self.subject,
            version=version,
            names=[GrantedName(hostname, 1) for hostname in hostnames],
            issued_at=now,
            expires_at=now + 3600,
        )

    def credentials(
        self, *, subject: str | None = None, age: int = 0, grant: str | None = None, key: PrivateKey | None = None
    ) -> CredentialsFile:
        """Fresh credentials; `age` seconds older than now."""
        now = int(time.time()) - age
        private = key or generate_key()
        token = sign_credential(
            self.key,
            subject=subject or self.subject,
            public_key=private.public,
            issued_at=now,
            not_before=now,
            expires_at=now + 3600,
            jti=secrets.token_hex(8),
        )
        return CredentialsFile("demo", subject or self.subject, token, private, grant)


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()


# -- the relay -------------------------------------------------------------------------------------------------------


class Call:
    """A request the relay sent down: what came back, in order."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.informational: list[ResponseHead] = []
        self.head: ResponseHead | None = None
        self.body = bytearray()
        self.pieces: list[bytes] = []
        self.ended = False
        self.reset: tuple[int, str] | None = None
        self.consume = True
        self.writable = 0

    @property
    def done(self) -> bool:
        return self.ended or self.reset is not None

    def on_head(self, head: ResponseHead) -> None:
        if head.status < 200 and head.status != 101:
            self.informational.append(head)
        else:
            self.head = head

    def on_data(self, data: bytes) -> None:
        self.body += data
        self.pieces.append(data)
        if self.consume:
            assert self.stream is not None
            self.stream.consumed(len(data))

    def on_end(self) -> None:
        self.ended = True

    def on_reset(self, code: int, reason: str) -> None:
        self.reset = (code, reason)

    def on_writable(self) -> None:
        self.writable += 1

    # What tests do.

    def send(self, data: bytes, *, fin: bool = False) -> None:
        assert self.stream is not None
        self.stream.write(data, fin=fin)

    async def answered(self) -> ResponseHead:
        await until(lambda: self.head is not None or self.reset, "a response head")
        assert self.head is not None, f"reset {self.reset}"
        return self.head

    async def complete(self) -> bytes:
        await until(lambda: self.done, "the end of a response")
        assert self.ended, f"reset {self.reset}"
        return bytes(self.body)

    async def broken(self) -> tuple[int, str]:
        await until(lambda: self.done, "a reset")
        assert self.reset is not None, "the response ended cleanly"
        return self.reset

    def fields(self) -> dict[str, str]:
        assert self.head is not None
        pairs = (line.partition(b":") for line in self.head.fields.split(b"\r\n") if line)
        return {name.decode().lower(): value.strip().decode() for name, _, value in pairs}


class RelayEnd:
    """The relay's end of one session."""

    def __init__(self, relay: "Relay", slot: int, generation: int, connector_id: str, token: str) -> None:
        self.relay = relay
        self.slot = slot
        self.generation = generation
        self.connector_id = connector_id
        self.token = token
        self.nonce = secrets.token_urlsafe(24)
        self.link = SessionLink(relay=True, listener=self, loop=asyncio.get_running_loop())
        self.transport: asyncio.Transport | None = None
        self.grants: list[str] = []
        self.revocations: list[str] = []
        self.proved = False
        self.drained = ""
        self.acknowledged = False
        self.closed: str | None = None

    @property
    def session(self) -> Any:
        return self.link.session

    def on_hello(self, hello: Hello) -> None:
        credential = verify_credential(self.token, self.relay.issuer.keys, now=time.time())
        self.proved = check_proof(credential, hello.proof, nonce=self.nonce, server_names=[SERVER_NAME])
        self.relay.on_hello(self)
        self.session.hello(Hello(relay=self.relay.id, ids=self.relay.ids or (self.relay.id,)))

    def on_open(self, stream: Stream, head: Open, body: bytes, fin: bool) -> None:
        raise AssertionError("a connector opens nothing but probes")

    def on_routes(self, routes: Routes) -> None:
        self.grants.append(routes.grant)
        self.revocations += routes.revocations
        self.relay.on_routes(self)
        if self.relay.answers_routes:
            self.answer_routes()

    def answer_routes(self) -> None:
        grant = self.grants[-1]
        try:
            verified = verify_grant(grant, self.relay.issuer.keys, now=time.time())
        except StatementError as error:
            self.session.routes_result(RoutesResult(read_grant(grant).version, (), error.reason))
            return
        results = tuple(
            RouteResult(name.hostname, name.hostname not in self.relay.refuses, "accepted")
            if name.hostname not in self.relay.refuses
            else RouteResult(name.hostname, False, "not_in_issuer")
            for name in verified.names
        )
        self.session.routes_result(RoutesResult(verified.version, results))

    def on_routes_result(self, result: RoutesResult) -> None:
        raise AssertionError("never")

    def on_credential(self, credential: Credential) -> None:
        if not self.relay.answers_credentials:
            return
        if not self.relay.takes_credentials:
            self.session.credential_result(CredentialResult(False, "forbidden"))
            return
        claims = verify_credential(credential.credential, self.relay.issuer.keys, now=time.time())
        good = check_proof(claims, credential.proof, nonce=self.nonce, server_names=[SERVER_NAME])
        if good:
            self.token = credential.credential
        self.session.credential_result(CredentialResult(good, "" if good else "bad_proof"))

    def on_credential_result(self, result: CredentialResult) -> None:
        raise AssertionError("never")

    def on_revoke(self, revocations: tuple[str, ...]) -> None:
        self.revocations += revocations

    def on_drain(self, reason: str) -> None:
        self.drained = reason

    def on_drain_ack(self) -> None:
        self.acknowledged = True

    def on_pong(self, token: bytes) -> None:
        pass

    def on_closed(self, reason: str) -> None:
        self.closed = reason
        if self in self.relay.sessions:
            self.relay.sessions.remove(self)


class Relay:
    """A listening relay. Its attributes are knobs for tests."""

    def __init__(self, issuer: Issuer, certificates: Certificates, *, relay_id: str = "relay-1") -> None:
        self.issuer = issuer
        self.certificates = certificates
        self.id = relay_id
        self.ids: tuple[str, ...] = ()
        self.refuses: set[str] = set()
        self.refuse_with: int | None = None
        self.answers_routes = True
        self.answers_credentials = True
        self.takes_credentials = True
        self.on_hello: Callable[[RelayEnd], None] = lambda end: None
        self.on_routes: Callable[[RelayEnd], None] = lambda end: None
        self.sessions: list[RelayEnd] = []
        self.ever: list[RelayEnd] = []
        self.dials = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0, *, host: str = "127.0.0.1") -> "Relay":
        loop = asyncio.get_running_loop()
        context = self.certificates.server_context()
        self._server = await loop.create_server(lambda: _Handshake(self), host, port, ssl=context, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def stop(self) -> None:
        """Stops listening and cuts every session."""
        if self._server is not None:
            self._server.close()
        for end in list(self.sessions):
            self.cut(end)
        await asyncio.sleep(0)

    def cut(self, end: RelayEnd) -> None:
        assert end.transport is not None
        end.transport.abort()

    async def connected(self, count: int) -> None:
        await until(lambda: sum(1 for end in self.sessions if end.grants) >= count, f"{count} sessions with a grant")

    def request(
        self,
        path: str = "/",
        *,
        host: str = "app.example.com",
        method: str = "GET",
        body: bytes = b"",
        fin: bool | None = None,
        framing: int | None = None,
        content_length: int | None = None,
        fields: bytes = b"",
        kind: int = Kind.HTTP,
        end: RelayEnd | None = None,
    ) -> Call:
        """Opens a stream on a session that takes one. Without `framing`: LENGTH when there is a body."""
        if framing is None:
            framing = Framing.LENGTH if body or content_length else Framing.NONE
        head = Open(
            kind=kind,
            framing=framing,
            content_length=len(body) if content_length is None else content_length,
            method=method.encode(),
            address=b"192.0.2.7",
            host=host.encode(),
            authority=host.encode(),
            target=path.encode(),
            fields=fields,
        )
        whole = content_length is None if framing != Framing.CHUNKED else False
        call = Call()
        chosen = end or next(one for one in self.sessions if one.grants and not one.session.draining)
        last = ((framing == Framing.NONE and kind == Kind.HTTP) or (bool(body) and whole)) if fin is None else fin
        call.stream = chosen.session.open(head, call, body, fin=last)
        return call


class _Handshake(asyncio.Protocol):
    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._data = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        try:
            request = parse_request(self._data)
        except HandshakeError as error:
            self._transport.write(build_refusal(error.status))
            self._transport.close()
            return
        if request is None:
            return
        relay = self._relay
        relay.dials += 1
        status = relay.refuse_with
        try:
            verify_credential(request.credential, relay.issuer.keys, now=time.time())
        except StatementError:
            status = 401
        if status is not None:
            self._transport.write(build_refusal(status))
            self._transport.close()
            return
        end = RelayEnd(relay, request.slot, request.generation, request.connector_id, request.credential)
        end.transport = self._transport
        self._transport.set_write_buffer_limits(high=1 << 20)
        self._transport.write(build_accept(end.nonce, relay.id))
        relay.sessions.append(end)
        relay.ever.append(end)
        end.link.attach(self._transport)


# -- origins ---------------------------------------------------------------------------------------------------------


class Client:
    """One connection to an origin, seen from the origin."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.requests = 0

    async def head(self) -> str:
        """The next request head as text; "" when the connection ended."""
        try:
            data = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return ""
        self.requests += 1
        return data.decode("latin-1")

    async def body(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), TIMEOUT)

    async def chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        assert await self.reader.readexactly(2) == b"\r\n"
        return body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def rst(self) -> None:
        """Dies as a killed process with unread bytes does."""
        import socket
        import struct

        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


Handler = Callable[[Client], Awaitable[None]]


class Origin:
    """A server under the test's control; `clients` are its connections in order."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.clients: list[Client] = []
        self.heads: list[str] = []
        self.errors: list[BaseException] = []
        self.port = 0
        self.path = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self, *, context: ssl.SSLContext | None = None, port: int = 0) -> "Origin":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def start_unix(self, path: Path) -> "Origin":
        self._server = await asyncio.start_unix_server(self._serve, path)
        self.path = str(path)
        return self

    def service(self, scheme: str = "http") -> HTTPService:
        return HTTPService(scheme, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(reader, writer)
        self.clients.append(client)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._handler(client)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
        except BaseException as error:
            self.errors.append(error)
            writer.transport.abort()
        else:
            writer.close()
        finally:
            self._tasks.discard(task)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self.clients:
            client.writer.transport.abort()
        await asyncio.sleep(0)
        assert not self.errors, self.errors


def answering(response: bytes) -> Handler:
    """An origin that gives this answer to every request, on kept-alive connections."""

    async def handler(client: Client) -> None:
        while await client.head():
            await client.send(response)

    return handler


# -- a connector in its surroundings ---------------------------------------------------------------------------------


class Source:
    """A ConfigSource that delivers what the test says."""

    def __init__(self) -> None:
        self.sink: ConfigSink | None = None

    async def run(self, sink: ConfigSink) -> None:
        self.sink = sink
        await asyncio.Event().wait()


@dataclass
class World:
    """A relay (or several), origins, and one connector, running."""

    issuer: Issuer
    certificates: Certificates
    relay: Relay
    connector: Connector
    source: Source
    stop: asyncio.Event
    task: "asyncio.Task[None]"
    rules: list[Rule] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    relays: list[Relay] = field(default_factory=list)
    version: int = 0
    sessions: int = 1
    grace: int = 5
    grant_version: int = 0

    async def origin(self, handler: Handler, **options: Any) -> Origin:
        """Starts an origin and routes `app.example.com` to it."""
        origin = await Origin(handler).start(context=options.pop("context", None))
        self.origins.append(origin)
        scheme = options.pop("scheme", "http")
        await self.serve(rule(origin.service(scheme), **options))
        return origin

    def document(self, *rules: Rule, **changes: Any) -> Document:
        self.version += 1
        values: dict[str, Any] = {
            "version": self.version,
            "tunnel": "demo",
            "relay": RelayTarget((self.relay.address,), SERVER_NAME, self.certificates.ca),
            "rules": tuple(rules),
            "connector": ConnectorSettings(self.sessions, self.grace),
            "address_policy": AddressPolicy.ANY,
        }
        values.update(changes)
        if "grant" not in values:
            names = sorted({one.hostname for one in rules if one.hostname}) or ["app.example.com"]
            values["grant"] = self.issuer.grant(*names, version=self.version)
        return Document(**values)

    async def serve(self, *rules: Rule, **changes: Any) -> Document:
        """Applies a configuration and waits until it is applied and the relay has the grant."""
        document = self.document(*rules, **changes)
        assert self.source.sink is not None
        self.source.sink.configuration(document)
        applied = lambda: self.connector.rollout.applied == document  # noqa: E731
        await until(applied, "the configuration's application")
        await until(lambda: self.connector.unready() is None, "readiness")
        want = min(document.connector.sessions, 4)
        await until(lambda: len(settled(self, document)) >= want, "the relay's answer to the grant")
        return document


def settled(world: World, document: Document) -> list[Any]:
    version = read_grant(document.grant).version
    return [one for one in world.connector.sessions.sessions() if one.active and one.grant_version == version]


def rule(
    service: Service,
    *,
    hostname: str = "app.example.com",
    path: PathMatch | None = None,
    id: str = "",  # noqa: A002
    **options: Any,
) -> Rule:
    return Rule(id or f"rule-{hostname or 'any'}", hostname, path, service, OriginRequest(**options))


@asynccontextmanager
async def running(issuer: Issuer, certificates: Certificates, **options: Any) -> AsyncIterator[World]:
    """A world with one relay and a connector that waits for its first configuration."""
    relay = await Relay(issuer, certificates).start()
    connector = Connector(**options)
    source = Source()
    stop = asyncio.Event()
    task = asyncio.create_task(connector.run(source, stop=stop))
    world = World(issuer, certificates, relay, connector, source, stop, task)
    world.relays.append(relay)
    try:
        await until(lambda: source.sink is not None, "the source's start")
        assert source.sink is not None
        source.sink.credentials(issuer.credentials())
        yield world
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        for one in world.relays:
            await one.stop()
        for origin in world.origins:
            await origin.stop()
        await asyncio.sleep(0.01)


class Tools:
    """What tests use of this file; modules here do not import one another."""

    def __init__(self, issuer: Issuer, certificates: Certificates) -> None:
        self.issuer = issuer
        self.certificates = certificates
        self.until = until
        self.rule = rule
        self.answering = answering
        self.Origin = Origin
        self.Relay = Relay

    def world(self, **options: Any) -> Any:
        return running(self.issuer, self.certificates, **options)

    def run(self, main: Awaitable[None], *, within: float = 60.0) -> None:
        """Runs a test's coroutine; one that hangs fails; warnings of forgotten tasks fail too."""

        async def bounded() -> None:
            async with asyncio.timeout(within):
                await main

        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(bounded())


@pytest.fixture
def tools(issuer: Issuer, certificates: Certificates) -> Tools:
    return Tools(issuer, certificates)


@pytest.fixture
def unused_port() -> int:
    """A port on which nothing listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
