"""Images for the node, and what culvert's own image is made of."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

from imaging import context, pip_settings, stand_in
from onenode import images

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def unpack(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {entry.name: opened.extractfile(entry).read() for entry in opened}  # type: ignore[union-attr]


def test_a_packed_image_has_blobs_by_their_digest_and_its_name(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_bytes(b"#!")
    archive = images.pack("localhost/tool:1", {"/tool": tool}, ["/tool"], machine="aarch64")
    assert archive == images.pack("localhost/tool:1", {"/tool": tool}, ["/tool"], machine="aarch64")
    files = unpack(archive)
    for path, content in files.items():
        if path.startswith("blobs/sha256/"):
            assert path.rpartition("/")[2] == hashlib.sha256(content).hexdigest()
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/tool:1"
    manifest = json.loads(files[f"blobs/{entry['digest'].replace(':', '/')}"])
    configuration = json.loads(files[f"blobs/{manifest['config']['digest'].replace(':', '/')}"])
    assert configuration["architecture"] == "arm64"
    assert configuration["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    layer = files[f"blobs/{manifest['layers'][0]['digest'].replace(':', '/')}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as opened:
        assert opened.getmember("tool").mode == 0o755


def test_the_dockerfile_copies_only_what_the_context_holds() -> None:
    allowed = set(context.allowed((REPOSITORY / ".dockerignore").read_text()))
    copied: set[str] = set()
    for line in (REPOSITORY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from=" not in line:
            copied.update(line.split()[1:-1])
    assert copied == allowed


def test_the_image_is_not_root_and_can_be_built_on_another_base() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    assert context.default_base(dockerfile).startswith("python:3.")
    assert "\nUSER 65532:65532\n" in dockerfile
    outside = set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE))
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", dockerfile, re.MULTILINE))
    assert outside - stages == {"${BASE_IMAGE}", "overlay-${NATIVE}"}
    assert {"overlay-0", "overlay-1"} <= stages
    assert '\nENTRYPOINT ["culvert"]\n' in dockerfile


def test_every_package_that_is_distributed_is_in_the_context() -> None:
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    allowed = context.allowed((REPOSITORY / ".dockerignore").read_text())
    assert {package.split("/")[0] for package in packages} <= set(allowed)


def test_the_fingerprint_changes_with_contents_names_and_settings() -> None:
    base = context.fingerprint([("a", b"1"), ("b", b"2")], "tag")
    assert base == context.fingerprint([("a", b"1"), ("b", b"2")], "tag")
    for other in (
        context.fingerprint([("a", b"1"), ("b", b"3")], "tag"),
        context.fingerprint([("a", b"1"), ("c", b"2")], "tag"),
        context.fingerprint([("a", b"1b"), ("", b"2")], "tag"),
        context.fingerprint([("a", b"1"), ("b", b"2")], "other"),
    ):
        assert other != base


def test_caches_of_python_are_not_part_of_the_context() -> None:
    assert not [name for name in context.files(REPOSITORY) if name.endswith(".pyc")]
    assert "Dockerfile" in context.files(REPOSITORY)


def test_pips_settings_go_into_the_build_and_its_folders_do_not() -> None:
    listing = ":env:.find-links='/opt/wheels'\nglobal.index-url='https://index.example/simple'\nglobal.timeout='9'\n"
    settings = pip_settings.parse_listing(listing)
    text = pip_settings.configuration(settings, {"PIP_TIMEOUT": "30"}, has_bundle=True)
    assert text == (
        f"[global]\nindex-url = https://index.example/simple\ntimeout = 30\ncert = {pip_settings.CA_TARGET}\n"
    )
    assert f"target={pip_settings.CA_TARGET}" in (REPOSITORY / "Dockerfile").read_text()


def test_the_stand_in_follows_the_machines_release_and_mirror() -> None:
    assert stand_in.suite_of('ID=debian\nVERSION_CODENAME="trixie"\n') == "trixie"
    assert stand_in.suite_of("ID=ubuntu\nVERSION_CODENAME=noble\n") == "bookworm"
    assert stand_in.mirror_in("Types: deb\nURIs: http://mirror.example/debian\n") == "http://mirror.example/debian"
    assert (
        stand_in.mirror_in("deb [arch=amd64] https://m.example/debian/ bookworm main\n") == "https://m.example/debian"
    )
    assert stand_in.mirror_in("deb https://packages.example/apt stable main\n") is None
    assert stand_in.name("trixie") != stand_in.name("bookworm")
