"""What an image is made of.

Responsible for the build context (the files that .dockerignore lets through) and its fingerprint. Must not know how
images are built. Invariant: the fingerprint covers exactly what is staged, so that an unchanged one means an
unchanged image.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path


def allowed(dockerignore: str) -> tuple[str, ...]:
    """The paths of lines that begin with "!": everything else is kept out."""
    return tuple(line[1:].strip() for line in dockerignore.splitlines() if line.startswith("!"))


def default_base(dockerfile: str) -> str:
    """The base image that the Dockerfile names: `ARG BASE_IMAGE=…`."""
    found = re.search(r"^ARG BASE_IMAGE=(\S+)", dockerfile, re.MULTILINE)
    if found is None:
        raise ValueError("the Dockerfile has no line ARG BASE_IMAGE=…")
    return found[1]


def files(repository: Path) -> dict[str, Path]:
    """The context's files: path inside it → path on disk, in a stable order. The Dockerfile is one of them."""
    found: dict[str, Path] = {}
    for name in ("Dockerfile", *allowed((repository / ".dockerignore").read_text())):
        top = repository / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and path.suffix not in (".pyc", ".so"):
                found[str(path.relative_to(repository))] = path
    return dict(sorted(found.items()))


def fingerprint(contents: Iterable[tuple[str, bytes]], *more: str) -> str:
    """A hash of files and of `more` (base image, tag): equal only when all of them are."""
    digest = hashlib.sha256()
    for part in more:
        digest.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    for name, content in contents:
        for chunk in (name.encode(), content):
            digest.update(len(chunk).to_bytes(8, "big") + chunk)
    return digest.hexdigest()


def stage(context: dict[str, Path], folder: Path) -> None:
    """Copies the context's files into `folder`, with equal times: layers then do not differ for nothing."""
    for name, source in context.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
