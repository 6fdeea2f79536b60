"""The two programs that can build an image.

Responsible for one small interface over docker and buildah, and for choosing the one that really works: an installed
docker without a daemon does not. Must not know what is built.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onenode import debian
from onenode.progress import Progress
from onenode.refusal import Refusal

# Predefined build arguments: they do not show in the image's history.
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True, slots=True)
class Engine:
    """Argument lists of one program. `archive` and `image` are filled in where the lists say so."""

    name: str
    build: Sequence[str]
    pull: Sequence[str]
    find: Sequence[str]
    save: Sequence[str]
    superseded: Sequence[str]
    remove: Sequence[str]


# Images of ours that have lost their name to a newer one; the Dockerfile sets the label.
_SUPERSEDED: Final = (
    *("images", "--quiet", "--no-trunc", "--filter", "dangling=true"),
    *("--filter", "label=org.opencontainers.image.title=culvert"),
)

DOCKER: Final = Engine(
    name="docker",
    build=("build",),
    pull=("pull", "--quiet", "{image}"),
    find=("image", "inspect", "--format", "{{{{.Id}}}}", "{image}"),
    save=("save", "--output", "{archive}", "{image}"),
    superseded=_SUPERSEDED,
    remove=("image", "rm", "{image}"),
)
BUILDAH: Final = Engine(
    name="buildah",
    # chroot isolation needs neither a daemon nor rights that a container lacks.
    build=("build", "--isolation", "chroot", "--layers"),
    pull=("pull", "--quiet", "--policy", "always", "{image}"),
    find=("inspect", "--type", "image", "--format", "{{{{.FromImageID}}}}", "{image}"),
    save=("push", "--quiet", "{image}", "docker-archive:{archive}:{image}"),
    superseded=_SUPERSEDED,
    remove=("rmi", "{image}"),
)


def choose(progress: Progress) -> Engine:
    """docker when its daemon answers, else buildah, which is installed if need be."""
    if shutil.which("docker") and _quiet(["docker", "info"]).returncode == 0:
        return DOCKER
    debian.require(debian.IMAGE, progress)
    return BUILDAH


def identity(engine: Engine, image: str) -> str | None:
    """The id of an image in the engine's storage, None when it is not there."""
    done = _quiet(_command(engine, engine.find, image=image))
    return done.stdout.strip() or None if done.returncode == 0 else None


def pull(engine: Engine, image: str) -> str | None:
    """Pulls `image`; None on success, else why not."""
    done = _quiet(_command(engine, engine.pull, image=image))
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def build(
    engine: Engine, context: Path, *, tag: str, arguments: Mapping[str, str], secrets: Mapping[str, Path]
) -> None:
    """Builds the Dockerfile in `context`; what the engine says goes to standard error."""
    command = [*_command(engine, engine.build), "--tag", tag, "--file", str(context / "Dockerfile")]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    for name in _PROXIES:
        if name in os.environ:
            command += ["--build-arg", name]
    for name, path in secrets.items():
        command += ["--secret", f"id={name},src={path}"]
    done = subprocess.run(
        [*command, str(context)],
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
        stdin=subprocess.DEVNULL,
        stdout=2,  # results are paths on standard output; this is progress
        check=False,
    )
    if done.returncode != 0:
        raise Refusal(f"{engine.name} could not build the image; its last lines above say why.")


def save(engine: Engine, image: str, archive: Path) -> None:
    """Writes a docker archive, whole or not at all."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    temporary = archive.with_name(f".{archive.name}.{os.getpid()}")
    try:
        done = _quiet(_command(engine, engine.save, image=image, archive=str(temporary)))
        if done.returncode != 0:
            raise Refusal(f"{engine.name} could not write {archive}: {done.stderr.strip()}")
        temporary.replace(archive)
    finally:
        temporary.unlink(missing_ok=True)


def remove_superseded(engine: Engine) -> None:
    """Removes what earlier builds left: each is some 300 MB. One that is still in use stays."""
    for image in _quiet(_command(engine, engine.superseded)).stdout.split():
        _quiet(_command(engine, engine.remove, image=image))


def _command(engine: Engine, words: Sequence[str], **values: str) -> list[str]:
    return [debian.find(engine.name) or engine.name, *(word.format(**values) for word in words)]


def _quiet(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
