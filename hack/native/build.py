"""Compiles the modules on every request's way with mypyc: beside their sources, or into a folder of packages.

Optional: the compiled modules are the same code, and Python prefers them to the sources while they are there; without
them, or with a Python that they were not built for, the sources run. After a change of these sources the build has to
be repeated. It needs mypy, setuptools, a C compiler and Python's headers, and takes about a minute.

`build.py` compiles for this checkout, `build.py --into FOLDER` for the packages that are installed in FOLDER,
`build.py --clean` (and `make clean`) undoes the former.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES: dict[str, tuple[str, ...]] = {
    "protocol/culvert_protocol": (
        "codes", "conversation", "credit", "frames", "heads", "outbox", "session", "states", "stream",
    ),
    "http1/culvert_http1": (
        "authentication", "authority", "chunked", "errors", "fields", "framing", "grammar", "limits", "malformed",
        "options", "path", "reasons", "repeated", "request", "response",
    ),
    "transport/culvert_transport": ("heartbeat", "instruments", "link", "traffic"),
    "relay/culvert_relay": (
        "routing.placement", "routing.pools", "routing.table", "routing.terms", "streams.connection", "tallies",
        "tunnels.link", "tunnels.registry", "tunnels.session", "visitors.account", "visitors.answering",
        "visitors.connection", "visitors.directing", "visitors.exchange", "visitors.framing", "visitors.line",
        "visitors.opening", "visitors.pinning", "visitors.upload", "wheel",
    ),
    "connector/culvert_connector": (
        "configuration", "origins.connection", "origins.exchange", "origins.origins", "origins.pinning", "origins.pool",
        "origins.request", "origins.targets", "origins.treated", "origins.waits", "requests", "tallies",
    ),
    "ingress/culvert_ingress": ("matching",),
}  # fmt: skip
"""Folder of a package → its compiled modules. A class whose base is compiled has to be compiled too."""
SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup

options, sources = ["--config-file", "mypy.ini"], sys.argv[1:]
sys.argv[1:] = ["-q", "build_ext", "--inplace"]
setup(
    name="culvert_native",
    packages=[],
    ext_modules=mypycify([*options, *sources], opt_level="3", debug_level="0", group_name="culvert_native"),
)
"""
SETTINGS = "[mypy]\nignore_missing_imports = true\nexplicit_package_bases = true\n"


def clean() -> None:
    """Removes what an earlier build has left in this checkout."""
    for folder in MODULES:
        for library in [*(ROOT / folder).rglob("*.so"), *(ROOT / folder).parent.glob("*.so")]:
            library.unlink()


def build(into: Path | None) -> int:
    """Compiles in a folder of its own and copies the libraries to where they belong; returns the exit code."""
    if into is None:
        clean()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for folder in MODULES:
            shutil.copytree(
                ROOT / folder, scratch / Path(folder).name, ignore=shutil.ignore_patterns("__pycache__", "*.so")
            )
        sources = [
            f"{Path(folder).name}/{module.replace('.', '/')}.py"
            for folder, modules in MODULES.items()
            for module in modules
        ]
        (scratch / "mypy.ini").write_text(SETTINGS)
        (scratch / "setup.py").write_text(SETUP)
        done = subprocess.run(
            [sys.executable, "setup.py", *sources],
            cwd=scratch,
            env={**os.environ, "MYPYPATH": name},
            check=False,
            capture_output=True,
            text=True,
        )
        libraries = [*scratch.glob("*.so"), *scratch.glob("culvert_*/**/*.so")]
        if done.returncode or len(libraries) <= len(sources):
            print(f"{done.stdout}{done.stderr}".strip()[-4000:], file=sys.stderr)
            print(
                "The native build failed; culvert runs without it. It needs mypy, setuptools, a C compiler and "
                "Python's headers.",
                file=sys.stderr,
            )
            return done.returncode or 1
        beside = {Path(folder).name: ROOT / Path(folder).parent for folder in MODULES}
        for library in libraries:
            place = library.relative_to(scratch)
            # What the modules share lies beside the packages, where Python looks for packages.
            root = into or beside.get(place.parts[0], ROOT / "protocol")
            shutil.copy2(library, root / place)
        if into is not None:
            record(into, [library.relative_to(scratch) for library in libraries])
    return 0


def record(into: Path, libraries: list[Path]) -> None:
    """Tells pip of an installed culvert's libraries: an upgrade that left them would run the old code."""
    for found in into.glob("culvert-*.dist-info/RECORD"):
        text = found.read_text()
        listed = {line.partition(",")[0] for line in text.splitlines()}
        new = [name for name in map(str, libraries) if name not in listed]
        found.write_text(text + "".join(f"{name},,\n" for name in new))


def main() -> int:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Compile culvert's hot modules with mypyc.")
    parser.add_argument("--into", type=Path, help="folder in which the culvert_* packages are installed")
    parser.add_argument("--clean", action="store_true", help="remove what was compiled for this checkout")
    given = parser.parse_args()
    if given.clean:
        clean()
        return 0
    return build(given.into)


if __name__ == "__main__":
    sys.exit(main())
