"""`Connection` and what it lists (RFC 9110 section 7.6.1).

Responsible for: deciding from all `Connection` values of a message whether the connection persists, whether an
upgrade is meant, and which further fields end at this hop. Must not know requests from responses.
Invariant: no peer can have a field dropped that routing or framing rests on, because those are taken out of the block
before the fields that `Connection` lists are.
"""

import re
from typing import Final

from .grammar import option_list

_USUAL: Final = frozenset({b"close", b"keep-alive", b"upgrade"})
"""Options that are not looked for among the fields: no block that comes here holds them."""


class ConnectionOptions:
    """What the `Connection` fields of one message say."""

    __slots__ = ("close", "keep_alive", "named", "upgrade")

    close: bool
    keep_alive: bool
    upgrade: bool
    named: frozenset[bytes]
    """Names (lower case) of further fields that end at this hop."""

    def __init__(self, close: bool, keep_alive: bool, upgrade: bool, named: frozenset[bytes]) -> None:
        self.close = close
        self.keep_alive = keep_alive
        self.upgrade = upgrade
        self.named = named


def parse_options(value: bytes) -> ConnectionOptions | None:
    """Of all `Connection` values joined by commas; None when they are not a list of tokens."""
    tokens = option_list(value)
    if tokens is None:
        return None
    return ConnectionOptions(
        b"close" in tokens, b"keep-alive" in tokens, b"upgrade" in tokens, frozenset(tokens) - _USUAL
    )


def without_fields(block: bytes, names: frozenset[bytes]) -> bytes:
    """`block` (well-formed field lines) without the lines whose name, in lower case, is in `names`."""
    if not names:
        return block
    return b"".join(line for line in block.splitlines(True) if line[: line.index(b":")].lower() not in names)


def field_values(block: bytes, pattern: re.Pattern[bytes]) -> list[bytes]:
    """Stripped values of the lines that `pattern`, made by `field_pattern`, finds in `block`."""
    return [value.strip(b" \t") for value in pattern.findall(block)]


def field_pattern(name: bytes) -> re.Pattern[bytes]:
    """A pattern for the lines of a well-formed block with exactly this name (letters, digits and '-'), in any case."""
    return re.compile(rb"(?mi)^" + name + rb":([^\r]*+)\r$")
