"""New connections, bulk streams and memory, against nginx's `stream` in two hops: `python -m bench.streams --help`.

Bulk: curl takes a file through each contender, with 1 and with 4 at once, in turns; the ratio is of bytes per second.
New connections: wrk asks with `Connection: close` from 16 clients. Stalled: one visitor takes the
first bytes of a download and then nothing, while RSS is watched.
"""

import argparse
import json
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.contenders import HOST, Contender, make_certificate, nginx, start_culvert, start_origin
from bench.processes import Started, children, cpu_seconds, free_port, resident_kib, wait_until_ok

MODULES = Path("/usr/lib/nginx/modules")


def start_files(started: Started, size: int) -> int:
    """An nginx that serves `/bulk`, a sparse file of `size` bytes; returns its port."""
    port = free_port()
    started.folder.chmod(0o755)  # nginx's workers are another user's
    (started.folder / "files").mkdir()
    with (started.folder / "files" / "bulk").open("wb") as file:
        file.truncate(size)
    nginx(started, "files", f"server {{ listen 127.0.0.1:{port}; root {started.folder}/files; location / {{ }} }}")
    return port


def start_stream(started: Started, origin: int) -> Contender:
    """nginx as a TCP proxy in two hops with TLS between them."""
    front, hop = free_port(), free_port()
    pids = []
    for name, server in (
        (
            "stream-near",
            f"listen 127.0.0.1:{hop} ssl; ssl_certificate {started.folder}/certs/localhost.crt; "
            f"ssl_certificate_key {started.folder}/certs/localhost.key; proxy_pass 127.0.0.1:{origin};",
        ),
        ("stream-edge", f"listen 127.0.0.1:{front}; proxy_ssl on; proxy_pass 127.0.0.1:{hop};"),
    ):
        config = started.folder / f"{name}.conf"
        config.write_text(
            f"load_module {MODULES}/ngx_stream_module.so; daemon off; worker_processes 1;\n"
            f"pid {started.folder}/{name}.pid; error_log stderr error; events {{ worker_connections 1024; }}\n"
            f"stream {{ server {{ {server} }} }}\n"
        )
        pids.append(started.start(name, "nginx", "-c", str(config), "-e", "stderr"))
    wait_until_ok(f"http://127.0.0.1:{front}/bulk", HOST)
    return Contender("nginx stream", f"http://127.0.0.1:{front}/", tuple(p for pid in pids for p in children(pid)))


def bulk(contender: Contender, streams: int, size: int) -> tuple[float, float]:
    """MB/s and CPU seconds per GB of so many downloads at once."""
    command = [
        "curl",
        "-sf",
        "-o",
        "/dev/null",
        "-w",
        "%{size_download}",
        "-H",
        f"Host: {HOST}",
        contender.url + "bulk",
    ]
    before, start = cpu_seconds(contender.pids), time.monotonic()
    clients = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(streams)]
    taken = sum(int(client.communicate(timeout=300)[0] or 0) for client in clients)
    elapsed = time.monotonic() - start
    if taken != size * streams:
        raise SystemExit(f"{contender.name}: {taken} bytes instead of {size * streams}")
    return taken / elapsed / 1e6, (cpu_seconds(contender.pids) - before) / (taken / 1e9)


def closing(contender: Contender, seconds: int) -> float:
    """CPU microseconds per request when every request has a connection of its own."""
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-H", f"Host: {HOST}", "-H", "Connection: close", contender.url]
    before = cpu_seconds(contender.pids)
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    used = cpu_seconds(contender.pids) - before
    found = re.search(r"(\d+) requests in", output)
    if not found or "Non-2xx" in output:
        raise SystemExit(output)
    return used / int(found[1]) * 1e6


def stalled(contender: Contender, seconds: float) -> dict[str, float]:
    """MiB by which each process grows while a visitor has asked for everything and reads nothing."""
    port = int(contender.url.rstrip("/").rpartition(":")[2])
    before = [resident_kib(pid) for pid in contender.pids]
    most = list(before)
    with socket.create_connection(("127.0.0.1", port)) as visitor:
        visitor.sendall(f"GET /bulk HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        visitor.recv(65_536)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            most = [max(m, resident_kib(pid)) for m, pid in zip(most, contender.pids, strict=True)]
            time.sleep(0.1)
    return {n: (m - b) / 1024 for n, m, b in zip(("relay", "connector"), most, before, strict=True)}


def main() -> int:
    """Measures all rows and prints a table; 2 when a program is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="A B pairs of each bulk row (default 5)")
    parser.add_argument("--mib", type=int, default=100, help="size of a bulk download (default 100)")
    parser.add_argument("--seconds", type=int, default=4, help="of new connections, and of the stall (default 4)")
    parser.add_argument("--out", type=Path, default=Path("bench/results/streams.json"))
    given = parser.parse_args()
    missing = [name for name in ("nginx", "wrk", "curl", "openssl") if shutil.which(name) is None]
    if missing or not (MODULES / "ngx_stream_module.so").exists():
        names = ", ".join(missing) or "nginx's stream module"
        print(f"Missing: {names}. On Debian: apt-get install nginx-light libnginx-mod-stream wrk curl", file=sys.stderr)
        return 2
    size = given.mib << 20
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, Started(Path(folder)) as started:
        make_certificate(Path(folder))
        small = start_origin(started)
        asked = start_culvert(started, small)
        rows["rss at start, MiB"] = {
            name: resident_kib(pid) / 1024 for name, pid in zip(("relay", "connector"), asked.pids, strict=True)
        }
        rows["Connection: close, c=16, µs"] = {"culvert": closing(asked, given.seconds)}
    with tempfile.TemporaryDirectory() as folder, Started(Path(folder)) as started:
        make_certificate(Path(folder))
        files = start_files(started, size)
        ours, theirs = start_culvert(started, files, path="bulk"), start_stream(started, files)
        for streams in (1, 4):
            pairs = [(bulk(ours, streams, size), bulk(theirs, streams, size)) for _ in range(given.pairs)]
            ratios = [mine[0] / other[0] for mine, other in pairs]
            rows[f"bulk, {streams} streams"] = {
                "culvert_mb_s": statistics.median(mine[0] for mine, _ in pairs),
                "nginx_mb_s": statistics.median(other[0] for _, other in pairs),
                "culvert_cpu_s_per_gb": statistics.median(mine[1] for mine, _ in pairs),
                "nginx_cpu_s_per_gb": statistics.median(other[1] for _, other in pairs),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
            }
        rows["growth of RSS, a visitor that stalls, MiB"] = stalled(ours, given.seconds)
    print("| row | figures |\n|---|---|")
    for name, row in rows.items():
        print(f"| {name} | " + ", ".join(f"{key} {value:.2f}" for key, value in row.items()) + " |")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    document = {"kernel": platform.release(), "python": platform.python_version(), "rows": rows}
    given.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
