"""Rows about normal users beside slow ones: their 99th percentile with and without, in turns.

Normal users ask in an open loop and their latencies count from the intended start. The slow ones are those of
`bench.slow_crowd`, in a process of their own that is started and ended for each pair. Called by `bench.rows`.
"""

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path

from bench.contenders import HOST, Contender, nginx, start_culvert, start_origin
from bench.open_loop import Outcome, poisson
from bench.processes import Started, cpu_seconds, free_port, wait_until_ok

from culvert_transport.loop import loop_factory

Row = dict[str, float]
BIG = 1 << 30
SIPPERS = 1
USERS_RATE = 500
"""Requests a second: fifty users who ask ten times a second each."""


def start_patient_origin(started: Started) -> int:
    """An nginx with a large file at /big, which reads a body to its end at /body before it answers."""
    started.folder.chmod(0o755)  # nginx's workers are another user's
    (started.folder / "files").mkdir()
    with (started.folder / "files" / "big").open("wb") as file:
        file.truncate(BIG)
    port = free_port()
    nginx(
        started,
        "patient",
        f"sendfile on; server {{ listen 127.0.0.1:{port} backlog=4096; root {started.folder}/files;\n"
        f"location = / {{ return 200 'small'; }}\nlocation = /big {{ }}\n"
        f"location = /body {{ proxy_pass http://127.0.0.1:{port}/; }} }}",
    )
    wait_until_ok(f"http://127.0.0.1:{port}/", HOST)
    return port


def ask(contender: Contender, seconds: float, seed: int) -> tuple[Outcome, float]:
    """What became of normal users' requests, and the relay's CPU seconds a second meanwhile."""
    before, begin = cpu_seconds(contender.pids[:1]), time.monotonic()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        outcome = runner.run(poisson(contender.port, rate=USERS_RATE, seconds=seconds, seed=seed))
    if outcome.failed:
        raise SystemExit(f"{outcome.failed} of {outcome.sent} failed: {outcome.failures[:3]}")
    return outcome, (cpu_seconds(contender.pids[:1]) - before) / (time.monotonic() - begin)


def gather(started: Started, contender: Contender, number: int, *options: str) -> int:
    """Starts a crowd and returns its pid once all of it has come."""
    root = Path(__file__).resolve().parents[1]
    name = f"slow-{number}"
    start = f"import sys; sys.path.insert(0, {str(root)!r}); from bench.slow_crowd import main; main()"
    ports = ("--http", str(contender.port), "--https", str(contender.https))
    pid = started.start(name, sys.executable, "-c", start, *ports, *options)
    end = time.monotonic() + 60
    while "here" not in started.log(name):
        if time.monotonic() > end:
            raise SystemExit(f"the slow ones did not all come:\n{started.log(name)}")
        time.sleep(0.05)
    return pid


def pairs(started: Started, given: argparse.Namespace, *options: str) -> Row:
    """Alone, beside, alone, beside…"""
    # An origin of their own: what is measured is not how an origin serves hundreds of slow ones.
    slow_ones = dict.fromkeys(("^/big$", "^/body$"), start_patient_origin(started))
    contender = start_culvert(started, start_origin(started), https=True, elsewhere=slow_ones)
    ask(contender, 2, 0)
    turns = []
    for number in range(1, given.pairs + 1):
        alone = ask(contender, given.seconds, number)
        crowd = gather(started, contender, number, *options)
        beside = ask(contender, given.seconds, number)
        started.end(crowd)
        time.sleep(2)  # the relay sees them all leave
        turns.append((alone, beside))
    ratios = [beside.percentile(0.99) / alone.percentile(0.99) for (alone, _), (beside, _) in turns]
    return {
        "ratio of p99": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "p99 alone ms": statistics.median(alone.percentile(0.99) for (alone, _), _ in turns),
        "p99 beside ms": statistics.median(beside.percentile(0.99) for _, (beside, _) in turns),
        "p50 alone ms": statistics.median(alone.percentile(0.5) for (alone, _), _ in turns),
        "p50 beside ms": statistics.median(beside.percentile(0.5) for _, (beside, _) in turns),
        "relay's CPU alone, s per s": statistics.median(cpu for (_, cpu), _ in turns),
        "beside": statistics.median(cpu for _, (_, cpu) in turns),
    }


def slow_row(started: Started, given: argparse.Namespace) -> Row:
    """Five kinds of slow visitors, `--slow` of each."""
    return pairs(started, given, "--of-each", str(given.slow))


def sipper_row(started: Started, given: argparse.Namespace) -> Row:
    """One visitor who reads a large download slowly."""
    return pairs(started, given, "--sippers", str(SIPPERS))
