"""Header rules: what they may name, and what stays out of their reach."""

from __future__ import annotations

import re

import pytest

from culvert_ingress.header_edits import MAX_EDITS, RESERVED, HeaderEditError, check_header_edits
from culvert_ingress.rules import HeaderEdits


def test_ordinary_fields_may_be_changed() -> None:
    edits = HeaderEdits(
        (("X-Team", "shop"), ("Authorization", "Bearer a.b")),
        (("Set-Cookie", "a=1"), ("set-cookie", "b=2; Path=/")),
        ("Server", "X-Powered-By"),
    )
    assert check_header_edits(edits) is edits
    assert check_header_edits(HeaderEdits()) is None, "nothing to do is nothing to carry along"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Host", "httpHostHeader"),
        ("content-length", "where a message ends"),
        ("Transfer-Encoding", "where a message ends"),
        ("Trailer", "where a message ends"),
        ("TE", "where a message ends"),
        ("Expect", "where a message ends"),
        ("Connection", "about one connection"),
        ("Keep-Alive", "about one connection"),
        ("Upgrade", "about one connection"),
        ("HTTP2-Settings", "about one connection"),
        ("Proxy", "about one connection"),
        ("Proxy-Authorization", "about one connection"),
        ("Sec-WebSocket-Accept", "handshake"),
        ("Forwarded", "who the visitor is"),
        ("X-Forwarded-For", "who the visitor is"),
        ("X_Forwarded_For", "who the visitor is"),
        ("x-real-ip", "who the visitor is"),
        ("Culvert-Error", "culvert writes it"),
        ("Culvert-Visitor", "culvert writes it"),
        ("X-Request-Id", "culvert writes it"),
        ("", "not the name of a header"),
        ("X Team", "not the name of a header"),
        ("X-Team:", "not the name of a header"),
        ("X-Team\r\nHost", "not the name of a header"),
        ("Ünicode", "not the name of a header"),
        ("X" * 65, "not the name of a header"),
    ],
)
def test_names_out_of_reach(name: str, said: str) -> None:
    for edits in (HeaderEdits(set=((name, "v"),)), HeaderEdits(add=((name, "v"),)), HeaderEdits(remove=(name,))):
        with pytest.raises(HeaderEditError, match=said):
            check_header_edits(edits)


@pytest.mark.parametrize("value", ["", " v", "v ", "a\r\nHost: b", "a\nb", "a\rb", "a\0b", "ü", "a" * 1025, "\x7f"])
def test_d19_values_are_one_line_of_visible_ascii(value: str) -> None:
    with pytest.raises(HeaderEditError, match="value of X-Team"):
        check_header_edits(HeaderEdits(set=(("X-Team", value),)))


@pytest.mark.parametrize("value", ["a", "a\tb", "\"quotes\" ${HOME} {{ .Values }} 'x' `y` $(z)", "a" * 1024])
def test_d19_quotes_and_templates_are_data(value: str) -> None:
    edits = HeaderEdits(set=(("X-Team", value),))
    assert check_header_edits(edits) is edits


@pytest.mark.parametrize(
    "edits",
    [
        HeaderEdits(set=(("X-A", "1"), ("x-a", "2"))),
        HeaderEdits(remove=("X-A", "x-a")),
        HeaderEdits(set=(("X-A", "1"),), remove=("x-A",)),
        HeaderEdits(set=(("X-A", "1"),), add=(("x-A", "2"),)),
        HeaderEdits(add=(("X-A", "1"),), remove=("x-a",)),
    ],
)
def test_a_header_is_named_once(edits: HeaderEdits) -> None:
    with pytest.raises(HeaderEditError, match="named twice"):
        check_header_edits(edits)


@pytest.mark.parametrize("kind", ["set", "add", "remove"])
def test_there_are_so_many_at_most(kind: str) -> None:
    names = [f"X-{n}" for n in range(MAX_EDITS + 1)]
    entries = tuple(names) if kind == "remove" else tuple((name, "v") for name in names)
    assert check_header_edits(HeaderEdits(**{kind: entries[1:]})) is not None
    with pytest.raises(HeaderEditError, match=f"{kind} has more than 16"):
        check_header_edits(HeaderEdits(**{kind: entries}))


def test_every_row_of_the_table_is_an_expression_that_matches_its_names() -> None:
    for row in RESERVED:
        for name in row.names:
            assert re.fullmatch(row.pattern, name.replace("*", "x").upper())
            assert not re.fullmatch(row.pattern, f"x{name}")
