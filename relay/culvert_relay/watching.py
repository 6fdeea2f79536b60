"""Files that change while the relay runs: certificates and the issuers' public keys.

Responsible for looking every two seconds, off the loop, and for keeping what works when the new version does not.
Must not know what a certificate or a key is good for.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from culvert_relay.certificates import CertificateStore
from culvert_relay.config import ConfigError, IssuerConfig
from culvert_relay.issuers import Issuers, read_issuers

EVERY_SECONDS: Final = 2.0
logger = logging.getLogger(__name__)


class FileWatch:
    """Looks after the files. `on_issuers` is called on the loop with the keys as they are now."""

    def __init__(
        self,
        *,
        certificates: CertificateStore,
        issuers: tuple[IssuerConfig, ...],
        on_issuers: Callable[[Issuers], None],
        every: float = EVERY_SECONDS,
    ) -> None:
        self._certificates = certificates
        self._issuers = issuers
        self._on_issuers = on_issuers
        self._every = every
        self._seen = self._signatures()
        self._refused: set[str] = set()

    @property
    def certificate_problems(self) -> int:
        """Pairs whose newest version is refused at the moment."""
        return len(self._refused)

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(self._every)
            await self.look()

    async def look(self) -> None:
        """Looks once."""
        before = {stem: pair.context for stem, pair in self._certificates.pairs.items()}
        problems = await asyncio.to_thread(self._certificates.reload)
        for stem, pair in self._certificates.pairs.items():
            if before.get(stem) is not pair.context:
                self._refused.discard(stem)
                logger.info(
                    "certificate loaded",
                    extra={"fields": {"certificate": stem, "names": ",".join(pair.names[:8])}},
                )
        for problem in problems:
            if problem.stem not in self._refused or problem.stem:
                logger.warning("certificate refused: %s", problem.sentence)
            self._refused.add(problem.stem)
        if not problems:
            self._refused.discard("")
        signatures = await asyncio.to_thread(self._signatures)
        if signatures != self._seen:
            self._seen = signatures
            try:
                issuers = await asyncio.to_thread(read_issuers, self._issuers)
            except ConfigError as error:
                logger.warning("issuers' keys were not read anew, the old ones stay in force: %s", error)
                return
            logger.info("issuers' keys read anew", extra={"fields": {"keys": len(issuers.keys)}})
            self._on_issuers(issuers)

    def _signatures(self) -> list[tuple[int, int, int] | None]:
        return [_signature(issuer.public_key_file) for issuer in self._issuers]


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)
