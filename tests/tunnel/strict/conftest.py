"""Raw requests and what must become of them, by bullet of the HTTP/1.1 section of the fault list and by RFC.

Responsible for the table and for handing its rows to the tests of this folder as `case` (every row) or `refused` (rows
that must not reach an origin). Must not know what runs behind the relay. Invariant: a row's bytes ask for the host
`HOST`; a refused row says so by having no target that is delivered.
"""

from typing import NamedTuple

import pytest

HOST = b"Host: raw.example.com\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"


class Case(NamedTuple):
    """`statuses`: of the responses, in order (several where the first may be either of them, as a tuple); `targets`:
    of the requests that the origin hears, in order; `rfc`: the section that decides."""

    bullet: int
    name: str
    wire: bytes
    statuses: list[int | tuple[int, ...]]
    targets: list[str]
    rfc: str


def refuse(bullet: int, rfc: str, status: int | tuple[int, ...], rows: dict[str, bytes]) -> list[Case]:
    """Rows that are answered with an error and the end of the connection; what follows them is never heard."""
    return [Case(bullet, name, wire, [status], [], rfc) for name, wire in rows.items()]


def get(target: bytes = b"/a", fields: bytes = b"", *, host: bytes = HOST, version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET %b %b\r\n%b%b\r\n" % (target, version, host, fields)


def post(fields: bytes, body: bytes = b"", *, version: bytes = b"HTTP/1.1", method: bytes = b"POST") -> bytes:
    return b"%b /a %b\r\n%b%b\r\n%b" % (method, version, HOST, fields, body)


def length(value: bytes, body: bytes = b"hello") -> bytes:
    return post(b"Content-Length: %b\r\n" % value, body)


def coding(value: bytes, *, version: bytes = b"HTTP/1.1") -> bytes:
    return post(b"Transfer-Encoding: %b\r\n" % value, b"0\r\n\r\n", version=version)


def chunks(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked\r\n", body)


CHUNKED = b"Transfer-Encoding: chunked\r\n"
CASES: list[Case] = [
    # 1: one length, or exactly one chunked
    *refuse(1, "9112 6.3", 400, {
        "lengths_that_differ": post(b"Content-Length: 0\r\nContent-Length: 44\r\n"),
        "lengths_that_agree": post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"),
        "a_list_of_lengths": length(b"5, 6"),
        "a_list_of_equal_lengths": length(b"5,5"),
        "a_signed_length": length(b"+5"),
        "a_hexadecimal_length": length(b"0x5"),
        "a_length_with_an_underscore": length(b"1_0"),
        "an_empty_length": length(b""),
        "a_negative_length": length(b"-1"),
        "a_length_of_2_to_the_63": length(b"9223372036854775808"),
        "a_length_of_twenty_digits": length(b"00000000000000000005"),
        "a_length_in_other_digits": length("５".encode()),
        "a_length_with_a_fraction": length(b"5.0"),
        "a_length_with_a_blank_inside": length(b"5 5"),
        "length_and_chunked": post(b"Content-Length: 4\r\n" + CHUNKED, b"0\r\n\r\n"),
        "chunked_and_length": post(CHUNKED + b"Content-Length: 4\r\n", b"0\r\n\r\n"),
        "length_and_an_unknown_coding": post(b"Content-Length: 4\r\nTransfer-Encoding: x\r\n", b"abcd"),
    }),
    *refuse(1, "9112 6.1", (400, 501), {
        "gzip_then_chunked": coding(b"gzip, chunked"),
        "chunked_then_identity": coding(b"chunked, identity"),
        "identity": coding(b"identity"),
        "chunked_twice_in_a_list": coding(b"chunked, chunked"),
        "chunked_twice": post(CHUNKED * 2, b"0\r\n\r\n"),
        "an_empty_coding": coding(b""),
        "a_vertical_tab_before_chunked": coding(b"\x0bchunked"),
        "a_quoted_coding": coding(b'"chunked"'),
        "chunked_with_a_parameter": coding(b"chunked;a=b"),
        "xchunked": coding(b"xchunked"),
        "chunked_in_http_1_0": coding(b"chunked", version=b"HTTP/1.0"),
        "coding_with_a_space_before_the_colon": post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
        "coding_on_a_folded_line": post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"),
        "coding_behind_a_bare_cr": post(b"X: y\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        "coding_behind_a_bare_lf": post(b"X: y\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    }),
    Case(1, "blanks_around_a_length", length(b" \t5\t "), [200], ["/a"], "9110 5.5"),
    Case(1, "chunked_in_capitals", coding(b"CHUNKED"), [200], ["/a"], "9112 7"),
    Case(1, "an_underscored_length_is_dropped", get(fields=b"Content_Length: 40\r\n"), [200], ["/a"], "9110 5.1"),
    # 2: chunks
    *refuse(2, "9112 7.1", 400, {
        "a_size_with_0x": chunks(b"0x5\r\nhello\r\n0\r\n\r\n"),
        "a_signed_size": chunks(b"+5\r\nhello\r\n0\r\n\r\n"),
        "a_negative_size": chunks(b"-5\r\nhello\r\n0\r\n\r\n"),
        "a_size_behind_a_blank": chunks(b" 5\r\nhello\r\n0\r\n\r\n"),
        "a_size_before_a_blank": chunks(b"5 \r\nhello\r\n0\r\n\r\n"),
        "a_size_with_an_underscore": chunks(b"0_5\r\nhello\r\n0\r\n\r\n"),
        "an_empty_size": chunks(b"\r\nhello\r\n0\r\n\r\n"),
        "seventeen_digits": chunks(b"00000000000000005\r\nhello\r\n0\r\n\r\n"),
        "no_crlf_behind_the_data": chunks(b"5\r\nhelloX0\r\n\r\n"),
        "lf_behind_the_data": chunks(b"5\r\nhello\n0\r\n\r\n"),
        "lf_behind_the_size": chunks(b"5\nhello\r\n0\r\n\r\n"),
        "cr_behind_the_size": chunks(b"5\rhello\r\n0\r\n\r\n"),
        "a_long_extension": chunks(b"5;" + b"x" * 257 + b"\r\nhello\r\n0\r\n\r\n"),
        "a_control_byte_in_an_extension": chunks(b"5;a\x01\r\nhello\r\n0\r\n\r\n"),
        "a_bare_lf_in_an_extension": chunks(b"5;a\nhello\r\n0\r\n\r\n"),
        "a_trailer_without_a_colon": chunks(b"5\r\nhello\r\n0\r\nX\r\n\r\n"),
        "a_folded_trailer": chunks(b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"),
        "a_trailer_with_nul": chunks(b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n"),
        "a_trailer_ended_by_lf": chunks(b"5\r\nhello\r\n0\r\nX: a\n\r\n"),
    }),
    *refuse(2, "9112 7.1.2", 431, {
        "trailers_without_end": chunks(b"5\r\nhello\r\n0\r\n" + b"X: %b\r\n" % (b"y" * 1000) * 9),
    }),
    Case(2, "a_short_extension_is_dropped", chunks(b'5;a=b;c="d"\r\nhello\r\n0;x\r\n\r\n'), [200], ["/a"],
         "9112 7.1.1"),
    Case(2, "sixteen_digits", chunks(b"0000000000000005\r\nhello\r\n0\r\n\r\n"), [200], ["/a"], "9112 7.1"),
    Case(2, "trailers_are_never_fields", chunks(b"5\r\nhello\r\n0\r\nHost: evil\r\nContent-Length: 99\r\n\r\n"),
         [200], ["/a"], "9112 7.1.2"),
    # 3: bodies of requests that ask for an upgrade, lengths of answers to HEAD
    Case(3, "the_body_of_an_upgrade_is_a_body",
         post(b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: %d\r\n" % len(SMUGGLED), SMUGGLED)
         + get(b"/b"), [200, 200], ["/a", "/b"], "9110 7.8"),
    Case(3, "the_body_of_an_h2c_upgrade_is_a_body",
         post(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
              b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED) + get(b"/b"), [200, 200], ["/a", "/b"], "9110 7.8"),
    # 4: field lines
    *refuse(4, "9112 5", 400, {
        "obs_fold": get(fields=b"X-A: b\r\n Content-Length: 40\r\n"),
        "a_fold_before_any_field": b"GET /a HTTP/1.1\r\n X: y\r\n" + HOST + b"\r\n",
        "a_space_before_the_colon": get(fields=b"X-A : b\r\n"),
        "a_tab_before_the_colon": get(fields=b"X-A\t: b\r\n"),
        "an_empty_name": get(fields=b": b\r\n"),
        "no_colon": get(fields=b"X-A\r\n"),
        "a_name_in_brackets": get(fields=b"X[a]: b\r\n"),
        "a_name_in_utf8": get(fields="Ä: b\r\n".encode()),
        "a_bare_cr": get(fields=b"X-A: b\rContent-Length: 40\r\n"),
        "a_bare_lf": get(fields=b"X-A: b\nContent-Length: 40\r\n"),
        "lf_everywhere": b"GET /a HTTP/1.1\nHost: raw.example.com\n\n",
        "a_nul": get(fields=b"X-A: b\0c\r\n"),
        "a_control_byte": get(fields=b"X-A: b\x01c\r\n"),
        "a_del": get(fields=b"X-A: b\x7fc\r\n"),
        "a_nul_in_the_target": get(b"/a\0b"),
        "a_tab_in_the_request_line": b"GET\t/a HTTP/1.1\r\n" + HOST + b"\r\n",
        "two_spaces_in_the_request_line": b"GET  /a HTTP/1.1\r\n" + HOST + b"\r\n",
        "a_space_behind_the_version": b"GET /a HTTP/1.1 \r\n" + HOST + b"\r\n",
        "a_space_in_the_target": get(b"/a b"),
        "a_fragment_in_the_target": get(b"/a#b"),
        "utf8_in_the_target": get("/ä".encode()),
        "two_empty_lines_first": b"\r\n\r\n" + get(),
    }),
    Case(4, "obs_text_passes", get(fields=b"X-A: caf\xe9 \xff\r\n"), [200], ["/a"], "9110 5.5"),
    Case(4, "one_empty_line_first", b"\r\n" + get(), [200], ["/a"], "9112 2.2"),
    # 5: the host
    *refuse(5, "9112 3.2", 400, {
        "no_host": get(host=b""),
        "two_hosts": get(host=HOST * 2),
        "two_different_hosts": get(host=HOST + b"Host: app.example.com\r\n"),
        "a_list_of_hosts": get(host=b"Host: raw.example.com, app.example.com\r\n"),
        "a_host_with_a_user": get(host=b"Host: me@raw.example.com\r\n"),
        "a_host_with_a_path": get(host=b"Host: raw.example.com/a\r\n"),
        "a_host_with_a_bad_port": get(host=b"Host: raw.example.com:http\r\n"),
        "a_host_with_a_high_port": get(host=b"Host: raw.example.com:65536\r\n"),
        "a_host_with_an_empty_port": get(host=b"Host: raw.example.com:\r\n"),
        "an_empty_host": get(host=b"Host:\r\n"),
        "a_host_in_utf8": get(host="Host: räw.example.com\r\n".encode()),
        "a_host_with_a_tab": get(host=b"Host: raw.example.com\tx\r\n"),
        "a_percent_encoded_host": get(host=b"Host: raw%2eexample.com\r\n"),
        "another_authority": get(b"http://app.example.com/a"),
        "another_port_in_the_authority": get(b"http://raw.example.com:81/a"),
        "an_authority_with_a_user": get(b"http://me@raw.example.com/a"),
        "another_scheme": get(b"ftp://raw.example.com/a"),
        "no_scheme": get(b"//raw.example.com/a"[1:].replace(b"/", b"", 1)),
    }),
    Case(5, "a_host_in_capitals_with_a_port", get(host=b"Host: RAW.Example.COM:8443\r\n"), [200], ["/a"], "9110 4.2.3"),
    Case(5, "a_host_with_a_final_dot", get(host=b"Host: raw.example.com.\r\n"), [200], ["/a"], "3986 3.2.2"),
    Case(5, "an_a_label", get(host=b"Host: xn--rw-via.example.com\r\n"), [404], [], "5890 2.3.2.1"),
    Case(5, "an_absolute_form", get(b"http://RAW.example.com:80/a?b=c"), [200], ["/a?b=c"], "9112 3.2.2"),
    # 6: sizes, methods, versions
    *refuse(6, "6585 5", 431, {
        "more_than_32_kib": get(fields=b"X-%d: " % 1 + b"a" * 9000 + b"\r\n" + (b"X: " + b"b" * 9000 + b"\r\n") * 3),
        "a_field_of_20_kib": get(fields=b"X: " + b"a" * 20_480 + b"\r\n"),
        "201_fields": get(fields=b"X: y\r\n" * 200),
    }),
    *refuse(6, "9110 15.5.15", 414, {"a_target_of_10_kib": get(b"/" + b"a" * 10_240)}),
    *refuse(6, "9110 9.3", 405, {
        "connect": b"CONNECT raw.example.com:80 HTTP/1.1\r\n" + HOST + b"\r\n",
        "trace": b"TRACE /a HTTP/1.1\r\n" + HOST + b"\r\n",
    }),
    *refuse(6, "9110 15.6.6", (400, 505), {
        "http_1_2": get(version=b"HTTP/1.2"),
        "http_2_0": get(version=b"HTTP/2.0"),
        "http_0_9": b"GET /a\r\n",
        "http_lower_case": get(version=b"http/1.1"),
        "http_1_10": get(version=b"HTTP/1.10"),
        "the_http_2_preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    }),
    *refuse(6, "9110 15.6.2", (400, 501), {"a_method_of_40_bytes": b"A" * 40 + get()[3:]}),
    *refuse(6, "9110 9.1", 400, {
        "a_method_with_a_colon": b"GE:T" + get()[3:],
        "no_method": get()[3:],
        "an_asterisk_for_get": get(b"*"),
    }),
    Case(6, "a_target_of_8000_bytes", get(b"/" + b"a" * 7_999), [200], ["/" + "a" * 7_999], "9112 3"),
    Case(6, "options_asterisk", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", [204], [], "9110 9.3.7"),
    Case(6, "an_unknown_method", b"PROPFIND" + get()[3:], [200], ["/a"], "9110 9.1"),
    Case(6, "a_method_in_lower_case", b"get" + get()[3:], [200], ["/a"], "9110 9.1"),
    # 7: pipelining and expectations
    Case(7, "three_in_a_row", get(b"/a") + length(b"5").replace(b" /a ", b" /b ") + get(b"/c"), [200, 200, 200],
         ["/a", "/b", "/c"], "9112 9.3.2"),
    Case(7, "nothing_behind_an_error", get(b"/a") + get(b"/b", b"X : y\r\n") + get(b"/c"), [200, 400], ["/a"],
         "9112 9.3.2"),
    Case(7, "nothing_behind_close", get(b"/a", b"Connection: close\r\n") + get(b"/b"), [200], ["/a"], "9112 9.6"),
    Case(7, "another_expectation", get(fields=b"Expect: a-miracle\r\n"), [417], [], "9110 10.1.1"),
    Case(7, "an_expectation_in_http_1_0", get(fields=b"Expect: 100-continue\r\n", version=b"HTTP/1.0"), [200], ["/a"],
         "9110 10.1.1"),
    # 8: bodies where few expect them
    Case(8, "a_get_with_a_body",
         post(b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED, method=b"GET") + get(b"/b"),
         [200, 200], ["/a", "/b"], "9110 9.3.1"),
    Case(8, "a_delete_with_chunks", post(CHUNKED, b"5\r\nhello\r\n0\r\n\r\n", method=b"DELETE") + get(b"/b"),
         [200, 200], ["/a", "/b"], "9110 9.3.5"),
    # 9: hop-by-hop
    *refuse(9, "9110 7.6.1", 400, {"connection_is_no_list": get(fields=b"Connection: a b\r\n")}),
    Case(9, "connection_cannot_take_framing_away",
         post(b"Connection: Content-Length, Host, X-A\r\nX-A: gone\r\nContent-Length: 5\r\n", b"hello") + get(b"/b"),
         [200, 200], ["/a", "/b"], "9110 7.6.1"),
    Case(9, "a_websocket_handshake_that_is_refused",
         get(fields=b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + KEY) + SMUGGLED, [200], ["/a"], "6455 4.2.2"),
    # 10: names that others own
    Case(10, "culverts_own_names", get(fields=b"Culvert-Error: relay; x\r\nculvert-x: y\r\n"), [200], ["/a"],
         "9110 5.1"),
    # 13: another protocol
    *refuse(13, "8446 5.1", 400, {"tls_on_the_http_port": bytes.fromhex("16030100c8010000c40303") + bytes(180)}),
]  # fmt: skip


def identifier(case: Case) -> str:
    """The name of a row's test."""
    return f"b{case.bullet:02d}_{case.name}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Rows for tests that ask for `case` or `refused`."""
    for argument, rows in (("case", CASES), ("refused", [case for case in CASES if not case.targets])):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, rows, ids=map(identifier, rows))


@pytest.fixture(scope="session")
def cases() -> list[Case]:
    """The table as a whole."""
    return CASES


@pytest.fixture(scope="session")
def smuggled() -> bytes:
    """A request that must never be heard."""
    return SMUGGLED
