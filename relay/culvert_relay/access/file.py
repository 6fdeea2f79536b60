"""Where the access log goes: standard output, or a file that may be moved away.

Responsible for writing on a thread of its own, for the bound on what waits, and for noticing that the file has been
renamed or removed (then the next write makes a new one, so neither a signal nor `copytruncate` is needed). Must not
know what a line holds.

Invariants: the event loop never waits for the disk or for a pipe's reader; what is over the bound is dropped and
counted, never kept; a line that the disk took only half of does not swallow the next one.
"""

import logging
import os
import select
import threading
import time
from pathlib import Path
from typing import Final

MAX_WAITING: Final = 4 << 20
"""Bytes that wait to be written: some 10,000 lines."""
LOOK_EVERY: Final = 1.0
"""Seconds between two looks whether the file is still where it was."""
COMPLAIN_EVERY: Final = 30.0
_MODE: Final = 0o640  # visitors' addresses are personal data
logger = logging.getLogger(__name__)


class LogFile:
    """A sink for lines. `path` None is standard output. Raises OSError when the file cannot be opened."""

    def __init__(self, path: Path | None, *, most: int = MAX_WAITING) -> None:
        self.lost = 0
        self._path = path
        self._most = most
        self._descriptor = 1 if path is None else _open(path)
        self._waiting: list[bytes] = []
        self._size = 0
        self._changed = threading.Condition()
        self._ending = False
        self._torn = False
        self._looked = time.monotonic()
        self._complained = 0.0
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> bool:
        """Takes whole lines, to be written soon; False when as much waits as may."""
        with self._changed:
            if self._size + len(data) > self._most or self._ending:
                return False
            self._waiting.append(data)
            self._size += len(data)
            self._changed.notify()
        return True

    def close(self, timeout: float) -> None:
        """Writes what waits, for at most `timeout` seconds; a sink that does not take it keeps nobody."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(timeout)

    # -- the thread's side ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ending:
                    self._changed.wait()
                batch, self._waiting = self._waiting, []
                if not batch:
                    break
            data = b"".join(batch)
            self._write(data)
            with self._changed:
                self._size -= len(data)
        if self._path is not None and self._descriptor >= 0:
            os.close(self._descriptor)

    def _write(self, data: bytes) -> None:
        left = memoryview(b"\n" + data if self._torn else data)
        try:
            if self._path is not None:
                self._follow(self._path)
            while left:
                try:
                    written = os.write(self._descriptor, left)
                except BlockingIOError:  # somebody made the pipe non-blocking
                    select.select((), (self._descriptor,), ())
                    continue
                self._torn = left[written - 1] != 0x0A
                left = left[written:]
        except OSError as error:
            self.lost += bytes(left).count(b"\n")
            now = time.monotonic()
            if now - self._complained >= COMPLAIN_EVERY or not self._complained:
                self._complained = now
                logger.warning("the access log cannot be written, lines are dropped: %s", error)

    def _follow(self, path: Path) -> None:
        """Opens the file anew when its name leads elsewhere by now."""
        now = time.monotonic()
        if self._descriptor >= 0:
            if now - self._looked < LOOK_EVERY:
                return
            self._looked = now
            if _same(path, self._descriptor):
                return
            os.close(self._descriptor)
            self._descriptor = -1
        self._descriptor = _open(path)
        self._torn = False


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)


def _same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
