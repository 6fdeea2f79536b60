"""Compiles the modules on every request's way with mypyc, beside their sources; undone by `make clean` or `--clean`.

Optional: the compiled modules are the same code, and Python prefers them to the sources while they are there. After a
change of these sources the build has to be repeated.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    "protocol/culvert_protocol": (
        "codes", "conversation", "credit", "frames", "heads", "listeners", "outbox", "session", "states", "stream",
    ),
    "http1/culvert_http1": (
        "authority", "chunked", "errors", "fields", "framing", "grammar", "limits", "malformed", "options", "path",
        "reasons", "request", "response",
    ),
}  # fmt: skip


def clean() -> None:
    """Removes what an earlier build has left."""
    for folder in [*MODULES, "protocol", "http1"]:
        for library in (ROOT / folder).glob("*.so"):
            library.unlink()


def build() -> int:
    """Compiles in a folder of its own and copies the libraries back; returns the compiler's exit code."""
    clean()
    with tempfile.TemporaryDirectory() as scratch:
        sources = []
        for folder, names in MODULES.items():
            package = Path(folder).name
            shutil.copytree(ROOT / folder, Path(scratch) / package, ignore=shutil.ignore_patterns("__pycache__"))
            sources += [f"{package}/{name}.py" for name in names]
        environment = {**os.environ, "MYPYPATH": scratch, "MYPYC_OPT_LEVEL": "2"}
        done = subprocess.run([sys.executable, "-m", "mypyc", *sources], cwd=scratch, env=environment, check=False)
        if done.returncode:
            print("The native build failed; culvert runs without it. It needs a C compiler and Python's headers.")
            return done.returncode
        for folder in MODULES:
            for library in (Path(scratch) / Path(folder).name).glob("*.so"):
                shutil.copy2(library, ROOT / folder)
        # What the modules share; it lies beside the packages, where the editable install looks.
        for library in Path(scratch).glob("*.so"):
            shutil.copy2(library, ROOT / "protocol")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--clean"]:
        clean()
    else:
        sys.exit(build())
