"""A base image for machines that can reach no image registry: Debian with its own Python.

Responsible for making it once, with debootstrap, and keeping it in the engine's storage. Must not know what is built
upon it. Its name holds the Debian release and the packages, so a change of either makes another.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from onenode import debian
from onenode.progress import Progress
from onenode.refusal import Refusal

from imaging import engines
from imaging.engines import DOCKER, Engine

_PACKAGES: Final = ("ca-certificates", "python3", "python3-venv")
_DEFAULT_SUITE: Final = "bookworm"
# Nothing at run time reads these; they are a third of the image.
_UNUSED: Final = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")


def name(suite: str) -> str:
    """The image's name."""
    recipe = hashlib.sha256(repr((suite, _PACKAGES, _UNUSED)).encode()).hexdigest()[:12]
    return f"localhost/culvert-stand-in-base:{suite}-{recipe}"


def suite_of(os_release: str) -> str:
    """The Debian release in an os-release(5) file; bookworm on anything that is not Debian."""
    values = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', os_release, re.MULTILINE))
    return values.get("VERSION_CODENAME", _DEFAULT_SUITE) if values.get("ID") == "debian" else _DEFAULT_SUITE


def mirror_in(sources: str) -> str | None:
    """The first Debian mirror in apt's sources, of either format: one that this machine can reach."""
    found = re.search(r"^(?:URIs:\s*|deb\s+(?:\[[^\]]*\]\s+)?)(https?://\S+/debian)/?(?=\s|$)", sources, re.MULTILINE)
    return found[1] if found else None


def make(engine: Engine, progress: Progress) -> str:
    """The name of the stand-in, made if it is not there yet."""
    release = Path("/etc/os-release")
    suite = suite_of(release.read_text() if release.exists() else "")
    image = name(suite)
    if engines.identity(engine, image) is not None:
        progress.say(f"using the stand-in base made earlier: {image}")
        return image
    debian.require(debian.STAND_IN_BASE, progress)
    progress.say(f"making a stand-in base of Debian {suite} with debootstrap; this takes a minute or two, once")
    with tempfile.TemporaryDirectory(prefix="culvert-base-") as scratch:
        root = Path(scratch) / "root"
        _debootstrap(root, suite, progress)
        archive = Path(scratch) / "root.tar"
        _run(["tar", "--numeric-owner", "--sort=name", "-C", str(root), "-cf", str(archive), "."])
        _import(engine, archive, image)
    return image


def _debootstrap(root: Path, suite: str, progress: Progress) -> None:
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    mirror = mirror_in("\n".join(path.read_text() for path in sources if path.is_file()))
    program = debian.find("debootstrap") or "debootstrap"
    options = ["--variant=minbase", f"--include={','.join(_PACKAGES)}"]
    process = subprocess.Popen(
        [program, *options, suite, str(root), *([mirror] if mirror else [])],  # else debootstrap's own choice
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines = [*lines[-14:], line.rstrip()]
            progress.beat(f"debootstrap: {line.rstrip()}")
    if process.wait() != 0:
        raise Refusal("debootstrap failed (it needs root and a Debian mirror):\n" + "\n".join(lines))
    for folder in _UNUSED:
        _run(["find", str(root / folder), "-mindepth", "1", "-delete"])


def _import(engine: Engine, archive: Path, image: str) -> None:
    if engine is DOCKER:
        _run(["docker", "import", str(archive), image])
        return
    buildah = debian.find("buildah") or "buildah"
    container = _run([buildah, "from", "scratch"])
    try:
        _run([buildah, "add", "--quiet", container, str(archive), "/"])  # an archive is unpacked
        _run([buildah, "commit", "--quiet", container, image])
    finally:
        _run([buildah, "rm", container])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refusal(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout.strip()
