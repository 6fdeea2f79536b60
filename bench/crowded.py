"""Rows about how much one relay holds: memory of what is idle, a thousand tunnels, all sessions back after a restart.

The connectors are those of `bench.crowd`, in one process. Called by `bench.rows`.
"""

import argparse
import random
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


def start_crowd(started: Started, relay: RelayProcess, *, connectors: int, sessions: int, hostnames: int) -> int:
    """Connectors in one process; returns when the relay serves with all their sessions."""
    root = Path(__file__).resolve().parents[1]
    command = (
        sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}); from bench.crowd import main; main()",
        "--relay", f"localhost:{relay.tunnel}", "--ca", "certs/localhost.crt", "--issuer-key", "keys/issuer.key",
        "--connectors", str(connectors), "--sessions", str(sessions), "--hostnames", str(hostnames),
    )  # fmt: skip
    pid = started.start(f"crowd-{connectors}", *command)
    until_serving(relay, connectors * sessions)
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
    """Memory by thousands of connections that say nothing."""
    relay = start_crowded_relay(started, https=True)
    start_crowd(started, relay, connectors=10, sessions=4, hostnames=1)
    before = settled_kib(relay.pid)
    start_crowd(started, relay, connectors=given.idle // 4 + 10, sessions=4, hostnames=1)
    sessions = sessions_of(relay)
    row = {"KiB a session": (settled_kib(relay.pid) - before) / (sessions - 40)}
    request = b"GET / HTTP/1.1\r\nHost: t0-0.example.com\r\n\r\n"
    context = ssl.create_default_context(cafile=str(started.folder / "certs" / "localhost.crt"))
    for name, port, wrap in (
        ("KiB a plain visitor", relay.http, None),
        ("KiB a TLS visitor", relay.https, context),
    ):
        before = settled_kib(relay.pid)
        held = []
        for _ in range(given.idle):
            visitor = socket.create_connection(("127.0.0.1", port))
            if wrap is not None:
                visitor = wrap.wrap_socket(visitor, server_hostname="t0-0.example.com")
            visitor.sendall(request)
            if b" 200 " not in visitor.recv(4096):
                raise SystemExit("a visitor was not answered")
            held.append(visitor)
        row[name] = (settled_kib(relay.pid) - before) / given.idle
        for visitor in held:
            visitor.close()
    return row


def ask_names(relay: RelayProcess, names: list[str], seconds: int, folder: Path) -> float:
    """The relay's CPU microseconds per request when wrk asks for these names in turn."""
    script = folder / "names.lua"
    listed = ", ".join(f'"{name}"' for name in names)
    script.write_text(
        f"local names = {{ {listed} }}\nlocal at = 0\nrequest = function()\n  at = at % #names + 1\n"
        f'  return "GET / HTTP/1.1\\r\\nHost: " .. names[at] .. "\\r\\n\\r\\n"\nend\n'
    )
    command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{relay.http}/"]
    before = cpu_seconds([relay.pid])
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    used = cpu_seconds([relay.pid]) - before
    found = re.search(r"(\d+) requests in", output)
    if not found or "Non-2xx" in output:
        raise SystemExit(output)
    return used / int(found[1]) * 1e6


def tunnels_row(started: Started, given: argparse.Namespace) -> Row:
    """One tunnel and a thousand, on a relay each, in turns; what keeps their heartbeats going is subtracted."""
    other = Started(started.folder / "one")
    other.folder.mkdir()
    with other:
        make_certificate(other.folder)
        few = start_crowded_relay(other)
        start_crowd(other, few, connectors=1, sessions=4, hostnames=10)
        many = start_crowded_relay(started)
        start_crowd(started, many, connectors=given.tunnels, sessions=4, hostnames=10)
        picked = random.Random(1).sample(range(given.tunnels), min(200, given.tunnels))
        ratios, costs = [], []
        for _ in range(given.pairs):
            rest = cpu_seconds([many.pid])
            time.sleep(given.seconds)
            rest = cpu_seconds([many.pid]) - rest
            single = ask_names(few, ["t0-0.example.com"], int(given.seconds), started.folder)
            spread = ask_names(many, [f"t{n}-{n % 10}.example.com" for n in picked], int(given.seconds), started.folder)
            same = ask_names(many, ["t0-0.example.com"], int(given.seconds), started.folder)
            costs.append((single, spread, same, rest / given.seconds))
            ratios.append(same / single)
        return {
            "1 tunnel µs": statistics.median(c[0] for c in costs),
            f"{given.tunnels} tunnels, one asked µs": statistics.median(c[2] for c in costs),
            f"{given.tunnels} tunnels, 200 asked µs": statistics.median(c[1] for c in costs),
            "ratio, one asked": statistics.median(ratios),
            "ratio, 200 asked": statistics.median(c[1] / c[0] for c in costs),
            "CPU at rest, s per s": statistics.median(c[3] for c in costs),
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
