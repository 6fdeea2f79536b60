"""The command `hack/image/build`.

Responsible for arguments, for building only what changed, and exit codes: 0 success, 1 failure, 2 usage. The
archive's path is the only thing on standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from onenode import layout, locking
from onenode.progress import Progress
from onenode.refusal import Refusal

from imaging import context, engines, pip_settings, stand_in

_REPOSITORY: Final = Path(__file__).resolve().parent.parent.parent.parent
_EXAMPLES: Final = """\
examples:
  build --tag localhost/culvert:dev --archive .demo/culvert.tar
  build --native --archive .demo/culvert.tar             with the modules on every request's way compiled
  build --base-image registry.example/python:3.13-slim --archive /tmp/culvert.tar
  hack/cluster/cluster load-image .demo/culvert.tar      gives the result to the node

Built by docker when its daemon answers, else by buildah, which is installed with apt-get if need be (NO_INSTALL=1:
it is only named). Where the base image cannot be pulled, debootstrap makes a stand-in.
"""


def main(arguments: Sequence[str]) -> int:
    """Builds; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="build",
        description="Build culvert's image into an archive.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tag", default="localhost/culvert:dev", help="the image's name (default: %(default)s)")
    parser.add_argument("--archive", type=Path, required=True, metavar="FILE", help="docker archive to write")
    parser.add_argument("--base-image", metavar="NAME", help="default: the Dockerfile's, else a stand-in")
    parser.add_argument("--native", action="store_true", help="with the hot modules compiled (docs/performance.md)")
    parser.add_argument("--force", action="store_true", help="build even when nothing changed")
    parsed = parser.parse_args(arguments)
    try:
        print(_build(parsed, Progress()))
    except Refusal as refusal:
        print(f"build: {refusal}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("build: interrupted", file=sys.stderr)
        return 1
    return 0


def _build(parsed: argparse.Namespace, progress: Progress) -> Path:
    archive: Path = parsed.archive.absolute()
    sources = context.files(_REPOSITORY)
    contents = [(name, path.read_bytes()) for name, path in sources.items()]
    inputs = context.fingerprint(contents, parsed.tag, parsed.base_image or "", "native" if parsed.native else "")
    with locking.hold(layout.cache_root() / "image.lock", wait=True):
        if not parsed.force and _is_fresh(archive, inputs):
            progress.say(f"nothing changed since {archive} was built")
            return archive
        engine = engines.choose(progress)
        base = _base(engine, parsed.base_image, progress)
        progress.say(f"building {parsed.tag} on {base} with {engine.name}")
        with tempfile.TemporaryDirectory(prefix="culvert-image-") as scratch:
            folder = Path(scratch) / "context"
            context.stage(sources, folder)
            engines.build(
                engine,
                folder,
                tag=parsed.tag,
                arguments={"BASE_IMAGE": base, "NATIVE": str(int(parsed.native))},
                secrets=_secrets(Path(scratch)),
            )
        engines.save(engine, parsed.tag, archive)
        engines.remove_superseded(engine)
        _note(archive).write_text(json.dumps({"inputs": inputs, "size": archive.stat().st_size}) + "\n")
        progress.say(f"wrote {archive} ({archive.stat().st_size >> 20} MiB)")
    return archive


def _note(archive: Path) -> Path:
    return archive.with_name(f"{archive.name}.inputs.json")


def _is_fresh(archive: Path, inputs: str) -> bool:
    try:
        note = json.loads(_note(archive).read_text())
        return bool(note == {"inputs": inputs, "size": archive.stat().st_size})
    except (OSError, ValueError):
        return False


def _base(engine: engines.Engine, wanted: str | None, progress: Progress) -> str:
    image = wanted or context.default_base((_REPOSITORY / "Dockerfile").read_text())
    if engines.identity(engine, image) is not None:
        return image
    why = engines.pull(engine, image)
    if why is None:
        return image
    if wanted:
        raise Refusal(f"{image} cannot be pulled: {why}. Without --base-image a stand-in is made.")
    progress.say(f"{image} cannot be pulled ({why[-160:]})")
    return stand_in.make(engine, progress)


def _secrets(scratch: Path) -> dict[str, Path]:
    settings = pip_settings.machine_settings()
    bundle = pip_settings.bundle(settings, os.environ)
    configuration = scratch / "pip.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(pip_settings.configuration(settings, os.environ, has_bundle=bundle is not None))
    return {"pip": configuration} if bundle is None else {"pip": configuration, "ca": bundle}
