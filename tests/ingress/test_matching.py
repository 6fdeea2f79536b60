"""Matching: the router answers what a loop over the rules would, for any rules and any request."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from culvert_ingress import matching
from culvert_ingress.hostnames import matches
from culvert_ingress.matching import Router
from culvert_ingress.paths import compile_path
from culvert_ingress.rules import HTTPService, PathMatch, PathType, Rule, StatusService

SERVICE = HTTPService("http", "localhost", 3000)
HOSTS = ["a.com", "b.a.com", "c.b.a.com", "d.com", "x.d.com", "com"]
PATHS = [b"/", b"/a", b"/a/b", b"/ab", b"/b/a", b"/a.jpg"]
PATTERNS = st.sampled_from(["", *HOSTS, "*.a.com", "*.b.a.com", "*.com", "*.d.com"])
CONDITIONS = st.sampled_from(
    [
        None,
        PathMatch(PathType.PREFIX, "/"),
        PathMatch(PathType.PREFIX, "/a"),
        PathMatch(PathType.EXACT, "/a/b"),
        PathMatch(PathType.REGEX, "/a"),
        PathMatch(PathType.SEARCH, r"\.jpg$"),
        PathMatch(PathType.SEARCH, "a$"),
    ]
)


@dataclass(frozen=True)
class Rules:
    rules: tuple[Rule, ...]


def rules(*pairs: tuple[str, PathMatch | None]) -> Rules:
    return Rules(tuple(Rule(f"r{index}", host, path, SERVICE) for index, (host, path) in enumerate(pairs)))


def naive(source: Rules, host: str, path: bytes) -> Rule | None:
    for rule in source.rules:
        test = compile_path(rule.path)
        if (not rule.hostname or matches(rule.hostname, host)) and (test is None or test(path)):
            return rule
    return None


@given(st.lists(st.tuples(PATTERNS, CONDITIONS), max_size=12))
def test_the_router_equals_a_loop_over_the_rules(pairs: list[tuple[str, PathMatch | None]]) -> None:
    source = rules(*pairs)
    router = Router(source)
    for _ in range(2):  # from the rules, then from the cache
        for host in [*HOSTS, "q.b.a.com", "unknown.org"]:
            for path in PATHS:
                assert router.match(host, path) is naive(source, host, path)


@given(st.lists(st.tuples(PATTERNS, CONDITIONS), max_size=12))
def test_a_host_has_paths_exactly_when_the_path_can_change_the_answer(
    pairs: list[tuple[str, PathMatch | None]],
) -> None:
    source = rules(*pairs)
    router = Router(source)
    for host in [*HOSTS, "unknown.org"]:
        first = next((rule for rule in source.rules if not rule.hostname or matches(rule.hostname, host)), None)
        assert router.host_has_paths(host) is (first is not None and compile_path(first.path) is not None)


def test_the_first_rule_in_order_wins_even_over_a_more_specific_one() -> None:
    router = Router(rules(("*.a.com", None), ("b.a.com", None)))
    found = router.match("b.a.com", b"/")
    assert found is not None
    assert found.id == "r0"


def test_no_rule_is_no_answer() -> None:
    router = Router(rules(("a.com", PathMatch(PathType.PREFIX, "/api"))))
    assert router.match("a.com", b"/other") is None
    assert router.match("b.com", b"/api") is None
    assert not router.host_has_paths("b.com")


def test_hosts_that_no_rule_names_share_one_list_and_cannot_grow_the_cache_without_bound() -> None:
    router = Router(rules(("*.a.com", PathMatch(PathType.PREFIX, "/api")), ("", None)))
    for number in range(matching.CACHED_HOSTS + 100):
        assert router.match(f"h{number}.a.com", b"/api") is not None
    assert len(router._cache) <= matching.CACHED_HOSTS
    assert len({id(candidates) for candidates in router._cache.values()}) == 1


def test_five_thousand_rules_are_found_each_by_its_host() -> None:
    source = Rules(tuple(Rule(f"r{n}", f"h{n}.example.com", None, StatusService(200)) for n in range(5000)))
    router = Router(source)
    assert all(router.match(rule.hostname, b"/") is rule for rule in source.rules)
    assert router.match("example.com", b"/") is None
