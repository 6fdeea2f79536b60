"""Errors that nobody waits for, and what the loop of a role says of them."""

import asyncio
import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest

from culvert_transport.logs import JSONFormatter
from culvert_transport.loop import on_stray_error


@pytest.fixture
def log() -> Iterator[StringIO]:
    """What a process that logs JSON at the level of information writes."""
    text = StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(JSONFormatter())
    handler.setLevel(logging.INFO)
    root = logging.getLogger()
    root.addHandler(handler)
    yield text
    root.removeHandler(handler)


@pytest.mark.parametrize("error", [ConnectionResetError, ConnectionResetError(), OSError(5, "I/O error")], ids=repr)
def test_an_error_of_the_network_is_told_to_whoever_waits_and_to_nobody_else(log: StringIO, error: object) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(on_stray_error)
        loop.call_exception_handler({"message": "SSL handshake failed", "exception": error})

    asyncio.run(scenario())
    assert log.getvalue() == ""


@pytest.mark.parametrize("error", [ValueError("of ours"), ValueError], ids=repr)
def test_any_other_error_is_logged_in_one_line_of_json(log: StringIO, error: object) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(on_stray_error)
        loop.call_exception_handler({"message": "a callback failed", "exception": error})

    asyncio.run(scenario())
    (line,) = log.getvalue().splitlines()
    record = json.loads(line)
    assert record["message"] == "a callback failed"
    assert "ValueError" in record["exception"]
