"""Micro-benchmark of the HTTP/1.1 codecs: microseconds of CPU time per head, the best of several rounds.

A fixed regular-expression job is printed first: it tells how fast this machine is right now, and figures of two runs
compare only in proportion to it. `python bench/http1_heads.py [--rounds N]`
"""

import argparse
import re
import time
import timeit
from collections.abc import Callable

from culvert_http1 import ChunkedDecoder, check_fields, normalise_path, parse_request_head, parse_response_head

SMALL_REQUEST = b"GET / HTTP/1.1\r\nHost: app.example.com\r\nUser-Agent: wrk/4\r\nAccept: */*\r\n\r\n"
BROWSER_REQUEST = (
    b"GET /shop/items?id=42&sort=asc HTTP/1.1\r\n"
    b"Host: app.example.com\r\n"
    b"Connection: keep-alive\r\n"
    b"Cache-Control: max-age=0\r\n"
    b'sec-ch-ua: "Chromium";v="124", "Not-A.Brand";v="99"\r\n'
    b"sec-ch-ua-mobile: ?0\r\n"
    b'sec-ch-ua-platform: "Linux"\r\n'
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 "
    b"Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: none\r\n"
    b"Sec-Fetch-Mode: navigate\r\n"
    b"Sec-Fetch-User: ?1\r\n"
    b"Sec-Fetch-Dest: document\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\n"
    b"Accept-Language: en-GB,en;q=0.9\r\n"
    b"Cookie: session=0123456789abcdef0123456789\r\n"
    b"\r\n"
)
SMALL_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n"
BROWSER_RESPONSE = (
    b"HTTP/1.1 200 OK\r\n"
    b"Date: Sun, 23 Nov 2025 10:00:00 GMT\r\n"
    b"Server: nginx\r\n"
    b"Content-Type: text/html; charset=utf-8\r\n"
    b"Content-Length: 51234\r\n"
    b"Connection: keep-alive\r\n"
    b"Vary: Accept-Encoding, Cookie\r\n"
    b"Cache-Control: private, max-age=0, must-revalidate\r\n"
    b'ETag: W/"c822-5f3d1a2b3c4d5"\r\n'
    b"Set-Cookie: session=0123456789abcdef0123456789; Path=/; HttpOnly; Secure; SameSite=Lax\r\n"
    b"Set-Cookie: theme=dark; Path=/; Max-Age=31536000\r\n"
    b"Strict-Transport-Security: max-age=63072000; includeSubDomains\r\n"
    b"Content-Security-Policy: default-src 'self'; img-src 'self' data:; frame-ancestors 'none'\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
    b"Referrer-Policy: strict-origin-when-cross-origin\r\n"
    b"\r\n"
)
BLOCK = BROWSER_RESPONSE.partition(b"\r\n")[2].replace(b"Content-Length: 51234\r\nConnection: keep-alive\r\n", b"")[:-2]
CHUNKS = b"".join(b"%x\r\n%b\r\n" % (1024, bytes(1024)) for _ in range(16)) + b"0\r\n\r\n"
YARDSTICK = re.compile(rb"([^:]++):[ \t]*+([^\r]*+)\r\n")


def microseconds(job: Callable[[], object], rounds: int) -> float:
    """The least time of one call."""
    number = 2_000
    return min(timeit.repeat(job, timer=time.process_time, number=number, repeat=rounds)) / number * 1e6


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Microseconds per HTTP/1.1 head.")
    parser.add_argument("--rounds", type=int, default=30, help="rounds per case; the best counts (default 30)")
    rounds: int = parser.parse_args().rounds
    cases: list[tuple[str, int, Callable[[], object]]] = [
        ("yardstick: one findall", len(BLOCK), lambda: YARDSTICK.findall(BLOCK)),
        ("request head, small", len(SMALL_REQUEST), lambda: parse_request_head(SMALL_REQUEST)),
        ("request head, browser", len(BROWSER_REQUEST), lambda: parse_request_head(BROWSER_REQUEST)),
        ("response head, small", len(SMALL_RESPONSE), lambda: parse_response_head(SMALL_RESPONSE, method=b"GET")),
        ("response head, usual", len(BROWSER_RESPONSE), lambda: parse_response_head(BROWSER_RESPONSE, method=b"GET")),
        ("check_fields", len(BLOCK), lambda: check_fields(BLOCK)),
        ("normalise_path, plain", 17, lambda: normalise_path(b"/shop/items/42/x/")),
        ("normalise_path, escaped", 21, lambda: normalise_path(b"/shop/%7Eitems/../42/")),
        ("16 chunks of 1 KiB", len(CHUNKS), lambda: ChunkedDecoder().feed(CHUNKS)),
    ]
    for name, size, job in cases:
        print(f"{name:26} {size:6} B {microseconds(job, rounds):8.2f} µs")


if __name__ == "__main__":
    main()
