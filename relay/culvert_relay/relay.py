"""One running relay, put together from its parts.

Responsible for starting them in an order in which nothing is half there, and for stopping them. Decides nothing.
Must not know signals, files' forms or exit codes (`main`).
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import getrandbits
from typing import Final

from aiohttp import web

from culvert_relay.accepting import Arrival
from culvert_relay.access.file import LogFile
from culvert_relay.access.log import AccessLog
from culvert_relay.access.marking import Marking
from culvert_relay.admin import AdminView, start_admin
from culvert_relay.certificates import CertificateStore
from culvert_relay.config import Address, ConfigError, RelayConfig
from culvert_relay.drain import Outcome, drain
from culvert_relay.edge import Edge
from culvert_relay.issuers import Issuers, read_issuers
from culvert_relay.listeners import Door, Listener, bind
from culvert_relay.metrics import Readings, exposition
from culvert_relay.sessions_view import readings, sessions_view
from culvert_relay.streams.front import Front
from culvert_relay.streams.ports import PortDoors
from culvert_relay.tunnels.handshake import OWN_PATHS, TunnelHandshake
from culvert_relay.tunnels.remembering import Entry, Remembering, read_revocations
from culvert_relay.tunnels.revocations import Revocations
from culvert_relay.tunnels.tunnels import Tunnels
from culvert_relay.visitors.connection import VisitorConnection
from culvert_relay.watching import EVERY_SECONDS, FileWatch

ACCESS_LOG_SECONDS: Final = 1.0
"""How long the end of a relay may wait for the access log's last lines to be taken."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Materials:
    """What a configuration names, read: raises nothing any more when the relay starts."""

    config: RelayConfig
    issuers: Issuers
    certificates: CertificateStore
    revocations: tuple[Entry, ...] = ()
    path: Path | None = None


def read_materials(config: RelayConfig, *, path: Path | None = None) -> Materials:
    """Reads keys, certificates and state; raises ConfigError with a sentence.

    `path` is where the configuration came from, to be looked after while the relay runs.
    """
    certificates = CertificateStore(config.certificate_dir, server_names=config.server_names)
    certificates.load()
    known = read_revocations(config.state_file) if config.state_file is not None else ()
    return Materials(config, read_issuers(config.issuers), certificates, known, path)


@dataclass(slots=True)
class Ports:
    """The ports that are really listened on, in the order of `relay.yml`."""

    http: list[int] = field(default_factory=list)
    https: list[int] = field(default_factory=list)
    tunnel: list[int] = field(default_factory=list)
    admin: int = 0


