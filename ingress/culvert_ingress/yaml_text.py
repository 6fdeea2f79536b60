"""YAML text as plain values, strictly.

Responsible for: the YAML that a configuration file may use, with sentences that name the line. The scalars are those
of YAML 1.2's core schema, so that `no`, `1:30` and dates stay text. Refused: a key that stands twice, other tags,
several documents, aliases that contain themselves, and texts, depths or expansions beyond the limits below (a short
text can otherwise expand without end). Must not know what the keys mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

__all__ = ["YamlError", "YamlErrors", "read_yaml"]

MAX_CHARACTERS = 4 << 20
MAX_DEPTH = 32
MAX_NODES = 500_000
"""Values after expansion of every alias."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


class YamlError(ValueError):
    """One thing wrong in the text; a sentence that names the line."""


class YamlErrors(ValueError):
    """Everything wrong in the text, as `sentences`."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = tuple(sentences)


def read_yaml(text: str) -> Any:
    """The one document of `text` as dicts, lists, strings, numbers, booleans and None. Raises YamlErrors."""
    if len(text) > MAX_CHARACTERS:
        raise YamlErrors([f"The file is larger than {MAX_CHARACTERS >> 20} MiB; split it over several tunnels."])
    reader = _Reader(text.removeprefix("\ufeff"))
    try:
        value = reader.document()
    except YamlError as error:
        raise YamlErrors([*reader.problems, str(error)]) from None
    except yaml.MarkedYAMLError as error:
        raise YamlErrors([*reader.problems, _syntax(error)]) from None
    except (yaml.YAMLError, UnicodeError):
        raise YamlErrors(
            [*reader.problems, "The file has characters that YAML does not allow; save it as UTF-8 text."]
        ) from None
    if reader.problems:
        raise YamlErrors(reader.problems)
    return value


class _Reader:
    """Builds values from parser events: no recursion deeper than MAX_DEPTH, no constructor of PyYAML's."""

    def __init__(self, text: str) -> None:
        self.problems: list[str] = []
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_Loader)
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        self._nodes = 0

    def document(self) -> Any:
        value: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise YamlError(f"{_line(event)}: a second document starts here; keep one and remove the '---'.")
                value = self._node(next(self._events), 0)
        return value

    def _node(self, event: yaml.Event, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise YamlError(f"{_line(event)}: lists and keys are nested deeper than {MAX_DEPTH} levels; flatten them.")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        anchor: str | None = getattr(event, "anchor", None)
        if anchor:
            self._anchors[anchor] = None
        before = self._nodes
        self._count(event, 1)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(event, depth)
        else:
            value = self._mapping(event, depth)
        if anchor:
            self._anchors[anchor] = (value, self._nodes - before)
        return value

    def _alias(self, event: yaml.AliasEvent) -> Any:
        if event.anchor not in self._anchors:
            raise YamlError(f"{_line(event)}: *{event.anchor} has no anchor above it; define &{event.anchor} first.")
        known = self._anchors[event.anchor]
        if known is None:
            raise YamlError(f"{_line(event)}: *{event.anchor} contains itself; write the value out.")
        self._count(event, known[1])
        return known[0]

    def _count(self, event: yaml.Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise YamlError(
                f"{_line(event)}: the file expands to more than {MAX_NODES} values; remove the repeated aliases."
            )

    def _sequence(self, event: yaml.Event, depth: int) -> list[Any]:
        _check_tag(event, "seq")
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return items

    def _mapping(self, event: yaml.Event, depth: int) -> dict[str, Any]:
        _check_tag(event, "map")
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            merge = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and bool(event.implicit[0])
            key = self._key(event, depth)
            value = self._node(next(self._events), depth + 1)
            if merge:
                for source in value if isinstance(value, list) else [value]:
                    if not isinstance(source, dict):
                        raise YamlError(
                            f"{_line(event)}: '<<' takes keys from another mapping; give it an alias of one."
                        )
                    merged = {**source, **merged}
            elif key in found:
                self.problems.append(f"{_line(event)}: the key {key[:80]!r} stands twice; keep one of them.")
            else:
                found[key] = value
        return {**merged, **found} if merged else found

    def _key(self, event: yaml.Event, depth: int) -> str:
        key = self._node(event, depth + 1)
        if isinstance(key, str):
            return key
        if isinstance(event, yaml.ScalarEvent):
            return event.value
        raise YamlError(f"{_line(event)}: a list or mapping stands where a key is needed; write key: value.")

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        text = event.value
        tag = event.tag
        if tag in (None, "!"):
            return _plain(text) if tag is None and event.implicit[0] else text
        if tag == _TAG + "str":
            return text
        raise YamlError(f"{_line(event)}: the tag {tag[:80]!r} is not supported; write the value without it.")


def _plain(text: str) -> Any:
    """The value of an unquoted scalar."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _check_tag(event: yaml.Event, kind: str) -> None:
    tag = getattr(event, "tag", None)
    if tag not in (None, "!", _TAG + kind):
        raise YamlError(f"{_line(event)}: the tag {tag[:80]!r} is not supported; write the value without it.")


def _line(event: yaml.Event) -> str:
    mark = event.start_mark
    return f"Line {mark.line + 1}" if mark else "The file"


def _syntax(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"Line {mark.line + 1}, column {mark.column + 1}" if mark else "The file"
    hint = (
        "indent with spaces, not tabs"
        if "cannot start any token" in (error.problem or "")
        else "check the indentation and quotes there"
    )
    return f"{where}: this is not YAML ({error.problem or 'unreadable'}); {hint}."
