import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_protocol.codes import ProtocolError
from culvert_protocol.frames import FrameReader
from culvert_protocol.heads import (
    MAX_HEAD,
    Open,
    ResponseHead,
    decode_open,
    decode_response_head,
    encode_open,
    encode_response_head,
)

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "frames.json").read_text())
short = st.binary(max_size=60)
OPENS = st.builds(
    Open,
    kind=st.integers(0, 3),
    attempt=st.integers(0, 255),
    scheme=st.integers(0, 1),
    framing=st.integers(0, 2),
    content_length=st.integers(0, 2**64 - 1),
    local_port=st.integers(0, 65_535),
    grant_version=st.integers(0, 2**64 - 1),
    method=short,
    address=short,
    host=short,
    authority=short,
    path=short,
    target=short,
    fields=st.binary(max_size=500),
)
RESPONSES = st.builds(
    ResponseHead,
    status=st.integers(100, 999),
    framing=st.integers(0, 2),
    content_length=st.integers(0, 2**64 - 1),
    close=st.booleans(),
    fields=st.binary(max_size=500),
)


def as_bytes(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v.encode() if isinstance(v, str) else v for k, v in values.items()}


@pytest.mark.parametrize("vector", [v for v in VECTORS if "open" in v], ids=lambda v: v["name"])
def test_golden_open(vector: dict[str, Any]) -> None:
    ((stream, _type, flags, payload),) = FrameReader().read(bytes.fromhex(vector["hex"]))
    head = Open(**as_bytes(vector["open"]))
    assert (stream, bool(flags & 1)) == (vector["stream"], vector["fin"])
    assert decode_open(payload) == (head, vector["body"].encode())
    assert encode_open(head, vector["body"].encode()) == payload


@pytest.mark.parametrize("vector", [v for v in VECTORS if "response" in v], ids=lambda v: v["name"])
def test_golden_response_head(vector: dict[str, Any]) -> None:
    ((_stream, _type, flags, payload),) = FrameReader().read(bytes.fromhex(vector["hex"]))
    head = ResponseHead(**as_bytes(vector["response"]))
    assert bool(flags & 1) == vector["fin"]
    assert decode_response_head(payload) == (head, vector["body"].encode())
    assert encode_response_head(head, vector["body"].encode()) == payload


@given(OPENS, short)
def test_open_survives_the_wire(head: Open, body: bytes) -> None:
    assert decode_open(encode_open(head, body)) == (head, body)


@given(RESPONSES, short)
def test_a_response_head_survives_the_wire(head: ResponseHead, body: bytes) -> None:
    assert decode_response_head(encode_response_head(head, body)) == (head, body)


@given(st.binary(max_size=200))
def test_arbitrary_records_raise_nothing_but_protocol_errors(payload: bytes) -> None:
    for decode in (decode_open, decode_response_head):
        try:
            decode(payload)
        except ProtocolError as error:
            assert str(error)


@given(OPENS, st.integers(1, 40))
def test_a_shortened_open_is_refused(head: Open, missing: int) -> None:
    with pytest.raises(ProtocolError):
        decode_open(encode_open(head)[: -min(missing, len(encode_open(head)))])


@pytest.mark.parametrize("status", [0, 99, 1000, 65_535])
def test_a_status_outside_100_to_999_is_refused(status: int) -> None:
    payload = status.to_bytes(2, "little") + encode_response_head(ResponseHead(200))[2:]
    with pytest.raises(ProtocolError):
        decode_response_head(payload)


def test_heads_over_their_limits_are_not_written() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode_open(Open(fields=bytes(49_000)))
    with pytest.raises(ValueError, match="over"):
        encode_response_head(ResponseHead(200, fields=bytes(MAX_HEAD + 1)))
