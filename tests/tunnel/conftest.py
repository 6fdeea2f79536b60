"""A whole tunnel without a cluster: `culvert relay run` and `culvert tunnel run` as real processes on loopback, origins
and visitors in the test's own loop.

Responsible for starting the processes from files in a test's folder, for knowing when they are ready (`/readyz`, the
status; never a sleep), and for ending them: SIGTERM, exit code 0, no traceback in any log. Ports come from below the
ephemeral range, so that a relay that is killed can be started again on its own ports.
"""

import asyncio
import contextlib
import gc
import itertools
import json
import os
import random
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
import yaml
from aiohttp import web

from culvert_cli.issuing import Fresh, Wanted, create
from culvert_protocol.keys import generate_issuer_key, generate_key

from ..certificates import write_pair

CULVERT = Path(sys.executable).with_name("culvert")
DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
"""Nothing stays when pytest itself is killed, as its time-out does; setpriv becomes the process that it starts."""
READY = 60.0
"""Seconds within which something has to happen that takes moments on a quiet machine."""
PORTS = range(12_000, 30_000)
"""Below the ephemeral ports, and below those at which a cluster on this machine may answer (NodePorts)."""
_ports = itertools.count(random.Random().randrange(len(PORTS)))
_live: list["Tunnel"] = []


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on, and that no outgoing connection can take."""
    while True:
        port = PORTS[next(_ports) % len(PORTS)]
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", port))
                return port


async def until(condition: Callable[[], Any], what: str, *, seconds: float = READY) -> Any:
    """Waits until `condition` (plain or async) is true and returns its value; fails with `what`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < end, f"it never came: {what}"
        await asyncio.sleep(0.02)


