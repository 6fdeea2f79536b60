import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_protocol.codes import ProtocolError
from culvert_protocol.frames import (
    FLAGS_ALLOWED,
    HEADER_SIZE,
    IGNORABLE,
    MAX_MESSAGE,
    MORE,
    PAYLOAD_LIMITS,
    FrameReader,
    FrameType,
    encode_frame,
    split_message,
)

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "frames.json").read_text())


def frames() -> st.SearchStrategy[tuple[int, int, int, bytes]]:
    def of(type_: FrameType) -> st.SearchStrategy[tuple[int, int, int, bytes]]:
        return st.tuples(
            st.integers(0, 2**32 - 1),
            st.just(int(type_)),
            st.sampled_from(sorted({0, FLAGS_ALLOWED[type_], IGNORABLE})),
            st.binary(max_size=min(PAYLOAD_LIMITS[type_], 300)),
        )

    return st.sampled_from(FrameType).flatmap(of)


@pytest.mark.parametrize("vector", [v for v in VECTORS if "frame" in v], ids=lambda v: v["name"])
def test_golden_frames_read_and_write(vector: dict[str, Any]) -> None:
    stream, type_, flags, payload = vector["frame"]
    wire = bytes.fromhex(vector["hex"])
    assert encode_frame(stream, type_, bytes.fromhex(payload), flags) == wire
    assert FrameReader().read(wire) == [(stream, type_, flags, bytes.fromhex(payload))]


@given(st.lists(frames(), max_size=8), st.data())
def test_any_split_of_the_bytes_gives_the_same_frames(
    sent: list[tuple[int, int, int, bytes]], data: st.DataObject
) -> None:
    wire = b"".join(encode_frame(s, t, p, f) for s, t, f, p in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    reader = FrameReader()
    got = []
    for start, stop in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        got += reader.read(wire[start:stop])
    assert got == sent
    assert reader.pending == 0


def test_byte_by_byte_holds_no_more_than_one_frame() -> None:
    wire = encode_frame(2, FrameType.DATA, bytes(65_535)) * 2
    reader = FrameReader()
    count = 0
    for i in range(len(wire)):
        count += len(reader.read(wire[i : i + 1]))
        assert reader.pending < HEADER_SIZE + 65_535
    assert count == 2


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"\x02\0\0\0\x05\0\x06\0", "too large"),
        (b"\0\0\0\0\x01\0\x0b\0", "too large"),
        (b"\0\0\0\0\x09\0\x08\0", "too large"),
        (b"\0\0\0\0\0\0\0\0", "too large"),
        (b"\x02\0\0\0\0\0\x05\x04", "flags"),
        (b"\x02\0\0\0\0\0\x06\x01", "flags"),
        (b"\0\0\0\0\0\0\x63\0", "unknown frame type 99"),
    ],
)
def test_a_forbidden_frame_is_refused_at_its_header(header: bytes, problem: str) -> None:
    with pytest.raises(ProtocolError, match=problem):
        FrameReader().read(header)


def test_an_unknown_type_with_the_ignorable_flag_is_delivered_for_skipping() -> None:
    wire = encode_frame(0, 99, b"later", IGNORABLE)
    assert FrameReader().read(wire) == [(0, 99, IGNORABLE, b"later")]


def test_a_message_is_continued_by_more_and_bounded() -> None:
    parts = split_message(FrameType.ROUTES, bytes(200_000))
    read = FrameReader().read(b"".join(parts))
    assert [f[2] for f in read] == [MORE, MORE, MORE, 0]
    assert b"".join(f[3] for f in read) == bytes(200_000)
    with pytest.raises(ValueError, match="at most"):
        split_message(FrameType.ROUTES, bytes(MAX_MESSAGE + 1))


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_nothing_but_protocol_errors(data: bytes) -> None:
    try:
        FrameReader().read(data)
    except ProtocolError as error:
        assert str(error)


def test_a11_frames_in_single_bytes_are_the_same_and_would_not_be_without_what_is_kept_between_reads() -> None:
    wire = b"".join(encode_frame(number, FrameType.DATA, bytes([number]) * number) for number in range(1, 200))
    whole = list(FrameReader().read(wire))
    assert len(whole) == 199

    reader = FrameReader()
    assert [frame for byte in wire for frame in reader.read(bytes([byte]))] == whole
    # The negative control: a reader that keeps nothing finds no frame in any byte.
    assert [frame for byte in wire for frame in FrameReader().read(bytes([byte]))] == []