class Relay:
    """A relay on the running loop: `await start()`, later `await drain()`, in the end `await close()`."""

    def __init__(self, materials: Materials, *, look_every: float = EVERY_SECONDS) -> None:
        config = materials.config
        self._config = config
        self._certificates = materials.certificates
        self.edge = Edge(
            relay_id=config.id,
            server_names=config.server_names,
            issuers=materials.issuers,
            loop=asyncio.get_running_loop(),
            front=config.front,
            revocations=Revocations(materials.revocations),
        )
        self._remembering = Remembering(config.state_file, self.edge.revocations)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grants")
        self.doors = PortDoors(self.edge, config.listen.tcp)
        self.tunnels = Tunnels(self.edge, executor=self._executor, doors=self.doors, remember=self._remembering.learned)
        self.watch = FileWatch(
            certificates=materials.certificates,
            issuers=config.issuers,
            on_issuers=self._new_issuers,
            every=look_every,
            config=config,
            path=materials.path,
        )
        self.ports = Ports()
        access = config.access
        if access.request_ids or access.traceparents:
            self.edge.marking = Marking(
                request_ids=access.request_ids, traceparents=access.traceparents, random=getrandbits
            )
        self._listeners: list[Listener] = []
        self._admin: web.AppRunner | None = None
        self._watching: asyncio.Task[None] | None = None
        self._started = False
        self._leaving = False

    async def start(self) -> None:
        """Opens every door; raises ConfigError when an address cannot be had, with none left open."""
        loop, listen = self.edge.loop, self._config.listen
        try:
            self.edge.access_log = self._open_access_log()
            http = [item for address in listen.http for item in await self._bind(address, "listen.http")]
            https = [item for address in listen.https for item in await self._bind(address, "listen.https")]
            tunnel = [item for address in listen.tunnel for item in await self._bind(address, "listen.tunnel")]
            admin = await bind(loop, listen.admin, where="listen.admin")
            await self.doors.resolve()
        except BaseException:
            self._close_listeners()
            self._close_access_log()
            self._executor.shutdown(wait=False)
            raise
        self.edge.start()
        self.tunnels.start()
        view = AdminView(self._metrics, self._ready, lambda: sessions_view(self.tunnels))
        self._admin = await start_admin(view, admin[0].socket)
        for extra in admin[1:]:
            extra.close()
        context = self._certificates.listener_context()
        gate = self.edge.gate
        for listener in tunnel:
            listener.serve(
                gate, self._handshake, context=context, choose=self._certificates.context_for, visitors=False
            )
        for listener in http:
            listener.serve(gate, self._visitor(Door(0, listener.port)))
        for listener in https:
            door = Door(1, listener.port, self._own)
            listener.serve(gate, self._visitor(door), context=context, front=Front(self.edge, listener.port))
        self.ports = Ports(
            [item.port for item in http],
            [item.port for item in https],
            [item.port for item in tunnel],
            admin[0].port,
        )
        self._watching = asyncio.create_task(self.watch.run())
        self._started = True
        logger.info(
            "relay started",
            extra={
                "fields": {
                    "relay": self.edge.relay_id,
                    "http": self.ports.http,
                    "https": self.ports.https,
                    "tunnel": self.ports.tunnel,
                    "admin": self.ports.admin,
                    "issuers": len(self.edge.issuers.by_id),
                    "certificates": len(self._certificates.pairs),
                }
            },
        )

    async def drain(self, *, force: asyncio.Event) -> Outcome:
        """Goes down in order; see `culvert_relay.drain`."""
        self._leaving = True
        return await drain(
            self.edge,
            self.tunnels,
            close_listeners=self._close_listeners,
            force=force,
            deadline=self._config.grace_period,
            delay=self._config.drain_delay,
        )

    async def close(self) -> None:
        """Ends everything that is left."""
        self._close_listeners()
        for listener in self._listeners:
            listener.abort()
        for visitor in tuple(self.edge.visitors):
            visitor.abort()
        for session in (*self.tunnels.sessions(), *self.tunnels.unproven):
            session.end("the relay is shutting down")
        self.tunnels.stop()
        self.edge.stop()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        if self._admin is not None:
            await self._admin.cleanup()
        # Visitors that were cut off tell of it in the next turn.
        await asyncio.sleep(0)
        self._close_access_log()
        self._executor.shutdown(wait=False, cancel_futures=True)
        await self._remembering.close()

    async def _bind(self, address: Address, where: str) -> list[Listener]:
        listeners = await bind(self.edge.loop, address, where=where)
        self._listeners += listeners
        return listeners

    def _visitor(self, door: Door) -> "VisitorFactory":
        return VisitorFactory(self.edge, door)

    def _handshake(self, _arrival: Arrival) -> TunnelHandshake:
        return TunnelHandshake(self.tunnels)

    def _own(self, path: bytes) -> TunnelHandshake | None:
        return TunnelHandshake(self.tunnels) if path in OWN_PATHS else None

    def _close_listeners(self) -> None:
        self.doors.close()
        for listener in self._listeners:
            listener.close()

    def _open_access_log(self) -> AccessLog | None:
        config = self._config.access.log
        if config is None:
            return None
        try:
            file = LogFile(config.path)
        except OSError as error:
            raise ConfigError(
                f"accessLog.output: {config.path} cannot be written ({error.strerror}); name a file in a folder "
                "that this process may write to, or stdout."
            ) from None
        edge = self.edge
        return AccessLog(file, query=config.query, issuer_label=edge.issuer_label, loop=edge.loop, wall=edge.wall)

    def _close_access_log(self) -> None:
        log, self.edge.access_log = self.edge.access_log, None
        if log is not None:
            log.close(ACCESS_LOG_SECONDS)

    def _ready(self) -> str:
        if self._leaving:
            return "the relay is shutting down"
        return "" if self._started else "the relay is starting"

    def _metrics(self) -> bytes:
        return exposition(self.edge.counters, self._readings())

    def _readings(self) -> Readings:
        log = self.edge.access_log
        return readings(
            self.tunnels,
            self._certificates,
            certificate_problems=self.watch.certificate_problems,
            access_log_dropped=log.dropped if log is not None else 0,
        )

    def _new_issuers(self, issuers: Issuers) -> None:
        before, self.edge.issuers = self.edge.issuers, issuers
        self.tunnels.keys_changed()
        changed = {one.id for one in issuers.by_id.values() if before.by_id.get(one.id, one) != one}
        self.tunnels.names_changed(changed)


class VisitorFactory:
    """Makes the protocol for each connection of one door."""

    __slots__ = ("_door", "_edge")

    def __init__(self, edge: Edge, door: Door) -> None:
        self._edge = edge
        self._door = door

    def __call__(self, arrival: Arrival) -> VisitorConnection:
        return VisitorConnection(self._edge, self._door, arrival)
