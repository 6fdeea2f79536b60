"""Contents of ConfigMaps: read when they are needed, kept while their version is the one that the watch tells.

Responsible for: a cache of a few ConfigMaps' ``data``; a zone's text and a Secret's key for the DNS package.
Must not know: what the data mean.
Invariant: what is handed out is a version that the API server had; a write is refused by it when it is not the last.

ConfigMaps of the whole cluster are watched by metadata only: their contents are other people's megabytes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import APIError, Client
from culvert_operator.cluster.stores import Store, uid_of, version_of
from culvert_operator.dns.provider import ProviderError
from culvert_operator.keys import ObjectKey


class Contents:
    """``data`` of ConfigMaps."""

    def __init__(self, client: Client, versions: Store[str]) -> None:
        self.client = client
        self._versions = versions
        self._held: dict[ObjectKey, tuple[str, str, Mapping[str, str]]] = {}

    async def get(self, key: ObjectKey) -> Mapping[str, str] | None:
        """The data, or None when there is no such ConfigMap. Raises APIError."""
        found = await self.entry(key)
        return found[2] if found is not None else None

    async def entry(self, key: ObjectKey) -> tuple[str, str, Mapping[str, str]] | None:
        """(uid, resourceVersion, data); see :meth:`get`."""
        version = self._versions.get(key)
        if version is None:
            self._held.pop(key, None)
            return None
        held = self._held.get(key)
        if held is not None and _at_least(held[1], version):
            return held
        raw = await self.client.get(kinds.CONFIG_MAP, *key)
        if raw is None:
            self._held.pop(key, None)
            return None
        self._held[key] = (uid_of(raw), version_of(raw), raw.get("data") or {})
        return self._held[key]

    def forget(self, key: ObjectKey) -> None:
        """Read anew the next time."""
        self._held.pop(key, None)

    def keep(self, keys: frozenset[ObjectKey]) -> None:
        """Let go of everything else."""
        self._held = {key: held for key, held in self._held.items() if key in keys}

    async def write(self, key: ObjectKey, entry: str, text: str, *, uid: str, version: str) -> bool:
        """Set one entry, if the ConfigMap is still the one of ``uid`` and ``version``. Raises APIError."""
        body = {"metadata": {"uid": uid, "resourceVersion": version}, "data": {entry: text}}
        try:
            raw = await self.client.patch(kinds.CONFIG_MAP, *key, body)
        except APIError as error:
            self.forget(key)
            if error.conflict:
                return False
            raise
        self._held[key] = (uid_of(raw), version_of(raw), raw.get("data") or {})
        return True


def _at_least(held: str, told: str) -> bool:
    """Whether what is held is what the watch tells of, or what came after it (our own write)."""
    return held == told or (held.isdigit() and told.isdigit() and int(held) >= int(told))


class ConfigMapText:
    """One entry of a ConfigMap as a text that a DNS provider reads and replaces."""

    def __init__(self, contents: Contents, key: ObjectKey, entry: str) -> None:
        self._contents = contents
        self._key = key
        self._entry = entry
        self._uid = ""

    async def read(self) -> tuple[str, str]:
        """The text and the ConfigMap's version."""
        try:
            found = await self._contents.entry(self._key)
        except APIError as error:
            raise ProviderError(f"the ConfigMap {self._key} cannot be read: {error}") from error
        if found is None:
            raise ProviderError(f"the ConfigMap {self._key} does not exist; create it with the zone's text.")
        self._uid, version, data = found
        if self._entry not in data:
            raise ProviderError(f"the ConfigMap {self._key} has no key {self._entry!r} with the zone's text.")
        return data[self._entry], version

    async def replace(self, text: str, *, version: str) -> bool:
        """Write the text if the ConfigMap still has ``version``."""
        try:
            return await self._contents.write(self._key, self._entry, text, uid=self._uid, version=version)
        except APIError as error:
            raise ProviderError(f"the ConfigMap {self._key} cannot be written: {error}") from error


class SecretKey:
    """One key of a Secret, read when it is asked for: nothing of it is kept."""

    def __init__(self, client: Client, key: ObjectKey, entry: str) -> None:
        self._client = client
        self._key = key
        self._entry = entry

    async def value(self) -> str:
        """The key's text."""
        try:
            raw = await self._client.get(kinds.SECRET, *self._key)
        except APIError as error:
            raise ProviderError(f"the Secret {self._key} cannot be read: {error}") from error
        if raw is None:
            raise ProviderError(f"the Secret {self._key} does not exist; create it in the Tunnel's namespace.")
        encoded = (raw.get("data") or {}).get(self._entry)
        if not isinstance(encoded, str):
            raise ProviderError(f"the Secret {self._key} has no key {self._entry!r}.")
        try:
            return base64.b64decode(encoded, validate=True).decode().strip()
        except ValueError:
            said = f"the key {self._entry!r} of the Secret {self._key} is not text."
            raise ProviderError(said) from None
