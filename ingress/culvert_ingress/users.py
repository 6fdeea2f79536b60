"""The file behind `basicAuth`: one `user:password` per line.

Responsible for: reading it into digests, so that no password is kept. Must not know rules.
Invariant: no part of a line ever stands in an error, only its number.
"""

from __future__ import annotations

import hashlib

from culvert_ingress.rule_json import MAX_USERS

__all__ = ["UsersError", "digests_of"]

MAX_LINE = 512


class UsersError(ValueError):
    """A file that cannot be used; the text is a sentence that names a line by its number."""


def digests_of(text: str) -> tuple[str, ...]:
    """SHA-256 of each `user:password` (UTF-8), hexadecimal, sorted. Blank lines and those that begin with # are none.

    Raises UsersError.
    """
    found: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, separator, password = line.partition(":")
        if not separator or not user or not password or len(line) > MAX_LINE or not line.isprintable():
            raise UsersError(f"line {number} is not user:password; write one pair of printable text on each line.")
        found.add(hashlib.sha256(line.encode()).hexdigest())
    if not found:
        raise UsersError("it names nobody, so that nobody could come; write lines such as alice:secret.")
    if len(found) > MAX_USERS:
        raise UsersError(f"it names more than {MAX_USERS} users; let the service authenticate them.")
    return tuple(sorted(found))
