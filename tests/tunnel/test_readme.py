"""The README's tunnel without a cluster: its own commands and files, run as they stand there.

In a network namespace of their own, so that the README's fixed ports are free whatever runs on this machine.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
UNSHARE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
LONG_RUNNING = (" run ", "http.server")


def available() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run([*UNSHARE, "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode == 0


def blocks() -> tuple[list[str], dict[str, str], str]:
    """The commands marked for this test in order, the files by name, and the local server's command."""
    text = README.read_text().partition("## Without a cluster")[2].partition("\n## ")[0]
    commands = []
    for block in re.findall(r"<!-- test: standalone -->\n```console\n(.*?)```", text, re.DOTALL):
        commands += block.strip().splitlines()
    files = {
        name: re.findall(rf"with (?:this|a) `{re.escape(name)}`.*?```yaml\n(.*?)```", text, re.DOTALL)[0]
        for name in ("relay.yml", "config.yml")
    }
    server = re.findall(r"`(python3 -m http\.server[^`]*)`", text)[0]
    return commands, files, server


class Shell:
    """A shell inside a network namespace; commands run in it as a person would type them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        binaries = str(Path(sys.executable).parent)
        self.environment = {"PATH": f"{binaries}:{os.environ['PATH']}", "HOME": str(folder), "LANG": "C.UTF-8"}
        ready = folder / "namespace-ready"
        script = f"ip link set lo up && touch {ready} && exec sleep infinity"
        self.keeper = subprocess.Popen([*UNSHARE, "sh", "-c", script], env=self.environment)
        self.running: list[subprocess.Popen[bytes]] = []
        until(ready.exists)

    def command(self, text: str) -> list[str]:
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self.keeper.pid), "--net", *user, "sh", "-c", f"exec {text}"]

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(text), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    def start(self, text: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{len(self.running)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                self.command(text), cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        self.running.append(process)
        return process

    def logs(self) -> str:
        return "\n".join(p.read_text(errors="replace") for p in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        for process in (*reversed(self.running), self.keeper):
            if process.poll() is None:
                process.kill()
            process.wait(timeout=10)


def until(condition: Callable[[], bool], *, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def shell(tmp_path: Path, unavailable: Callable[[str], NoReturn]) -> Iterator[Shell]:
    if not available():
        unavailable("no network namespace can be made here: run as root, with iproute2 and util-linux")
    made = Shell(tmp_path)
    yield made
    made.close()


def test_the_readmes_commands_carry_a_visitors_request_to_a_local_server(shell: Shell) -> None:
    commands, files, server = blocks()
    for name, text in files.items():
        (shell.folder / name).write_text(text)
    (shell.folder / "index.html").write_text("a page behind NAT\n")
    shell.start(server)
    visit = commands.pop()
    assert visit.startswith("curl ")
    for command in commands:
        if any(mark in f"{command} " for mark in LONG_RUNNING):
            shell.start(command)
        else:
            done = shell.run(command)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
    last = subprocess.CompletedProcess[str]([], 1, "", "")

    def arrived() -> bool:
        nonlocal last
        last = shell.run(visit)
        return "a page behind NAT" in last.stdout

    try:
        until(arrived)
    except AssertionError:
        pytest.fail(f"{visit}\n{last.stdout}{last.stderr}\n{shell.logs()}")
    assert (
        shell.run("curl -s -o /dev/null -w %{http_code} -H 'Host: other.example.com' http://127.0.0.1:8080/").stdout
        == "503"
    )
    assert (
        shell.run("curl -s -o /dev/null -w %{http_code} -H 'Host: example.org' http://127.0.0.1:8080/").stdout == "404"
    )
    secure = shell.run(
        "curl -s --cacert certs/localhost.crt --resolve app.example.com:8443:127.0.0.1 https://app.example.com:8443/"
    )
    assert "a page behind NAT" in secure.stdout, secure.stderr
    for process in shell.running[1:]:
        process.send_signal(signal.SIGTERM)
    for process in shell.running[1:]:
        assert process.wait(timeout=30) == 0, shell.logs()


def test_validate_and_rule_say_what_the_readme_says(shell: Shell) -> None:
    _, files, _ = blocks()
    (shell.folder / "config.yml").write_text(files["config.yml"])
    assert "OK" in shell.run("culvert tunnel ingress validate").stdout
    rule = shell.run("culvert tunnel ingress rule https://app.example.com/")
    assert rule.returncode == 0
    assert "http://localhost:3000" in rule.stdout
