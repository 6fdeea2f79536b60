"""Request ids and traceparents."""

import random

import pytest

from culvert_http1.fields import check_fields
from culvert_relay.access.marking import Marking, answer_fields, traceparent_of

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
BLOCK = b"Accept: */*\r\nX-REQUEST-ID: visitors-own\r\nUser-Agent: x\r\n"


def marking(*, request_ids: bool = True, traceparents: bool = False) -> Marking:
    return Marking(request_ids=request_ids, traceparents=traceparents, random=random.Random(7).getrandbits)


def test_a_strangers_id_is_replaced_and_a_trusted_proxys_is_kept() -> None:
    block, request_id = marking().mark(BLOCK, trusted=False)
    assert block == b"X-Request-Id: %b\r\nAccept: */*\r\nUser-Agent: x\r\n" % request_id
    assert len(request_id) == 32
    block, request_id = marking().mark(BLOCK, trusted=True)
    assert request_id == b"visitors-own"
    assert block == b"X-Request-Id: visitors-own\r\nAccept: */*\r\nUser-Agent: x\r\n"


@pytest.mark.parametrize("given", [b"", b"a b", b"x" * 129, b'"x"', b"\xff", b"a\r\nX-Request-Id: b"])
def test_a_trusted_proxys_id_that_cannot_be_one_is_replaced(given: bytes) -> None:
    block, request_id = marking().mark(b"X-Request-Id: %b\r\n" % given, trusted=True)
    assert len(request_id) == 32
    assert block == b"X-Request-Id: %b\r\n" % request_id


def test_ids_differ_and_their_block_is_one_that_connectors_take() -> None:
    marker = marking(traceparents=True)
    seen = [marker.mark(b"Accept: */*\r\n", trusted=False) for _ in range(100)]
    assert len({request_id for _, request_id in seen}) == 100
    assert len({traceparent_of(block) for block, _ in seen}) == 100
    assert all(check_fields(block, request=True) for block, _ in seen)


def test_a_traceparent_is_made_only_where_there_is_none() -> None:
    marker = marking(request_ids=False, traceparents=True)
    assert marker.mark(b"TraceParent: %b\r\n" % PARENT, trusted=False) == (b"TraceParent: %b\r\n" % PARENT, b"")
    broken = b"traceparent: broken\r\n"
    assert marker.mark(broken, trusted=False) == (broken, b"")
    block, _ = marker.mark(b"", trusted=False)
    made = traceparent_of(block)
    assert made is not None
    assert made.startswith("00-")
    assert made.endswith("-01")


@pytest.mark.parametrize(
    ("block", "value"),
    [
        (b"traceparent: %b\r\n" % PARENT, PARENT.decode()),
        (b"A: b\r\nTRACEPARENT:\t%b \r\n" % PARENT, PARENT.decode()),
        (b"", None),
        (b"x-traceparent: %b\r\n" % PARENT, None),
        (b"traceparent: %b\r\ntraceparent: %b\r\n" % (PARENT, PARENT), None),
        (b"traceparent: %b\r\n" % PARENT.upper(), None),
        (b"traceparent: ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n", None),
        (b"traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-00\r\n", None),
        (b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-0000000000000000-00\r\n", None),
        (b"traceparent: cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-later\r\n",
         "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-later"),
    ],
)  # fmt: skip
def test_only_a_well_formed_traceparent_is_logged(block: bytes, value: str | None) -> None:
    assert traceparent_of(block) == value


def test_an_origins_own_id_in_a_response_is_left_alone() -> None:
    assert answer_fields(b"x-request-ID: theirs\r\n", b"ours") == b"x-request-ID: theirs\r\n"
    assert answer_fields(b"A: b\r\n", b"ours") == b"A: b\r\nX-Request-Id: ours\r\n"
