"""Paths for matching: one spelling for what origins take for the same, refusal of what they read differently."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_http1 import PathError, normalise_path


@pytest.mark.parametrize(
    "path",
    [
        b"/", b"/a", b"/a/", b"/a/b.c/d", b"/.well-known/x", b"/...", b"/a..", b"/..a/.b", b"/a;v=1/b",
        b"/~u/-_!$&'()*+,;=:@",
        b"/\xc3\xbc", b"/a|b^c{d}",
    ],
)  # fmt: skip
def test_nothing_to_do_returns_the_same_object(path: bytes) -> None:
    assert normalise_path(path) is path


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        (b"/%61dmin", b"/admin"),
        (b"/%41%2D%2e%5F%7e", b"/A-._~"),
        (b"/%c3%bc", b"/%C3%BC"),
        (b"/a%20b%3f%23%25", b"/a%20b%3F%23%25"),
        (b"/%2561dmin", b"/%2561dmin"),
        (b"/%25%36%31", b"/%2561"),
        (b"//", b"/"),
        (b"//a///b//", b"/a/b/"),
        (b"/./a/././b/.", b"/a/b/"),
        (b"/a/../b", b"/b"),
        (b"/a/b/..", b"/a/"),
        (b"/a/b/../", b"/a/"),
        (b"/a/..", b"/"),
        (b"/a//../b", b"/b"),
        (b"/public/%2e%2e/admin", b"/admin"),
        (b"/public/.%2E/admin", b"/admin"),
        (b"/a/%2e/b", b"/a/b"),
        (b"/%3b/a", b"/%3B/a"),
    ],
)
def test_normal_form(path: bytes, normal: bytes) -> None:
    assert normalise_path(path) == normal


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (b"/..", "escapes_root"),
        (b"/../a", "escapes_root"),
        (b"/a/../../b", "escapes_root"),
        (b"/%2e%2e/a", "escapes_root"),
        (b"//..", "escapes_root"),
        (b"/./..", "escapes_root"),
        (b"/a%2fb", "encoded_slash"),
        (b"/a%2Fb", "encoded_slash"),
        (b"/a\\b", "backslash"),
        (b"/a%5cb", "backslash"),
        (b"/..%5Cb", "backslash"),
        (b"/a%00", "nul"),
        (b"/a\0", "nul"),
        (b"/a%", "bad_escape"),
        (b"/a%2", "bad_escape"),
        (b"/a%zz", "bad_escape"),
        (b"/%%32e", "bad_escape"),
        (b"/a/..;/b", "dot_parameters"),
        (b"/a/..;x=1/b", "dot_parameters"),
        (b"/.;/b", "dot_parameters"),
        (b"/a/%2e%2e;/b", "dot_parameters"),
        (b"", "not_absolute"),
        (b"*", "not_absolute"),
        (b"a/b", "not_absolute"),
    ],
)
def test_refused_with_a_sentence(path: bytes, reason: str) -> None:
    with pytest.raises(PathError) as caught:
        normalise_path(path)
    assert caught.value.reason == reason
    assert str(caught.value) == caught.value.sentence
    assert caught.value.sentence.endswith(".")


pieces = st.sampled_from(
    [
        b"/",
        b"//",
        b".",
        b"..",
        b"%2e",
        b"%2E%2e",
        b"a",
        b"%61",
        b"%25",
        b"%2f",
        b"%5c",
        b"%00",
        b"\\",
        b";",
        b"%",
        b"%c3",
        b"b",
        b"\xff",
    ]
)


@given(st.lists(pieces | st.binary(max_size=2), max_size=12).map(lambda parts: b"/" + b"".join(parts)))
def test_outcome_is_stable_and_has_nothing_left_to_resolve(path: bytes) -> None:
    try:
        normal = normalise_path(path)
    except PathError:
        return
    assert normalise_path(normal) == normal
    segments = normal.split(b"/")
    assert segments[0] == b""
    assert b"" not in segments[1:-1]
    assert not {b".", b".."} & set(segments)
    assert b"\\" not in normal
    assert b"\0" not in normal
    assert b"%2F" not in normal


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", [b"/", b"/a", b"/..", b"/a/..", b"a", b".", b"%61", b"%"])
def test_no_expression_backtracks(unit: bytes) -> None:
    for end in (b"", b"/..", b"\0"):
        try:
            normalise_path(b"/" + unit * (2**18 // len(unit)) + end)
        except PathError as error:
            assert error.reason in {"escapes_root", "bad_escape", "nul"}
