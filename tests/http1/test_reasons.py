"""Status lines."""

import http

from culvert_http1 import REASONS, STATUS_LINES, status_line


def test_every_line_is_well_formed() -> None:
    for status in range(100, 1000):
        assert status_line(status) == b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, b""))
    assert set(STATUS_LINES) == set(REASONS)


def test_phrases_of_rfc_9110() -> None:
    assert status_line(200) == b"HTTP/1.1 200 OK\r\n"
    assert status_line(299) == b"HTTP/1.1 299 \r\n"
    assert REASONS[413] == b"Content Too Large"
    assert REASONS[422] == b"Unprocessable Content"


def test_registered_statuses_have_a_phrase() -> None:
    jokes_and_withdrawn = {306, 418, 510}
    assert {status.value for status in http.HTTPStatus} - jokes_and_withdrawn <= set(REASONS)
