"""The connector put together: a source of configuration, sessions, requests, the admin address, and a graceful end.

Responsible for wiring, for what "ready" means, and for the report's content. Decides nothing that a part decides.

Must not know: files, Kubernetes, sockets, frames.

Invariants: ready is at least one session that passed its probe, and an applied configuration, and not draining; a
source's failure never ends a connector that serves.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import random as randomness
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from culvert_connector import metrics
from culvert_connector.admin import Admin, Views, serve, wait_closed
from culvert_connector.dialling.addresses import parse
from culvert_connector.dialling.book import Lookup
from culvert_connector.dialling.dialer import dial, relay_context
from culvert_connector.dialling.proxy import DIRECT, Proxies, of_configuration
from culvert_connector.origins.addresses import resolve
from culvert_connector.origins.origins import Origins
from culvert_connector.place import RelaySettings
from culvert_connector.requests import Requests
from culvert_connector.rollout import Rollout
from culvert_connector.session import Offer, State
from culvert_connector.sessions import Dial, SessionSet
from culvert_connector.sources.port import ConfigSource
from culvert_connector.status import RefusedHostname, RefusedOrigin, RelayProblem, Report, SessionReport, StatusBoard
from culvert_ingress.document import SCHEMAS, Document
from culvert_ingress.rules import HTTPService, TCPService
from culvert_protocol.credentials_file import CredentialsFile
from culvert_protocol.statements import StatementError, read_grant
from culvert_transport.instruments import CONTENT_TYPE

log = logging.getLogger(__name__)

DRAIN_ACKNOWLEDGED_WITHIN = 3.0
"""Seconds a relay has to acknowledge the drain before an idle session is closed all the same."""


class Connector:
    """One connector process. Made inside a running loop; `run` is its life."""

    def __init__(
        self,
        *,
        dial: Dial = dial,
        resolve: Lookup = resolve,
        random: Callable[[], float] = randomness.random,
        proxies: Proxies = DIRECT,
    ) -> None:
        """`proxies`: those on the way to relays, where the configuration names none."""
        self._environment = self._proxies = proxies
        self._resolve = resolve
        self.connector_id = str(uuid.uuid4())
        self.board = StatusBoard(self.report)
        self.counters = metrics.Counters()
        self.origins = Origins(on_refusal=self.board.changed)
        self.requests = Requests(current=lambda: self.rollout.serving, connections=self.origins, counters=self.counters)
        self.sessions = SessionSet(
            connector_id=self.connector_id,
            dial=dial,
            resolve=self._resolved,
            random=random,
            on_change=self.board.changed,
            on_open=self.requests.open,
            counters=self.counters,
        )
        self.rollout = Rollout(
            relays=self.sessions, prepare=self._prepare, on_applied=self._applied, on_refused=self._refused
        )
        self.draining = False
        self.admin: Admin | None = None
        self._credentials: CredentialsFile | None = None
        self._waiting: Document | None = None
        self._problems: dict[str, str] = {}
        self._version = _version()

    # -- life --------------------------------------------------------------------------------------------------

    async def listen(self, *, host: str, port: int, search: bool) -> Admin:
        """Opens the admin address; raises `AdminError`."""
        views = Views(
            board=self.board,
            ready=self.unready,
            metrics=lambda: metrics.exposition(self.counters, self._readings()),
            metrics_content_type=CONTENT_TYPE,
        )
        self.admin = await serve(views, host=host, port=port, search=search)
        return self.admin

    async def run(self, source: ConfigSource, *, stop: asyncio.Event) -> None:
        """Serves until `stop` is set, then drains. Raises what the source raises before anything was delivered."""
        following = asyncio.create_task(source.run(self))
        rolling = asyncio.create_task(self.rollout.run())
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                done, _ = await asyncio.wait({following, rolling, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if rolling in done:
                    rolling.result()
                if following in done and not stop.is_set():
                    if self._credentials is None or following.exception() is None:
                        following.result()
                        await stop.wait()
                        break
                    log.error("Following the configuration failed; starting it again.", exc_info=following.exception())
                    await asyncio.sleep(1.0)
                    following = asyncio.create_task(source.run(self))
            await self._stop()
        finally:
            for task in (following, rolling, stopping):
                task.cancel()
            await asyncio.gather(following, rolling, stopping, return_exceptions=True)
            await self.sessions.close()
            await self.origins.close()
            await wait_closed(self.admin)

    async def _stop(self) -> None:
        """DRAIN, then what is in flight, within the grace period."""
        self.draining = True
        self.board.changed()
        applied = self.rollout.applied
        seconds = applied.connector.grace_period_seconds if applied is not None else 0
        log.info("Stopping: no new requests; those in flight have %d s.", seconds)
        deadline = asyncio.get_running_loop().time() + seconds
        await self.sessions.drain(
            "the connector stops", acknowledged_within=DRAIN_ACKNOWLEDGED_WITHIN, deadline=deadline
        )

    # -- ConfigSink --------------------------------------------------------------------------------------------

    def configuration(self, document: Document) -> None:
        """A valid document."""
        if self._credentials is None:
            self._waiting = document
        else:
            self.rollout.submit(document)

    def credentials(self, credentials: CredentialsFile) -> None:
        """Valid credentials."""
        self._credentials = credentials
        self.sessions.authenticate(credentials)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self.rollout.submit(waiting)
        self.board.changed()

    def problem(self, origin: str, sentence: str | None) -> None:
        """What is wrong with the newest thing read from `origin`."""
        before = self._problems.pop(origin, None)
        if sentence is not None:
            self._problems[origin] = sentence
            if sentence != before:
                log.error("%s (serving on with the last good one)", sentence)
        self.board.changed()

    # -- a new document ----------------------------------------------------------------------------------------

    def _prepare(self, document: Document) -> Offer:
        grant = document.grant or (self._credentials.grant if self._credentials is not None else "") or ""
        try:
            version = read_grant(grant).version if grant else document.version
        except StatementError as error:
            raise ValueError(f"the configuration's grant cannot be read: {error}") from None
        relay = document.relay
        context = relay_context(relay.ca)
        self._proxies = self._environment if relay.proxy is None else of_configuration(relay.proxy)
        settings = RelaySettings(
            names=tuple(replace(parse(text), via=relay.proxy) for text in relay.addresses),
            server_name=relay.server_name,
            context=context,
            sessions=document.connector.sessions,
            proxies=self._proxies,
        )
        self.sessions.configure(settings)
        return Offer(grant=grant, version=version, revocations=tuple(document.revocations))

    async def _resolved(self, host: str, port: int) -> Sequence[str]:
        return await self._proxies.resolving(self._resolve)(host, port)

    def _applied(self, document: Document) -> None:
        self._problems.pop("document", None)
        serving = self.rollout.serving
        if serving is not None:
            self.requests.forget_rules(serving.rule_ids())
        self.origins.refusals.keep(
            {
                rule.id: (rule.service.host, rule.service.port)
                for rule in document.rules
                if isinstance(rule.service, HTTPService | TCPService)
            }
        )
        log.info(
            "Configuration %d is applied: %d rules for %d hostnames.",
            document.version,
            len(document.rules),
            len(document.hostnames()),
            extra={"fields": {"version": document.version}},
        )
        self.sessions.start()
        self.board.changed()

    def _refused(self, document: Document, sentence: str) -> None:
        self.problem("document", f"configuration {document.version} cannot be served: {sentence}")

    # -- what it says of itself --------------------------------------------------------------------------------

    def unready(self) -> str | None:
        """Why it is not ready, as a sentence; None when it is."""
        if self.draining:
            return "The connector is stopping."
        if self.rollout.applied is None:
            return "No configuration has been applied yet."
        if not self.sessions.probed:
            return "No session with a relay has passed its probe yet."
        return None

    def report(self) -> Report:
        """The status."""
        credentials = self.sessions.in_use
        expires = credentials.read_credential().expires_at if credentials is not None else None
        sessions = self.sessions.sessions()
        applied = self.rollout.applied
        return Report(
            connector_id=self.connector_id,
            version=self._version,
            schemas=SCHEMAS,
            ready=self.unready() is None,
            draining=self.draining,
            applied_version=applied.version if applied is not None else 0,
            config_error="; ".join(self._problems.values()) or None,
            key_id=credentials.key_id if credentials is not None else None,
            credential_expires_at=expires,
            sessions=tuple(
                SessionReport(one.relay, str(one.address), one.slot, one.state.value, one.probed, one.grant_version)
                for one in sessions
                if one.state is not State.CLOSED
            ),
            refused=tuple(
                RefusedHostname(refused.hostname, one.relay, refused.reason, one.grant_version)
                for one in sessions
                if one.active
                for refused in one.refused
            ),
            refused_origins=tuple(
                RefusedOrigin(rule, "address_not_allowed", sentence)
                for rule, sentence in self.origins.refusals.current()
            ),
            relay_errors=tuple(
                RelayProblem(error.address, error.reason, error.message) for error in self.sessions.errors()
            ),
        )

    def _readings(self) -> metrics.Readings:
        credentials = self.sessions.in_use
        sessions = self.sessions.sessions()
        states = Counter(one.state.value for one in sessions)
        states[State.CONNECTING.value] += sum(1 for _ in self.sessions.dialling())
        applied = self.rollout.applied
        return metrics.Readings(
            sessions=states,
            probed=self.sessions.probed,
            streams=self.requests.under_way(stream for one in sessions for stream in one.link.session.streams.values()),
            queued_bytes=sum(one.link.queued for one in sessions),
            config_version=applied.version if applied is not None else 0,
            config_invalid=bool(self._problems),
            credential_expiry=credentials.read_credential().expires_at if credentials is not None else None,
            origins_open=self.origins.open,
            origins_idle=self.origins.idle,
            unverified_origins=sum(
                1 for rule in (applied.rules if applied is not None else ()) if rule.origin_request.no_tls_verify
            ),
            tasks=len(asyncio.all_tasks()),
        )


def _version() -> str:
    try:
        return importlib.metadata.version("culvert")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"
