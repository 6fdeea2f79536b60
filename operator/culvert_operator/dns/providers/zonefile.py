"""A DNS provider over one RFC 1035 zone file: a key of a ConfigMap that CoreDNS serves, or a file.

Responsible for: changing that text so that every change is whole, the serial rises, and nobody else's change is lost.
Must not know: ownership; Kubernetes (the text comes through the port :class:`Text`).
Invariant: the text is replaced only when it is still the one that was read.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from culvert_operator.dns.endpoint import Endpoint, RecordSet
from culvert_operator.dns.provider import (
    ChangeResult,
    DNSProvider,
    ProviderConfig,
    ProviderError,
    RecordChange,
    Result,
    Text,
)
from culvert_operator.dns.providers import zone_text
from culvert_operator.dns.providers.memory import conflict

MAX_ATTEMPTS = 4
# An object of the API server may have 1 MiB; the ConfigMap around the text needs some of it.
MAX_BYTES = 1_000_000


class FileText:
    """A text in a file, replaced by rename, so that a reader sees the old text or the new one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> tuple[str, str]:
        """The text, and a hash of it as its version."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> tuple[str, str]:
        try:
            data = self._path.read_bytes()
            return data.decode(), hashlib.sha256(data).hexdigest()
        except (OSError, UnicodeDecodeError) as error:
            raise ProviderError(f"the zone file {self._path} cannot be read: {error}.") from error

    async def replace(self, text: str, *, version: str) -> bool:
        """Write and rename, under a lock on the folder that other culvert processes honour too."""
        return await asyncio.to_thread(self._replace, text, version)

    def _replace(self, text: str, version: str) -> bool:
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                if self._read()[1] != version:
                    return False
                mode = self._path.stat().st_mode & 0o777
                handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
                try:
                    with os.fdopen(handle, "wb") as out:
                        out.write(text.encode())
                        out.flush()
                        os.fchmod(out.fileno(), mode)
                        os.fsync(out.fileno())
                    Path(temporary).replace(self._path)
                except BaseException:
                    Path(temporary).unlink(missing_ok=True)
                    raise
                os.fsync(folder)
                return True
            finally:
                os.close(folder)
        except OSError as error:
            raise ProviderError(f"the zone file {self._path} cannot be written: {error}.") from error


class ZonefileProvider:
    """See the module."""

    def __init__(self, zone: str, text: Text) -> None:
        self._zone = zone
        self._text = text

    async def zones(self, names: Collection[str]) -> tuple[str, ...]:
        """The one zone."""
        return (self._zone,)

    async def records(self, zone: str) -> tuple[RecordSet, ...]:
        """Every record set of the file."""
        text, _ = await self._text.read()
        return tuple(zone_text.read(text, zone).values())

    async def apply(self, zone: str, changes: Sequence[RecordChange]) -> tuple[ChangeResult, ...]:
        """All changes that fit go into one new text; when somebody was faster, all is compared again."""
        for _ in range(MAX_ATTEMPTS):
            text, version = await self._text.read()
            new, results = self._edited(text, zone, changes)
            if new == text:
                return results
            if len(new.encode()) > MAX_BYTES:
                said = f"the zone file of {zone} would be larger than {MAX_BYTES} bytes; use a DNS server's provider."
                return tuple(ChangeResult(c.name, c.action, Result.FAILED, said) for c in changes)
            if await self._text.replace(new, version=version):
                return results
        raise ProviderError(f"the zone file of {zone} is being changed by somebody else all the time.")

    @staticmethod
    def _edited(text: str, zone: str, changes: Sequence[RecordChange]) -> tuple[str, tuple[ChangeResult, ...]]:
        """All changes at once; when that fails, one after the other, so that each fails on its own."""
        current = zone_text.read(text, zone)
        problems = {change.name: conflict(change, current) for change in changes}
        fitting = [change for change in changes if problems[change.name] is None]
        failed: dict[str, str] = {}
        if fitting:
            try:
                text = zone_text.edit(
                    text,
                    zone,
                    remove=[r for c in fitting for r in c.before],
                    add=[r for c in fitting for r in c.after],
                )
            except ProviderError:
                for change in fitting:
                    try:
                        text = zone_text.edit(text, zone, remove=change.before, add=change.after)
                    except ProviderError as error:
                        failed[change.name] = str(error)
        results = []
        for change in changes:
            if (problem := problems[change.name]) is not None:
                results.append(ChangeResult(change.name, change.action, Result.CONFLICT, problem))
            elif (problem := failed.get(change.name)) is not None:
                results.append(ChangeResult(change.name, change.action, Result.FAILED, problem))
            else:
                results.append(ChangeResult(change.name, change.action, Result.DONE))
        return text, tuple(results)

    def adjust(self, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
        """A zone file stores endpoints as they are."""
        return tuple(endpoints)

    async def close(self) -> None:
        """Nothing is held open."""


def create(config: ProviderConfig) -> DNSProvider:
    """Entry point: one zone, and the text that the caller opened (or the file of the setting ``path``)."""
    if len(config.zones) != 1:
        raise ProviderError("the zonefile provider serves one zone: write its name, and only it, into dns.zones.")
    text = config.text
    if text is None and "path" in config.settings:
        text = FileText(Path(config.settings["path"]))
    if text is None:
        raise ProviderError("the zonefile provider needs dns.zonefile.configMapRef: the ConfigMap with the zone.")
    return ZonefileProvider(config.zones[0].rstrip(".").lower(), text)
