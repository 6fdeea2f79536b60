"""Micro-benchmark of what is counted and logged: microseconds of CPU time per request, and per scrape.

The counting is timed with the very calls that an exchange makes, less the loop around them; the access log with its
line, on a loop that does nothing else. `python -m bench.observing [--rounds N]`
"""

import argparse
import functools
import time
import timeit
from collections.abc import Callable
from random import getrandbits
from typing import Any

from bench.http1_heads import BROWSER_REQUEST

from culvert_http1 import parse_request_head
from culvert_protocol.statements import TunnelId, TunnelIdentity
from culvert_relay.access.lines import Line, render
from culvert_relay.access.marking import Marking
from culvert_relay.metrics import Counters, Readings, exposition
from culvert_relay.visitors.account import Account

REQUESTS = 20_000


def best(action: Callable[[], Any], number: int, rounds: int) -> float:
    """Microseconds of CPU time per call, in the best round."""
    return min(timeit.repeat(action, number=number, repeat=rounds, timer=time.process_time)) / number * 1e6


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Time what the relay counts and logs.")
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    counters = Counters()
    tally = counters.tunnels.nobody

    def count() -> None:
        account = Account(tally)
        account.received += 100
        account.tally.received += 100
        account.count_head(200, "none")
        account.sent += 100
        account.tally.sent += 100

    def nothing() -> None:
        pass

    head = parse_request_head(BROWSER_REQUEST)
    assert head is not None
    block = head.block
    marker = Marking(request_ids=True, traceparents=False, random=getrandbits)
    line = Line(
        b"0af7651916cd43dd8448eb211c80319c", block, b"192.0.2.7", 1, head.method, head.host, head.target, 200, "none",
        "", False, 0, 51_234, 0.012345, 0.011, "main", "7d444840-9dc0-11d1-b245-5ffdce74fad2", "0000-1",
    )  # fmt: skip
    empty = best(nothing, REQUESTS, rounds)
    print(f"counting a request              {best(count, REQUESTS, rounds) - empty:7.2f} µs")
    print(
        f"marking it with an id           {best(lambda: marker.mark(block, trusted=False), REQUESTS, rounds):7.2f} µs"
    )
    print(f"its line in the access log      {best(lambda: render(line, time='t', query=False), 5_000, rounds):7.2f} µs")
    for tunnels in (1, 100):
        crowd = Counters()
        for number in range(tunnels):
            one = crowd.tunnels.enter(TunnelIdentity("issuer", TunnelId(f"tunnel-{number}")), issuer="main")
            one.first_byte.observe(0.01)
            for status, source in ((200, "none"), (304, "none"), (404, "none"), (502, "origin"), (503, "session")):
                one.answers.add(status, source)
        text = exposition(crowd, Readings())
        cost = best(functools.partial(exposition, crowd, Readings()), 5, rounds)
        print(f"a scrape with {tunnels:3} tunnels       {cost:9.0f} µs, {len(text)} bytes")


if __name__ == "__main__":
    main()
