"""The ledger: every revocation that relays are still to be told of, as the operator keeps it.

Responsible for: an entry ↔ the text under its key in the ConfigMap ``culvert-revocations``, and which entries make room
for others. Must not know: the API server, HTTP.
Invariants: nothing in an entry is secret; ``read(write(entry)) == entry``; what cannot be read is no entry; the whole
fits into one ConfigMap.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from culvert_ingress.document import RelayTarget
from culvert_operator.api.meta import integer, mapping, sequence, text
from culvert_operator.keys import ObjectKey

MAX_BYTES = 900_000
"""Of all texts together: below what one ConfigMap holds, with room for its metadata."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Credentials of ``subject`` issued before ``not_before`` are void, which ``relay`` is told until ``until``.

    Both are unix seconds. ``token`` is the signed statement; ``told`` are those of the relay's addresses that have
    confirmed it. ``uid`` is the Tunnel's, for Events; ``shown``: one has told that a relay could not be reached.
    ``issued_at`` is when it was written down.
    """

    tunnel: ObjectKey
    uid: str
    subject: str
    not_before: int
    until: int
    token: str = field(repr=False)
    relay: RelayTarget
    told: tuple[str, ...] = ()
    shown: bool = False
    issued_at: int = 0

    @property
    def untold(self) -> tuple[str, ...]:
        """The addresses that have not confirmed it."""
        return tuple(address for address in self.relay.addresses if address not in self.told)


def name_of(subject: str) -> str:
    """An entry's key in the ConfigMap: a subject has characters that a key must not have."""
    return "t-" + hashlib.sha256(subject.encode()).hexdigest()[:32]


def write(entry: Entry) -> str:
    """The text of an entry."""
    value = {
        "tunnel": str(entry.tunnel),
        "uid": entry.uid,
        "subject": entry.subject,
        "notBefore": entry.not_before,
        "until": entry.until,
        "revocation": entry.token,
        "addresses": list(entry.relay.addresses),
        "serverName": entry.relay.server_name,
        "ca": entry.relay.ca,
        "proxy": entry.relay.proxy,
        "told": list(entry.told),
        "shown": entry.shown,
        "issuedAt": entry.issued_at,
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def read(said: str) -> Entry | None:
    """The entry in a text; None for what is none."""
    try:
        value = mapping(json.loads(said))
        tunnel = ObjectKey.parse(text(value.get("tunnel")))
    except ValueError:
        return None
    addresses = tuple(one for one in sequence(value.get("addresses")) if isinstance(one, str))
    entry = Entry(
        tunnel=tunnel,
        uid=text(value.get("uid")),
        subject=text(value.get("subject")),
        not_before=integer(value.get("notBefore")),
        until=integer(value.get("until")),
        token=text(value.get("revocation")),
        relay=RelayTarget(
            addresses,
            text(value.get("serverName")) or None,
            text(value.get("ca")) or None,
            text(value.get("proxy")) or None,
        ),
        told=tuple(one for one in sequence(value.get("told")) if isinstance(one, str)),
        shown=value.get("shown") is True,
        issued_at=integer(value.get("issuedAt")),
    )
    return entry if entry.subject and entry.token and entry.not_before and addresses else None


def room_for(entry: Entry, entries: Mapping[str, Entry]) -> tuple[str, ...]:
    """The subjects whose entries have to go so that ``entry`` fits: told ones first, then those that expire first."""
    sizes = {subject: len(write(one)) for subject, one in entries.items() if subject != entry.subject}
    left, going = sum(sizes.values()) + len(write(entry)), []
    for subject in sorted(sizes, key=lambda one: (bool(entries[one].untold), entries[one].until, one)):
        if left <= MAX_BYTES:
            break
        going.append(subject)
        left -= sizes[subject]
    return tuple(going)
