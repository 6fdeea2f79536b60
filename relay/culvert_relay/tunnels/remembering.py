"""Revocations that outlive the process: the file that `relay.yml` names as `stateFile`.

Responsible for the file's form, for writing it off the loop as a whole (a reader or a crash never meets half of one),
and for writing once more when something was learned meanwhile. Must not know how a statement came or what it ends.
Invariants: what was learned before `close` returns is in the file, or a log line says why not; at most one write is
under way.
"""

import asyncio
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from culvert_protocol.statements import TunnelId, TunnelIdentity
from culvert_relay.config_values import ConfigError
from culvert_relay.tunnels.revocations import MAX_TUNNELS, Revocations

MAX_FILE: Final = 64 << 20
logger = logging.getLogger(__name__)

Entry = tuple[TunnelIdentity, int]


def read_revocations(path: Path) -> tuple[Entry, ...]:
    """What an earlier process remembered, nothing when there is no file; raises ConfigError for one that is damaged.

    A damaged file is not passed over: credentials that were revoked would be accepted again.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise ConfigError(f"stateFile {path}: its folder is not there or not writable; make it first.") from None
        return ()
    except OSError as error:
        raise ConfigError(f"stateFile {path} cannot be read: {error.strerror or error}.") from None
    try:
        document = json.loads(data)
        entries = tuple(_entry(item) for item in document["revocations"])
        if len(entries) > MAX_TUNNELS:
            raise ValueError("too many")
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"stateFile {path} is damaged, and what it said of revoked credentials is lost: revoke them again after "
            "you have removed the file."
        ) from None
    return entries


def write_revocations(path: Path, entries: Iterable[Entry]) -> None:
    """Replaces the file in one step, readable by its owner only; raises OSError."""
    document = {
        "revocations": [
            {"issuer": tunnel.issuer, "subject": tunnel.subject, "notBefore": not_before}
            for tunnel, not_before in entries
        ]
    }
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


class Remembering:
    """Keeps a file up to date with what is known; without a path it does nothing."""

    def __init__(self, path: Path | None, revocations: Revocations) -> None:
        self._path = path
        self._revocations = revocations
        self._writing: asyncio.Task[None] | None = None
        self._again = False

    def learned(self) -> None:
        """Something is known that the file does not say yet."""
        self._again = True
        if self._path is not None and self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write(self._path))

    async def close(self) -> None:
        """Returns when everything learned is written."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self, path: Path) -> None:
        try:
            while self._again:
                self._again = False
                entries = self._revocations.items()
                try:
                    await asyncio.to_thread(write_revocations, path, entries)
                except OSError as error:
                    logger.error("revocations are not remembered over a restart: %s: %s", path, error.strerror or error)
        finally:
            self._writing = None


def _entry(item: Any) -> Entry:
    issuer, subject, not_before = item["issuer"], item["subject"], item["notBefore"]
    if not isinstance(issuer, str) or not isinstance(subject, str) or type(not_before) is not int:
        raise ValueError("an entry of another form")
    return TunnelIdentity(issuer, TunnelId(subject)), not_before