class Process:
    """One culvert process, its log as JSON lines in a file, its status and metrics at the port `admin`.

    `without`: Python that it runs first, which takes one of its defences away.
    """

    admin: int

    def __init__(self, name: str, folder: Path, *arguments: str, without: str = "") -> None:
        self.name = name
        self.path = folder / f"{name}.log"
        self.expected = 0
        environment = {**os.environ, "CULVERT_LOG_FORMAT": "json", "CULVERT_LOG_LEVEL": "info", "HOME": str(folder)}
        program = [str(CULVERT)]
        if without:
            program = [sys.executable, "-c", f"{without}\nfrom culvert_cli.main import main\nraise SystemExit(main())"]
        with self.path.open("ab") as log:
            self.process = subprocess.Popen(
                [*DIES_WITH_US, *program, *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def log(self) -> str:
        return self.path.read_text(errors="replace")

    def records(self) -> list[dict[str, Any]]:
        """Its log so far; a line that is not JSON is a failure of its own."""
        text = self.log()
        try:
            return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        except ValueError:
            raise AssertionError(f"{self.name} writes what is no JSON:\n{text[-6000:]}") from None

    def signal(self, number: int, *, exits: int = 0) -> None:
        """Sends a signal; `exits` is the exit code that it will have (negative: killed by a signal)."""
        self.expected = exits
        self.process.send_signal(number)

    async def ended(self, *, seconds: float = READY) -> int:
        """Its exit code."""
        await until(lambda: not self.running, f"{self.name} ends", seconds=seconds)
        return int(self.process.returncode)

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    async def fetch(self, port: int, path: str) -> tuple[int, bytes, dict[str, str]]:
        """A GET at one of its own addresses; status 0 when nobody answers there yet."""
        assert self.running, f"{self.name} has ended with {self.process.returncode}:\n{self.log()[-4000:]}"
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return 0, b"", {}
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            data = await asyncio.wait_for(reader.read(-1), READY)
        except OSError:
            return 0, b"", {}
        finally:
            writer.transport.abort()
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return (int(lines[0].split(" ")[1]) if lines[0] else 0), body, fields

    async def metric(self, name: str) -> float:
        """The sum of a metric's series: 0 while there is none of its labels yet."""
        _, body, _ = await self.fetch(self.admin, "/metrics")
        text = body.decode()
        assert f"# TYPE {name} " in text, f"there is no metric {name}"
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


class Relay(Process):
    """`culvert relay run`; `http`, `https`, `tunnel` and `admin` are its ports."""

    def __init__(
        self,
        name: str,
        folder: Path,
        ports: Mapping[str, int],
        issuers: list[dict[str, Any]],
        *,
        without: str = "",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.ports = ports
        self.http, self.https, self.tunnel = ports["http"], ports["https"], ports["tunnel"]
        self.admin = ports["admin"]
        whole = {
            "id": name,
            "serverNames": ["localhost"],
            "listen": {
                **{door: [f"127.0.0.1:{ports[door]}"] for door in ("http", "https", "tunnel")},
                "admin": f"127.0.0.1:{ports['admin']}",
            },
            "tls": {"certificateDir": "./certs"},
            "issuers": issuers,
            **(config or {}),
        }
        path = folder / f"{name}.yml"
        path.write_text(yaml.safe_dump(whole))
        super().__init__(name, folder, "relay", "run", "--config", str(path), without=without)

    async def ready(self) -> None:
        await until(self._ready, f"{self.name} is ready")

    async def _ready(self) -> bool:
        return (await self.fetch(self.admin, "/readyz"))[0] == 200

    async def sessions(self) -> list[dict[str, Any]]:
        """`/v1/sessions`."""
        status, body, _ = await self.fetch(self.admin, "/v1/sessions")
        return list(json.loads(body)["sessions"]) if status == 200 else []


class Connector(Process):
    """`culvert tunnel run` with a config.yml of its own."""

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any], *, without: str = "") -> None:
        self.config = dict(config)
        self.config_path = folder / f"{name}.config.yml"
        self.write(self.config)
        super().__init__(name, folder, "tunnel", "--config", str(self.config_path), "run", without=without)

    def write(self, config: Mapping[str, Any] | str) -> None:
        """Replaces config.yml as an editor does, in one step."""
        text = config if isinstance(config, str) else yaml.safe_dump(dict(config), sort_keys=False)
        replace(self.config_path, text)

    @property
    def admin(self) -> int:
        """The port of its status address, 0 before it is known."""
        for record in self.records():
            if "status and metrics on http://" in record["message"]:
                return int(record["message"].rpartition(":")[2].rstrip("."))
        return 0

    async def status(self) -> dict[str, Any]:
        """`/v1/status`; empty before it answers."""
        port = self.admin
        if not port:
            assert self.running, f"{self.name} has ended with {self.process.returncode}:\n{self.log()[-4000:]}"
            return {}
        status, body, _ = await self.fetch(port, "/v1/status")
        return dict(json.loads(body)) if status == 200 else {}

    async def reports(self, condition: Callable[[dict[str, Any]], Any], what: str, *, seconds: float = READY) -> Any:
        """Waits for a status of which `condition` is true, and returns it."""

        async def look() -> dict[str, Any] | None:
            status = await self.status()
            return status if status and condition(status) else None

        return await until(look, f"{self.name} reports {what}", seconds=seconds)

    async def ready(self) -> None:
        """Every session of it is connected, has passed its probe and had its grant's answer."""
        wanted = self.config["ha-connections"]

        def settled(status: dict[str, Any]) -> bool:
            live = [one for one in status["sessions"] if one["probed"] and one["grantVersion"]]
            return bool(status["ready"]) and len(live) >= wanted

        await self.reports(settled, "readiness")


def replace(path: Path, text: str) -> None:
    """Writes a file beside `path`, mode 0600, and renames it."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.chmod(0o600)
    fresh.replace(path)


class Issuer:
    """An issuer's key pair and the credentials that it makes."""

    def __init__(self, folder: Path, name: str = "issuer") -> None:
        self.key = generate_issuer_key()
        self.private_path = folder / f"{name}.key"
        self.public_path = folder / f"{name}.pub"
        self.private_path.touch(mode=0o600)
        self.private_path.write_bytes(self.key.pem())
        self.public_path.write_bytes(self.key.public.pem())

    def credentials(
        self,
        path: Path,
        hostnames: list[str],
        *,
        claimed_ms: int | None = None,
        tls_hostnames: list[str] | None = None,
        tcp_ports: list[int] | None = None,
        sources: Mapping[str, tuple[str, ...]] | None = None,
    ) -> str:
        """Writes a new tunnel's credentials file; returns the tunnel's id. `claimed_ms`: unix milliseconds."""
        tunnel_id = str(uuid.uuid4())
        now_ms = time.time_ns() // 1_000_000 if claimed_ms is None else claimed_ms
        made = create(
            self.key,
            issuer_id=self.key.public.thumbprint,
            tunnel="test",
            tunnel_id=tunnel_id,
            wanted=Wanted(hostnames, tls_hostnames or [], tcp_ports or [], sources or {}),
            valid_for=86_400,
            fresh=Fresh(key=generate_key(), jti=str(uuid.uuid4()), now_ms=now_ms),
        )
        replace(path, made.dumps())
        return tunnel_id


class Tunnel:
    """Relays, connectors, and what a test connects to them. `host` is the name that most tests ask for."""

    host = "app.example.com"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "certs").mkdir()
        write_pair(folder / "certs", "localhost", ["localhost", "*.example.com", "127.0.0.1"])
        self.ca = folder / "certs" / "localhost.crt"
        self.issuer = Issuer(folder)
        self.credentials_path = folder / "credentials.json"
        self.tcp_port = free_port()
        """A TCP port of the relay that the issuer may grant, and has granted to the tunnel."""
        self.tunnel_id = self.issuer.credentials(
            self.credentials_path, ["*.example.com"], tls_hostnames=["tls.example.com"], tcp_ports=[self.tcp_port]
        )
        self.relays: list[Relay] = []
        self.connectors: list[Connector] = []
        self._origin_ports: dict[str, int] = {}
        self._names = itertools.count(1)
        self.issuers: list[dict[str, Any]] = [
            {
                "id": "demo",
                "publicKeyFile": str(self.issuer.public_path),
                "hostnames": ["*.example.com"],
                "tcpPorts": [self.tcp_port],
            }
        ]
        _live.append(self)

    # -- its life ------------------------------------------------------------------------------------------------

    async def start(self, *, relays: int = 1, connectors: int = 1, **config: Any) -> None:
        """Starts everything; returns once a visitor can be served."""
        for _ in range(relays):
            self.add_relay()
        if relays > 1:  # so that the first sessions are spread over all of them
            await asyncio.gather(*(relay.ready() for relay in self.relays))
        for _ in range(connectors):
            self.add_connector(**config)
        await asyncio.gather(*(one.ready() for one in (*self.relays, *self.connectors)))

    def add_relay(self, *, without: str = "", config: Mapping[str, Any] | None = None) -> Relay:
        """Starts a relay on ports of its own; `config`: more keys of its file; `without`: see `Process`."""
        ports = {door: free_port() for door in ("http", "https", "tunnel", "admin")}
        relay = Relay(f"relay-{next(self._names)}", self.folder, ports, self.issuers, without=without, config=config)
        self.relays.append(relay)
        return relay

    def again(self, relay: Relay) -> Relay:
        """Starts a relay that has ended again, on the ports that it had."""
        assert not relay.running
        fresh = Relay(relay.name, self.folder, relay.ports, self.issuers)
        self.relays[self.relays.index(relay)] = fresh
        return fresh

    def add_connector(
        self,
        *,
        ingress: list[dict[str, Any]] | None = None,
        credentials: Path | None = None,
        sessions: int = 2,
        grace: str = "10s",
        relay: list[str] | None = None,
        via: list[int] | None = None,
        without: str = "",
    ) -> Connector:
        """Starts a connector; without `ingress` every name goes to the origin "app". `via`: the ports it dials instead
        of the relays' own. `without`: see `Process`."""
        config = {
            "tunnel": "test",
            "credentials-file": str(credentials or self.credentials_path),
            "relay": relay or [f"127.0.0.1:{port}" for port in via or [one.tunnel for one in self.relays]],
            "relay-server-name": "localhost",
            "relay-ca": str(self.ca),
            "metrics": "127.0.0.1:0",
            "ha-connections": sessions,
            "grace-period": grace,
            "ingress": ingress or [{"service": self.url("app")}],
        }
        connector = Connector(f"connector-{next(self._names)}", self.folder, config, without=without)
        self.connectors.append(connector)
        return connector

    async def stop(self) -> None:
        """SIGTERM to everything that runs, connectors first; whatever does not exit as it should is a failure."""
        _live.remove(self)
        problems = []
        try:
            for group in (self.connectors, self.relays):
                for one in group:
                    if one.running:
                        one.signal(signal.SIGTERM)
                for one in group:
                    with contextlib.suppress(AssertionError):
                        await one.ended()
                    code = one.process.poll()
                    if code != one.expected:
                        problems.append(f"{one.name} exited with {code}, not {one.expected}")
                    if "Traceback" in one.log() or '"exception"' in one.log():
                        problems.append(f"{one.name} logged a traceback")
        finally:
            for one in (*self.connectors, *self.relays):
                if one.running:
                    one.process.kill()
                one.process.wait(timeout=READY)
        assert not problems, "\n".join([*problems, self.logs()])

    def logs(self) -> str:
        """The end of every log."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-6000:]}" for path in sorted(self.folder.glob("*.log")))

    # -- origins -------------------------------------------------------------------------------------------------

    def port(self, name: str) -> int:
        """The port of the origin `name`, the same for every test."""
        if name not in self._origin_ports:
            self._origin_ports[name] = free_port()
        return self._origin_ports[name]

    def url(self, name: str) -> str:
        """The service of the origin `name`, for a rule."""
        return f"http://127.0.0.1:{self.port(name)}"

    @contextlib.asynccontextmanager
    async def origin(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]], name: str = "app", **options: Any
    ) -> AsyncIterator[None]:
        """An aiohttp server at the port of `name` whose every path is `handler`'s."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{tail:.*}", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handler_cancellation=True, **options)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port(name), reuse_address=True).start()
        try:
            yield
        finally:
            await runner.cleanup()

    @contextlib.asynccontextmanager
    async def tcp_origin(
        self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], name: str = "tcp"
    ) -> AsyncIterator[None]:
        """A TCP server at the port of `name`."""
        tasks: set[asyncio.Task[Any]] = set()

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await serve(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(accepted, "127.0.0.1", self.port(name), limit=1 << 18)
        try:
            yield
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def raw_origin(
        self, answer: Callable[["Heard", asyncio.StreamWriter], Awaitable[None]], name: str = "raw"
    ) -> AsyncIterator["RawOrigin"]:
        """A TCP server that keeps every byte it gets, and lets `answer` write whatever it likes."""
        origin = RawOrigin(answer)
        server = await asyncio.start_server(origin.serve, "127.0.0.1", self.port(name))
        try:
            yield origin
        finally:
            server.close()
            for task in origin.tasks:
                task.cancel()
            await asyncio.gather(*origin.tasks, return_exceptions=True)

    # -- visitors ------------------------------------------------------------------------------------------------

    @property
    def relay(self) -> Relay:
        """The only relay, or the first."""
        return self.relays[0]

    @contextlib.asynccontextmanager
    async def browser(
        self, host: str | None = None, *, tls: bool = False, seconds: float = READY
    ) -> AsyncIterator[aiohttp.ClientSession]:
        """aiohttp's client towards the relay, asking for `host`; it waits `seconds` for the end of an answer."""
        base = f"https://127.0.0.1:{self.relay.https}" if tls else f"http://127.0.0.1:{self.relay.http}"
        async with aiohttp.ClientSession(
            base,
            headers={"Host": host or self.host},
            connector=aiohttp.TCPConnector(limit=0, ssl=False),
            timeout=aiohttp.ClientTimeout(total=seconds),
            auto_decompress=False,
            max_line_size=65_536,
        ) as session:
            yield session

    @contextlib.asynccontextmanager
    async def visitor(self, *, limit: int = 1 << 16) -> AsyncIterator["Visitor"]:
        """A raw connection to the relay's HTTP port; `limit` bounds what is read ahead."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.relay.http, limit=limit)
        try:
            yield Visitor(reader, writer)
        finally:
            await self.hang_up(writer.transport)

    async def hang_up(self, transport: asyncio.BaseTransport) -> None:
        """Ends a connection, also one with TLS, and returns when its socket is closed: a test's loop ends with it."""
        sock = transport.get_extra_info("socket")
        cast(asyncio.Transport, transport).abort()
        # TLS forgets its socket when the peer was first.
        await until(lambda: sock is None or sock.fileno() == -1, "the socket is closed")

    async def get(self, path: str = "/", *, host: str | None = None) -> "Response":
        """One GET on a connection of its own."""
        async with self.visitor() as visitor:
            return await visitor.get(path, host=host or self.host, extra="Connection: close\r\n")


@dataclass
class Response:
    """One response as it came off the wire."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def field(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return values[0] if values else None

    @property
    def blame(self) -> str | None:
        """`Culvert-Error`."""
        return self.field("culvert-error")


class Visitor:
    """A raw connection: bytes out, responses framed by RFC 9112 in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> Response:
        data = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), READY)
        lines = data[:-4].decode("latin-1").split("\r\n")
        fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        return Response(int(lines[0].split(" ")[1]), fields)

    async def response(self, *, method: str = "GET") -> Response:
        """One final response; an end in the middle of it raises IncompleteReadError or ConnectionError."""
        response = await self.head()
        if method == "HEAD" or response.status in (204, 304) or response.status < 200:
            return response
        length = response.field("content-length")
        if response.field("transfer-encoding") is not None:
            assert length is None
            while size := int(await self.line(), 16):
                response.body += await self.exactly(size)
                assert await self.line() == b""
            assert await self.line() == b""
        elif length is not None:
            response.body = await self.exactly(int(length))
        else:
            response.body = await self.rest()
        return response

    async def line(self) -> bytes:
        return (await asyncio.wait_for(self.reader.readuntil(b"\r\n"), READY))[:-2]

    async def exactly(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), READY)

    async def rest(self) -> bytes:
        """Everything up to a clean end."""
        return await asyncio.wait_for(self.reader.read(-1), READY)

    async def get(self, path: str = "/", *, host: str = Tunnel.host, extra: str = "", method: str = "GET") -> Response:
        self.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n".encode())
        return await self.response(method=method)

    def reset(self) -> None:
        """Leaves by RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class Heard:
    """A request as the raw origin read it; `body` is decoded, `fields` have lower-case names."""

    method: str
    target: str
    fields: dict[str, str]
    body: bytes
    names: list[str] = field(default_factory=list)


class RawOrigin:
    """Every request it read, and the raw bytes of every connection."""

    def __init__(self, answer: Callable[[Heard, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._answer = answer
        self.requests: list[Heard] = []
        self.received = bytearray()
        self.connections = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        try:
            while True:
                heard = await self._read(reader)
                self.requests.append(heard)
                await self._answer(heard, writer)
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass  # asyncio's streams would log a cancelled task as an error
        finally:
            self.tasks.discard(task)
            writer.transport.abort() if writer.is_closing() else writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Heard:
        head = await reader.readuntil(b"\r\n\r\n")
        self.received += head
        line, *rest = head[:-4].decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        pairs = [(name.lower(), value.strip()) for name, _, value in (item.partition(":") for item in rest)]
        fields = dict(pairs)
        body = b""
        if fields.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
        elif "content-length" in fields:
            body = await reader.readexactly(int(fields["content-length"]))
        self.received += body
        return Heard(method, target, fields, body, [name for name, _ in pairs])


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tunnel]:
    """One running tunnel for all tests that leave it as they found it: origins "app", "raw", "refused", "silent"."""
    tunnel = Tunnel(tmp_path_factory.mktemp("tunnel"))
    names = ("app", "raw", "refused", "nginx")
    ingress: list[dict[str, Any]] = [{"hostname": f"{name}.example.com", "service": tunnel.url(name)} for name in names]
    ingress.append(
        {
            "hostname": "silent.example.com",
            "service": tunnel.url("silent"),
            "originRequest": {"connectTimeout": "500ms"},
        }
    )
    ingress.append(
        {
            "hostname": "tcp.example.com",
            "relayPort": tunnel.tcp_port,
            "service": f"tcp://127.0.0.1:{tunnel.port('tcp')}",
        }
    )
    ingress.append({"hostname": "tls.example.com", "service": f"tls://127.0.0.1:{tunnel.port('tls')}"})
    ingress.append({"hostname": "page.example.com", "path": "^/only", "service": "hello_world"})
    ingress.append({"service": "http_status:404"})
    try:
        asyncio.run(tunnel.start(ingress=ingress))
        yield tunnel
    finally:
        asyncio.run(tunnel.stop())


@pytest.fixture
def tunnel(tmp_path: Path) -> Iterator[Tunnel]:
    """A tunnel of the test's own, not started yet."""
    made = Tunnel(tmp_path)
    try:
        yield made
    finally:
        asyncio.run(made.stop())


@pytest.fixture
def wait_for() -> Callable[..., Awaitable[Any]]:
    """`until`, for tests."""
    return until


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the end of its processes' logs."""
    if call.excinfo is not None:
        # A destructor that warns while the failure's source is parsed ends CPython 3.11's parser, and the whole run.
        gc.collect()
    report = yield
    if report.failed:
        report.sections.extend(("logs of " + tunnel.folder.name, tunnel.logs()) for tunnel in _live)
    return report


@pytest.fixture
def pair_maker() -> Callable[..., None]:
    """See `write_pair`."""
    return write_pair


@pytest.fixture
def client_tls() -> ssl.SSLContext:
    """TLS that verifies nothing, for sockets of the tests' own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
