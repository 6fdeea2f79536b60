"""Images for a node that has no registry.

Responsible for: packing a folder into an OCI image archive (`pack`), importing archives, or images of buildah's or
Docker's storage, into the node's containerd, and taking images out of it again. Must not build images from Dockerfiles
(hack/image does). Packing the same files gives the same bytes. Format: OCI image layout v1.0.0 and OCI image manifest.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from onenode import debian
from onenode.layout import StateLayout
from onenode.refusal import Refusal

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_OCI: Final = "application/vnd.oci.image"


def pack(name: str, files: Mapping[str, Path], entrypoint: Sequence[str], *, machine: str = "") -> bytes:
    """An OCI archive with one layer that holds `files` (path in the image → file on disk, executable)."""
    layer = _tar({path: source.read_bytes() for path, source in sorted(files.items())}, mode=0o755)
    configuration = _json(
        {
            "architecture": _ARCHITECTURES.get(machine or platform.machine(), machine or platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint)},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _descriptor(f"{_OCI}.config.v1+json", configuration),
            "layers": [_descriptor(f"{_OCI}.layer.v1.tar", layer)],
        }
    )
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    entry = {**_descriptor(f"{_OCI}.manifest.v1+json", manifest), "annotations": names}
    blobs = {f"blobs/sha256/{_digest(b).removeprefix('sha256:')}": b for b in (layer, configuration, manifest)}
    index = _json({"schemaVersion": 2, "manifests": [entry]})
    return _tar({"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": index, **blobs}, mode=0o644)


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _tar(files: Mapping[str, bytes], *, mode: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def import_archive(archive: Path, layout: StateLayout, *, ctr: str) -> None:
    """Loads an OCI or docker archive into the node's containerd, where the kubelet finds it."""
    done = _images(ctr, layout, "import", str(archive))
    if done.returncode != 0:
        raise Refusal(f"The node could not import {archive}: {done.stderr.strip()}")


def remove(name: str, layout: StateLayout, *, ctr: str) -> None:
    """Takes an image out of the node's containerd, with what only it holds; nothing to do when it is not there."""
    done = _images(ctr, layout, "remove", "--sync", name)
    if done.returncode != 0:
        raise Refusal(f"The node could not remove {name}: {done.stderr.strip()}")


def _images(ctr: str, layout: StateLayout, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [ctr, "--address", str(layout.containerd_socket), "--namespace", "k8s.io", "image", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def import_packed(
    name: str, files: Mapping[str, Path], entrypoint: Sequence[str], layout: StateLayout, *, ctr: str
) -> None:
    """Packs and imports in one go."""
    with tempfile.NamedTemporaryFile(suffix=".tar", dir=layout.root) as archive:
        archive.write(pack(name, files, entrypoint))
        archive.flush()
        import_archive(Path(archive.name), layout, ctr=ctr)


def import_named(name: str, layout: StateLayout, *, ctr: str) -> None:
    """Loads the image called `name` from buildah's storage, or Docker's."""
    with tempfile.TemporaryDirectory(dir=layout.root) as scratch:
        archive = Path(scratch) / "image.tar"
        tried = []
        for program, arguments in (
            ("buildah", ["push", "--quiet", name, f"docker-archive:{archive}:{name}"]),
            ("docker", ["save", "--output", str(archive), name]),
        ):
            found = debian.find(program)
            if found is None:
                tried.append(f"{program} is not installed")
                continue
            done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                import_archive(archive, layout, ctr=ctr)
                return
            tried.append(f"{program}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed'}")
    raise Refusal(
        f'There is no file and no image called "{name}" ({"; ".join(tried)}). '
        "Build it first, or name an archive: hack/cluster/cluster load-image FILE"
    )
