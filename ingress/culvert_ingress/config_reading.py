"""Reading of the mappings in `config.yml`: typed values out, problems and warnings collected on the way.

Responsible for: the kinds of values and their sentences, and for acting on the verdicts of `config_keys`. Must not
know what a key means. Invariant: nothing raises until `Problems.check`, so that one reading finds every problem; a
value with a problem is replaced by its default, which nobody sees because `check` then raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from culvert_ingress.addresses import AddressError, join_address, split_address
from culvert_ingress.config_keys import TABLES, Key, Verdict
from culvert_ingress.durations import DurationError, format_ms, parse
from culvert_ingress.origin_fields import OriginFieldError, check_server_name
from culvert_ingress.reading import kind_of, nearest

__all__ = ["ConfigErrors", "Problem", "Problems", "Section"]

MAX_TEXT = 4096
MAX_RELAYS = 64


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: the rule's number, counted from 1 (None: not in a rule), and a sentence."""

    rule: int | None
    message: str

    def __str__(self) -> str:
        return self.message if self.rule is None else f"Rule #{self.rule}: {self.message}"


class ConfigErrors(ValueError):
    """Everything wrong in a `config.yml`, in the order of the file's rules."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))


@dataclass(slots=True)
class Problems:
    """Collects; problems outside rules come first, then rule by rule."""

    found: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, rule: int | None, message: str) -> None:
        """One more problem."""
        self.found.append(Problem(rule, message))

    def warn(self, rule: int | None, message: str) -> None:
        """One more warning."""
        self.warnings.append(str(Problem(rule, message)))

    def check(self) -> None:
        """Raises ConfigErrors when there is any problem."""
        if self.found:
            raise ConfigErrors(sorted(self.found, key=lambda problem: problem.rule or 0))


class Section:
    """One mapping of the file, whose keys are judged by a table when it is made."""

    __slots__ = ("_name", "_problems", "_rule", "_values")

    def __init__(
        self, value: object, table: Mapping[str, Key], problems: Problems, *, rule: int | None, name: str
    ) -> None:
        self._problems = problems
        self._rule = rule
        self._name = name
        self._values: dict[str, object] = {}
        if not isinstance(value, Mapping):
            place = name or ("The rule" if rule is not None else "The file")
            self._problem(f"{place} must be keys with values, not {kind_of(value)}; write 'key: value' on each line.")
            return
        for key, item in value.items():
            self._judge(str(key), item, table)

    def has(self, key: str) -> bool:
        """Whether the key is there with a value other than null."""
        return self._values.get(key) is not None

    def get(self, key: str) -> object:
        """The value as it is, None when missing."""
        return self._values.get(key)

    def text(self, key: str, *, longest: int = MAX_TEXT) -> str | None:
        """A text, or None when the key is missing."""
        if key not in self._values:
            return None
        value = self._values[key]
        if isinstance(value, str) and value and len(value) <= longest and value.isprintable():
            return value
        if isinstance(value, bool | int | float):
            self._bad(key, "must be text; put the value in quotes")
        elif isinstance(value, str) and value:
            self._bad(key, f"must be one line of at most {longest} characters without control characters")
        else:
            self._bad(key, f"must be text, not {kind_of(value)}; write a value, or remove the key")
        return None

    def boolean(self, key: str, *, default: bool) -> bool:
        """true or false."""
        value = self._values.get(key, default)
        if isinstance(value, bool):
            return value
        self._bad(key, f"must be true or false, not {kind_of(value)}")
        return default

    def integer(self, key: str, *, default: int, low: int, high: int) -> int:
        """A whole number within bounds, both included."""
        value = self._values.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self._bad(key, f"must be a whole number from {low} to {high}")
        return default

    def duration(self, key: str, *, default: int, most: int) -> int:
        """Milliseconds."""
        if key not in self._values:
            return default
        value = self._values[key]
        if not isinstance(value, str):
            written = f"{value}s" if isinstance(value, int) and not isinstance(value, bool) else "30s"
            self._bad(key, f"must be a duration with its unit; write it as {written}")
            return default
        try:
            milliseconds = parse(value)
        except DurationError as error:
            self._problem(f"{self._at(key)}: {error}")
            return default
        if milliseconds > most:
            self._bad(key, f"is longer than {format_ms(most)}; write a shorter duration")
            return default
        return milliseconds

    def addresses(self, key: str) -> tuple[str, ...]:
        """One `host:port` or a list of them, in normal form."""
        value = self._values.get(key)
        if key in self._values and (
            not isinstance(value, str | list) or not value or len(value) > MAX_RELAYS * MAX_TEXT
        ):
            self._bad(key, "must be an address such as relay.example.com:443, or a list of them")
            return ()
        items = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        if len(items) > MAX_RELAYS:
            self._bad(key, f"has more than {MAX_RELAYS} addresses; name fewer, or one name with several addresses")
            return ()
        found: list[str] = []
        for item in items:
            try:
                if not isinstance(item, str):
                    raise AddressError("each address must be text such as relay.example.com:443.")
                address = join_address(*split_address(item))
            except AddressError as error:
                self._problem(f"{self._at(key)}: {error}")
            else:
                if address not in found:
                    found.append(address)
        return tuple(found)

    def listener(self, key: str, *, default: str) -> str:
        """`host:port` to listen on; another form is a warning and the default."""
        value = self._values.get(key, default)
        if isinstance(value, str):
            try:
                return join_address(*split_address(value, port_zero=True))
            except AddressError:
                pass
        self._problems.warn(
            self._rule, f"{self._at(key)}: {str(value)[:80]!r} is not host:port; {default} is used instead."
        )
        return default

    def server_name(self, key: str) -> str | None:
        """A hostname or IP address that a certificate must have, in normal form."""
        value = self.text(key)
        if value is None:
            return None
        try:
            return check_server_name(value)
        except OriginFieldError as error:
            self._problem(f"{self._at(key)}: {error}")
            return None

    def problem(self, message: str) -> None:
        """One more problem in this section's rule."""
        self._problem(message)

    def _judge(self, key: str, value: object, table: Mapping[str, Key]) -> None:
        row = table.get(key)
        if row is None:
            self._unknown(key, table)
        elif row.verdict is Verdict.HONOURED:
            self._values[key] = value
        elif row.verdict is Verdict.HARMLESS:
            self._problems.warn(self._rule, f"{self._at(key)} has no effect: {row.text}.")
        elif not any(type(value) is type(inert) and value == inert for inert in row.inert):
            self._problem(f"{self._at(key)} is not supported: {row.text}.")

    def _unknown(self, key: str, table: Mapping[str, Key]) -> None:
        elsewhere = next((place or "the top of the file" for place, other in TABLES.items() if key in other), None)
        if elsewhere is not None:
            hint = (
                f" here; it belongs under {elsewhere}" if elsewhere in TABLES else f" here; it belongs at {elsewhere}"
            )
        else:
            hint = nearest(key, [name for name, row in table.items() if row.verdict is Verdict.HONOURED]) or nearest(
                key, list(table)
            )
        self._problem(f"{self._at(key[:80])!r} is not a known key{hint}.")

    def _at(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def _bad(self, key: str, what: str) -> None:
        self._problem(f"{self._at(key)} {what}.")

    def _problem(self, message: str) -> None:
        self._problems.add(self._rule, message)
