"""`pathRewrite`: whole segments that every path of the rule has, or a sentence."""

from __future__ import annotations

import pytest

from culvert_ingress.path_rewrite import check_rewrite, rewrite_of
from culvert_ingress.paths import PathValueError
from culvert_ingress.rules import PathMatch, PathRewrite, PathType

PREFIX, EXACT, SEARCH, REGEX = PathType.PREFIX, PathType.EXACT, PathType.SEARCH, PathType.REGEX


@pytest.mark.parametrize(
    ("kind", "path", "strip", "replace", "expected"),
    [
        (PREFIX, "/api", "/api", None, PathRewrite("/api")),
        (PREFIX, "/api/v1", "/api", None, PathRewrite("/api")),
        (PREFIX, "/api", None, "/v2", PathRewrite("/api", "/v2")),
        (PREFIX, "/api", None, "/", PathRewrite("/api", "")),
        (PREFIX, "/", None, "/v2", PathRewrite("", "/v2")),
        (EXACT, "/api/health", "/api", None, PathRewrite("/api")),
        (EXACT, "/api", "/api", None, PathRewrite("/api")),
        (EXACT, "/docs", None, "/docs/", PathRewrite(None, "/docs/")),
        (SEARCH, "^/api/", "/api", None, PathRewrite("/api")),
        (SEARCH, "^/api(/|$)", "/api", None, PathRewrite("/api")),
        (SEARCH, "^/api(/.*)?$", "/api", None, PathRewrite("/api")),
        (SEARCH, "^/api$", None, "/v2", PathRewrite("/api", "/v2")),
        (SEARCH, r"^/v1\.0/", None, "/v2", PathRewrite("/v1.0", "/v2")),
        (SEARCH, "^/api/(a|b)/", "/api", None, PathRewrite("/api")),
        (SEARCH, "^/api/v[0-9|]+", "/api", None, PathRewrite("/api")),
    ],
)
def test_what_fits_the_path(
    kind: PathType, path: str, strip: str | None, replace: str | None, expected: PathRewrite
) -> None:
    match = PathMatch(kind, path)
    assert rewrite_of(match, strip=strip, replace=replace) == expected
    assert check_rewrite(match, expected) == expected


@pytest.mark.parametrize(
    ("kind", "path", "strip", "replace", "said"),
    [
        (PREFIX, "/api", None, None, "either stripPrefix or replacePrefix"),
        (PREFIX, "/api", "/api", "/v2", "either stripPrefix or replacePrefix"),
        (PREFIX, "/apis", "/api", None, "begins with the segments '/api'"),
        (PREFIX, "/", "/api", None, "begins with the segments '/api'"),
        (PREFIX, "/api", "/", None, "strips nothing"),
        (PREFIX, "/api", "/api/", None, "write '/api'"),
        (PREFIX, "/api", "api", None, "stripPrefix: .*start with a slash"),
        (PREFIX, "/api", None, "/v2/", "write '/v2'"),
        (PREFIX, "/api", None, "/v2?x", "replacePrefix: .*query"),
        (PREFIX, "/api", None, "/a/../b", "replacePrefix: .*cleaned"),
        (PREFIX, "/api", None, "//evil.example", "replacePrefix: .*cleaned"),
        (PREFIX, "/api", None, "/a\r\nX: y", "replacePrefix: .*percent-encoded"),
        (EXACT, "/api", None, "/a b", "replacePrefix: .*percent-encoded"),
        (REGEX, "/api/.*", "/api", None, "begins with the segments"),
        (SEARCH, "/api/", "/api", None, "begins with the segments"),
        (SEARCH, "^/api", "/api", None, "begins with the segments"),
        (SEARCH, "^/api/?x", "/api", None, "begins with the segments"),
        (SEARCH, "^/api/|^/other", "/api", None, "begins with the segments"),
        (SEARCH, "^/api?/", "/api", None, "begins with the segments"),
        (SEARCH, "^/api/v[0-9]/", None, "/v2", "prefix of whole segments"),
    ],
)
def test_what_does_not_is_refused_with_a_sentence(
    kind: PathType, path: str, strip: str | None, replace: str | None, said: str
) -> None:
    with pytest.raises(PathValueError, match=said):
        rewrite_of(PathMatch(kind, path), strip=strip, replace=replace)


@pytest.mark.parametrize(
    ("path", "rewrite"),
    [
        (PathMatch(PREFIX, "/api"), PathRewrite(None, "/x")),
        (PathMatch(PREFIX, "/api"), PathRewrite("/api/")),
        (PathMatch(PREFIX, "/api"), PathRewrite("/api", "/v2/")),
        (PathMatch(EXACT, "/api"), PathRewrite(None, "")),
        (None, PathRewrite("/api")),
    ],
)
def test_a_document_cannot_say_what_people_cannot(path: PathMatch | None, rewrite: PathRewrite) -> None:
    with pytest.raises(PathValueError):
        check_rewrite(path, rewrite)
