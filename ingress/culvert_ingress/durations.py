"""Durations as Go writes them (`30s`, `1m30s`), held as whole milliseconds.

Responsible for: reading and writing the text form that `config.yml`, the configuration document and the Kubernetes
objects share. Invariant: `parse(format_ms(n)) == n`, and no floating-point number is ever involved.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["DurationError", "format_ms", "parse"]

MAX_MS = 100 * 365 * 24 * 3_600_000
"""A hundred years: far beyond any timeout, and small enough for every consumer's integers."""

_UNITS_NS = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "µs": 1_000,
    "ns": 1,
}
_TERM = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,18}))?(h|ms|m|s|us|µs|ns)")
_FORMAT_UNITS = (("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


class DurationError(ValueError):
    """A duration that cannot be read; the text is a sentence that says what to write instead."""


@lru_cache(maxsize=1024)  # an operator reads the same few of them for every rule in every round
def parse(text: str) -> int:
    """Milliseconds of a duration such as `30s`, `1m30s`, `1.5h` or `250ms`. Raises DurationError."""
    if text == "0":
        return 0
    shown = repr(text[:40])
    if text.startswith("-"):
        raise DurationError(f"{shown} is negative; write a duration such as 30s.")
    if text.isascii() and text.isdigit():
        raise DurationError(f"{shown} has no unit; write {text[:18]}s for seconds.")
    position = total = 0
    while position < len(text):
        term = _TERM.match(text, position)
        if term is None:
            break
        whole, fraction, unit = term.group(1), term.group(2) or "", term.group(3)
        scaled = int(whole + fraction) * _UNITS_NS[unit]
        nanoseconds, rest = divmod(scaled, 10 ** len(fraction))
        if rest:
            raise DurationError(f"{shown} is finer than a millisecond; round it, as in 250ms.")
        total += nanoseconds
        position = term.end()
    if position != len(text) or not text:
        raise DurationError(f"{shown} is not a duration; write numbers with units h, m, s or ms, such as 30s or 1m30s.")
    milliseconds, rest = divmod(total, 1_000_000)
    if rest:
        raise DurationError(f"{shown} is finer than a millisecond; round it, as in 250ms.")
    if milliseconds > MAX_MS:
        raise DurationError(f"{shown} is longer than a hundred years; write a shorter duration.")
    return milliseconds


def format_ms(milliseconds: int) -> str:
    """The shortest text of whole units: 90_000 -> `1m30s`, 1_500 -> `1s500ms`, 0 -> `0s`."""
    if milliseconds < 0:
        raise ValueError("a duration cannot be negative")
    parts = []
    for unit, size in _FORMAT_UNITS:
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
