"""The access log's file: bounded, never waited for, found again after it was moved."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from culvert_relay.access import file as module
from culvert_relay.access.file import LogFile


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.005)


def test_lines_are_appended_and_the_file_is_not_everybodys(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    path.chmod(0o640)
    log = LogFile(path)
    assert log.put(b"one\n")
    assert log.put(b"two\n")
    log.close(10)
    assert path.read_text() == "before\none\ntwo\n"
    other = LogFile(tmp_path / "new.log")
    other.close(10)
    assert (tmp_path / "new.log").stat().st_mode & 0o007 == 0
    assert not log.put(b"late\n")


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.0)
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    log = LogFile(path)
    log.put(b"one\n")
    until(lambda: path.read_text() == "one\n", "the first line")
    path.rename(moved)
    log.put(b"two\n")
    until(lambda: path.exists() and path.read_text() == "two\n", "the new file")
    assert moved.read_text() == "one\n"
    os.truncate(path, 0)  # what copytruncate does: the next line must not leave a hole
    log.put(b"three\n")
    until(lambda: path.read_text() == "three\n", "the line after the truncation")
    log.close(10)


def test_a_reader_that_stopped_costs_lines_but_no_time_and_no_memory(tmp_path: Path) -> None:
    """A FIFO that nobody reads: the thread waits in the kernel, `put` does not."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = LogFile(path, most=1 << 20)
    line = b"x" * 1_023 + b"\n"
    taken = 0
    while log.put(line):
        taken += 1
        assert taken < 5_000, "there is no bound"
    assert not log.put(line)
    begun = time.monotonic()
    log.close(0.1)
    assert time.monotonic() - begun < 5
    # The reader comes back: what had been taken arrives whole.
    os.set_blocking(reader, True)
    found = b""
    while len(found) < taken * len(line):
        found += os.read(reader, 1 << 20)
    assert found == line * taken
    os.close(reader)
    until(lambda: not any(thread.name == "access-log" for thread in threading.enumerate()), "the thread's end")


def test_lines_that_the_disk_refuses_are_counted_and_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if not full:
            return real(descriptor, data)
        if len(data) > 6:
            return real(descriptor, bytes(data)[:6])
        raise OSError(28, "No space left on device")

    path = tmp_path / "access.log"
    log = LogFile(path)
    monkeypatch.setattr(os, "write", write)
    log.put(b"one\ntwo\n")  # "two" is torn: two bytes of it are written
    until(lambda: log.lost == 1, "the loss")
    full = False
    log.put(b"three\n")
    log.close(10)
    assert path.read_text() == "one\ntw\nthree\n"


def test_a_file_that_cannot_be_opened_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        LogFile(tmp_path / "missing" / "access.log")
