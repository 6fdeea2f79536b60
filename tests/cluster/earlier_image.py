"""An earlier version of culvert as an image, made from the present one.

Responsible for: a docker archive that is another with one layer more, in which a few files are edited; and the edits
that make an earlier culvert: another version, which reads schema 1 of the configuration and no key that came later, and
whose operator makes Pods otherwise.
Must not know: how images are built or loaded. Nothing is run and no builder is asked, so that it takes seconds and
leaves nothing behind but the archive.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

VERSION = "0.0.9"

_STRICT = """

_read_all = _read


def _read(value: object) -> Document:
    from culvert_ingress.schemas import needed

    document = _read_all(value)
    if needed(document) > 1:
        raise ReadingError("it has a key that this version does not know.")
    return document
"""


def _reads_the_first_schema(source: str) -> str:
    changed, count = re.subn(r"^SCHEMAS = \(.*\)$", "SCHEMAS = (1,)", source, flags=re.MULTILINE)
    assert count == 1, "document.py says its schemas otherwise now"
    return changed + _STRICT


def _makes_other_pods(source: str) -> str:
    changed, count = re.subn(r'(_probe\("/readyz", period=)2', r"\g<1>3", source)
    assert count == 1, "workload.py says the probe otherwise now"
    return changed


def _is_earlier(metadata: str) -> str:
    return re.sub(r"^Version: .*$", f"Version: {VERSION}", metadata, count=1, flags=re.MULTILINE)


EDITS: Mapping[str, Callable[[str], str]] = {
    r"/culvert_ingress/document\.py$": _reads_the_first_schema,
    r"/culvert_operator/children/workload\.py$": _makes_other_pods,
    r"/culvert-[^/]*\.dist-info/METADATA$": _is_earlier,
}
"""Pattern of a path in the image → what becomes of the file's text."""


def earlier(present: Path, name: str, target: Path, edits: Mapping[str, Callable[[str], str]] = EDITS) -> None:
    """Write the docker archive ``target``: the image of ``present``, edited, called ``name``."""
    with tarfile.open(present) as source:
        (manifest,) = json.load(_member(source, "manifest.json"))
        configuration = json.load(_member(source, manifest["Config"]))
        layer = _layer([_member(source, path) for path in reversed(manifest["Layers"])], edits)
        digest = hashlib.sha256(layer).hexdigest()
        configuration["rootfs"]["diff_ids"].append(f"sha256:{digest}")
        configuration.setdefault("history", []).append({"created_by": "an earlier version, for a test"})
        described = json.dumps(configuration).encode()
        config = f"{hashlib.sha256(described).hexdigest()}.json"
        layers = [*manifest["Layers"], f"{digest}.tar"]
        with tarfile.open(target, "w") as out:
            for path in manifest["Layers"]:
                content = _member(source, path)
                _add(out, path, content, content.seek(0, io.SEEK_END))
            _add(out, layers[-1], io.BytesIO(layer), len(layer))
            _add(out, config, io.BytesIO(described), len(described))
            index = json.dumps([{"Config": config, "RepoTags": [name], "Layers": layers}]).encode()
            _add(out, "manifest.json", io.BytesIO(index), len(index))


def _member(archive: tarfile.TarFile, path: str) -> io.BufferedIOBase:
    found = archive.extractfile(path)
    assert found is not None, path
    return found  # type: ignore[return-value]  # typeshed says IO[bytes]


def _layer(layers: list[io.BufferedIOBase], edits: Mapping[str, Callable[[str], str]]) -> bytes:
    """The files that ``edits`` names, as the topmost of ``layers`` (given from the top) has them, edited."""
    missing, made = dict(edits), io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as out:
        for layer in layers:
            with tarfile.open(fileobj=layer) as inside:
                for entry in inside:
                    pattern = next((p for p in missing if entry.isfile() and re.search(p, f"/{entry.name}")), None)
                    if pattern is not None:
                        content = missing.pop(pattern)(_member(inside, entry.name).read().decode()).encode()
                        # Python takes a module's compiled form by time and size of its source: both must not stay.
                        entry.size, entry.mtime = len(content), entry.mtime + 1
                        out.addfile(entry, io.BytesIO(content))
            if not missing:
                break
    assert not missing, f"not in the image: {', '.join(missing)}"
    return made.getvalue()


def _add(out: tarfile.TarFile, path: str, content: io.BufferedIOBase, size: int) -> None:
    content.seek(0)
    entry = tarfile.TarInfo(path)
    entry.size = size
    out.addfile(entry, content)
