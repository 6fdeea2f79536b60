"""The rows that need more than a request loop, each bounded in time: `python -m bench.rows [--only NAME …]`.

poisson    2,000 requests/s in an open loop, CPU per request against nginx's two hops, A B A B
idle       memory of the relay for each idle session, plain and TLS visitor connection
tunnels    the relay's CPU per request with 1,000 tunnels of 4 sessions and 10,000 hostnames, against one tunnel
stalled    1 GiB down and 1 GiB up beside a peer that has stalled: growth of memory
restart    the relay is killed and started again: time until all of 500 sessions are back
killed     one session is reset under load: requests that fail
slow       normal users' p99 beside 500 slow visitors of each of five kinds, against the same without them, A B A B
sipper     the same beside one visitor who reads a download slowly
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.beside import sipper_row, slow_row
from bench.contenders import Contender, make_certificate, start_culvert, start_nginx, start_origin
from bench.crowded import idle_row, restart_row, tunnels_row
from bench.disturbed import killed_row, stalled_row
from bench.open_loop import Outcome, poisson
from bench.processes import Started, cpu_seconds
from bench.requests import machine

from culvert_transport.loop import loop_factory

Row = dict[str, float]


def run_open_loop(contender: Contender, rate: float, seconds: float, seed: int) -> tuple[float, Outcome]:
    """CPU microseconds per request, and what became of the requests."""
    before = cpu_seconds(contender.pids)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        outcome = runner.run(poisson(contender.port, rate=rate, seconds=seconds, seed=seed))
    if outcome.failed:
        raise SystemExit(f"{contender.name}: {outcome.failed} of {outcome.sent} failed: {outcome.failures[:3]}")
    return (cpu_seconds(contender.pids) - before) / outcome.sent * 1e6, outcome


def poisson_row(started: Started, given: argparse.Namespace) -> Row:
    """Pairs of open loops."""
    origin = start_origin(started)
    ours, theirs = start_culvert(started, origin), start_nginx(started, origin)
    for contender in (ours, theirs):
        run_open_loop(contender, given.rate, 1, 0)
    pairs = []
    for pair in range(given.pairs):
        mine, other = (run_open_loop(c, given.rate, given.seconds, pair) for c in (ours, theirs))
        pairs.append((mine, other))
    ratios = [mine[0] / other[0] for mine, other in pairs]
    return {
        "culvert µs": statistics.median(mine[0] for mine, _ in pairs),
        "nginx µs": statistics.median(other[0] for _, other in pairs),
        "ratio": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "culvert p50 ms": statistics.median(mine[1].percentile(0.5) for mine, _ in pairs),
        "culvert p99 ms": statistics.median(mine[1].percentile(0.99) for mine, _ in pairs),
        "nginx p99 ms": statistics.median(other[1].percentile(0.99) for _, other in pairs),
    }


ROWS: dict[str, Callable[[Started, argparse.Namespace], Row]] = {
    "poisson": poisson_row,
    "idle": idle_row,
    "tunnels": tunnels_row,
    "stalled": stalled_row,
    "restart": restart_row,
    "killed": killed_row,
    "slow": slow_row,
    "sipper": sipper_row,
}


def main() -> int:
    """Measures the rows and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), help="rows to measure (default all)")
    parser.add_argument("--pairs", type=int, default=5, help="A B pairs (default 5)")
    parser.add_argument("--seconds", type=float, default=3, help="of one turn (default 3)")
    parser.add_argument("--rate", type=float, default=2_000, help="requests a second in the open loop (default 2000)")
    parser.add_argument("--idle", type=int, default=1_000, help="idle connections of each kind (default 1000)")
    parser.add_argument("--tunnels", type=int, default=1_000, help="tunnels on one relay (default 1000)")
    parser.add_argument("--restarted", type=int, default=500, help="sessions over a restart (default 500)")
    parser.add_argument("--kills", type=int, default=5, help="sessions to kill (default 5)")
    parser.add_argument("--slow", type=int, default=500, help="slow visitors of each kind (default 500)")
    parser.add_argument("--out", type=Path, default=Path("bench/results/rows.json"))
    given = parser.parse_args()
    rows: dict[str, Row] = {}
    for name in given.only:
        with tempfile.TemporaryDirectory() as folder, Started(Path(folder)) as started:
            make_certificate(Path(folder))
            rows[name] = ROWS[name](started, given)
        print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in rows[name].items()), flush=True)
    facts = machine()
    print("\n| row | figures |\n|---|---|")
    for name, row in rows.items():
        print(f"| {name} | " + ", ".join(f"{key} {value:.2f}" for key, value in row.items()) + " |")
    print("\n" + "; ".join(f"{key} {value}" for key, value in facts.items()))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": facts, "rows": rows}
    given.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
