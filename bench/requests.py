"""CPU per request of relay + connector against nginx's two hops: `python -m bench.requests --help`.

wrk keeps 32 connections busy for some seconds at a time, A B A B …; CPU is user + system time of both processes of
a contender divided by the requests that completed. The median ratio of the pairs is the result, with min and max.
"""

import argparse
import hashlib
import json
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.contenders import BODY, HOST, Contender, make_certificate, start_culvert, start_nginx, start_origin
from bench.processes import Started, cpu_seconds, resident_kib, wait_until_ok

BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
    "Cache-Control": "max-age=0",
    "Cookie": "session=0123456789abcdef0123456789abcdef; theme=dark; consent=all",
    "Referer": "https://app.example.com/shop/catalogue?page=2",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Upgrade-Insecure-Requests": "1",
}
HEADS: dict[str, dict[str, str]] = {"small head": {}, "browser head": BROWSER}


@dataclass(frozen=True)
class Run:
    """One contender's turn."""

    contender: str
    head: str
    requests: int
    seconds: float
    cpu_us: float
    errors: int


def wrk(contender: Contender, head: str, *, seconds: int, connections: int) -> Run:
    """One turn of wrk; refuses to report a turn with socket errors or anything but 2xx."""
    headers = [part for name, value in HEADS[head].items() for part in ("-H", f"{name}: {value}")]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-H", f"Host: {HOST}", *headers, contender.url]
    before, start = cpu_seconds(contender.pids), time.monotonic()
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    elapsed, used = time.monotonic() - start, cpu_seconds(contender.pids) - before
    found = re.search(r"(\d+) requests in", output)
    requests = int(found[1]) if found else 0
    errors = sum(map(int, re.findall(r"(?:Non-2xx or 3xx responses: |connect |read |write |timeout )(\d+)", output)))
    if not requests or errors:
        raise SystemExit(f"{contender.name}: {errors} errors\n{output}")
    return Run(contender.name, head, requests, elapsed, used / requests * 1e6, errors)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.strip()
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return {
        "kernel": platform.release(),
        "cpu": model[1] if model else platform.machine(),
        "python": platform.python_version(),
        "nginx": nginx.rpartition("/")[2],
        "congestion control": control,
    }


def main() -> int:
    """Runs the comparison and prints a table; 2 when a program is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="A B pairs for each head (default 5)")
    parser.add_argument("--seconds", type=int, default=4, help="seconds a turn (default 4)")
    parser.add_argument("--connections", type=int, default=32, help="kept-alive connections (default 32)")
    parser.add_argument("--out", type=Path, default=Path("bench/results/requests.json"))
    given = parser.parse_args()
    missing = [name for name in ("nginx", "wrk", "openssl") if shutil.which(name) is None]
    if missing:
        print(f"Missing: {', '.join(missing)}. On Debian: apt-get install nginx-light wrk openssl", file=sys.stderr)
        return 2
    runs: list[Run] = []
    summary: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, Started(Path(folder)) as started:
        make_certificate(Path(folder))
        origin = start_origin(started)
        contenders = (start_culvert(started, origin), start_nginx(started, origin))
        for contender in contenders:
            digest = hashlib.sha256(wait_until_ok(contender.url, HOST)).hexdigest()
            if digest != hashlib.sha256(BODY.encode()).hexdigest():
                raise SystemExit(f"{contender.name} changed the body")
            wrk(contender, "small head", seconds=1, connections=given.connections)
        for head in HEADS:
            ratios = []
            for pair in range(given.pairs):
                ours, theirs = (wrk(c, head, seconds=given.seconds, connections=given.connections) for c in contenders)
                runs += [ours, theirs]
                ratios.append(ours.cpu_us / theirs.cpu_us)
                print(
                    f"{head}, pair {pair + 1}: culvert {ours.cpu_us:.1f} µs, nginx {theirs.cpu_us:.1f} µs, "
                    f"ratio {ratios[-1]:.2f} ({ours.requests / ours.seconds:.0f} and "
                    f"{theirs.requests / theirs.seconds:.0f} requests/s)",
                    flush=True,
                )
            summary[head] = {
                "culvert_us": statistics.median(r.cpu_us for r in runs if r.contender == "culvert" and r.head == head),
                "nginx_us": statistics.median(r.cpu_us for r in runs if r.contender != "culvert" and r.head == head),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
            }
        rss = {n: resident_kib(p) for n, p in zip(("relay", "connector"), contenders[0].pids, strict=True)}
    facts = machine()
    print("\n| head | culvert µs | nginx µs | ratio (min–max) |\n|---|---|---|---|")
    for head, row in summary.items():
        print(
            f"| {head} | {row['culvert_us']:.1f} | {row['nginx_us']:.1f} | "
            f"{row['ratio']:.2f} ({row['ratio_min']:.2f}–{row['ratio_max']:.2f}) |"
        )
    print(f"\nRSS after the run: relay {rss['relay'] / 1024:.1f} MiB, connector {rss['connector'] / 1024:.1f} MiB")
    print("; ".join(f"{k} {v}" for k, v in facts.items()))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": facts, "summary": summary, "rss_kib": rss, "runs": [asdict(r) for r in runs]}
    given.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
