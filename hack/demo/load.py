"""An open-loop client: requests leave at their intended times whether or not earlier ones have been answered.

    python hack/demo/load.py URL HOST PREFIX [--rate 100] [--until FILE | --seconds S]

GET and POST in turn to URL/deliver?id=PREFIX-n over kept-alive connections; nothing is ever retried. At the end
one line of JSON: sent, failed (with the first reasons), and latency in milliseconds counted from the *intended* start.
`--until FILE` goes on until FILE exists, at most for --seconds.
"""

import argparse
import asyncio
import json
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp


@dataclass
class Tally:
    """What came of the requests so far."""

    sent: int = 0
    failures: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The closing line's values."""
        ordered = sorted(self.latencies)

        def at(quantile: float) -> float | None:
            return round(ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] * 1000, 1) if ordered else None

        return {
            "sent": self.sent,
            "failed": len(self.failures),
            "failures": self.failures[:5],
            "ms": {"p50": at(0.5), "p99": at(0.99), "max": at(1.0)},
        }


async def one(
    session: aiohttp.ClientSession, url: str, host: str, prefix: str, *, number: int, due: float, tally: Tally
) -> None:
    """One request and its outcome; `due` is when it was meant to leave."""
    method, body = ("POST", b"x" * 2000) if number % 2 else ("GET", None)
    identity = f"{prefix}-{number}"
    try:
        target = f"{url}/deliver?id={identity}"
        async with session.request(method, target, data=body, headers={"Host": host}) as response:
            text = await response.text()
            if response.status != 200 or text.split() != [identity, str(len(body or b""))]:
                error = response.headers.get("Culvert-Error", "")
                tally.failures.append(f"{method} {identity}: {response.status} {error} {text[:80]!r}")
    except (aiohttp.ClientError, TimeoutError) as error:
        tally.failures.append(f"{method} {identity}: {type(error).__name__} {error}")
    tally.latencies.append(asyncio.get_running_loop().time() - due)


async def load(url: str, host: str, prefix: str, *, rate: float, seconds: float, until: Path | None) -> Tally:
    """Poisson arrivals at `rate` a second, for `seconds` or until the file appears."""
    tally = Tally()
    loop = asyncio.get_running_loop()
    arrivals = random.Random(7)
    # The client must not retry on a closed kept-alive connection by itself: that would hide a lost request.
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        session._retry_connection = False
        running: set[asyncio.Task[None]] = set()
        start = loop.time()
        due = start
        while due - start < seconds and not (until is not None and until.exists()):
            await asyncio.sleep(max(0.0, due - loop.time()))
            task = asyncio.create_task(one(session, url, host, prefix, number=tally.sent, due=due, tally=tally))
            running.add(task)
            task.add_done_callback(running.discard)
            tally.sent += 1
            due += arrivals.expovariate(rate)
        if running:
            await asyncio.wait(running)
    return tally


def main() -> int:
    """Runs the client; exit code 0 when nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("host")
    parser.add_argument("prefix")
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--until", type=Path)
    given = parser.parse_args()
    tally = asyncio.run(
        load(given.url, given.host, given.prefix, rate=given.rate, seconds=given.seconds, until=given.until)
    )
    print(json.dumps(tally.summary()))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
