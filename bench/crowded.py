"""Rows about how much one relay holds: memory of what is idle, a thousand tunnels, all sessions back after a restart.

The connectors are those of `bench.crowd`, in one process. Called by `bench.rows`.
"""

import argparse
import re
import socket
import ssl
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from bench.contenders import RelayProcess, make_certificate, run_relay, write_relay
from bench.processes import Started, cpu_seconds, resident_kib

Row = dict[str, float]


def sessions_of(relay: RelayProcess) -> int:
    """Sessions that the relay serves with now, as its metrics say."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{relay.admin}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return 0
    return sum(
        int(float(value)) for value in re.findall(r'^culvert_relay_sessions\{state="serving"\} (\S+)$', text, re.M)
    )


def until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Seconds until it holds."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            raise SystemExit(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - begin


def start_crowd(
    started: Started, relay: RelayProcess, *, connectors: int, sessions: int, hostnames: int, first: int = 0
) -> int:
    """Connectors in one process; returns when the relay serves with all their sessions."""
    root = Path(__file__).resolve().parents[1]
    command = (
        sys.executable, "-c",
        f"import sys; sys.path.insert(0, {str(root)!r}); from bench.crowd import main; main()",
        "--relay", f"localhost:{relay.tunnel}", "--ca", "certs/localhost.crt", "--issuer-key", "keys/issuer.key",
        "--connectors", str(connectors), "--sessions", str(sessions), "--hostnames", str(hostnames),
        "--first", str(first),
    )  # fmt: skip
    there = sessions_of(relay)
    pid = started.start(f"crowd-{first}-{connectors}", *command)
    until_serving(relay, there + connectors * sessions)
    return pid


def start_crowded_relay(started: Started, *, https: bool = False) -> RelayProcess:
    """A relay for a crowd, answering its metrics."""
    relay = run_relay(started, write_relay(started, ("*.example.com",), https=https))
    until_started(relay)
    return relay


def until_started(relay: RelayProcess) -> float:
    """Seconds until the relay listens."""
    return until(lambda: _answers(relay), 20, "the relay's start")


def until_serving(relay: RelayProcess, sessions: int) -> float:
    """Seconds until the relay serves with so many sessions."""
    return until(lambda: sessions_of(relay) >= sessions, 180, f"{sessions} sessions")


def _answers(relay: RelayProcess) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", relay.admin), timeout=1):
            return True
    except OSError:
        return False


def settled_kib(pid: int) -> int:
    """Resident memory once nothing is going on."""
    time.sleep(2)
    return resident_kib(pid)


def idle_row(started: Started, given: argparse.Namespace) -> Row:
    """Memory by connections that say nothing, of each kind on a relay of its own that has served some before."""
    row: Row = {}
    for kind in ("session", "plain visitor", "TLS visitor"):
        with Started(started.folder / kind.replace(" ", "-")) as own:
            own.folder.mkdir()
            make_certificate(own.folder)
            relay = start_crowded_relay(own, https=True)
            start_crowd(own, relay, connectors=10, sessions=4, hostnames=1)
            if kind == "session":
                before = settled_kib(relay.pid)
                start_crowd(own, relay, connectors=given.idle // 4 + 10, sessions=4, hostnames=1)
                row["KiB a session"] = (settled_kib(relay.pid) - before) / (sessions_of(relay) - 40)
                continue
            held = visitors(own, relay, given.idle // 10, encrypted=kind == "TLS visitor")
            before = settled_kib(relay.pid)
            held += visitors(own, relay, given.idle, encrypted=kind == "TLS visitor")
            row[f"KiB a {kind}"] = (settled_kib(relay.pid) - before) / given.idle
            for visitor in held:
                visitor.close()
    return row


def visitors(started: Started, relay: RelayProcess, count: int, *, encrypted: bool) -> list[socket.socket]:
    """Connections that have had one answer and stay."""
    context = ssl.create_default_context(cafile=str(started.folder / "certs" / "localhost.crt"))
    held = []
    for _ in range(count):
        visitor = socket.create_connection(("127.0.0.1", relay.https if encrypted else relay.http))
        if encrypted:
            visitor = context.wrap_socket(visitor, server_hostname="t0-0.example.com")
        visitor.sendall(b"GET / HTTP/1.1\r\nHost: t0-0.example.com\r\n\r\n")
        if b" 200 " not in visitor.recv(4096):
            raise SystemExit("a visitor was not answered")
        held.append(visitor)
    return held


def ask_names(relay: RelayProcess, names: list[str], seconds: int, folder: Path) -> tuple[float, float]:
    """The relay's CPU microseconds per request when wrk asks for these names in turn, and requests per second."""
    script = folder / "names.lua"
    listed = ", ".join(f'"{name}"' for name in names)
    script.write_text(
        f"local names = {{ {listed} }}\nlocal at = 0\nrequest = function()\n  at = at % #names + 1\n"
        f'  return "GET / HTTP/1.1\\r\\nHost: " .. names[at] .. "\\r\\n\\r\\n"\nend\n'
    )
    command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{relay.http}/"]
    before, begin = cpu_seconds([relay.pid]), time.monotonic()
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    used, elapsed = cpu_seconds([relay.pid]) - before, time.monotonic() - begin
    found = re.search(r"(\d+) requests in", output)
    if not found or "Non-2xx" in output:
        raise SystemExit(output)
    return used / int(found[1]) * 1e6, int(found[1]) / elapsed


