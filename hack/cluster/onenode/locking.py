"""One at a time: advisory locks on files.

Responsible for: `hold`, a lock that the kernel releases when its holder dies, however it dies. Invariant: the file
that is locked is the file that the path names (a lock on a file that was removed meanwhile protects nothing).
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onenode.refusal import Refusal


@contextmanager
def hold(path: Path, *, wait: bool, busy: str = "", remove: bool = False) -> Iterator[None]:
    """Holds the lock at `path`. With `wait` it waits for another holder; else it raises `Refusal(busy)`.

    With `remove` the file goes when the lock is released; who waits for it meanwhile makes a new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, wait=wait, busy=busy)
    try:
        yield
    finally:
        if remove:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, *, wait: bool, busy: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _same_file(descriptor, path):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise Refusal(busy or f"Another process holds {path}; wait for it or stop it.") from None
            raise
        os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
