"""Matching: the first rule, in the order given, whose hostname and path fit a request.

Responsible for: answering in about a microsecond whatever the number of rules. Must not know where rules come from or
what a service is. Invariant: `Router(rules).match` gives what a plain loop over the rules would give.

A host's rules are found by one dictionary look-up per label and remembered per host in a bounded cache. Hosts that no
exact rule names share the list of their longest wildcard suffix, so strangers' host names cost an entry, never a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from culvert_ingress.hostnames import wildcard_suffixes
from culvert_ingress.paths import PathTest, compile_path
from culvert_ingress.rules import Rule

__all__ = ["HasRules", "Router"]

CACHED_HOSTS = 8192

_Entry = tuple[int, PathTest | None, Rule]
_Candidate = tuple[PathTest | None, Rule]


class HasRules(Protocol):
    """What a Router is made from: a Document, or a ConfigFile that has not been compiled yet."""

    @property
    def rules(self) -> Sequence[Rule]: ...


class Router:
    """Finds rules; built once per configuration, then only read (and its cache filled) by one thread."""

    __slots__ = ("_any", "_cache", "_exact", "_shared", "_wildcards")

    def __init__(self, source: HasRules) -> None:
        self._exact: dict[str, list[_Entry]] = {}
        self._wildcards: dict[str, list[_Entry]] = {}
        self._any: list[_Entry] = []
        self._shared: dict[str, tuple[_Candidate, ...]] = {}
        self._cache: dict[str, tuple[_Candidate, ...]] = {}
        for index, rule in enumerate(source.rules):
            if rule.by_port_only:
                continue
            entry = (index, compile_path(rule.path), rule)
            if not rule.hostname:
                self._any.append(entry)
            elif rule.hostname.startswith("*."):
                self._wildcards.setdefault(rule.hostname[2:], []).append(entry)
            else:
                self._exact.setdefault(rule.hostname, []).append(entry)

    def match(self, host: str, path: bytes) -> Rule | None:
        """The rule for a normalised host and a normalised path (bytes, no query); None: the fallback answers."""
        candidates = self._cache.get(host)
        if candidates is None:
            candidates = self._remember(host)
        for test, rule in candidates:
            if test is None or test(path):
                return rule
        return None

    def host_has_paths(self, host: str) -> bool:
        """Whether the path decides what answers on this host, so that a path with no normal form must be refused."""
        candidates = self._cache.get(host)
        if candidates is None:
            candidates = self._remember(host)
        return bool(candidates) and candidates[0][0] is not None

    def _remember(self, host: str) -> tuple[_Candidate, ...]:
        candidates = self._candidates(host)
        if len(self._cache) >= CACHED_HOSTS:
            del self._cache[next(iter(self._cache))]
        self._cache[host] = candidates
        return candidates

    def _candidates(self, host: str) -> tuple[_Candidate, ...]:
        exact = self._exact.get(host)
        suffixes = [suffix for suffix in wildcard_suffixes(host) if suffix in self._wildcards]
        if exact is None:
            key = suffixes[0] if suffixes else ""
            shared = self._shared.get(key)
            if shared is None:
                shared = self._shared[key] = self._merge(suffixes, [])
            return shared
        return self._merge(suffixes, exact)

    def _merge(self, suffixes: Iterable[str], exact: Sequence[_Entry]) -> tuple[_Candidate, ...]:
        entries = [*exact, *self._any]
        for suffix in suffixes:
            entries.extend(self._wildcards[suffix])
        entries.sort(key=lambda entry: entry[0])
        candidates: list[_Candidate] = []
        for _, test, rule in entries:
            candidates.append((test, rule))
            if test is None:  # nothing after it can be reached
                break
        return tuple(candidates)
