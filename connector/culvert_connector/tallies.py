"""What each rule's requests come to.

Responsible for finding a rule's numbers and for how many rules have numbers of their own. Must not know metrics' names
or how a request is served.

Invariant: at most `limit` rules are told apart, those that had a request first; the rest counts together as `_other`.
Rules that go take their numbers with them, or ids would pile up for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from culvert_transport.instruments import OTHER
from culvert_transport.traffic import Traffic

MAX_RULES: Final = 100


class Tallies:
    """All rules' numbers. `nobody` counts requests that were refused before a rule was looked for."""

    def __init__(self, limit: int = MAX_RULES) -> None:
        self.nobody = Traffic("")
        self.other = Traffic(OTHER)
        self._limit = limit
        self._rules: dict[str, Traffic] = {}

    def of(self, rule: str) -> Traffic:
        """Where a request of this rule is counted."""
        traffic = self._rules.get(rule)
        if traffic is None:
            if len(self._rules) >= self._limit:
                return self.other
            traffic = self._rules[rule] = Traffic(rule)
        return traffic

    def keep(self, rules: Collection[str]) -> None:
        """Forgets every rule that is not one of these."""
        self._rules = {rule: traffic for rule, traffic in self._rules.items() if rule in rules}

    def __iter__(self) -> Iterator[Traffic]:
        yield self.nobody
        yield from self._rules.values()
        yield self.other
