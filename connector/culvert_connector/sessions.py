"""The set of sessions a connector keeps: how many, to which addresses, and what happens when one ends or must move.

Responsible for carrying out the decisions of `dialling` (backoff, pacing, choice of address, which session moves) and
for make-before-break: a session that has to go leaves only when its successor is connected.

Must not know: TLS and the upgrade (`dialler`), frames (`session`), rules, origins.

Invariants: a slot number is never used by two places at once, and its generation only grows; there are never fewer
places than wanted while running; every session that left its place is drained and in the end closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Final

from culvert_connector import farewell
from culvert_connector.dialling import addresses
from culvert_connector.dialling.addresses import Address
from culvert_connector.dialling.backoff import grace
from culvert_connector.dialling.book import AddressBook, Lookup, RelayError
from culvert_connector.dialling.dialer import Call, DialError, Dialled
from culvert_connector.dialling.spreading import Spread
from culvert_connector.dialling.turns import Turns
from culvert_connector.metrics import Counters
from culvert_connector.place import TAKE_OVER_TRIES, Leaving, Place, RelaySettings
from culvert_connector.session import Offer, RelaySession, State
from culvert_protocol.credentials_file import CredentialsFile
from culvert_protocol.heads import Open
from culvert_protocol.stream import Stream
from culvert_transport.endings import ending

log = logging.getLogger(__name__)

RESOLVE_AGE: Final = 1.0
"""Seconds a resolution is used: a dial resolves again, several at once share."""
RESOLVE_EVERY: Final = 15.0
"""Seconds between resolutions while nothing is dialled, to see relays that were added."""
BUSY: Final = {409: addresses.REST, 429: addresses.REST, 503: 1.0}
"""Answers after which an address rests, and the seconds that it does at least; a relay that drains is soon back."""
LONGEST_REST: Final = 300.0

Dial = Callable[[Call], Awaitable[Dialled]]


class SessionSet:
    """Keeps the sessions. Hears of them as their `SessionOwner`; tells `on_change` and `on_open` further."""

    def __init__(
        self,
        *,
        connector_id: str,
        dial: Dial,
        resolve: Lookup,
        random: Callable[[], float],
        on_change: Callable[[], None],
        on_open: Callable[[Stream, Open, bytes, bool], None],
        counters: Counters,
    ) -> None:
        self._counters = counters
        self._connector_id = connector_id
        self._dial = dial
        self._book = AddressBook(resolve=resolve, on_change=on_change)
        self._random = random
        self._on_change = on_change
        self._on_open = on_open
        self._loop = asyncio.get_running_loop()
        self._settings: RelaySettings | None = None
        self._credentials: CredentialsFile | None = None
        self._offer: Offer | None = None
        self._places: list[Place] = []
        self._leaving = Leaving()
        self._spreading = Spread()
        self._look = asyncio.Event()
        self._turns = Turns(connected=lambda: sum(1 for session in self.sessions() if session.active))
        self._generation = 0
        self._settle = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False

    # -- what the connector sets -------------------------------------------------------------------------------

    def configure(self, settings: RelaySettings) -> None:
        """Where to dial from now on; sessions at names that are no longer listed move."""
        self._settings = settings
        if self._book.configure(settings.names):
            self._look.set()
        self._reconcile()

    def authenticate(self, credentials: CredentialsFile) -> None:
        """The credential to use from now on: in-band where the tunnel is the same, else by new sessions."""
        before, self._credentials = self._credentials, credentials
        if before is not None and before.credential == credentials.credential:
            return
        for session in self.sessions():
            self._freshen(session)
        self._reconcile()

    def _freshen(self, session: RelaySession) -> None:
        """A session that began with another credential than the present one gets it, or a successor that has it."""
        credentials = self._credentials
        if credentials is None or not session.said_hello or session.credentials.credential == credentials.credential:
            return
        old, new = session.credentials.read_credential(), credentials.read_credential()
        if old.tunnel == new.tunnel and new.issued_at >= old.issued_at:
            session.renew(credentials)
        else:
            self._supersede(session)

    def _supersede(self, session: RelaySession) -> None:
        for place in list(self._places):
            if place.session is session:
                self._replace(place)

    def present(self, offer: Offer) -> None:
        """The grant and revocations that every session presents from now on."""
        self._offer = offer
        for session in self.sessions():
            session.present(offer)
        self._settle.set()

    async def settled(self, version: int) -> None:
        """Returns once every session has the relay's answer to the grant of this version (or has none to come)."""
        while not all(session.settled(version) for session in self.sessions()):
            self._settle.clear()
            await self._settle.wait()

    def start(self) -> None:
        """Begins to dial; settings, credentials and offer must be there."""
        if self._watcher is None and not self._stopping:
            self._watcher = self._loop.create_task(self._watch())
            self._reconcile()

    async def drain(self, reason: str, *, acknowledged_within: float, deadline: float) -> None:
        """Stops dialling, drains every session, and returns when all have ended or `deadline` (loop time) is here.

        What is left then is closed: its requests are cut. A relay that does not acknowledge in time does not hold
        up the exit once its streams are served.
        """
        self._stopping = True
        await self._stop_tasks()
        await farewell.drain(self.sessions(), reason, acknowledged_within=acknowledged_within, deadline=deadline)

    async def close(self) -> None:
        """Ends everything now."""
        self._stopping = True
        await self._stop_tasks()
        await farewell.end(self.sessions())

    # -- what others read --------------------------------------------------------------------------------------

    def sessions(self) -> list[RelaySession]:
        """Every session that is not closed, also those that drain."""
        return [place.session for place in self._places if place.session is not None] + self._leaving

    def dialling(self) -> Iterator[tuple[int, Address | None]]:
        """(slot, address) of the places that have no session now."""
        return ((place.slot, place.dialling) for place in self._places if place.session is None)

    def errors(self) -> list[RelayError]:
        """See `AddressBook.errors`."""
        return self._book.errors()

    @property
    def probed(self) -> int:
        """Sessions whose data path works."""
        return sum(1 for session in self.sessions() if session.probed)

    @property
    def in_use(self) -> CredentialsFile | None:
        """The credential that may be reported: the newest one once no session uses another. One that drains counts too
        (what it still serves would be cut when the older one is revoked), unless its relay refuses the newer one."""
        active = [one.credentials for one in self.sessions() if one.active or (one.said_hello and not one.outdated)]
        current = self._credentials
        if current is None or not active or all(one.credential == current.credential for one in active):
            return current
        return min(active, key=lambda one: one.read_credential().issued_at)

    # -- SessionOwner ------------------------------------------------------------------------------------------

    def session_changed(self, session: RelaySession) -> None:
        """A result, a probe, a state. With its first probe back it takes over: the place it replaces may leave."""
        if session.probed:
            for place in list(self._places):
                if place.session is session and place.replaces is not None:
                    self._look.set()  # there may be another one to move
                    old, place.replaces = place.replaces, None
                    self._leave(old, "another session took its place")
        self._settle.set()
        self._on_change()

    def session_ready(self, session: RelaySession) -> None:
        """Connected: its address is good."""
        self._book.worked(session.address)
        log.info(
            "Session %d is connected to relay %s at %s.", session.slot, session.relay, session.address,
            extra={"fields": {"relay": session.relay, "address": str(session.address), "slot": session.slot}},
        )  # fmt: skip
        self._turns.wake()
        self._freshen(session)  # the credential may have changed since it was dialled
        self._on_change()
        self._loop.call_soon(self._reconcile)

    def session_draining(self, session: RelaySession, reason: str) -> None:
        """The relay leaves: its address is tried last, a new session is dialled at once, this one serves on."""
        log.info("Relay %s drains: %s.", session.relay, reason)
        self._book.failed(session.address)
        self._vacate(session, "relay_draining")
        self._on_change()

    def session_stuck(self, session: RelaySession) -> None:
        """Probes are lost: a new session replaces it; what it has may still get through."""
        log.warning("The data path of session %d to relay %s is stuck; replacing it.", session.slot, session.relay)
        self._book.failed(session.address)
        session.leave_stuck()
        self._vacate(session, "stuck")

    def session_credential(self, session: RelaySession, accepted: bool, reason: str) -> None:
        """In-band renewal: done, or a new session with the new credential has to take over."""
        if not accepted:
            log.warning("Relay %s refused the newer credential in-band: %s.", session.relay, reason)
            self._supersede(session)
        self._on_change()

    def session_closed(self, session: RelaySession, reason: str) -> None:
        """Gone."""
        if session in self._leaving:
            self._leaving.remove(session)
        log.info(
            "The session to relay %s at %s has ended: %s.", session.relay or "?", session.address, reason,
            extra={"fields": {"relay": session.relay, "address": str(session.address), "slot": session.slot}},
        )  # fmt: skip
        self._vacate(session, ending(reason))
        self._settle.set()
        self._on_change()

    def session_opened(self, stream: Stream, head: Open, body: bytes, fin: bool) -> None:
        """A request."""
        self._on_open(stream, head, body, fin)

    # -- places ------------------------------------------------------------------------------------------------

    def _wanted(self) -> int:
        settings = self._settings
        if settings is None:
            return 0
        ids = {one for session in self.sessions() if session.active for one in session.relay_ids}
        return addresses.wanted(settings.sessions, addresses=len(self._book.good()), relay_ids=len(ids))

    def _reconcile(self) -> None:
        """Adds the places that are missing, moves those that are elsewhere needed, lets surplus ones leave."""
        if self._watcher is None or self._stopping or self._settings is None or self._credentials is None:
            return
        replacing = {place.replaces for place in self._places if place.replaces is not None}
        settled = [place for place in self._places if place.replaces is None]
        wanted = self._wanted()
        for _ in range(wanted - len(settled)):
            self._add(Place(self._free_slot()))
        spare = [place for place in reversed(settled) if place not in replacing]
        spare.sort(key=lambda place: place.session is not None)
        for place in spare[: max(len(settled) - wanted, 0)]:
            self._leave(place, "fewer sessions are wanted")
        names = set(self._settings.names)
        if not replacing:
            for place in self._places:
                if place.session is not None and place.session.address.name not in names:
                    self._replace(place)
                    return

    def _spread(self) -> None:
        """Moves one session to where one is missing; at growing intervals while that changes nothing."""
        if self._stopping or any(place.session is None or place.replaces is not None for place in self._places):
            return
        sessions = {place.slot: place.session for place in self._places if place.session is not None}
        held = {slot: (one.address, one.relay) for slot, one in sessions.items() if one.active}
        ids = {relay_id for one in sessions.values() if one.active for relay_id in one.relay_ids}
        moving = self._spreading.moving(
            held, addresses=self._book.good(), relay_ids=ids, now=self._loop.time(), every=RESOLVE_EVERY
        )
        for place in list(self._places):
            if place.slot == moving:
                # Once: where this dial fails, another one would only end at an address that has a session.
                self._replace(place, tries=1)

    def _add(self, place: Place) -> None:
        self._places.append(place)
        place.task = self._loop.create_task(self._keep(place))

    def _replace(self, place: Place, *, tries: int = TAKE_OVER_TRIES) -> None:
        """Dials a successor; `place` leaves once that is connected."""
        if not any(other.replaces is place for other in self._places):
            self._add(Place(self._free_slot(), replaces=place, tries=tries))

    def _leave(self, place: Place, reason: str) -> None:
        """A place is given up; its session drains."""
        if place not in self._places:
            return
        self._places.remove(place)
        for other in self._places:
            if other.replaces is place:
                other.replaces = None
        if place.task is not None:
            place.task.cancel()
        session, place.session = place.session, None
        if session is not None and session.state is not State.CLOSED:
            self._leaving.depart(session)
            session.drain(reason)

    def _vacate(self, session: RelaySession, reason: str) -> None:
        """A session no longer fills its place: the place dials again. `reason` is a token for the metrics."""
        for place in self._places:
            if place.session is session:
                place.session = None
                place.ended = reason
                place.over.set()
                if session.state is not State.CLOSED:
                    self._leaving.depart(session)

    def _free_slot(self) -> int:
        used = {place.slot for place in self._places} | {session.slot for session in self._leaving}
        return next(slot for slot in range(1024) if slot not in used)

    # -- one place's life --------------------------------------------------------------------------------------

    async def _keep(self, place: Place) -> None:
        """Dials, waits for the end, dials again; ends when the place is given up."""
        while not self._stopping:
            await asyncio.sleep(place.failures.delay(self._random()))
            if place.session is None and self._leaving.hold(place.slot):
                # The session that drains keeps its slot: a higher generation of it would end it at the relay.
                place.slot = self._free_slot()
            await self._turns.my_turn(place)
            try:
                session = await self._connect(place)
            except Exception:  # a place that dies would be a session less for ever
                log.exception("A dial failed in an unforeseen way; trying again.")
                session = None
            finally:
                place.dialling = None
                self._turns.done(place)
            if session is None:
                place.failures = place.failures.after(lived=None, needed=0.0)
                if place.given_up:
                    self._places.remove(place)
                    return
                continue
            needed = grace(self._random())
            await place.over.wait()
            place.over.clear()
            lived = self._loop.time() - session.started_at
            place.failures = place.failures.after(lived=lived, needed=needed)
            self._counters.reconnect(place.ended)

    async def _connect(self, place: Place) -> RelaySession | None:
        """One dial of this place; None when it failed, after having noted why."""
        await self._book.refresh(age=RESOLVE_AGE)
        settings, credentials = self._settings, self._credentials
        assert settings is not None
        assert credentials is not None
        while True:
            in_use = [one.address for one in self.sessions() if one.state in (State.CONNECTING, State.CONNECTED)]
            in_use += [other.dialling for other in self._places if other.dialling is not None]
            address = self._book.choose(in_use)
            if address is not None:
                break
            rested = self._book.rested_at()
            if rested is None:
                return None
            self._turns.waits(place)
            await asyncio.sleep(max(rested - self._loop.time(), 0.0) + 0.1 * self._random())
            await self._book.refresh(age=RESOLVE_AGE)
        place.dialling = address
        self._generation += 1
        server_name = settings.server_name or address.name.host
        call = Call(
            address=address,
            server_name=server_name,
            context=settings.context,
            credential=credentials.credential,
            connector_id=self._connector_id,
            slot=place.slot,
            generation=self._generation,
            proxy=settings.proxies.of(address.name.host),
        )
        try:
            dialled = await self._dial(call)
        except DialError as error:
            self._dial_failed(address, error)
            return None
        session = RelaySession(
            slot=place.slot,
            address=address,
            server_name=server_name,
            credentials=credentials,
            owner=self,
            loop=self._loop,
        )
        session.link.on_round_trip = self._counters.round_trips.observe
        place.session = session
        place.over.clear()
        if self._offer is not None:
            session.present(self._offer)
        session.start(dialled)
        return session

    def _dial_failed(self, address: Address, error: DialError) -> None:
        if error.status in BUSY:
            rest = max(BUSY[error.status], min(error.retry_after, LONGEST_REST))
            self._book.rest(address, rest)
            log.debug("The relay at %s has enough for now (%d); it rests for %g s.", address, error.status, rest)
        if error.status == 409:
            return  # nothing is wrong: others are tried
        if error.status != 429:
            self._book.failed(address)
            # A place that was added for this address is not wanted any more.
            self._loop.call_soon(self._reconcile)
        self._book.report(str(address), error.reason, str(error))

    # -- time -------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            pause = RESOLVE_EVERY * (0.8 + 0.4 * self._random())
            due = self._book.next_good()
            if due is not None:
                # An address that failed is looked at again as soon as it may be.
                pause = min(pause, max(due - self._loop.time(), 0.0) + 0.1 * self._random())
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._look.wait()
            self._look.clear()
            await self._book.refresh(age=RESOLVE_AGE)
            self._reconcile()
            self._spread()

    async def _stop_tasks(self) -> None:
        tasks = [place.task for place in self._places if place.task is not None]
        if self._watcher is not None:
            tasks.append(self._watcher)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._book.close()
