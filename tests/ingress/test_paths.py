"""Path conditions: whole segments, RE2 with bounds, and refusal of values that could never match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_ingress.paths import EXPRESSION_MEMORY, PathValueError, check_path, compile_path
from culvert_ingress.rules import PathMatch, PathType


def accepts(kind: PathType, value: str, path: bytes) -> bool:
    test = compile_path(check_path(PathMatch(kind, value)))
    return test is None or bool(test(path))


@pytest.mark.parametrize(
    ("value", "path", "outcome"),
    [
        ("/api", b"/api", True),
        ("/api", b"/api/", True),
        ("/api", b"/api/v1", True),
        ("/api", b"/apis", False),
        ("/api", b"/API", False),
        ("/api/", b"/api", True),
        ("/api/", b"/api/v1", True),
        ("/api/", b"/apis", False),
        ("/", b"/anything", True),
        ("/a%20b", b"/a%20b/c", True),
    ],
)
def test_a_prefix_matches_whole_segments(value: str, path: bytes, outcome: bool) -> None:
    assert accepts(PathType.PREFIX, value, path) is outcome


@pytest.mark.parametrize(("path", "outcome"), [(b"/a", True), (b"/a/", False), (b"/a/b", False), (b"/", False)])
def test_an_exact_path_matches_itself_only(path: bytes, outcome: bool) -> None:
    assert accepts(PathType.EXACT, "/a", path) is outcome


@pytest.mark.parametrize(
    ("kind", "value", "path", "outcome"),
    [
        (PathType.REGEX, "/v[0-9]+/", b"/v12/x", True),
        (PathType.REGEX, "/v[0-9]+/", b"/x/v12/", False),
        (PathType.REGEX, "/a|/b", b"/b", True),
        (PathType.REGEX, "/a|/b", b"/c/b", False),
        (PathType.SEARCH, "/a|/b", b"/c/b", True),
        (PathType.SEARCH, r"\.jpg$", b"/images/x.jpg", True),
        (PathType.SEARCH, r"\.jpg$", b"/images/x.jpg/y", False),
        (PathType.SEARCH, "^/b", b"/a/b", False),
        (PathType.REGEX, "(?i)/ADMIN", b"/admin", True),
    ],
)
def test_expressions_are_anchored_in_a_cluster_and_not_in_a_file(
    kind: PathType, value: str, path: bytes, outcome: bool
) -> None:
    assert accepts(kind, value, path) is outcome


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("api", "write /api"),
        ("", "does not start with a slash"),
        ("/a?b=c", "has a query"),
        ("/a#b", "has a fragment"),
        ("/a b", "write '/a%20b'"),
        ("/bücher", "write '/b%C3%BCcher'"),
        ("/a\nb", "percent-encoded"),
        ("/a%", "write %25"),
        ("/a%zz", "write %25"),
        ("/a%2Fb", "encoded slash"),
        ("/a%2fb", "encoded slash"),
        ("/a%5Cb", "encoded backslash"),
        ("/a\\b", "backslash"),
        ("/a%00", "NUL"),
        ("/%61pi", "write 'a' instead of %61"),
        ("/a%c3", "write %C3"),
        ("/a//b", "'//'"),
        ("/a/../b", "'//'"),
        ("/a/.", "'//'"),
        ("/a/..;x/b", "parameters"),
        ("/" + "a" * 1024, "longer than 1024"),
    ],
)
@pytest.mark.parametrize("kind", [PathType.EXACT, PathType.PREFIX])
def test_a_literal_that_no_normalised_path_can_equal_is_refused(kind: PathType, value: str, sentence: str) -> None:
    with pytest.raises(PathValueError, match=sentence):
        check_path(PathMatch(kind, value))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("", "leave the path out"),
        ("a" * 257, "longer than 256"),
        ("(", "not valid RE2"),
        (r"(a)\1", "not valid RE2"),
        ("(?=x)", "no look-ahead"),
        ("/a{1001}", "fewer or smaller repetitions"),
        ("((a{100}){100}){100}", "fewer or smaller repetitions"),
        ("/ü", "write them as %XX"),
    ],
)
@pytest.mark.parametrize("kind", [PathType.REGEX, PathType.SEARCH])
def test_an_expression_that_re2_or_the_bounds_refuse_is_refused(kind: PathType, value: str, sentence: str) -> None:
    with pytest.raises(PathValueError, match=sentence):
        check_path(PathMatch(kind, value))


def test_an_expression_is_compiled_within_its_memory() -> None:
    test = compile_path(PathMatch(PathType.SEARCH, "(x+x+)+y"))
    assert getattr(test, "__self__").options.max_mem == EXPRESSION_MEMORY  # noqa: B009 - a bound method of RE2's
    assert test is not None
    assert not test(b"/" + b"x" * 8000)  # linear: a backtracking matcher would not come back


@given(st.text("/ab%2Fc.;?#é ", max_size=12), st.sampled_from([PathType.EXACT, PathType.PREFIX]))
def test_whatever_is_accepted_as_a_literal_matches_itself(value: str, kind: PathType) -> None:
    try:
        path = check_path(PathMatch(kind, value))
    except PathValueError:
        return
    test = compile_path(path)
    assert test is None or test(value.encode())