def at_rest(relay: RelayProcess, seconds: float) -> float:
    """CPU seconds per second of a relay whose sessions only keep alive."""
    before, begin = cpu_seconds([relay.pid]), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds([relay.pid]) - before) / (time.monotonic() - begin)


def tunnels_row(started: Started, given: argparse.Namespace) -> Row:
    """One tunnel asked on a relay that has few others, and on one that has a thousand, in turns.

    With a thousand, keeping 4,000 sessions alive costs CPU that has nothing to do with requests, and takes it from the
    connectors on the same machine: the ratio is with it, and `keeping alive` tells what it is at rest.
    A hundred tunnels asked in turns show what batches are worth: their requests share no session.
    """
    asked, seconds = 100, int(given.seconds)
    names = [f"t{n}-0.example.com" for n in range(given.tunnels, given.tunnels + asked)]
    with Started(started.folder / "few") as other:
        other.folder.mkdir()
        make_certificate(other.folder)
        few, many = start_crowded_relay(other), start_crowded_relay(started)
        start_crowd(other, few, connectors=asked, sessions=4, hostnames=10, first=given.tunnels)
        start_crowd(started, many, connectors=1, sessions=4, hostnames=10, first=given.tunnels)
        spread = statistics.median(ask_names(few, names, seconds, started.folder)[0] for _ in range(given.pairs))
        start_crowd(started, many, connectors=given.tunnels - 1, sessions=4, hostnames=10)
        time.sleep(3)
        rest = at_rest(many, 3)
        pairs = [
            [ask_names(relay, names[:1], seconds, started.folder) for relay in (few, many)] for _ in range(given.pairs)
        ]
        return {
            "sessions": float(sessions_of(many)),
            "few tunnels µs": statistics.median(pair[0][0] for pair in pairs),
            "many tunnels µs": statistics.median(pair[1][0] for pair in pairs),
            "requests/s": statistics.median(pair[1][1] for pair in pairs),
            "ratio": statistics.median(pair[1][0] / pair[0][0] for pair in pairs),
            "keeping alive, CPU s per s": rest,
            "100 asked in turns µs": spread,
            "RSS MiB": resident_kib(many.pid) / 1024,
        }


def restart_row(started: Started, given: argparse.Namespace) -> Row:
    """SIGKILL, a new start at once, and how long until every session serves again."""
    relay = start_crowded_relay(started)
    start_crowd(started, relay, connectors=given.restarted // 4, sessions=4, hostnames=1)
    times = []
    for _ in range(3):
        time.sleep(2)
        started.end(relay.pid, kill=True)
        relay = run_relay(started, relay)
        up = until_started(relay)
        times.append((up + until_serving(relay, given.restarted // 4 * 4), up))
    return {
        "seconds until all are back": statistics.median(t[0] for t in times),
        "least": min(t[0] for t in times),
        "most": max(t[0] for t in times),
        "of these until the relay listens": statistics.median(t[1] for t in times),
    }
