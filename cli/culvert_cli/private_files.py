"""Files that hold secrets: created whole and readable by their owner only, or not at all.

Responsible for writing (atomically, mode 0600 from the first byte, never over something that is there unless it is
to be replaced) and reading (bounded). Must not know what the files hold.

Invariant: at every moment, a crash included, a name holds either nothing, the old file or the complete new one.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from culvert_cli.outcome import CommandError

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644
_NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})


def create_file(path: Path, data: bytes, *, mode: int = PRIVATE) -> None:
    """Writes a new file; ``CommandError`` when ``path`` exists, whatever it is, or cannot be written."""
    try:
        temporary = _write_beside(path, data, mode=mode)
        try:
            _publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise CommandError(already_there(path)) from None
    except OSError as error:
        raise CommandError(_cannot("write", path, error)) from None


def replace_file(path: Path, data: bytes, *, mode: int = PRIVATE) -> None:
    """Writes a file in place of the one at ``path``, through symbolic links; ``CommandError`` when it cannot.

    The new file belongs to the old one's owner and group: a service that runs under a user of its own must still be
    able to read what root renews.
    """
    try:
        target = path.resolve(strict=True)
        owner = target.stat()
        temporary = _write_beside(target, data, mode=mode)
        try:
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(temporary, owner.st_uid, owner.st_gid)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(_cannot("write", path, error)) from None


def read_file(path: Path, *, most: int) -> bytes:
    """The file's bytes; ``CommandError`` when it cannot be read or has more than ``most``."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise CommandError(_cannot("read", path, error)) from None
    if len(data) > most:
        raise CommandError(f"{path} is too large: more than {most} bytes; is it the right file?")
    return data


def is_exposed(path: Path) -> bool:
    """Whether others than the owner may read or change the file."""
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    except OSError:
        return False


def already_there(path: Path) -> str:
    """The sentence for a name that is taken."""
    return f"{path} exists already and is not overwritten; move it away or choose another name."


def _write_beside(path: Path, data: bytes, *, mode: int) -> Path:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _publish(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # unlike rename, fails when the name is taken
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # This file system has no hard links. Claim the name first, then move the content over it.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))
        temporary.replace(path)


def _cannot(verb: str, path: Path, error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"Cannot {verb} {path}: {reason}; check the path and its permissions."
