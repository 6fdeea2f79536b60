"""The objects of one kind as the API server last told them, held in memory.

Responsible for: replacing everything on a relist, following a watch's events, showing the process its own writes at
once, and telling listeners what changed. Must not know: how lists and watches are made, what the objects mean.

Invariants:
- after ``replace`` the store holds exactly what the list held (plus writes of our own made while the list was under
  way): an object that was deleted in a gap does not stay;
- an older version never follows a newer one within one life of the store (resourceVersions of one kind are ordered,
  KEP-5504), so that a delayed event cannot undo what the answer to our own write has shown;
- an object that is gone does not come back with the late answer to a write that was made before it went;
- listeners hear of every change once, with the object before and after, and never of a change that is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from culvert_operator.cluster.kinds import Kind
from culvert_operator.keys import ObjectKey

Object = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held(Generic[T]):
    """One object: as it came, and as :attr:`Store.parse` made it."""

    raw: Object
    value: T


REMEMBERED = 4096

Listener = Callable[["Held[T] | None", "Held[T] | None"], None]


def key_of(raw: Object) -> ObjectKey:
    """Namespace (empty for cluster-scoped objects) and name."""
    metadata = raw.get("metadata") or {}
    return ObjectKey(metadata.get("namespace", ""), metadata.get("name", ""))


def version_of(raw: Object) -> str:
    """The resourceVersion."""
    return str((raw.get("metadata") or {}).get("resourceVersion", ""))


def uid_of(raw: Object) -> str:
    """The uid."""
    return str((raw.get("metadata") or {}).get("uid", ""))


def _older(version: str, than: str) -> bool:
    return version.isdigit() and than.isdigit() and int(version) < int(than)


class Store(Generic[T]):
    """All objects of one kind (and label selector); ``scopes`` are the namespaces that lists cover, None for all."""

    def __init__(self, kind: Kind, parse: Callable[[Object], T], *, scopes: Iterable[str | None] = (None,)) -> None:
        self.kind = kind
        self._parse = parse
        self._held: dict[ObjectKey, Held[T]] = {}
        self._listeners: list[Listener[T]] = []
        self._own: dict[ObjectKey, int] = {}  # our writes, by when they were made
        self._deleted: dict[str, int] = {}  # uids of what we deleted, by when
        self._sequence = 0
        self._gone: dict[str, None] = {}  # uids that the server said are gone, the latest REMEMBERED of them
        self._unsynced = set(scopes)
        self.synced = asyncio.Event()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[T]:
        return (held.value for held in self._held.values())

    def get(self, key: ObjectKey) -> T | None:
        """The parsed object, or None."""
        held = self._held.get(key)
        return held.value if held is not None else None

    def raw(self, key: ObjectKey) -> Object | None:
        """The object as it came, or None."""
        held = self._held.get(key)
        return held.raw if held is not None else None

    @property
    def keys(self) -> tuple[ObjectKey, ...]:
        """The keys of all objects."""
        return tuple(self._held)

    def listen(self, listener: Listener[T]) -> None:
        """Call ``listener`` on every change from now on; it must be quick and must not raise."""
        self._listeners.append(listener)

    # From a list and its watch.

    def begin_list(self) -> int:
        """Note that a list is asked for now; hand the result to :meth:`replace`."""
        return self._sequence

    def replace(self, items: Iterable[Object], *, began: int, scope: str | None = None) -> None:
        """Make the store hold ``items`` (the whole of ``scope``) and nothing else there."""
        listed = {key_of(raw): raw for raw in items}
        for key, raw in listed.items():
            if self._deleted.get(uid_of(raw), -1) > began:
                continue  # deleted by us after the list was taken
            if self._own.get(key, -1) > began and key in self._held:
                continue  # written by us after the list was taken: what we hold is newer
            self._put(key, raw)
        for key in [key for key in self._held if scope is None or key.namespace == scope]:
            if key not in listed and self._own.get(key, -1) <= began:
                self._remove(key)
        self._own = {key: at for key, at in self._own.items() if at > began}
        self._deleted = {uid: at for uid, at in self._deleted.items() if at > began}
        self._unsynced.discard(scope)
        if not self._unsynced:
            self.synced.set()

    def event(self, kind: str, raw: Object) -> None:
        """One event of a watch: ADDED, MODIFIED or DELETED."""
        key = key_of(raw)
        held = self._held.get(key)
        if kind == "DELETED":
            self._deleted.pop(uid_of(raw), None)
            if held is not None and (uid_of(held.raw) == uid_of(raw) or not _newer(held.raw, raw)):
                self._remove(key)
            return
        if uid_of(raw) in self._deleted:
            return
        if held is not None and _older(version_of(raw), version_of(held.raw)):
            return
        self._put(key, raw)

    # Our own writes.

    def wrote(self, raw: Object) -> None:
        """The API server's answer to a write of ours: visible at once."""
        key = key_of(raw)
        held = self._held.get(key)
        if uid_of(raw) in self._gone or (held is not None and _older(version_of(raw), version_of(held.raw))):
            return
        self._sequence += 1
        self._own[key] = self._sequence
        self._put(key, raw)

    def deleted(self, key: ObjectKey, uid: str) -> None:
        """A deletion of ours that the API server has carried out."""
        self._sequence += 1
        self._deleted[uid] = self._sequence
        held = self._held.get(key)
        if held is not None and uid_of(held.raw) == uid:
            self._remove(key)

    def _put(self, key: ObjectKey, raw: Object) -> None:
        before = self._held.get(key)
        if before is not None and version_of(before.raw) == version_of(raw) and uid_of(before.raw) == uid_of(raw):
            return
        after = self._held[key] = Held(raw, self._parse(raw))
        self._tell(before, after)

    def _remove(self, key: ObjectKey) -> None:
        self._own.pop(key, None)
        before = self._held.pop(key, None)
        if before is not None:
            self._gone[uid_of(before.raw)] = None
            if len(self._gone) > REMEMBERED:
                del self._gone[next(iter(self._gone))]
            self._tell(before, None)

    def _tell(self, before: Held[T] | None, after: Held[T] | None) -> None:
        for listener in self._listeners:
            listener(before, after)


def _newer(held: Object, told: Object) -> bool:
    return _older(version_of(told), version_of(held))
