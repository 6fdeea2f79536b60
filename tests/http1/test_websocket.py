"""WebSocket frames: RFC 6455's own examples, any cut of the bytes, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_http1.websocket import Event, FrameDecoder, Opcode, WebSocketError, accept_for, encode, mask

KEY = bytes.fromhex("37fa213d")


def test_the_examples_of_rfc_6455() -> None:
    assert accept_for(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert encode(Opcode.TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert encode(Opcode.TEXT, b"Hello", key=KEY) == bytes.fromhex("818537fa213d7f9f4d5158")
    assert FrameDecoder(masked=True).feed(bytes.fromhex("818537fa213d7f9f4d5158")) == [Event(2, b"Hello", True)]
    decoder = FrameDecoder(masked=False)
    assert decoder.feed(bytes.fromhex("010348656c")) == [Event(2, b"Hel")]
    assert decoder.feed(bytes.fromhex("80026c6f")) == [Event(2, b"lo", True)]
    assert FrameDecoder(masked=False).feed(bytes.fromhex("890548656c6c6f")) == [Event(Opcode.PING, b"Hello")]
    assert encode(Opcode.BINARY, bytes(256))[:4] == bytes.fromhex("827e0100")
    assert encode(Opcode.BINARY, bytes(65536))[:10] == bytes.fromhex("827f0000000000010000")


@given(
    st.lists(
        st.tuples(st.sampled_from([Opcode.BINARY, Opcode.PING, Opcode.CLOSE]), st.binary(max_size=300)), max_size=6
    ),
    st.booleans(),
    st.integers(1, 40),
)
def test_whatever_is_encoded_is_read_back_however_it_is_cut(
    frames: list[tuple[Opcode, bytes]], masked: bool, step: int
) -> None:
    frames = [(opcode, payload[:125] if opcode is not Opcode.BINARY else payload) for opcode, payload in frames]
    wire = b"".join(encode(opcode, payload, key=KEY if masked else b"") for opcode, payload in frames)
    decoder = FrameDecoder(masked=masked)
    events = [event for at in range(0, len(wire), step) for event in decoder.feed(wire[at : at + step])]
    whole: list[tuple[int, bytes]] = []
    parts = b""
    for event in events:
        parts += event.data
        if event.opcode != Opcode.BINARY or event.end:
            assert event.empty is (event.opcode == Opcode.BINARY and not parts)
            whole.append((event.opcode, parts))
            parts = b""
    assert whole == frames


@given(st.binary(max_size=100), st.binary(min_size=4, max_size=4), st.integers(0, 9))
def test_masking_undoes_itself_at_any_offset(data: bytes, key: bytes, offset: int) -> None:
    assert mask(data, key, offset) == bytes(byte ^ key[(offset + at) % 4] for at, byte in enumerate(data))
    assert mask(mask(data, key, offset), key, offset) == data


def test_a_message_in_pieces_is_empty_only_when_all_of_them_are() -> None:
    decoder = FrameDecoder(masked=False)
    assert decoder.feed(b"\x02\x00\x00\x00\x80\x00") == [Event(2, b"", True, True)]
    assert decoder.feed(b"\x02\x01a\x80\x00") == [Event(2, b"a"), Event(2, b"", True, False)]
    assert decoder.feed(b"\x02\x01a\x89\x00\x80\x01b") == [Event(2, b"a"), Event(9, b""), Event(2, b"b", True)]


@pytest.mark.parametrize(
    "wire",
    [
        "c200",  # a bit of an extension
        "8280" + "00000000",  # masked by a server
        "8b00",  # unknown control frame
        "0900",  # a ping in pieces
        "897e0100",  # a ping of 256 bytes
        "8300",  # unknown kind
        "8000",  # a continuation of nothing
        "0201618201",  # a second message inside the first
        "827fffffffffffffffff",  # longer than any frame
    ],
)
def test_what_breaks_the_protocol_is_an_error(wire: str) -> None:
    with pytest.raises(WebSocketError):
        FrameDecoder(masked=False).feed(bytes.fromhex(wire))


def test_a_client_that_does_not_mask_is_an_error() -> None:
    with pytest.raises(WebSocketError):
        FrameDecoder(masked=True).feed(b"\x82\x01a")


def test_a_huge_frame_is_passed_on_as_it_arrives() -> None:
    decoder = FrameDecoder(masked=False)
    assert decoder.feed(b"\x82\x7f" + (1 << 40).to_bytes(8, "big")) == []
    for _ in range(3):
        assert decoder.feed(bytes(1000)) == [Event(2, bytes(1000))]
