"""The program: exit codes, sentences on standard error, signals. Each test runs a real process."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

RUN = "import sys; from pathlib import Path; from culvert_relay.main import run, validate; "


def process(code: str, **environment: str) -> subprocess.Popen[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("CULVERT_")}
    return subprocess.Popen(
        [sys.executable, "-c", RUN + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**clean, **environment},
    )


def finish(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=30)
    return child.returncode, out, err


@pytest.fixture
def running(world: Any) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A relay process that has said that it is up, and its HTTP port."""
    child = process("sys.exit(run(None))", CULVERT_CONFIG=str(world.folder / "relay.yml"))
    try:
        assert child.stderr is not None
        line = ""
        deadline = time.monotonic() + 30
        while "relay started" not in line:
            ready, _, _ = select.select([child.stderr], [], [], deadline - time.monotonic())
            assert ready, "the relay never started"
            line = child.stderr.readline()
            assert line, "the relay ended before it started"
        match = re.search(r"http=\[(\d+)\]", line)
        assert match is not None
        yield child, int(match[1])
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_relay_ends_at_once_with_0(running: Any, number: int) -> None:
    child, port = running
    with socket.create_connection(("127.0.0.1", port), timeout=10) as visitor:
        visitor.sendall(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        assert visitor.recv(100).startswith(b"HTTP/1.1 503 ")
        started = time.monotonic()
        child.send_signal(number)
        code, _, err = finish(child)
        assert (code, "stopped" in err) == (0, True)
        assert time.monotonic() - started < 5
        assert "Traceback" not in err


def test_a_second_signal_ends_it_at_once(running: Any) -> None:
    child, port = running
    with socket.create_connection(("127.0.0.1", port), timeout=10) as visitor:
        # A refusal that lingers keeps the drain waiting for a moment.
        visitor.sendall(b"nonsense\r\n\r\n")
        assert visitor.recv(100).startswith(b"HTTP/1.1 400 ")
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGINT)
        started = time.monotonic()
        code, _, _ = finish(child)
        assert code in (128 + signal.SIGINT, 128 + signal.SIGTERM)
        assert time.monotonic() - started < 5


def test_a_relay_that_cannot_start_says_why_in_one_sentence(world: Any) -> None:
    path: Path = world.folder / "relay.yml"
    good = path.read_text()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for text, sentence in (
            (good.replace("tls:", "tsl:"), r"relay\.yml: Unknown key tsl: did you mean tls\?"),
            (good.replace("issuer.pub", "none.pub"), r"The public key of issuer demo cannot be read: .*none\.pub"),
            (good.replace("./certs", "./none"), r"tls\.certificateDir .*none cannot be read"),
            (
                good.replace('http: ["127.0.0.1:0"]', f'http: ["127.0.0.1:{port}"]'),
                rf"listen\.http 127\.0\.0\.1:{port} cannot be listened on: Address already in use\.",
            ),
            (good.replace('http: ["127.0.0.1:0"]', 'http: ["192.0.2.1:0"]'), r"listen\.http 192\.0\.2\.1:0 cannot be"),
        ):
            path.write_text(text)
            code, out, err = finish(process(f"sys.exit(run(Path({str(path)!r})))"))
            assert (code, out) == (1, "")
            lines = [line for line in err.splitlines() if line]
            assert len(lines) == 1, err
            assert re.match(rf"culvert relay: (\S+: )?{sentence}|culvert relay: .*{sentence}", lines[0]), lines


def test_without_a_configuration_it_says_how_to_give_one() -> None:
    code, _, err = finish(process("sys.exit(run(None))"))
    assert code == 1
    assert err == "culvert relay: No configuration: give --config relay.yml, or set CULVERT_CONFIG to its path.\n"


def test_validate_reads_everything_and_listens_nowhere(world: Any, capsys: Any) -> None:
    from culvert_relay.main import validate

    path = world.folder / "relay.yml"
    assert validate(path) == 0
    assert capsys.readouterr().out == f"{path} is valid: relay relay-1, 1 issuer(s), 3 certificate(s).\n"
    (world.folder / "certs" / "shop.key").unlink()
    assert validate(path) == 1
    assert "shop.key cannot be read" in capsys.readouterr().err
