"""Files that change while the relay runs: certificates, `relay.yml`, and the public keys of the issuers that it names.

Responsible for looking every two seconds, off the loop, and for keeping what works when the new version does not.
Must not know what a certificate or a key is good for. Of `relay.yml` only `issuers` can change in a running relay;
whatever else was changed is named in the log and waits for a restart.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Final

from culvert_relay.certificates import CertificateStore
from culvert_relay.config import WRITTEN, ConfigError, IssuerConfig, RelayConfig, read_config
from culvert_relay.issuers import Issuers, read_issuers

EVERY_SECONDS: Final = 2.0
logger = logging.getLogger(__name__)


class FileWatch:
    """Looks after the files. `on_issuers` is called on the loop with the issuers as they are now.

    `path` is the file that `config` was read from; None when there is none to look after.
    """

    def __init__(
        self,
        *,
        certificates: CertificateStore,
        issuers: tuple[IssuerConfig, ...],
        on_issuers: Callable[[Issuers], None],
        every: float = EVERY_SECONDS,
        config: RelayConfig | None = None,
        path: Path | None = None,
    ) -> None:
        self._certificates = certificates
        self._issuers = issuers
        self._on_issuers = on_issuers
        self._every = every
        self._config = config
        self._path = path
        self._asked = asyncio.Event()
        self._read = _signature(path) if path is not None else None
        self._seen = self._signatures()
        self._refused: set[str] = set()
        self.config_problem = ""
        """Why the newest `relay.yml` is not in force, a sentence; empty when it is."""

    @property
    def certificate_problems(self) -> int:
        """Pairs whose newest version is refused at the moment."""
        return len(self._refused)

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), self._every)
            if self._asked.is_set():
                self._asked.clear()
                self._read = None
            await self.look()

    def ask(self) -> None:
        """Has everything read anew soon, changed or not (SIGHUP)."""
        self._asked.set()

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
        await self._look_at_config()
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

    async def _look_at_config(self) -> None:
        path, config = self._path, self._config
        if path is None or config is None:
            return
        signature = await asyncio.to_thread(_signature, path)
        if signature is not None and signature == self._read:
            return
        self._read = signature
        try:
            fresh = await asyncio.to_thread(read_config, path)
            issuers = await asyncio.to_thread(read_issuers, fresh.issuers)
        except ConfigError as error:
            if str(error) != self.config_problem:
                logger.warning("the configuration was not read anew, the old one stays in force: %s", error)
            self.config_problem = str(error)
            return
        self.config_problem = ""
        names = [one.name for one in fields(config) if getattr(config, one.name) != getattr(fresh, one.name)]
        if waiting := [name for name in names if name != "issuers"]:
            logger.warning("changes that need a restart: %s", ", ".join(WRITTEN.get(name, name) for name in waiting))
        self._config, self._issuers = fresh, fresh.issuers
        self._seen = await asyncio.to_thread(self._signatures)
        logger.info("configuration read anew", extra={"fields": {"issuers": len(issuers.by_id)}})
        self._on_issuers(issuers)

    def _signatures(self) -> list[tuple[int, int, int] | None]:
        return [_signature(issuer.public_key_file) for issuer in self._issuers]


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)
