"""Building programs into the cache.

Responsible for: running `go build` for the modules that the cache lacks, with progress, and putting the result in
place by one rename. Must not know what the programs are for. Invariant: a folder of the cache is complete or absent;
two builders of one module wait for each other instead of racing.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from onenode import locking, modules
from onenode.layout import MODULES
from onenode.modules import GoModule
from onenode.progress import Progress, elapsed_text
from onenode.refusal import Refusal
from onenode.toolchain import find_go


@dataclass(frozen=True, slots=True)
class Programs:
    """Where built programs lie: program name → path. Missing ones are simply not in it."""

    paths: Mapping[str, Path]

    def __getitem__(self, program: str) -> str:
        return str(self.paths[program])

    def folder(self, program: str) -> str:
        return str(self.paths[program].parent)


def folder_of(module: GoModule, cache: Path) -> Path:
    """The module's place in the cache, whether or not it is there yet."""
    key = modules.cache_key(
        module, modules.sources(module, MODULES), platform=f"{platform.system()}-{platform.machine()}"
    )
    return cache / "bin" / key


def missing(wanted: Iterable[GoModule], cache: Path) -> tuple[GoModule, ...]:
    """Those that are not built yet."""
    return tuple(module for module in wanted if not folder_of(module, cache).is_dir())


def programs(wanted: Iterable[GoModule], cache: Path) -> Programs:
    """The programs of `wanted`, which must be built."""
    return Programs({name: folder_of(module, cache) / name for module in wanted for name in module.programs})


def build(wanted: Iterable[GoModule], cache: Path, progress: Progress) -> Programs:
    """Builds what is missing and returns all of `wanted`. Raises `Refusal` with the compiler's last lines."""
    wanted = tuple(wanted)
    to_build = missing(wanted, cache)
    if to_build:
        go = find_go(cache, progress)
        _check_disk(cache)
        for number, module in enumerate(to_build, start=1):
            _build_one(module, cache, go=go, progress=progress, position=f"{number} of {len(to_build)}")
    return programs(wanted, cache)


def _check_disk(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if free < 4 << 30:
        raise Refusal(
            f"Only {free >> 20} MiB are free on the disk of {cache}; building Kubernetes needs up to 12 GiB "
            "for Go's caches. Free some, or point XDG_CACHE_HOME, GOCACHE and GOMODCACHE elsewhere."
        )


def _build_one(module: GoModule, cache: Path, *, go: str, progress: Progress, position: str) -> None:
    final = folder_of(module, cache)
    final.parent.mkdir(parents=True, exist_ok=True)
    with locking.hold(cache / f"{module.name}.build.lock", wait=True):
        if final.is_dir():  # another builder was faster
            return
        began = time.monotonic()
        label = f"building {', '.join(module.programs)} ({position})"
        progress.say(f"{label}: {module.about}")
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{module.name}-") as scratch:
            output = Path(scratch) / "out"
            output.mkdir()
            _run_go(module, go, output, progress=progress, label=label)
            output.chmod(0o755)
            output.rename(final)
        progress.say(f"built {', '.join(module.programs)} in {elapsed_text(time.monotonic() - began)}")


def _run_go(module: GoModule, go: str, output: Path, *, progress: Progress, label: str) -> None:
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",  # static programs: they also run in images that have no libc
        "GOFLAGS": "",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    # -v names every package as it is compiled: that is the progress. A folder as -o takes several packages at once.
    command = [go, "build", "-v", *modules.build_flags(module), "-o", f"{output}/", *module.programs.values()]
    process = subprocess.Popen(
        command,
        cwd=MODULES / module.name,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    reader = _Reader(process.stderr)
    try:
        while process.poll() is None:
            progress.beat(f"{label}: {reader.summary()}")
            reader.finished.wait(0.2)
            if reader.finished.is_set():
                process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        reader.join()
    if process.returncode != 0:
        raise Refusal(f"Building {', '.join(module.programs)} failed:\n" + "\n".join(reader.tail))
    for program, package in module.programs.items():  # go names a folder's program after the module
        built = output / (module.name if package == "." else package.rpartition("/")[2])
        if built.name != program:
            built.rename(output / program)


class _Reader(threading.Thread):
    """Reads the compiler's lines, so that its pipe never fills, and counts them."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._packages = 0
        self._downloads = 0
        self._last = "looking at what is cached"
        self.tail: deque[str] = deque(maxlen=30)
        self.finished = threading.Event()
        self.start()

    def run(self) -> None:
        for line in self._stream:
            line = line.rstrip()
            self.tail.append(line)
            if line.startswith("go: downloading "):
                self._downloads += 1
                self._last = line.removeprefix("go: ")
            else:
                self._packages += 1
                self._last = line
        self.finished.set()

    def summary(self) -> str:
        return f"{self._packages} packages compiled, {self._downloads} modules downloaded, {self._last}"
