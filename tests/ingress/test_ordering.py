"""The order of a cluster's rules."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from culvert_ingress.ordering import ordered, sort_key
from culvert_ingress.rules import PathMatch, PathType, Rule, StatusService


def rule(hostname: str, path: PathMatch | None = None, name: str = "r") -> Rule:
    return Rule(name, hostname, path, StatusService(200))


def exact(value: str) -> PathMatch:
    return PathMatch(PathType.EXACT, value)


def prefix(value: str) -> PathMatch:
    return PathMatch(PathType.PREFIX, value)


def regex(value: str) -> PathMatch:
    return PathMatch(PathType.REGEX, value)


IN_ORDER = [
    rule("a.example.com", exact("/long/path")),
    rule("a.example.com", exact("/x")),
    rule("a.example.com", prefix("/api/v1")),
    rule("a.example.com", prefix("/api")),
    rule("a.example.com", regex("/z[0-9]+")),
    rule("a.example.com", regex("/a[0-9]+/much/longer")),
    rule("a.example.com", prefix("/")),
    rule("z.example.com", exact("/x")),
    rule("z.example.com"),
    rule("*.a.example.com"),
    rule("*.example.com", exact("/x")),
    rule("*.example.com", regex("/")),
    rule("*.example.com", prefix("/")),
    rule("*.com"),
    rule("", prefix("/x")),
    rule(""),
]


@given(st.permutations(IN_ORDER))
def test_exact_hosts_longer_suffixes_and_narrower_paths_come_first(shuffled: list[Rule]) -> None:
    got = ordered(shuffled)
    # Expressions of one host keep their declared order; everything else has one place.
    declared = [r for r in shuffled if r.path and r.path.type is PathType.REGEX and r.hostname == "a.example.com"]
    want = [*IN_ORDER[:4], *declared, *IN_ORDER[6:]]
    assert list(got) == want


RULES = st.builds(
    rule,
    st.sampled_from(["", "a.com", "b.com", "*.a.com", "*.com", "*.b.a.com"]),
    st.one_of(st.none(), st.builds(PathMatch, st.sampled_from(PathType), st.sampled_from(["/", "/a", "/a/b", "/b"]))),
    st.sampled_from(["r0", "r1"]),
)


@given(st.lists(RULES, max_size=10))
def test_ordering_is_total_stable_and_changes_nothing_the_second_time(rules: list[Rule]) -> None:
    got = ordered(rules)
    assert ordered(got) == got
    assert sorted(map(repr, got)) == sorted(map(repr, rules))
    for one, next_one in itertools.pairwise(got):
        assert sort_key(one) <= sort_key(next_one)
        if sort_key(one) == sort_key(next_one):
            assert one.hostname == next_one.hostname


def test_a_path_of_slash_never_hides_an_expression_of_its_host() -> None:
    got = ordered([rule("a.com", prefix("/")), rule("a.com", None), rule("a.com", regex("/v[0-9]"))])
    assert got[0].path == regex("/v[0-9]")
