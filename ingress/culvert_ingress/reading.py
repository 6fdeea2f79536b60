"""Reading of untyped JSON objects key by key, each with a sentence that names the place when it is wrong.

Responsible for: the boundary at which JSON becomes typed values. Every reader takes the key that it wants; `finish`
then refuses whatever nobody took, so no key is ever accepted and ignored. Must not know what the keys mean.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

__all__ = ["ObjectReader", "ReadingError", "kind_of", "nearest"]


class ReadingError(ValueError):
    """A value of the wrong kind or in the wrong place; the text is a sentence that names the place."""


class ObjectReader:
    """One JSON object at `place` (such as `rules[3].service`); keys are taken out one by one."""

    __slots__ = ("_rest", "_taken", "place")

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, Mapping):
            raise ReadingError(f"{place or 'The document'} must be an object, not {kind_of(value)}.")
        self.place = place
        self._rest: dict[str, Any] = dict(value)
        self._taken: list[str] = []

    def at(self, key: str) -> str:
        """The place of `key`, for sentences."""
        return f"{self.place}.{key}" if self.place else key

    def has(self, key: str) -> bool:
        """Whether `key` is there and still to be taken."""
        return key in self._rest

    def take(self, key: str) -> Any:
        """The value of `key`, which must be there."""
        self._taken.append(key)
        if key not in self._rest:
            raise ReadingError(f"{self.at(key)} is missing.")
        return self._rest.pop(key)

    def text(self, key: str, *, longest: int, empty: bool = False) -> str:
        """A string of at most `longest` characters without control characters."""
        value = self.take(key)
        if not isinstance(value, str):
            raise ReadingError(f"{self.at(key)} must be text, not {kind_of(value)}.")
        return self._checked(key, value, longest=longest, empty=empty)

    def optional_text(self, key: str, *, longest: int) -> str | None:
        """Like `text`, or None when the key is missing or null."""
        if self._absent(key):
            return None
        return self.text(key, longest=longest)

    def multiline(self, key: str, *, longest: int) -> str | None:
        """A string in which any character may stand (PEM), or None when missing or null."""
        if self._absent(key):
            return None
        value = self.take(key)
        if not isinstance(value, str) or not value:
            raise ReadingError(f"{self.at(key)} must be text, not {kind_of(value)}.")
        if len(value) > longest:
            raise ReadingError(f"{self.at(key)} is longer than {longest} characters.")
        return value

    def integer(self, key: str, *, low: int, high: int) -> int:
        """A whole number within bounds, both included."""
        value = self.take(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ReadingError(f"{self.at(key)} must be a whole number, not {kind_of(value)}.")
        if not low <= value <= high:
            raise ReadingError(f"{self.at(key)} must be from {low} to {high}.")
        return value

    def boolean(self, key: str) -> bool:
        """true or false."""
        value = self.take(key)
        if not isinstance(value, bool):
            raise ReadingError(f"{self.at(key)} must be true or false, not {kind_of(value)}.")
        return value

    def choice(self, key: str, choices: Mapping[str, Any]) -> Any:
        """The value that `choices` has for the text at `key`."""
        value = self.take(key)
        if not isinstance(value, str) or value not in choices:
            raise ReadingError(f"{self.at(key)} must be one of {', '.join(choices)}.")
        return choices[value]

    def array(self, key: str, *, longest: int) -> list[Any]:
        """A list of at most `longest` items."""
        value = self.take(key)
        if not isinstance(value, list):
            raise ReadingError(f"{self.at(key)} must be a list, not {kind_of(value)}.")
        if len(value) > longest:
            raise ReadingError(f"{self.at(key)} has more than {longest} items.")
        return value

    def texts(self, key: str, *, most: int, longest: int) -> tuple[str, ...]:
        """A list of strings."""
        items = self.array(key, longest=most)
        for index, item in enumerate(items):
            if not isinstance(item, str):
                raise ReadingError(f"{self.at(key)}[{index}] must be text, not {kind_of(item)}.")
            self._checked(f"{key}[{index}]", item, longest=longest, empty=False)
        return tuple(items)

    def finish(self) -> None:
        """Refuses the keys that nobody took, naming the first of them and the nearest known key."""
        for key in self._rest:
            raise ReadingError(f"{self.at(key[:80])} is not a key that this version knows{nearest(key, self._taken)}.")

    def _absent(self, key: str) -> bool:
        if self._rest.get(key) is not None:
            return False
        self._taken.append(key)
        self._rest.pop(key, None)
        return True

    def _checked(self, key: str, value: str, *, longest: int, empty: bool) -> str:
        if not value and not empty:
            raise ReadingError(f"{self.at(key)} must not be empty.")
        if len(value) > longest:
            raise ReadingError(f"{self.at(key)} is longer than {longest} characters.")
        if not value.isprintable():
            raise ReadingError(f"{self.at(key)} has a control character in it.")
        return value


def nearest(key: str, known: list[str]) -> str:
    """`; did you mean 'x'?`-like tail for a sentence about an unknown key, or nothing."""
    close = difflib.get_close_matches(key[:80], known, n=1, cutoff=0.6)
    return f" (the nearest is {close[0]!r})" if close else ""


def kind_of(value: object) -> str:
    """What a value is, in words that a person knows from YAML and JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text" if value else "empty text"
        case list():
            return "a list"
    return "an object"
