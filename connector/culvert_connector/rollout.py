"""Bringing a new configuration into force, in the order that loses no request.

Responsible for carrying out `configuration.plan_change`: serve, tell the relays, wait for their answers where hostnames
leave, serve the final one; one change at a time, the newest waiting one next.

Must not know: where documents come from, how sessions work.

Invariants: a document that is not newer than the applied one changes nothing; `applied` moves forward only; a relay
that does not answer holds a removal up for SETTLE_WITHIN seconds at most.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from culvert_connector.configuration import Applied, plan_change
from culvert_connector.session import Offer
from culvert_ingress.document import Document

log = logging.getLogger(__name__)

SETTLE_WITHIN: Final = 5.0


class Relays(Protocol):
    """The sessions, as far as a change of configuration needs them."""

    def present(self, offer: Offer) -> None:
        """Presents grant and revocations to every relay, now and when it is connected."""

    async def settled(self, version: int) -> None:
        """Returns once every connected relay has answered the grant of this version."""


class Rollout:
    """Holds what is applied. `prepare` turns a document into its offer and settings, or raises ValueError with a
    sentence: then the document is refused as a whole. `on_applied` hears of every document that is fully in force."""

    def __init__(
        self,
        *,
        relays: Relays,
        prepare: Callable[[Document], Offer],
        on_applied: Callable[[Document], None],
        on_refused: Callable[[Document, str], None],
    ) -> None:
        self.serving: Applied | None = None
        self.applied: Document | None = None
        self._relays = relays
        self._prepare = prepare
        self._on_applied = on_applied
        self._on_refused = on_refused
        self._next: Document | None = None
        self._wake = asyncio.Event()

    def submit(self, document: Document) -> None:
        """Asks for a document to be applied; an older one than the newest is dropped."""
        newest = self._next or self.applied
        if newest is not None and document.version <= newest.version:
            if document != newest:
                log.info("Configuration %d is not newer than %d; ignored.", document.version, newest.version)
            return
        self._next = document
        self._wake.set()

    async def run(self) -> None:
        """Applies what is submitted, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            document = self._next
            if document is not None:
                await self._apply(document)
                if self._next is document:
                    self._next = None

    async def _apply(self, document: Document) -> None:
        change = plan_change(self.applied, document)
        try:
            offer = self._prepare(document)
            serving = Applied(change.first)
        except ValueError as error:
            self._on_refused(document, str(error))
            return
        self.serving = serving
        self._relays.present(offer)
        if change.waits:
            try:
                async with asyncio.timeout(SETTLE_WITHIN):
                    await self._relays.settled(offer.version)
            except TimeoutError:
                log.warning("A relay has not answered the new grant within %g s; going on.", SETTLE_WITHIN)
            self.serving = Applied(change.final)
        self.applied = document
        self._on_applied(document)
