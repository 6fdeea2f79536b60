"""The order of rules that come from a cluster, where no file says which is first (api "Rules", Order).

| first            | then                                                                       |
|------------------|----------------------------------------------------------------------------|
| exact hostnames  | wildcards with more labels before fewer, then rules for any hostname       |
| in one hostname  | Exact paths, longer PathPrefix before shorter, regular expressions, `/`    |
| equal in all     | as declared                                                                |

A path of `/` (or none) stands after the regular expressions of its hostname: it matches everything, so that in any
other place it would make them unreachable. Invariant: a total order that depends on the rules alone, except that
expressions of one hostname keep the order in which they were given.
"""

from __future__ import annotations

from collections.abc import Iterable

from culvert_ingress.rules import PathMatch, PathType, Rule

__all__ = ["ordered", "sort_key"]

_PATH_RANK = {PathType.EXACT: 0, PathType.PREFIX: 1, PathType.REGEX: 2, PathType.SEARCH: 2}
_ANY_PATH = 3

SortKey = tuple[int, int, str, int, int, str]


def sort_key(rule: Rule) -> SortKey:
    """Key for a stable sort; rules that compare equal stay as declared."""
    return (*_host_key(rule.hostname), *_path_key(rule.path))


def ordered(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules in matching order; `rules` in declared order."""
    return tuple(sorted(rules, key=sort_key))


def _host_key(hostname: str) -> tuple[int, int, str]:
    if not hostname:
        return (2, 0, "")
    if hostname.startswith("*."):
        return (1, -hostname.count("."), hostname)
    return (0, 0, hostname)


def _path_key(path: PathMatch | None) -> tuple[int, int, str]:
    if path is None or (path.type is PathType.PREFIX and path.value == "/"):
        return (_ANY_PATH, 0, "")
    rank = _PATH_RANK[path.type]
    if rank == _PATH_RANK[PathType.REGEX]:
        return (rank, 0, "")
    return (rank, -len(path.value.rstrip("/")), path.value)
