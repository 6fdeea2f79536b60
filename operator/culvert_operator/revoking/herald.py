"""The herald: tells relays what the ledger says, until no older credential can be valid any more.

Responsible for: the ledger in the API server, one task for each entry that delivers it, backoff, repetition, and that
whatever could not be delivered is seen (log, Event, metric, and the planner's view of it).
Must not know: why something is revoked.
Invariants: an entry is stored before anybody is told, so that a crash forgets none; a relay that is away holds up
nothing but the news to itself; only the leader has a herald, so that nobody else writes the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from culvert_ingress.document import RelayTarget
from culvert_operator.api.meta import texts
from culvert_operator.backoff import Backoff
from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import MERGE_PATCH, APIError, Client
from culvert_operator.issuer import LABELS, Issuer
from culvert_operator.keys import ObjectKey
from culvert_operator.revoking import ledger
from culvert_operator.revoking.decision import UNTOLD
from culvert_operator.revoking.delivery import deliver
from culvert_operator.revoking.ledger import Entry
from culvert_operator.world import Event, RevocationState, Revoke
from culvert_protocol.statements import sign_revocation

NAME = "culvert-revocations"
FIRST_RETRY = 0.5
LAST_RETRY = 300.0
REPEAT_SECONDS = 3600.0
"""How often a relay that has confirmed is told again: one without a state file forgets over a restart."""
SPREAD_SECONDS = 60.0
"""Over so long a new leader spreads what has been confirmed before: there may be hundreds."""
MAX_REPEATED = 100
MAX_REPEATED_BYTES = 48_000
"""Of the statements in one configuration: a REVOKE is one frame, and relays verify each once."""

Deliver = Callable[[str, RelayTarget], Awaitable[Mapping[str, str]]]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Watcher:
    """Who wants to know: ``changed`` a Tunnel whose relays confirmed, ``repeats`` that connectors of a Tunnel may have
    to repeat something else, ``event`` what a person should see, ``attempt`` each delivery's result, ``held`` how many
    entries there are and how many of them not every relay has confirmed."""

    changed: Callable[[ObjectKey], None] = field(default=lambda tunnel: None)
    repeats: Callable[[], None] = field(default=lambda: None)
    event: Callable[[Event], Awaitable[None]] | None = None
    attempt: Callable[[str], None] = field(default=lambda result: None)
    held: Callable[[int, int], None] = field(default=lambda entries, untold: None)


class Herald:
    """One leader's. :meth:`load` first, :meth:`close` last."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        issuer: Issuer,
        *,
        watcher: Watcher | None = None,
        deliver: Deliver = deliver,
        now: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._client, self._namespace, self._issuer = client, namespace, issuer
        self._watcher = watcher or Watcher()
        self._deliver, self._now, self._random = deliver, now, random
        self._entries: dict[str, Entry] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def load(self) -> None:
        """Read what an earlier leader left, and go on with it. Raises APIError."""
        found = await self._client.get(kinds.CONFIG_MAP, self._namespace, NAME)
        for name, said in texts((found or {}).get("data")).items():
            entry = ledger.read(said)
            if entry is None:
                _log.warning("an entry of the revocations cannot be read", extra={"fields": {"key": name}})
            elif entry.until > self._now():
                self._entries[entry.subject] = entry
        for entry in tuple(self._entries.values()):
            self._start(entry, after=0.0 if entry.untold else SPREAD_SECONDS * self._random())
        self._tell_held()

    def state(self, subject: str) -> RevocationState | None:
        """What the ledger says of a tunnel, as the planner sees it."""
        entry = self._entries.get(subject)
        if entry is None or entry.until <= self._now():
            return None
        return RevocationState(entry.not_before, entry.token, entry.relay, entry.untold, entry.uid, entry.issued_at)

    def repeated(self, relay: RelayTarget) -> tuple[str, ...]:
        """The statements that connectors of a Tunnel with these relays repeat to them, whichever Tunnel they are about:
        one that has gone has no connectors any more. A stable order; the newest when there are too many."""
        now = self._now()
        shared = [
            entry
            for entry in self._entries.values()
            if entry.until > now and not set(relay.addresses).isdisjoint(entry.relay.addresses)
        ]
        newest = sorted(shared, key=lambda entry: (-entry.not_before, entry.subject))
        kept, size = [], 0
        for entry in newest[:MAX_REPEATED]:
            size += len(entry.token)
            if size > MAX_REPEATED_BYTES:
                break
            kept.append(entry)
        return tuple(entry.token for entry in sorted(kept, key=lambda entry: entry.subject))

    async def record(self, wanted: Revoke) -> None:
        """Sign and store a revocation, and begin to tell. Raises APIError: then nothing has changed."""
        before = self._entries.get(wanted.subject)
        same = before is not None and before.not_before == wanted.not_before
        token = sign_revocation(
            self._issuer.key,
            subject=wanted.subject,
            not_before=wanted.not_before,
            issued_at=wanted.issued_at,
            issuer_id=self._issuer.issuer_id,
        )
        entry = Entry(
            tunnel=wanted.tunnel,
            uid=wanted.uid,
            subject=wanted.subject,
            not_before=wanted.not_before,
            until=wanted.until,
            # The configuration carries this very text: another one would be a new version for nothing.
            token=before.token if same and before is not None else token,
            relay=wanted.relay,
            issued_at=wanted.issued_at,
        )
        gone = ledger.room_for(entry, self._entries)
        # What the former entry's task is about to write must not come after this.
        await self._stop(entry.subject)
        try:
            await self._write({entry.subject: entry}, gone)
        except APIError:
            if before is not None:
                self._start(before)
            raise
        for subject in gone:
            _log.warning(
                "a revocation is no longer repeated: there are too many",
                extra={"fields": {"tunnel": str(self._entries[subject].tunnel)}},
            )
            self._drop(subject)
        self._entries[entry.subject] = entry
        fields = {"tunnel": str(entry.tunnel), "not_before": entry.not_before, "relays": list(entry.relay.addresses)}
        _log.info("older credentials are revoked", extra={"fields": fields})
        self._start(entry)
        self._tell_held()
        self._watcher.repeats()

    async def close(self) -> None:
        """End all tasks; the ledger stays."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    # --- inside ---------------------------------------------------------------------------------------------

    async def _stop(self, subject: str) -> None:
        task = self._tasks.pop(subject, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _start(self, entry: Entry, *, after: float = 0.0) -> None:
        task = asyncio.get_running_loop().create_task(self._herald(entry, after), name=f"revocation of {entry.tunnel}")
        self._tasks[entry.subject] = task

    def _drop(self, subject: str) -> None:
        self._entries.pop(subject, None)
        task = self._tasks.pop(subject, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _herald(self, entry: Entry, after: float) -> None:
        """One entry's life: until told, then every hour, until it says nothing any more."""
        await asyncio.sleep(after)
        before: Mapping[str, str] = {}
        backoff = Backoff(first=FIRST_RETRY, most=LAST_RETRY, random=self._random)
        while (left := entry.until - self._now()) > 0:
            try:
                entry, problems = await self._once(entry, before)
                before = problems
            except Exception:
                # A task that ends would be a relay that is never told.
                _log.exception("a revocation could not be delivered", extra={"fields": {"tunnel": str(entry.tunnel)}})
                problems = {"": "failed"}
            if problems:
                wait = backoff.next()
            else:
                backoff.reset()
                wait = REPEAT_SECONDS * (0.9 + 0.2 * self._random())
            await asyncio.sleep(min(wait, max(left, 1.0)))
        self._drop(entry.subject)
        with contextlib.suppress(APIError):  # the next leader drops what has expired
            await self._write({}, (entry.subject,))
        self._tell_held()
        self._watcher.changed(entry.tunnel)
        self._watcher.repeats()

    async def _once(self, entry: Entry, before: Mapping[str, str]) -> tuple[Entry, Mapping[str, str]]:
        """Tell every relay. ``before`` is what went wrong the last time: the log has one line for one trouble."""
        answers = await self._deliver(entry.token, entry.relay)
        problems = {address: said for address, said in answers.items() if said}
        for address in entry.relay.addresses:
            self._watcher.attempt("failed" if address in problems else "confirmed")
        for address, said in problems.items():
            fields = {"tunnel": str(entry.tunnel), "relay": address, "reason": said}
            level = logging.DEBUG if before.get(address) == said else logging.WARNING
            _log.log(level, "a relay has not confirmed a revocation", extra={"fields": fields})
        told = tuple(a for a in entry.relay.addresses if a in entry.told or a not in problems)
        shown = entry.shown or told != entry.relay.addresses
        if (told, shown) != (entry.told, entry.shown):
            old, entry = entry, replace(entry, told=told, shown=shown)
            await self._write({entry.subject: entry}, ())
            self._entries[entry.subject] = entry
            self._tell_held()
            if told != old.told:
                self._watcher.changed(entry.tunnel)
            if shown and not old.shown:
                await self._show(entry, problems)
        return entry, problems

    async def _show(self, entry: Entry, problems: Mapping[str, str]) -> None:
        """An Event, once for each revocation: also for a Tunnel that has gone, which has no condition any more."""
        if self._watcher.event is None:
            return
        missing = "; ".join(f"{address}: {problems.get(address, 'not told yet.')}" for address in entry.untold[:5])
        said = f"Credentials that are void may still be accepted, until the relay is told (tried again): {missing}"
        await self._watcher.event(Event("Tunnel", entry.tunnel, entry.uid, "Warning", UNTOLD, said))

    def _tell_held(self) -> None:
        self._watcher.held(len(self._entries), sum(bool(entry.untold) for entry in self._entries.values()))

    async def _write(self, entries: Mapping[str, Entry], gone: Iterable[str]) -> None:
        """Merge into the ConfigMap, key by key; made when it is not there. Raises APIError."""
        data: dict[str, Any] = {ledger.name_of(s): ledger.write(e) for s, e in entries.items()}
        data |= {ledger.name_of(subject): None for subject in gone}
        try:
            await self._client.patch(kinds.CONFIG_MAP, self._namespace, NAME, {"data": data}, content_type=MERGE_PATCH)
        except APIError as error:
            if error.status != 404:
                raise
            # Gone, or never made: everything that is known goes into the new one.
            known = {**{s: e for s, e in self._entries.items() if s not in set(gone)}, **entries}
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": NAME, "namespace": self._namespace, "labels": LABELS},
                "data": {ledger.name_of(s): ledger.write(e) for s, e in known.items()},
            }
            if known:
                await self._client.create(kinds.CONFIG_MAP, self._namespace, body)
