"""docs/protocol.md says what the code does: its tables and its example are compared with both."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from culvert_protocol import frames, handshake, http_text, revocation_post, statements
from culvert_protocol.codes import VISITOR_STATUS, ResetCode
from culvert_protocol.credit import INITIAL_WINDOW, MAX_WINDOW
from culvert_protocol.frames import CONNECTION_LEVEL, FLAGS_ALLOWED, PAYLOAD_LIMITS, FrameType
from culvert_protocol.states import RECEIVED_BY_CONNECTOR, RECEIVED_BY_RELAY, RECEIVING, Phase, Receiving

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
VECTORS = Path(__file__).parent / "vectors"
FLAGS = {name: getattr(frames, name) for name in ("FIN", "HEAD", "MORE", "IGNORABLE")}


def table(first: str) -> list[list[str]]:
    """The rows of the table whose header row starts with ``| first |``, cells stripped."""
    lines = DOCUMENT.splitlines()
    (start,) = [i for i, line in enumerate(lines) if line.startswith(f"| {first} |")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_frame_types() -> None:
    rows = table("type | number")
    assert [(row[0], int(row[1])) for row in rows] == [(kind.name, kind.value) for kind in FrameType]
    for name, number, level, limit, flags, _ in rows:
        kind = FrameType[name]
        assert level == ("session" if kind in CONNECTION_LEVEL else "stream")
        assert int(limit) == PAYLOAD_LIMITS[int(number)]
        assert sum(FLAGS[flag] for flag in flags.split()) == FLAGS_ALLOWED[int(number)]


def test_flags() -> None:
    assert {row[0]: int(row[1], 16) for row in table("flag")} == FLAGS


def test_phases() -> None:
    rows = {row[0].split()[0]: row[1:] for row in table("phase")}
    for phase in (Phase.HELLO, Phase.RUNNING):
        for text, allowed in zip(rows[phase.name], (RECEIVED_BY_RELAY, RECEIVED_BY_CONNECTOR), strict=True):
            assert {FrameType[name] for name in text.split()} == allowed[phase]
    assert not RECEIVED_BY_RELAY[Phase.CLOSED]


def test_what_a_stream_may_receive() -> None:
    rows = table("receiving")
    assert [row[0] for row in rows] == ["HEAD", "BODY", "ENDED"]
    for row in rows:
        assert [Receiving[cell.upper()] for cell in row[1:]] == list(RECEIVING[Receiving[row[0]]])


def test_reset_codes() -> None:
    rows = table("code")
    assert [(int(row[0]), row[1]) for row in rows] == [(code.value, code.name) for code in ResetCode]
    for row in rows:
        assert int(row[3].split(",")[0]) == VISITOR_STATUS[int(row[0])]


def test_refusals() -> None:
    rows = {int(row[0]): row[1].strip("`") for row in table("status")}
    assert rows == {status: problem.reason for status, problem in handshake.PROBLEMS.items()}


def test_statement_types_sizes_and_reasons() -> None:
    rows = {row[0]: (row[1].strip("`"), int(row[2].split()[0])) for row in table("statement")}
    assert rows == {
        "credential": (statements.CREDENTIAL_TYPE, statements.MAX_CREDENTIAL_SIZE),
        "grant": (statements.GRANT_TYPE, statements.MAX_GRANT_SIZE),
        "revocation": (statements.REVOCATION_TYPE, statements.MAX_REVOCATION_SIZE),
    }
    sentence = DOCUMENT.partition("Reasons of refusal:")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == set(statements.REASONS)


def test_numbers_in_the_text() -> None:
    for number in (INITIAL_WINDOW, MAX_WINDOW, http_text.MAX_HEAD, frames.MAX_DATA, frames.MAX_PAYLOAD):
        assert f"{number:,}" in DOCUMENT, number
    assert f"{http_text.MAX_FIELDS} fields" in DOCUMENT
    assert handshake.SESSION_PATH in DOCUMENT
    assert revocation_post.REVOCATIONS_PATH in DOCUMENT


@pytest.mark.parametrize("at", [0, 1])
def test_the_annotated_example_is_the_golden_vectors(at: int) -> None:
    block = DOCUMENT.partition("## Example")[2].split("```")[1].strip().split("\n\n")[at]
    shown = "".join(
        match.group(1).replace(" ", "")
        for line in block.splitlines()
        if (match := re.match(r" *((?:[0-9a-f]{2} ?)+)(?: |$)", line))
    )
    wanted = ("OPEN with a body of 5 bytes and FIN", "a whole response in one frame")[at]
    (vector,) = [v for v in json.loads((VECTORS / "frames.json").read_text()) if v["name"] == wanted]
    assert shown == vector["hex"]
