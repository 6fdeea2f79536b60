"""What a connector knows of relay addresses: which there are now, and how each has fared.

Responsible for resolving the configured names, for the record of failures and rests that `addresses` decides on, and
for the errors that the status shows, each logged once in a while.

Must not know: sessions, TLS, when to dial.

Invariants: everything remembered belongs to an address or name that is configured now, so nothing grows; an error is
shown until the address or name has worked again; a resolver that fails leaves the last known addresses in use.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from culvert_connector.dialling import addresses
from culvert_connector.dialling.addresses import Address, Record, RelayName
from culvert_connector.dialling.dialer import UNREACHABLE

log = logging.getLogger(__name__)

LOG_EVERY: Final = 30.0
"""Seconds between two log lines about one address that keeps failing in the same way."""
RESOLVE_TIMEOUT: Final = 5.0

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class RelayError:
    """Why an address has no session now."""

    address: str
    reason: str
    message: str


class AddressBook:
    """The addresses of the configured names. `on_change` hears when an error appears or goes."""

    def __init__(self, *, resolve: Lookup, on_change: Callable[[], None]) -> None:
        self.addresses: tuple[Address, ...] = ()
        self._resolve = resolve
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._names: tuple[RelayName, ...] = ()
        self._resolved: dict[RelayName, tuple[str, ...]] = {}
        self._unresolved: set[RelayName] = set()
        self._resolved_at: float | None = None
        self._resolving: asyncio.Task[None] | None = None
        self._records: dict[Address, Record] = {}
        self._errors: dict[str, RelayError] = {}
        self._logged: dict[str, tuple[str, float]] = {}

    def configure(self, names: tuple[RelayName, ...]) -> bool:
        """The names from now on; True when they differ from before."""
        changed = names != self._names
        self._names = names
        if changed:
            self._resolved_at = None
        return changed

    async def refresh(self, *, age: float) -> None:
        """Resolves every name unless that was done less than `age` seconds ago; callers at one time share it."""
        if self._resolving is None:
            if self._resolved_at is not None and self._loop.time() - self._resolved_at < age:
                return
            self._resolving = self._loop.create_task(self._resolve_names())
            self._resolving.add_done_callback(self._names_resolved)
        await asyncio.shield(self._resolving)

    def choose(self, in_use: Iterable[Address]) -> Address | None:
        """The address to dial next; None when there is none or all rest."""
        return addresses.choose(self.addresses, in_use=in_use, records=self._records, now=self._loop.time())

    def rested_at(self) -> float | None:
        """When one of the addresses may be dialled (loop time); None without addresses."""
        return addresses.rested_at(self.addresses, self._records)

    def good(self) -> list[Address]:
        """The addresses that should have a session: those that have not failed lately."""
        return addresses.good(self.addresses, self._records, now=self._loop.time())

    def next_good(self) -> float | None:
        """When another address will be one of `good` (loop time); None when none is missing there."""
        return addresses.next_good(self.addresses, self._records, now=self._loop.time())

    def errors(self) -> list[RelayError]:
        """The last failure of every address that has had nothing but failures since."""
        return sorted(self._errors.values(), key=lambda error: error.address)

    def worked(self, address: Address) -> None:
        """A session stands there."""
        self._records.pop(address, None)
        self._logged.pop(str(address), None)
        self._errors.pop(str(address), None)

    def failed(self, address: Address) -> None:
        """A dial failed there, or its relay leaves: it is tried last."""
        self._records[address] = self._records.get(address, addresses.NEVER).failed(self._loop.time())

    def rest(self, address: Address, seconds: float) -> None:
        """It is not dialled for so long."""
        self._records[address] = self._records.get(address, addresses.NEVER).rests(self._loop.time() + seconds)

    def report(self, address: str, reason: str, message: str) -> None:
        """Shows an error; logs it when it is new or has not been logged for a while."""
        before = self._errors.get(address)
        self._errors[address] = RelayError(address, reason, message)
        said, when = self._logged.get(address, ("", 0.0))
        now = self._loop.time()
        if said != message or now - when >= LOG_EVERY:
            self._logged[address] = (message, now)
            log.warning("%s; trying again.", message, extra={"fields": {"address": address, "reason": reason}})
        if before != self._errors[address]:
            self._on_change()

    async def close(self) -> None:
        """Ends a resolution that is under way."""
        if self._resolving is not None:
            self._resolving.cancel()
            await asyncio.gather(self._resolving, return_exceptions=True)

    def _names_resolved(self, task: asyncio.Task[None]) -> None:
        self._resolving = None
        if not task.cancelled():
            task.exception()  # its waiters have it; there may be none left

    async def _resolve_names(self) -> None:
        names = self._names
        for name in names:
            try:
                async with asyncio.timeout(RESOLVE_TIMEOUT):
                    self._resolved[name] = tuple(await self._resolve(name.host, name.port))
            except (OSError, TimeoutError, UnicodeError) as error:
                self._unresolved.add(name)
                why = getattr(error, "strerror", None) or "the resolver did not answer"
                sentence = f"the relay's name {name.host} was not found ({why}); check relay addresses and DNS"
                self.report(str(name), UNREACHABLE, sentence)
            else:
                if name in self._unresolved:
                    self._unresolved.discard(name)
                    self._errors.pop(str(name), None)
                    self._on_change()
        self._unresolved &= set(names)
        self._resolved = {name: found for name, found in self._resolved.items() if name in names}
        self.addresses = addresses.merge(names, self._resolved)
        known = set(self.addresses)
        self._records = {address: record for address, record in self._records.items() if address in known}
        shown = {str(address) for address in known} | {str(name) for name in names}
        self._errors = {key: error for key, error in self._errors.items() if key in shown}
        self._logged = {key: value for key, value in self._logged.items() if key in shown}
        # Names that changed meanwhile are due at once.
        self._resolved_at = self._loop.time() if names == self._names else None
