"""One at a time, even across processes that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from onenode import locking
from onenode.layout import SOURCES
from onenode.refusal import Refusal

HOLDER = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from onenode import locking
with locking.hold(pathlib.Path(sys.argv[2]), wait=True):
    print("held", flush=True)
    sys.stdin.read()
"""


def until_opened_twice(path: Path) -> None:
    """Until this process has two descriptors of the file: the holder's, and that of the one who waits."""
    deadline = time.monotonic() + 10
    while sum(os.path.realpath(link) == str(path) for link in Path("/proc/self/fd").iterdir()) < 2:
        assert time.monotonic() < deadline, "nobody waits for the lock"
        time.sleep(0.01)


def test_a_second_holder_is_refused_with_the_given_sentence(tmp_path: Path) -> None:
    lock = tmp_path / "deep" / "lock"
    with (
        locking.hold(lock, wait=False),
        pytest.raises(Refusal, match="somebody builds"),
        locking.hold(lock, wait=False, busy="somebody builds"),
    ):
        pass
    with locking.hold(lock, wait=False):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(SOURCES), str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Refusal), locking.hold(lock, wait=False):
            pass
        holder.kill()
        holder.wait(timeout=10)
        with locking.hold(lock, wait=False):
            pass


def test_who_waited_for_a_removed_lock_holds_the_new_one(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    entered = threading.Event()
    released = threading.Event()

    def wait_and_check() -> None:
        with locking.hold(lock, wait=True):
            entered.set()
            released.wait(10)

    with locking.hold(lock, wait=True, remove=True):
        waiter = threading.Thread(target=wait_and_check)
        waiter.start()
        until_opened_twice(lock)
    assert entered.wait(10)
    try:
        with pytest.raises(Refusal), locking.hold(lock, wait=False):  # the waiter's is the file at the path
            pass
    finally:
        released.set()
        waiter.join(10)


def test_the_lock_is_not_inherited_by_programs_that_are_started(tmp_path: Path) -> None:
    with locking.hold(tmp_path / "lock", wait=True):
        child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        with locking.hold(tmp_path / "lock", wait=False):
            pass
        assert os.path.exists(f"/proc/{child.pid}")
    finally:
        child.communicate(timeout=10)
