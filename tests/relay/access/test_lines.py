"""Lines of the access log stay lines of JSON, whatever is in a request."""

import json

from hypothesis import given
from hypothesis import strategies as st

from culvert_relay.access.lines import MAX_PATH, Line, render

TIME = "2026-01-02T03:04:05.678Z"


@given(
    st.builds(
        Line,
        request_id=st.binary(max_size=20),
        block=st.binary(max_size=50),
        visitor=st.binary(max_size=20),
        method=st.binary(max_size=20),
        host=st.binary(max_size=20),
        target=st.binary(max_size=100),
        error=st.text(max_size=20),
        tunnel=st.text(max_size=20),
    ),
    st.booleans(),
)
def test_any_bytes_make_one_line_of_json_with_the_same_keys(line: Line, query: bool) -> None:
    data = render(line, time=TIME, query=query)
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    assert data.isascii()
    value = json.loads(data)
    assert list(value) == [key for key in KEYS if query or key != "query"]
    path, _, asked = line.target.partition(b"?")
    assert (value["path"] or "").encode("latin-1") == path
    if query:
        assert (value["query"] or "").encode("latin-1") == asked
    assert (value["tunnel"] or "") == line.tunnel


KEYS = [
    "time", "request_id", "traceparent", "visitor", "scheme", "method", "host", "path", "query", "status",
    "error_source", "error", "aborted", "received_bytes", "sent_bytes", "duration_seconds", "first_byte_seconds",
    "issuer", "tunnel", "connector",
]  # fmt: skip


def test_a_line_is_bounded() -> None:
    data = render(Line(target=b"/" + b"p" * 9_000 + b"?" + b"q" * 9_000), time=TIME, query=True)
    value = json.loads(data)
    assert (len(value["path"]), len(value["query"])) == (MAX_PATH, MAX_PATH)


def test_times_are_seconds_and_what_is_unknown_is_null() -> None:
    value = json.loads(render(Line(duration=1.5, status=0), time=TIME, query=False))
    assert (value["time"], value["duration_seconds"], value["first_byte_seconds"]) == (TIME, 1.5, None)
    assert value["status"] is None
